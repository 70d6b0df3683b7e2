"""The encoder: packed molecules in, embeddings and predictions out, on whatever device is at hand."""

import os
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from stkd_screen.errors import StkdError, StkdWarning, first_line
from stkd_screen.forward import ForwardPass, Result
from stkd_screen.output import Encoded, OutputOptions, result_table
from stkd_screen.precision import choose_precision
from stkd_screen.records import Records
from stkd_screen.smiles import Molecules, pretransform
from stkd_screen.targets import in_units
from stkd_screen.weights import DEFAULT_MODEL, Weights, load_weights

if TYPE_CHECKING:
    import polars as pl

# Molecules that are read, sorted by length, encoded and put back in order at a time.
WINDOW = {"cpu": 4096, "cuda": 131_072}
_CERTAIN = 1000  # molecules without a finite result that are no accident


class Encoder:
    """A loaded student on a device.

    Args:
        weights: as `load_weights` gives them.
        device: auto, cpu, cuda or cuda:N; auto takes a CUDA device where one is usable.
        batch_tokens: most tokens in one forward pass; bounds the memory it takes.
        compile: use torch.compile; by default on CUDA only. On a CPU each new batch shape compiles anew.
        precision: of the matrix products, float32, bfloat16, int8 (on a CPU, not compiled) or auto: bfloat16
            where the device multiplies faster in it, else int8 where a CPU does. The results differ by a
            hundredth of the model's errors in the mean, those of int8 by 4% (docs/performance.md).
    """

    def __init__(
        self,
        weights: Weights,
        device: str = "auto",
        *,
        batch_tokens: int | None = None,
        compile: bool | None = None,
        precision: str = "auto",
    ) -> None:
        self.weights = weights
        self.device = choose_device(device)
        self.window = WINDOW[self.device.type]
        self.student = weights.student.to(self.device).eval()
        compile = self.device.type == "cuda" if compile is None else compile
        self.precision = choose_precision(precision, self.device, int8=not compile)
        self.forward = ForwardPass(self.student, batch_tokens, compile, self.precision)
        self._finite_seen = False

    def encode(self, molecules: Molecules) -> Encoded:
        """Embed and predict. Batch-mates never change a result: batches hold one token count, unpadded.

        Raises:
            StkdError: the model gives no finite value at all, or see `ForwardPass`.
        """
        [(_, encoded)] = self.encode_windows([molecules])
        return encoded

    def encode_windows(self, windows: Iterable[Molecules]) -> Generator[tuple[Molecules, Encoded]]:
        """`encode` of each window, the next of which is begun before the last is done.

        Raises:
            StkdError: as `encode`. This, and what `windows` raises, comes after the windows before it.
        """
        for molecules, results in self.forward.windows(windows):
            yield molecules, self.in_order(len(molecules), results)

    def in_order(self, count: int, results: Iterable[Result]) -> Encoded:
        """Results of batches, put back in input order: `encode` without the forward pass.

        Args:
            count: R, rows of the input.
            results: as `ForwardPass.batches` gives them.

        Raises:
            StkdError: none of them is finite.
        """
        config = self.student.config
        embedding = np.full((count, config.embedding_width), np.nan, np.float32)
        prediction = np.full((count, config.targets), np.nan, np.float32)
        encoded = finite = 0
        for rows, states, standardised in results:
            embedding[rows], prediction[rows] = states, standardised
            encoded += len(rows)
            finite += int(np.isfinite(standardised).all(axis=1).sum())
        self._check_finite(encoded, finite)
        return Encoded(embedding, in_units(prediction, self.weights.targets))

    def _check_finite(self, encoded: int, finite: int) -> None:
        """A molecule without a finite value is an error row; a model or a device that has none is broken."""
        if encoded and not finite and (encoded >= _CERTAIN or not self._finite_seen):
            raise StkdError(
                f"model {self.weights.name!r} on {self.device} gave no finite value for any of {encoded:,} "
                "molecules; try --device cpu, and if that is the same, another --model"
            )
        self._finite_seen |= finite > 0

    def table(
        self, records: Records, options: OutputOptions, first_row: int = 0
    ) -> tuple[pa.Table, Counter[str], Counter[str]]:
        """Pre-transform and encode records: one row each, in order, and how often each kind of error and each
        kind of warning came."""
        molecules = molecules_of(records, options)
        return result_table(records, molecules, self.encode(molecules), self.weights, options, first_row)

    def embed(self, smiles: "Sequence[str] | np.ndarray | pl.Series", **options: object) -> "pl.DataFrame":
        """Embed SMILES held in memory.

        Args:
            smiles: a list, a NumPy array or a Polars series of R strings; nulls give error rows.
            options: fields of `OutputOptions`: level, embedding, embedding_dtype, dims,
                largest_fragment.

        Returns:
            R rows in input order, with the columns that `stkd-screen embed` writes except `id`.
        """
        import polars as pl  # here, so that a machine without it can train from a prepared file

        if isinstance(smiles, str):
            raise TypeError("embed takes a sequence of SMILES; for a single one give [smiles]")
        if smiles is None:  # Polars would make a series of nothing
            raise TypeError("embed takes a list, a NumPy array or a Polars series of strings, not None")
        chosen = OutputOptions(**options).checked(self.weights)  # type: ignore[arg-type]
        try:
            series = pl.Series(smiles, dtype=pl.String)
        except TypeError as error:
            raise TypeError("embed takes a list, a NumPy array or a Polars series of strings") from error
        strings = pa.array(series.fill_null("").to_arrow(), pa.large_string())
        tables = []
        for start in range(0, max(len(strings), 1), self.window):
            part = pa.concat_arrays([strings[start : start + self.window]])  # a copy with offset 0
            lines = np.arange(start, start + len(part))
            records = Records(part, pa.nulls(len(part), pa.large_string()), {}, "<list>", lines, "row")
            tables.append(self.table(records, chosen, first_row=start)[0])
        return pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).drop("id")


