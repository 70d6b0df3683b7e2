"""Tables in Parquet, by pyarrow. What is damaged costs the rest of its row group, not that of the file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen.errors import InputError, first_line
from stkd_screen.records.batch import Records, table_records
from stkd_screen.records.columns import ColumnChoice
from stkd_screen.records.streams import AGAIN, Damaged

METADATA_KEY = b"stkd_screen"  # of the metadata of what `embed` writes
READ_AHEAD = 1 << 20  # bytes of a column held at a time, instead of a whole row group's
_FEW_ROWS = 64  # read at a time where the rows before a fault are sought
_FAULTS = (OSError, pa.ArrowException)
_TOO_FEW = Damaged("fewer rows than it says there are")


def is_output(path: Path) -> bool:
    """Whether `embed` wrote this file."""
    try:
        return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except _FAULTS:
        return False


class ParquetTable:
    """One Parquet file; reads the columns of SMILES and id only."""

    def __init__(self, path: Path, columns: ColumnChoice):
        self._path = path
        self._columns = columns
        self.position = 0  # the share of rows read, in bytes of the file

    def read(self, source: str, batch_size: int) -> Iterator[Records]:
        """Batches of `batch_size` records; the last one, and those around damage, are shorter.

        Raises:
            InputError: no such column, a column that is not text; after the rows that could be read, for
                those that could not.
        """
        try:
            size = self._path.stat().st_size
            file = pq.ParquetFile(
                self._path, buffer_size=READ_AHEAD, pre_buffer=False, page_checksum_verification=True
            )
        except (*_FAULTS, UnicodeDecodeError) as fault:
            raise InputError(f"{source}: no whole Parquet file ({first_line(fault)}); {AGAIN}") from fault
        lost = Lost()
        with file:
            smiles, id = self._pick(file.schema_arrow, source)
            wanted = [smiles] if id is None else [smiles, id]
            for row, batch in _batches(file, wanted, batch_size, lost):
                ids = pa.nulls(len(batch)) if id is None else batch.column(id)
                lines = np.arange(row + 1, row + 1 + len(batch), dtype=np.int64)
                self.position = size * (row + len(batch)) // file.metadata.num_rows
                yield table_records(_raw(batch.column(smiles)), _raw(ids), smiles, source, lines, "row")
        self.position = size
        if lost:
            raise lost.error(source, file.metadata.num_rows)

    def _pick(self, schema: pa.Schema, source: str) -> tuple[str, str | None]:
        smiles, id = self._columns.pick(schema.names, source)
        if not _is_text(schema.field(smiles).type):
            raise InputError(
                f"{source}: column {schema.names[smiles]!r} holds {schema.field(smiles).type}, not SMILES; "
                "choose another with --smiles-column"
            )
        for name in {schema.names[i] for i in (smiles, id) if i is not None}:
            count = schema.names.count(name)
            if count > 1:  # a Parquet reader finds columns by name only
                raise InputError(f"{source}: {count} columns are named {name!r}; rename all but one")
        if id is None:
            return schema.names[smiles], None
        try:
            _raw(pa.array([], schema.field(id).type))
        except pa.ArrowException:
            raise InputError(
                f"{source}: column {schema.names[id]!r} holds {schema.field(id).type}, which is no id; "
                "choose another with --id-column"
            ) from None
        return schema.names[smiles], schema.names[id]


class Lost:
    """The rows of a file that cannot be read, and why."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []  # [first, after the last) each
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.spans)

    def add(self, first: int, end: int, fault: BaseException) -> None:
        if self.spans and self.spans[-1][1] == first:
            first = self.spans.pop()[0]
        self.spans.append((first, end))
        self.reason = self.reason or first_line(fault)

    def error(self, source: str, rows: int) -> InputError:
        shown = ", ".join(f"{first + 1} to {end}" for first, end in self.spans[:5])
        if len(self.spans) > 5:
            shown += f" and {len(self.spans) - 5} more stretches"
        count = sum(end - first for first, end in self.spans)
        return InputError(
            f"{source}: {count:,} of {rows:,} rows cannot be read ({self.reason}): rows {shown}; the others "
            f"were read; {AGAIN}"
        )


def _batches(
    file: pq.ParquetFile, columns: list[str], batch_size: int, lost: Lost
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches, each with the number of its first row; after a fault, on from the next row group."""
    starts = np.cumsum([0] + [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)])
    row = 0
    while row < starts[-1]:
        groups = range(int(np.searchsorted(starts, row)), file.num_row_groups)
        try:
            for batch in file.iter_batches(batch_size, row_groups=groups, columns=columns, use_threads=False):
                yield row, batch
                row += len(batch)
            if row < starts[-1]:
                lost.add(row, int(starts[-1]), _TOO_FEW)
            return
        except _FAULTS:
            pass  # in the row group of this row, or in a later one that the batch reaches into
        group = int(np.searchsorted(starts, row, side="right")) - 1
        start, end = starts[group : group + 2].tolist()
        rows, fault = _readable(file, group, columns)
        for batch in rows[row - start :].combine_chunks().to_batches(batch_size):
            yield row, batch
            row += len(batch)
        if row < end:
            lost.add(row, end, fault or _TOO_FEW)
        row = end


def _readable(file: pq.ParquetFile, group: int, columns: list[str]) -> tuple[pa.Table, BaseException | None]:
    """The rows of a row group up to a fault, and the fault."""
    schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    batches: list[pa.RecordBatch] = []
    fault = None
    try:
        for batch in file.iter_batches(_FEW_ROWS, row_groups=[group], columns=columns, use_threads=False):
            batches.append(batch)
    except _FAULTS as error:
        fault = error
    return pa.Table.from_batches(batches, schema), fault


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    # Some writers leave out the note that a column of bytes is text.
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in (*text, *binary))


def _raw(column: pa.Array) -> pa.Array:
    """(R,) large_binary of any text or number column; the text itself is checked later.

    Bytes of a fixed size are no text but a number, mostly a UUID: written as hexadecimal digits.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column.type, pa.BaseExtensionType):  # arrow.uuid among them
        column = column.storage
    if pa.types.is_fixed_size_binary(column.type):
        digits = [value if value is None else value.hex() for value in column.to_pylist()]
        column = pa.array(digits, pa.large_string())
    if not _is_text(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.large_binary())
