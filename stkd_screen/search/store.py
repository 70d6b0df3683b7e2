"""What an index keeps of every molecule: its vector and its record, on disk, in the order of the library."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

VECTORS = "vectors.f16"  # (N, D) float16 of unit length, nothing else
RECORDS = "records.arrow"  # Arrow IPC file: the columns of `Origin.schema`
BLOCK_ROWS = 65_536


class StoreWriter:
    """Appends molecules to a new store; leaving the `with` block completes its two files."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._vectors = (folder / VECTORS).open("wb")
        self._records = pa.ipc.new_file(str(folder / RECORDS), schema)

    def __enter__(self) -> "StoreWriter":
        return self

    def append(self, vectors: np.ndarray, records: pa.RecordBatch) -> None:
        """Add R molecules: (R, D) float16 of unit length, and R records."""
        if len(records):
            self._vectors.write(np.ascontiguousarray(vectors).data)
            self._records.write_batch(records)
            self.rows += len(records)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._records.close()
        self._vectors.close()


class Store:
    """N molecules on disk. Nothing is loaded: single rows come through a memory map.

    Raises:
        pyarrow.ArrowInvalid, ValueError: the files are not what a `StoreWriter` left.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.records_file = folder / RECORDS
        self._vectors_file = folder / VECTORS
        self._vectors = np.memmap(self._vectors_file, np.float16, "r").reshape(-1, width)
        self._records = pa.ipc.open_file(pa.memory_map(str(self.records_file)))
        batches = range(self._records.num_record_batches)
        self._starts = np.cumsum([0] + [self._records.get_batch(i).num_rows for i in batches])
        if self._starts[-1] != len(self):
            raise ValueError(f"{len(self)} vectors but {self._starts[-1]} records")

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def width(self) -> int:
        return self._vectors.shape[1]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(R, D) float16 vectors of (R,) rows."""
        return self._vectors[rows]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All vectors in order: first row and (B, D) float16 of each block.

        They are read, not mapped, so that passing over a large file does not fill the resident memory.
        """
        with open(self._vectors_file, "rb") as file:
            for start in range(0, len(self), BLOCK_ROWS):
                block = np.fromfile(file, np.float16, BLOCK_ROWS * self.width)
                yield start, block.reshape(-1, self.width)

    def batches(self) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """All molecules in order, as `StoreWriter.append` takes them."""
        for i, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            yield self._vectors[start:end], self._records.get_batch(i)

    def records(self, rows: np.ndarray) -> pa.Table:
        """The records of (R,) rows, in the order asked for."""
        order = np.argsort(rows, kind="stable")
        batch_of = np.searchsorted(self._starts, rows[order], side="right") - 1
        taken = [
            self._records.get_batch(int(i)).take(pa.array(rows[order[batch_of == i]] - self._starts[i]))
            for i in np.unique(batch_of)
        ]
        table = pa.Table.from_batches(taken, self._records.schema)
        return table.take(pa.array(np.argsort(order)))
