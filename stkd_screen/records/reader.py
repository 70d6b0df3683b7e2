"""All inputs of a run as one stream of batches, with progress by input bytes."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stkd_screen.errors import InputError, StkdWarning
from stkd_screen.files import file_sha256
from stkd_screen.records.batch import Records
from stkd_screen.records.columns import ColumnChoice
from stkd_screen.records.delimited import read_csv
from stkd_screen.records.inputs import STDIN, expand, file_format, is_pipe
from stkd_screen.records.parquet import ParquetTable
from stkd_screen.records.raw import open_file
from stkd_screen.records.smi import read_smi
from stkd_screen.records.streams import Stopped, TextStream, open_text


class RecordReader:
    """Reads molecule files record by record, in batches, without ever holding a whole file.

    Args:
        inputs: files, folders, `-` for standard input: .smi lines, or a table where columns are told.
        smiles_column, id_column: name or 1-based number (3 or "3") of a column in .csv, .tsv and .parquet
            files; found by their usual names where None. In .smi files the SMILES always comes first.
        batch_size: records a batch; the last one of a file, and those of very long lines, hold fewer.
        exclude: the output of the run: left out of folders, and refused where an input names it.

    Raises:
        InputError: here for inputs that are not there at all. While iterating for damaged ones, after all
            rows that could be read: a damaged file keeps no other from being read.

    Warns:
        StkdWarning: at once for a damaged file that others follow; for one of several that has no record, and
            for one whose ids are not UTF-8.
    """

    files: list[Path]  # expanded inputs, in order
    bytes_total: int | None  # sum of (compressed) file sizes; None where a pipe is among them
    columns: dict[str, tuple[str, str | None]]  # of each table begun: names of its SMILES and its id column
    faults: list[str]  # of each damaged input so far, what is wrong
    hashes: dict[str, str]  # SHA-256 of each file read to its end

    def __init__(
        self,
        inputs: Sequence[str | Path],
        *,
        smiles_column: str | int | None = None,
        id_column: str | int | None = None,
        batch_size: int = 8192,
        exclude: Path | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
        self.files = expand(inputs, exclude)
        self.batch_size = batch_size
        self.hashes = {}
        self.smiles_column, self.id_column = _as_number(smiles_column), _as_number(id_column)
        self._choice = ColumnChoice(self.smiles_column, self.id_column)
        self.columns = self._choice.chosen
        self._has_columns = smiles_column is not None or id_column is not None
        if self._has_columns and all(self._format(path) == "smi" for path in self.files):
            raise InputError(
                "--smiles-column and --id-column are for .csv, .tsv and .parquet files, and no input is one; "
                "a .smi line is SMILES, then id: rename a file of tab-separated columns to .tsv"
            )
        self.bytes_total = None if any(map(is_pipe, self.files)) else sum(map(_size, self.files))
        self._bytes_before = 0
        self._current: TextStream | ParquetTable | None = None
        self.faults = []

    @property
    def bytes_read(self) -> int:
        """Raw input bytes read so far; reaches `bytes_total` at the end."""
        return self._bytes_before + (self._current.position if self._current else 0)

    @property
    def fault(self) -> str | None:
        """What is wrong with the inputs so far, None where nothing is."""
        if len(self.faults) < 2:
            return "".join(self.faults) or None
        return "\n- ".join(
            [f"{len(self.faults)} of {len(self.files)} inputs are not read in full:", *self.faults]
        )

    def __iter__(self) -> Iterator[Records]:
        return self.batches()

    def batches(self, should_stop: Callable[[], bool] | None = None) -> Iterator[Records]:
        """All records, from the first one on.

        Args:
            should_stop: asked where a pipe keeps one waiting or ends. When it says so, the lines that it has
                given whole are the last ones.
        """
        self._bytes_before, self._current = 0, None
        self.faults = []
        for path in self.files:
            records, told = 0, False
            try:
                for batch in self._read(path, should_stop):
                    records += len(batch)
                    if batch.letters_lost and not told:
                        told = True
                        lost = "ids that are not UTF-8 lose letters (written as U+FFFD); save it as UTF-8"
                        warnings.warn(f"{_name(path)}: {lost}", StkdWarning, stacklevel=2)
                    yield batch
            except InputError as fault:
                if isinstance(fault.__cause__, Stopped):
                    break
                self.faults.append(str(fault))
                if path != self.files[-1]:
                    warnings.warn(f"{fault}; going on with the next input", StkdWarning, stacklevel=2)
            else:
                if records == 0 and len(self.files) > 1:
                    warnings.warn(f"{_name(path)}: no record in it", StkdWarning, stacklevel=2)
            self._bytes_before, self._current = self.bytes_read, None
        if self.fault:
            raise InputError(self.fault)

    def _format(self, path: Path) -> str | None:
        return file_format(path, has_columns=self._has_columns)

    def _read(self, path: Path, should_stop: Callable[[], bool] | None) -> Iterator[Records]:
        source, kind = _name(path), self._format(path)
        if kind == "parquet":
            table = self._current = ParquetTable(path, self._choice)
            with _unchanged(path):
                yield from table.read(source, self.batch_size)
            self.hashes[str(path)] = file_sha256(path)  # its columns were read here and there, not all of it
            return
        with open_text(path, should_stop) as stream, _unchanged(path):
            self._current = stream
            if kind == "smi":
                yield from read_smi(stream, source, self.batch_size)
            else:
                delimiter = "\t" if kind == "tsv" else ","
                yield from read_csv(stream, source, delimiter, self._choice, self.batch_size)
            self.hashes[str(path)] = stream.sha256


def _name(path: Path) -> str:
    return "<stdin>" if path == STDIN else str(path)


def _size(path: Path) -> int:
    return path.stat().st_size if os.path.exists(path) else 0  # a link to nothing: opening it says so


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Raises InputError at the end where a file was written to meanwhile: its rows are of no one state."""
    if is_pipe(path):  # opened once only
        yield
        return
    with open_file(path) as held:
        before = os.fstat(held.fileno())
        yield
        after = os.fstat(held.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        sizes = f"{before.st_size:,} bytes at the start, {after.st_size:,} at the end"
        raise InputError(
            f"{path}: was written to while it was read ({sizes}); the rows read are kept, but some may be "
            "cut or missing; run again when it is complete"
        )


def _as_number(column: str | int | None) -> str | int | None:
    return int(column) if isinstance(column, str) and column.isdecimal() else column
