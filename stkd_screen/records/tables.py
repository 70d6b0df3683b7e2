"""Tables: .csv and .tsv by the standard csv module, .parquet by pyarrow."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stkd_screen.errors import InputError
from stkd_screen.records.batch import Records, id_text, smiles_text
from stkd_screen.records.columns import ColumnChoice, looks_like_header
from stkd_screen.records.streams import Damaged, TextStream, damaged

_FIELD_LIMIT = 1 << 28  # characters in a field; the csv module's own limit is 128 KB
_MOST_LINES = 1000  # a record over more lines than this is taken for a quote that is never closed
_READ_AHEAD = 1 << 20  # bytes of a parquet column held at a time, instead of a whole row group's


def read_csv(
    stream: TextStream, source: str, delimiter: str, columns: ColumnChoice, batch_size: int
) -> Iterator[Records]:
    """Batches of `batch_size` records, the last one shorter.

    The first row is the header. Only where the SMILES column is a number may it be missing: then the first
    row is a header if any of its fields is a usual column name (smiles, id, ...), else a record.

    A first row that `delimiter` leaves in one piece though it has a tab or a semicolon in it is separated by
    that: spreadsheets of many countries write semicolons into a .csv. The tab goes first, being the one that
    text holds by accident least often.

    Raises:
        InputError: no such column, an unclosed quote, a damaged file (the records before it come first).
    """
    rows = _csv_rows(stream, source, delimiter)
    line, first_row = next(rows, (0, []))
    if not first_row:
        return
    by_number = isinstance(columns.smiles, int) and not isinstance(columns.id, str)
    if by_number and not looks_like_header(first_row):
        names = [f"column {number}" for number in range(1, len(first_row) + 1)]
        batch = [(line, first_row)]
    else:
        names, batch = first_row, []
    smiles, id = columns.pick(names, source)

    fault: InputError | None = None
    try:
        for row in rows:
            batch.append(row)
            if len(batch) >= batch_size:
                yield _csv_records(batch, smiles, id, names[smiles], source)
                batch = []
    except InputError as error:
        fault = error  # the rows before it come first
    if batch:
        yield _csv_records(batch, smiles, id, names[smiles], source)
    if fault:
        raise fault


def _csv_rows(stream: TextStream, source: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of each row that is not blank. Bytes that are not UTF-8 become surrogates."""
    csv.field_size_limit(_FIELD_LIMIT)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")  # type: ignore[type-var]
    line = 0  # lines before the row
    try:
        start = _first_lines(text)
        reader = csv.reader(chain(start, text), delimiter=_delimiter(start, delimiter))
        for row in reader:
            if reader.line_num - line > _MOST_LINES:
                raise InputError(f"{source} line {line + 1}: {_MOST_LINES} lines in a row; is a quote open?")
            if line == 0 and row and row[0].startswith(("\udcff\udcfe", "\udcfe\udcff")):
                raise InputError(f"{source}: UTF-16 text; save it as UTF-8")
            if row:
                yield line + 1, row
            line = reader.line_num
    except Damaged as fault:
        raise damaged(source, line, fault) from fault
    except csv.Error as fault:
        raise InputError(f"{source} line {line + 1}: {fault}; is a quote not closed?") from fault


def _first_lines(text: Iterable[str]) -> list[str]:
    """The lines up to the first that is not blank."""
    lines: list[str] = []
    for line in text:
        lines.append(line)
        if line.strip("\r\n"):
            break
    return lines


def _delimiter(start: list[str], delimiter: str) -> str:
    """The delimiter of the table that begins with these lines; `delimiter` wherever that can be."""
    [first_row] = csv.reader(start[-1:], delimiter=delimiter) if start else [[]]
    if len(first_row) == 1 and "|" not in first_row[0]:  # the tail of extended SMILES has semicolons
        return next((other for other in "\t;" if other in first_row[0]), delimiter)
    return delimiter


def _csv_records(
    batch: list[tuple[int, list[str]]], smiles: int, id: int | None, name: str, source: str
) -> Records:
    smiles_fields = [row[smiles] if smiles < len(row) else "" for _, row in batch]
    id_fields = [row[id] if id is not None and id < len(row) else "" for _, row in batch]
    lines = np.array([line for line, _ in batch], np.int64)
    return _table_records(_as_bytes(smiles_fields), _as_bytes(id_fields), name, source, lines, "line")


def _as_bytes(fields: list[str]) -> pa.Array:
    return pa.array([field.encode("utf-8", "surrogateescape") for field in fields], pa.large_binary())


class ParquetTable:
    """One Parquet file; reads the columns of SMILES and id only."""

    def __init__(self, path: Path, columns: ColumnChoice):
        self._path = path
        self._columns = columns
        self.position = 0  # the share of rows read, in bytes of the file

    def read(self, source: str, batch_size: int) -> Iterator[Records]:
        """Batches of `batch_size` records, the last one shorter.

        Raises:
            InputError: no such column, a column that is not text, a damaged file.
        """
        try:
            size = self._path.stat().st_size
            file = pq.ParquetFile(self._path, buffer_size=_READ_AHEAD, pre_buffer=False)
        except (OSError, pa.ArrowException) as fault:
            raise InputError(f"{source}: no whole Parquet file ({_short(fault)}); write it again") from fault
        with file:
            smiles, id = self._pick(file.schema_arrow, source)
            wanted = [smiles] if id is None else [smiles, id]
            batches = file.iter_batches(batch_size, columns=wanted, use_threads=False)
            row = 0
            while (batch := _next_batch(batches, source, row)) is not None:
                ids = pa.nulls(len(batch)) if id is None else batch.column(id)
                lines = np.arange(row + 1, row + 1 + len(batch), dtype=np.int64)
                row += len(batch)
                self.position = size * row // file.metadata.num_rows
                yield _table_records(_raw(batch.column(smiles)), _raw(ids), smiles, source, lines, "row")
        self.position = size

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


def _next_batch(batches: Iterator[pa.RecordBatch], source: str, row: int) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (OSError, pa.ArrowException) as fault:
        raise damaged(source, row, Damaged(_short(fault)), "row") from fault


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    # Some writers leave out the note that a column of bytes is text.
    return any(test(kind) for test in (*text, pa.types.is_binary, pa.types.is_large_binary))


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


def _table_records(
    smiles: pa.Array, ids: pa.Array, name: str, source: str, lines: np.ndarray, unit: str
) -> Records:
    """Records of two columns.

    Args:
        smiles, ids: (R,) large_binary; null or empty where missing.
        name: the SMILES column's, for messages.
    """
    smiles, errors = smiles_text(smiles.fill_null(b""))
    smiles = pc.utf8_trim_whitespace(smiles)
    if pc.any(pc.match_substring(smiles, "|")).as_py():  # extended SMILES: `CCO |...|`
        smiles = pc.replace_substring_regex(smiles, r"(?s)^(\S+)\s+\|.*", r"\1")
    empty = np.asarray(pc.binary_length(smiles)) == 0
    errors |= {int(i): f"no SMILES in column {name!r}" for i in np.flatnonzero(empty)}
    ids = pc.utf8_trim_whitespace(id_text(ids))
    ids = pc.if_else(pc.equal(pc.binary_length(ids), 0), pa.scalar(None, pa.large_string()), ids)
    return Records(smiles, ids, errors, source, lines, unit)


def _short(fault: BaseException) -> str:
    return str(fault).split("\n")[0].rstrip(".")
