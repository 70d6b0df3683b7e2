"""Rows that were written, read again beside the records they came from."""

from collections.abc import Generator, Iterator
from itertools import zip_longest

import pyarrow as pa

from stkd_screen.errors import OutputError, first_line
from stkd_screen.parts.manifest import Manifest
from stkd_screen.parts.outputs import OutputFile, OutputFolder
from stkd_screen.records import Records

BATCH_ROWS = 16_384


class StoredRecords:
    """Ids and SMILES of an output, in order, a few at a time.

    Raises, while it is read:
        OutputError: a part cannot be read.
    """

    def __init__(self, output: OutputFile | OutputFolder, manifest: Manifest) -> None:
        self._batches = read_columns(output, manifest, ["id", "smiles"])
        self._left = pa.table({"id": pa.array([], pa.string()), "smiles": pa.array([], pa.string())})

    def close(self) -> None:
        """Close the part that is being read."""
        self._batches.close()

    def first_difference(self, records: Records) -> int | None:
        """Index of the first of the next R records that was not stored as it is; None where all were."""
        while len(self._left) < len(records) and (batch := next(self._batches, None)) is not None:
            self._left = pa.concat_tables([self._left, pa.Table.from_batches([batch])])
        stored, self._left = self._left[: len(records)], self._left[len(records) :]
        theirs = [stored[name].cast(pa.large_string()).combine_chunks() for name in ("id", "smiles")]
        mine = [records.id, records.smiles]
        if all(a.equals(b) for a, b in zip(mine, theirs, strict=True)):
            return None
        pairs = zip_longest(_rows(mine), _rows(theirs))
        return next(i for i, (a, b) in enumerate(pairs) if a != b)


def _rows(columns: list[pa.Array]) -> Iterator[tuple[str | None, ...]]:
    return zip(*(column.to_pylist() for column in columns), strict=True)


def read_columns(
    output: OutputFile | OutputFolder, manifest: Manifest, columns: list[str]
) -> Generator[pa.RecordBatch]:
    """All rows of an output, finished or not.

    Raises:
        OutputError: a part cannot be read.
    """
    row = 0
    try:
        for file in output.open(manifest):
            with file:
                for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                    yield batch
                    row += len(batch)
    except (OSError, pa.ArrowException) as fault:
        raise OutputError(
            f"{output.path}: damaged after row {row} ({first_line(fault)}); embed it anew"
        ) from fault
