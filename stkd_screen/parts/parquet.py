"""Parquet in parts: each part is a Parquet file, and parts put end to end become one file by one footer.

Nothing of a part is decoded or moved when parts are joined: only where its row groups stand is written anew.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen.errors import OutputError
from stkd_screen.parts.thrift import BINARY, I64, LIST, STRUCT, Struct, read_struct, struct_bytes

ROW_GROUP_ROWS = 16_384
DICTIONARY_COLUMNS = ("error", "warning")
MAGIC = b"PAR1"

# Field numbers of parquet.thrift.
FILE_ROWS, FILE_ROW_GROUPS, FILE_METADATA = 3, 4, 5
KEY, VALUE = 1, 2
GROUP_COLUMNS, GROUP_ROWS, GROUP_ORDINAL = 1, 3, 7
COLUMN_METADATA = 3
# Those that hold a place in the file: the first byte of ...
GROUP_PLACES = (5,)  # the row group
COLUMN_PLACES = (2, 4, 6)  # the metadata of the column chunk, its offset index, its column index
METADATA_PLACES = (9, 10, 11, 14)  # its first page of data, of an index, of a dictionary; its Bloom filter


class ParquetPart:
    """One part, written to an open file: tables are collected into row groups of `ROW_GROUP_ROWS` rows.

    Only texts that repeat have a dictionary: numbers, embeddings above all, take twice as long to write and
    to read with one, and more space.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.rows = 0
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if name in DICTIONARY_COLUMNS],
            # Smallest and largest value of a row group: of an embedding they tell nothing.
            write_statistics=[name for name in schema.names if name != "embedding"],
        )

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


def joined_footer(
    path: Path, parts: Sequence[tuple[int, int]], metadata: Mapping[bytes, bytes] | None = None
) -> bytes:
    """What to append to parts that stand end to end in a file, so that the file is one Parquet file.

    Args:
        path: the file.
        parts: first byte of each part and the one after its last; one at the least.
        metadata: keys and values to add to those of the first part.

    Raises:
        OutputError: the footer of a part is damaged.
    """
    rows, row_groups = 0, []
    try:
        with open(path, "rb") as file:
            footer = _read_footer(file, parts[0][1])
            for start, end in parts:
                _, groups = _read_footer(file, end)[FILE_ROW_GROUPS][1]
                rows += sum(group[GROUP_ROWS][1] for group in groups)
                row_groups += [struct_bytes(_moved_group(group, start)) for group in groups]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise OutputError(
            f"{path}: the footer of a part is damaged; --restart begins anew, or give another -o"
        ) from error
    footer[FILE_ROWS] = I64, rows
    footer[FILE_ROW_GROUPS] = LIST, (STRUCT, row_groups)
    added = [{KEY: (BINARY, key), VALUE: (BINARY, value)} for key, value in (metadata or {}).items()]
    footer[FILE_METADATA] = LIST, (STRUCT, footer[FILE_METADATA][1][1] + added)
    written = struct_bytes(footer)
    return written + len(written).to_bytes(4, "little") + MAGIC


def joined_metadata(path: Path, parts: Sequence[tuple[int, int]]) -> pq.FileMetaData:
    """The same as `pq.ParquetFile` takes it, to read the parts before the footer is there."""
    return pq.read_metadata(io.BytesIO(MAGIC + joined_footer(path, parts)))


def _read_footer(file: BinaryIO, end: int) -> Struct:
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
