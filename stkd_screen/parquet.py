"""Writing Parquet: a file appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen.errors import OutputError

ROW_GROUP_ROWS = 32_768


class ParquetWriter:
    """Collects tables into row groups of `ROW_GROUP_ROWS` rows under a temporary name.

    Leaving the `with` block without an error flushes the file to disk and gives it its name; after an
    error nothing is left behind.

    Raises:
        OutputError: the file cannot be written; or it is there already and `overwrite` is not set.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, overwrite: bool = False) -> None:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give -o the name of a Parquet file")
        if path.suffix.lower() != ".parquet":
            raise OutputError(f"{path}: the output is a Parquet file; name it {path.stem}.parquet")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; give another -o, or --overwrite to replace it")
        self.path = path
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error}") from error

    def __enter__(self) -> "ParquetWriter":
        return self

    def write(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._pending_rows += len(table)
        if self._pending_rows >= ROW_GROUP_ROWS:
            with self._faults_named():
                self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._pending), row_group_size=ROW_GROUP_ROWS)
        self._pending, self._pending_rows = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._faults_named():
                try:
                    if kind is None and self._pending_rows:
                        self._flush()
                finally:
                    self._writer.close()
                if kind is None:
                    with open(self._partial, "rb") as file:
                        os.fsync(file.fileno())
                    os.replace(self._partial, self.path)
        except OutputError:
            if kind is None:
                raise  # otherwise the error that came first matters more
        finally:
            self._partial.unlink(missing_ok=True)

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error}; free space or choose another -o"
            ) from error