def load(
    model: str | Path = DEFAULT_MODEL, device: str = "auto", **options: int | bool | str | None
) -> Encoder:
    """Load a shipped model by name, or a weights folder by path, ready to embed.

    >>> import stkd_screen
    >>> encoder = stkd_screen.load("small")
    >>> encoder.embed(["CCO", "c1ccccc1"])["gap_ev"]
    """
    return Encoder(load_weights(model), device, **options)  # type: ignore[arg-type]


def choose_device(device: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:N.

    Raises:
        StkdError: an unknown name, or a CUDA device that is not usable here.

    Warns:
        StkdWarning: auto takes the CPU though there is a GPU.
    """
    if device == "auto":
        fault = cuda_fault(torch.device("cuda"))
        if fault and gpu_is_there():
            warnings.warn(
                f"there is a GPU, but it is not usable ({fault}); computing on the CPU",
                StkdWarning,
                stacklevel=2,
            )
        return torch.device("cpu" if fault else "cuda")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise StkdError(f"unknown device {device!r}; give auto, cpu, cuda or cuda:N") from error
    if chosen.type not in WINDOW:
        raise StkdError(f"device {device!r} is not supported; give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (fault := cuda_fault(chosen)):
        raise StkdError(f"device {device!r} is not usable ({fault}); give cpu or auto")
    return chosen


def cuda_fault(device: torch.device) -> str | None:
    """Why a CUDA device is not usable, None where it is."""
    with warnings.catch_warnings(record=True) as told:  # PyTorch tells of an old driver by a warning
        warnings.simplefilter("always")
        if not torch.cuda.is_available():
            if torch.version.cuda is None and torch.version.hip is None:
                return "this PyTorch is built without CUDA"
            return first_line(told[0].message).split(". ")[0] if told else "PyTorch finds no CUDA device"
        if (device.index or 0) >= torch.cuda.device_count():
            return f"there are {torch.cuda.device_count()} CUDA devices, counted from 0"
        try:
            torch.ones(1, device=device).sum().item()
        except RuntimeError as error:
            return first_line(error).split(". ")[0]
    return None


def gpu_is_there() -> bool:
    """Whether the machine has an NVIDIA GPU that nobody hides on purpose."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and (os.path.exists("/dev/nvidiactl") or torch.cuda.is_available())


def molecules_of(records: Records, options: OutputOptions) -> Molecules:
    """The pre-transformed molecules of records."""
    return pretransform(*smiles_buffers(records.smiles), largest_fragment=options.largest_fragment)


def smiles_buffers(smiles: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes (uint8) and the R + 1 offsets (int64) of a large_string array of offset 0, not copied."""
    _, offsets, data = smiles.buffers()
    bytes_ = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return bytes_, np.frombuffer(offsets, np.int64)[: len(smiles) + 1]
