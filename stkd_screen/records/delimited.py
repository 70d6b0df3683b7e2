"""Tables as text, .csv and .tsv, by the standard csv module. A quote left open costs its own line alone."""

import csv
import io
import sys
from collections import deque
from collections.abc import Iterator
from typing import TextIO

import numpy as np
import pyarrow as pa

from stkd_screen.errors import InputError
from stkd_screen.records.batch import BATCH_BYTES, Records, table_records
from stkd_screen.records.columns import ColumnChoice, listed, looks_like_header
from stkd_screen.records.streams import LONGEST_LINE, Damaged, TextStream, damaged, line_too_long

_MOST_LINES = 1000  # a record over more lines than this is taken for a quote that is never closed
# Errors of rows in which another text may have the place of the SMILES: a wrong molecule, in silence.
# The like behind the SMILES gives a wrong id at most, and is none.
QUOTE_OPEN = "a quote that is opened and not closed"
MORE_FIELDS = "more fields than the header has, so that the SMILES may be in another"


Row = tuple[int, list[str]]  # its first line, and its fields; bytes that are not UTF-8 as surrogates


def read_csv(
    stream: TextStream, source: str, delimiter: str, columns: ColumnChoice, batch_size: int
) -> Iterator[Records]:
    """Batches of `batch_size` records, the last one shorter, and any of very long lines.

    The first row is the header. Only where the SMILES column is a number may it be missing: then the first
    row is a header if any of its fields is a usual column name (smiles, id, ...), else a record. The same
    header further down, where tables were put one behind another, is no record.

    A first row that `delimiter` leaves in one piece, or cuts within quotes, is separated by tabs or
    semicolons if it has any: spreadsheets of many countries write semicolons into a .csv.

    Raises:
        InputError: no such column, columns that change places, a damaged file (the records before it come
            first).
    """
    open_quotes: set[int] = set()
    rows = _rows(stream, source, delimiter, open_quotes)
    line, first_fields = next(rows, (0, []))
    if not first_fields:
        return
    by_number = isinstance(columns.smiles, int) and not isinstance(columns.id, str)
    has_header = not by_number or looks_like_header(first_fields)
    if has_header:
        names, batch = first_fields, []
    else:
        names = [f"column {number}" for number in range(1, len(first_fields) + 1)]
        batch = [(line, first_fields)]
    smiles, id = columns.pick(names, source)
    most_fields = len(names) if has_header else sys.maxsize

    errors: dict[int, str] = {}  # index within the batch -> reason
    fault: InputError | None = None
    begun = stream.delivered
    try:
        for line, fields in rows:
            if has_header and names[smiles] in fields and _is_header(line, fields, names, source):
                continue
            if line in open_quotes:
                if any(field.startswith('"') for field in fields[: smiles + 1]):
                    errors[len(batch)] = QUOTE_OPEN
            elif len(fields) > most_fields and smiles > 0 and any(fields[most_fields:]):
                errors[len(batch)] = MORE_FIELDS
            batch.append((line, fields))
            if len(batch) >= batch_size or stream.delivered - begun >= BATCH_BYTES:
                yield _records(batch, errors, smiles, id, names[smiles], source)
                batch, errors, begun = [], {}, stream.delivered
    except InputError as error:
        fault = error  # the rows before it come first
    if batch:
        yield _records(batch, errors, smiles, id, names[smiles], source)
    if fault:
        raise fault


def _is_header(line: int, fields: list[str], names: list[str], source: str) -> bool:
    """Whether a row that has the SMILES column's name in it is the header once more."""
    if fields == names:
        return True
    if set(fields) <= set(names):
        raise InputError(
            f"{source} line {line}: another header, {listed(fields)}, after {listed(names)}; "
            "the rows before it were read; make a file of its own of the rest"
        )
    return False


class _Lines:
    """The lines of a text, of which those of the record in hand can be read again."""

    def __init__(self, text: TextIO, source: str):
        self._text = text
        self._source = source
        self._again: deque[str] = deque()
        self.in_hand: list[str] = []
        self.done = 0  # lines before the record in hand

    def __iter__(self) -> Iterator[str]:
        """Lines for a csv.reader, up to where a record has too many or is too long."""
        size = 0
        while True:
            if not self.in_hand:
                size = 0
            elif len(self.in_hand) > _MOST_LINES or size > LONGEST_LINE:
                return
            line = self._again.popleft() if self._again else self._read()
            if not line:
                return
            size += len(line)
            self.in_hand.append(line)
            yield line

    def _read(self) -> str:
        line = self._text.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise line_too_long(self._source, self.done + len(self.in_hand))
        return line.removeprefix("\ufeff")  # a file put behind another brings its mark along

    def finish(self, count: int) -> None:
        """The first `count` lines in hand are done with; the others come again."""
        if count < len(self.in_hand):
            self._again.extendleft(reversed(self.in_hand[count:]))
        self.done += count
        self.in_hand.clear()


def _rows(stream: TextStream, source: str, delimiter: str, open_quotes: set[int]) -> Iterator[Row]:
    """The rows that are not blank; `open_quotes` gets the lines of quotes never closed, rows of their own."""
    csv.field_size_limit(4 * LONGEST_LINE)
    # io.TextIOWrapper wants more of its stream than it uses.
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")  # type: ignore[type-var]
    lines = _Lines(text, source)
    try:
        first_line = next((line for line in lines if line.strip("\r\n")), "")
        delimiter = delimiter_of(first_line, delimiter)
        lines.finish(0)
        while True:
            for fields in csv.reader(lines, delimiter=delimiter):
                line, count = lines.done + 1, len(lines.in_hand)
                if count > 1 and not _quotes_closed(lines.in_hand, delimiter):
                    [fields] = csv.reader(lines.in_hand[:1], delimiter=delimiter, quoting=csv.QUOTE_NONE)
                    lines.finish(1)
                    open_quotes.add(line)
                    yield line, fields
                    break  # what is left of the reader is in the middle of a record
                lines.finish(count)
                if fields:
                    yield line, fields
            else:
                return
    except Damaged as fault:
        raise damaged(source, lines.done, fault) from fault


def _quotes_closed(lines: list[str], delimiter: str) -> bool:
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True


def delimiter_of(first_line: str, usual: str) -> str:
    """The delimiter of the table that begins with this line; `usual` wherever that can be."""
    for delimiter in (usual, "\t", ";"):  # the tab before what text is more likely to hold by accident
        [fields] = csv.reader([first_line], delimiter=delimiter)
        if len(fields) == 1 and "|" in fields[0]:  # the tail of extended SMILES has semicolons
            return usual
        if len(fields) > 1 and not any(field.count('"') % 2 for field in fields):
            return delimiter
    return usual


def _records(
    batch: list[Row], errors: dict[int, str], smiles: int, id: int | None, name: str, source: str
) -> Records:
    smiles_fields = [fields[smiles] if smiles < len(fields) else "" for _, fields in batch]
    id_fields = [fields[id] if id is not None and id < len(fields) else "" for _, fields in batch]
    lines = np.array([line for line, _ in batch], np.int64)
    records = table_records(_as_bytes(smiles_fields), _as_bytes(id_fields), name, source, lines, "line")
    records.errors.update(errors)
    return records


def _as_bytes(fields: list[str]) -> pa.Array:
    return pa.array([field.encode("utf-8", "surrogateescape") for field in fields], pa.large_binary())
