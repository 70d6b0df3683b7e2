"""Running a student over molecules, with the memory and the compiler that a machine happens to have."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock, RLock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from stkd_screen.background import Turns, by_threads
from stkd_screen.batching import equal_length_batches
from stkd_screen.cpu import CpuStudent
from stkd_screen.errors import StkdError, StkdWarning, first_line
from stkd_screen.precision import DTYPES, autocast
from stkd_screen.smiles import Molecules
from stkd_screen.smiles.tokens import lay_out, token_counts
from stkd_screen.student import Student

# Tokens a forward pass: enough to keep the matrix products busy, small enough for cache or memory.
BATCH_TOKENS = {"cpu": 2048, "cuda": 262_144}
MOST_BESIDE_A_GPU = 8  # threads: they lay out batches of some two million molecules a second

T = TypeVar("T")
R = TypeVar("R")
Result = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows, embeddings, standardised predictions


class ForwardPass:
    """A student's forward pass in batches of one token count, on the device it is on.

    Threads take batches of their own, so no result depends on their number; on a GPU what one does on the
    host is hidden behind what is computed for another. A batch that does not fit into memory is
    halved, and those after it are made as small; where torch.compile fails the student runs as it is.

    Args:
        student: in evaluation mode.
        batch_tokens: most tokens in one pass; by default what suits the device.
        compile: use torch.compile.
        precision: of the matrix products, float32, bfloat16 or, on a CPU, int8.
    """

    def __init__(
        self,
        student: Student,
        batch_tokens: int | None = None,
        compile: bool = False,
        precision: str = "float32",
    ) -> None:
        self.device = student.table.device
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.device.type]
        on_gpu = self.device.type == "cuda"
        threads = torch.get_num_threads()
        # A compiled student takes all of a CPU for each batch.
        self._threads = min(threads, MOST_BESIDE_A_GPU) if on_gpu else 1 if compile else threads
        self._turns = Turns()
        self._halving = Lock()
        # What torch.compile makes is for one thread at a time. So is a GPU: it is only told here what to do,
        # in no time, and the memory of one batch is free for the next.
        self._running: AbstractContextManager[object] = RLock() if compile or on_gpu else nullcontext()
        self._student, self._compiled = student, compile
        self._autocast = precision
        self._run: Callable[..., tuple[Tensor, Tensor]] = student
        if compile:
            self._run = torch.compile(student, dynamic=True)
        elif self.device.type == "cpu":
            self._run = CpuStudent(student, DTYPES[precision])
            self._autocast = "float32"  # it knows by itself what it rounds

    def batches(self, molecules: Molecules, rows: np.ndarray | None = None) -> Iterator[Result]:
        """Run over molecules, by default all that could be read.

        Yields:
            Rows (B,), their embeddings (B, E) and their standardised predictions (B, targets), float32.

        Raises:
            StkdError: a single molecule does not fit into memory, or the device fails.

        Warns:
            StkdWarning: a batch had to be halved, or torch.compile failed.
        """
        counts = self.token_counts(molecules)

        def run(batch: np.ndarray) -> list[Result]:
            return self._in_parts(molecules, batch, int(counts[batch[0]]))

        for parts in self.each(run, self.split(counts, rows)):
            yield from parts

    def windows(self, windows: Iterable[Molecules]) -> Iterator[tuple[Molecules, list[Result]]]:
        """Each window of molecules with its batches. Where there are several threads, those of the next
        are begun before the last is done, so that no thread and no device waits for the end of a window.

        Raises and warns as `batches`; what `windows` raises comes after the windows before it.
        """

        def batches() -> Iterator[tuple[Molecules, np.ndarray | None, int]]:
            for molecules in windows:
                counts = self.token_counts(molecules)
                for batch in self.split(counts):
                    yield molecules, batch, int(counts[batch[0]])
                yield molecules, None, 0  # the end of the window

        def run(item: tuple[Molecules, np.ndarray | None, int]) -> tuple[Molecules, list[Result] | None]:
            molecules, batch, tokens = item
            return molecules, None if batch is None else self._in_parts(molecules, batch, tokens)

        results: list[Result] = []
        for molecules, parts in self.each(run, batches()):
            if parts is None:
                yield molecules, results
                results = []
            else:
                results += parts

    def token_counts(self, molecules: Molecules) -> np.ndarray:
        """Tokens of each row, as this student reads it: (R,) int64, 0 where there is no molecule."""
        return token_counts(molecules, surroundings=self._student.config.surroundings)

    def split(self, counts: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The rows of each batch, by their token counts; by default of all rows that have any."""
        rows = np.flatnonzero(counts) if rows is None else rows
        return equal_length_batches(counts, rows, self._most_molecules)

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function` of each item, in their order, in as many threads as batches are computed in."""
        return map(function, items) if self._threads == 1 else in_threads(function, items, self._threads)

    def _in_parts(self, molecules: Molecules, batch: np.ndarray, tokens: int) -> list[Result]:
        """The results of a batch, in as many parts as the memory asks for."""
        results, waiting = [], [batch]
        while waiting:
            part = waiting.pop()
            most = self._most_molecules(tokens)
            if len(part) > most:
                waiting += [part[most:], part[:most]]
            elif (result := self._attempt(molecules, part)) is not None:
                results.append((part, *result))
            else:
                self._halve(len(part), tokens)
                waiting.append(part)
        return results

    def _most_molecules(self, tokens: int) -> int:
        return max(1, self.batch_tokens // tokens)

    def _attempt(self, molecules: Molecules, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Embeddings and predictions of a batch; None where the memory does not suffice."""
        for turn in (self._turns.beside_others, self._turns.alone):  # others had the memory, perhaps
            try:
                with turn():
                    return self._results(molecules, batch)
            except torch.AcceleratorError as error:
                raise StkdError(
                    f"{self.device} failed: {first_line(error)}; run the command again, or with --device cpu"
                ) from error
            except Exception as error:
                if not _is_of_memory(error):
                    raise
            if self.device.type == "cuda":  # outside of that block, which keeps alive what took the memory
                torch.cuda.empty_cache()
        return None

    def _results(self, molecules: Molecules, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        arrays = self.lay_out(molecules, batch)
        with self._running:  # the arrays of threads that wait take no memory of a GPU
            results = self.run(self.to_device(arrays))
        return self.to_host(results)

    def lay_out(self, molecules: Molecules, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        """What a student reads of a batch: tokens (B, T, entries), numbers of atoms (B,), pairs (B, T, T)."""
        return lay_out(molecules, batch, surroundings=self._student.config.surroundings)

    def to_device(self, arrays: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array).to(self.device) for array in arrays)

    @torch.inference_mode()
    def run(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, E) and standardised predictions (B, targets), on the device."""
        with self._running, autocast(self.device, self._autocast):
            try:
                return self._run(*tensors)
            except Exception as error:
                if not self._compiled or _is_of_memory(error) or isinstance(error, torch.AcceleratorError):
                    raise
                self._compiled, self._run = False, self._student
                warnings.warn(
                    f"torch.compile failed ({first_line(error)}); going on without it, which is slower; "
                    "mostly what it lacks is a C compiler such as gcc",
                    StkdWarning,
                    stacklevel=2,
                )
            return self._run(*tensors)

    def to_host(self, results: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        states, prediction = results
        return states.float().cpu().numpy(), prediction.float().cpu().numpy()

    def _halve(self, molecules: int, tokens: int) -> None:
        if molecules == 1:
            raise StkdError(
                f"{self.device} is out of memory at a single molecule of {tokens} tokens; "
                "free its memory, or run with --device cpu"
            )
        with self._halving:
            if self.batch_tokens < molecules * tokens:
                return  # another thread has done so
            self.batch_tokens = molecules * tokens // 2
            warnings.warn(
                f"{self.device} is out of memory; going on with {self.batch_tokens:,} tokens a batch "
                "(--batch-tokens sets it from the start)",
                StkdWarning,
                stacklevel=2,
            )


def _is_of_memory(error: Exception) -> bool:
    on_cpu = "can't allocate memory" in str(error)  # torch's words
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`function` of each item, in their order, by so many threads, each of which computes with a single one.

    Many small tensors go through torch faster this way than one after another with all threads on each.
    """
    before = torch.get_num_threads()
    one_each = partial(torch.set_num_threads, 1)
    try:
        yield from by_threads(function, items, threads, ahead=2 * threads, initializer=one_each)
    finally:
        torch.set_num_threads(before)  # threads made later take the number that was set last
