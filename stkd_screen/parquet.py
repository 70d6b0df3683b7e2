"""Writing Parquet in parts: each part is a Parquet file, and parts put end to end become one file by one footer.

Nothing of a part is decoded or moved when parts are joined: only where its row groups stand is written anew.
"""

import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen.thrift import I64, LIST, STRUCT, Struct, read_struct, write_struct

ROW_GROUP_ROWS = 32_768
MAGIC = b"PAR1"

# Field numbers of parquet.thrift.
FILE_ROWS, FILE_ROW_GROUPS = 3, 4
GROUP_COLUMNS, GROUP_ROWS, GROUP_ORDINAL = 1, 3, 7
COLUMN_METADATA = 3
# Those that hold a place in the file: the first byte of ...
GROUP_PLACES = (5,)  # the row group
COLUMN_PLACES = (2, 4, 6)  # the metadata of the column chunk, its offset index, its column index
METADATA_PLACES = (9, 10, 11, 14)  # its first page of data, of an index, of a dictionary; its Bloom filter


class ParquetPart:
    """One part, written to an open file: tables are collected into row groups of `ROW_GROUP_ROWS` rows."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.rows = 0
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def __enter__(self) -> "ParquetPart":
        return self

    def write(self, table: pa.Table) -> None:
        self.rows += len(table)
        self._pending.append(table)
        self._pending_rows += len(table)
        if self._pending_rows >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._pending), row_group_size=ROW_GROUP_ROWS)
        self._pending, self._pending_rows = [], 0

    def finish(self) -> None:
        """Write what is left, and the footer."""
        if self._pending_rows:
            self._flush()
        self._writer.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, pa.ArrowException):  # the error that came first matters more
            self._writer.close()
        self._writer.is_open = False  # or its end would try once more to write a footer


def joined_footer(path: Path, parts: Iterable[tuple[int, int]], schema: pa.Schema) -> bytes:
    """What to append to parts that stand end to end in a file, so that the file is one Parquet file.

    Args:
        path: the file.
        parts: first byte of each part and the one after its last.
        schema: columns of the parts, and the metadata that the whole file shall have.
    """
    empty = io.BytesIO()
    pq.ParquetWriter(empty, schema).close()
    footer = _read_footer(empty, empty.tell())
    row_groups: list[Struct] = []
    with open(path, "rb") as file:
        for start, end in parts:
            _, groups = _read_footer(file, end)[FILE_ROW_GROUPS][1]
            row_groups += [_moved_group(group, start) for group in groups]
    footer[FILE_ROWS] = I64, sum(group[GROUP_ROWS][1] for group in row_groups)
    footer[FILE_ROW_GROUPS] = LIST, (STRUCT, row_groups)
    written = io.BytesIO()
    write_struct(written, footer)
    size = written.tell().to_bytes(4, "little")
    return written.getvalue() + size + MAGIC


def _read_footer(file: Any, end: int) -> Struct:
    file.seek(end - 8)
    size = int.from_bytes(file.read(4), "little")
    file.seek(end - 8 - size)
    return read_struct(io.BytesIO(file.read(size)))


def _moved_group(group: Struct, distance: int) -> Struct:
    element, columns = group[GROUP_COLUMNS][1]
    for column in columns:
        kind, metadata = column[COLUMN_METADATA]
        column[COLUMN_METADATA] = kind, _moved(metadata, METADATA_PLACES, distance)
    columns = [_moved(column, COLUMN_PLACES, distance) for column in columns]
    group = _moved(group, GROUP_PLACES, distance) | {GROUP_COLUMNS: (LIST, (element, columns))}
    group.pop(GROUP_ORDINAL, None)  # optional, and in a part it counts that part's groups
    return group


def _moved(fields: Struct, places: tuple[int, ...], distance: int) -> Struct:
    # A place of 0 says that there is none: no part has anything of a row group before its magic number.
    moved = {n: (fields[n][0], fields[n][1] + distance) for n in places if n in fields and fields[n][1]}
    return fields | moved
