"""The encoder: packed molecules in, embeddings and predictions out, on whatever device is at hand."""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from stkd_screen.batching import equal_length_batches
from stkd_screen.errors import StkdError
from stkd_screen.output import OutputOptions, result_table
from stkd_screen.records import Records
from stkd_screen.smiles import Molecules, pretransform
from stkd_screen.smiles.tokens import lay_out, token_counts
from stkd_screen.student import Student
from stkd_screen.weights import DEFAULT_MODEL, Weights, in_units, load_weights

if TYPE_CHECKING:
    import polars as pl

# Tokens a forward pass: enough to keep the matrix products busy, small enough for cache or memory.
BATCH_TOKENS = {"cpu": 4096, "cuda": 262_144}
# Molecules that are read, sorted by length, encoded and put back in order at a time.
WINDOW = {"cpu": 2048, "cuda": 131_072}


@dataclass(frozen=True)
class Encoded:
    """What the student says of R molecules, in input order; rows that hold no molecule are NaN."""

    embedding: np.ndarray  # (R, E) float32
    prediction: np.ndarray  # (R, targets) float32, in the units of the targets


class Encoder:
    """A loaded student on a device.

    Args:
        weights: as `load_weights` gives them.
        device: auto, cpu, cuda or cuda:N; auto takes a CUDA device where one is usable.
        batch_tokens: most tokens in one forward pass; bounds the memory it takes.
        compile: use torch.compile; by default on CUDA only. On a CPU each new batch shape compiles anew.
    """

    def __init__(
        self,
        weights: Weights,
        device: str = "auto",
        *,
        batch_tokens: int | None = None,
        compile: bool | None = None,
    ) -> None:
        self.weights = weights
        self.device = choose_device(device)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.device.type]
        self.window = WINDOW[self.device.type]
        self.student = weights.student.to(self.device).eval()
        if compile if compile is not None else self.device.type == "cuda":
            self.student.compile(dynamic=True)

    def encode(self, molecules: Molecules) -> Encoded:
        """Embed and predict. Batch-mates never change a result: batches hold one token count, unpadded."""
        config = self.student.config
        embedding = np.full((len(molecules), config.embedding_width), np.nan, np.float32)
        prediction = np.full((len(molecules), config.targets), np.nan, np.float32)
        batches = encode_rows(self.student, molecules, batch_tokens=self.batch_tokens)
        for rows, states, standardised in batches:
            embedding[rows], prediction[rows] = states, standardised
        return Encoded(embedding, in_units(prediction, self.weights.targets))

    def table(
        self, records: Records, options: OutputOptions, first_row: int = 0
    ) -> tuple[pa.Table, Counter[str]]:
        """Pre-transform and encode records: one row each, in order, and how often each kind of error came."""
        molecules = pretransform(*smiles_buffers(records.smiles), largest_fragment=options.largest_fragment)
        encoded = self.encode(molecules)
        return result_table(
            records, molecules, encoded.embedding, encoded.prediction, self.weights, options, first_row
        )

    def embed(self, smiles: "Sequence[str] | np.ndarray | pl.Series", **options: object) -> "pl.DataFrame":
        """Embed SMILES held in memory.

        Args:
            smiles: a list, a NumPy array or a Polars series of R strings; nulls give error rows.
            options: fields of `OutputOptions`: level, embedding, embedding_dtype, largest_fragment.

        Returns:
            R rows in input order, with the columns that `stkd-screen embed` writes except `id`.
        """
        import polars as pl  # here, so that a machine without it can train from a prepared file

        if isinstance(smiles, str):
            raise TypeError("embed takes a sequence of SMILES; for a single one give [smiles]")
        chosen = OutputOptions(**options).checked(self.weights)  # type: ignore[arg-type]
        strings = pa.array(pl.Series(smiles, dtype=pl.String).fill_null("").to_arrow(), pa.large_string())
        tables = []
        for start in range(0, max(len(strings), 1), self.window):
            part = pa.concat_arrays([strings[start : start + self.window]])  # a copy with offset 0
            lines = np.arange(start, start + len(part))
            records = Records(part, pa.nulls(len(part), pa.large_string()), {}, "<list>", lines, "row")
            tables.append(self.table(records, chosen, first_row=start)[0])
        return pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).drop("id")


@torch.inference_mode()
def encode_rows(
    student: Student, molecules: Molecules, rows: np.ndarray | None = None, batch_tokens: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Run a student over molecules in batches of one token count, on the device it is on.

    On CUDA the linear algebra is bfloat16.

    Args:
        student: in evaluation mode.
        molecules: R packed molecules.
        rows: those to encode; by default all that could be read.
        batch_tokens: most tokens in one forward pass.

    Yields:
        Rows (B,), their embeddings (B, E) and their standardised predictions (B, targets), float32.
    """
    device = student.table.device
    most = batch_tokens or BATCH_TOKENS[device.type]
    counts = token_counts(molecules)
    rows = np.flatnonzero(counts) if rows is None else rows
    for i, batch in enumerate(equal_length_batches(counts, rows, lambda T: max(1, most // T))):
        arrays = lay_out(molecules, batch, surroundings=student.config.surroundings)
        tokens, n_atoms = (torch.from_numpy(array).to(device) for array in arrays)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states, prediction = student(tokens, n_atoms)
        yield batch, states.float().cpu().numpy(), prediction.float().cpu().numpy()
        if i % 2:
            release_freed_memory()


def load(model: str | Path = DEFAULT_MODEL, device: str = "auto", **options: int | bool | None) -> Encoder:
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
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise StkdError(f"unknown device {device!r}; give auto, cpu, cuda or cuda:N") from error
    if chosen.type not in WINDOW:
        raise StkdError(f"device {device!r} is not supported; give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise StkdError(
            f"device {device!r}: {torch.cuda.device_count()} usable CUDA devices here; give cpu or auto"
        )
    return chosen


def release_freed_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc.

    Batches of ever other shapes leave holes that glibc keeps and cannot reuse: over 300,000 molecules the
    resident set would double.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def smiles_buffers(smiles: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes (uint8) and the R + 1 offsets (int64) of a large_string array of offset 0, not copied."""
    _, offsets, data = smiles.buffers()
    bytes_ = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return bytes_, np.frombuffer(offsets, np.int64)[: len(smiles) + 1]
