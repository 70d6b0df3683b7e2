"""All inputs of a run as one stream of batches, with progress by input bytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from stkd_screen.errors import InputError
from stkd_screen.files import file_sha256
from stkd_screen.records.batch import Records
from stkd_screen.records.columns import ColumnChoice
from stkd_screen.records.inputs import STDIN, expand, file_format
from stkd_screen.records.smi import read_smi
from stkd_screen.records.streams import TextStream, open_text
from stkd_screen.records.tables import ParquetTable, read_csv


class RecordReader:
    """Reads molecule files record by record, in batches, without ever holding a whole file.

    Args:
        inputs: files, folders, `-` for standard input (.smi lines).
        smiles_column, id_column: name or 1-based number (3 or "3") of a column in .csv, .tsv and .parquet
            files; found by their usual names where None. In .smi files the SMILES always comes first.
        batch_size: records a batch; only the last one of a file may hold fewer.
        exclude: the output of the run: left out of folders, and refused where an input names it.

    Raises:
        InputError: here for inputs that cannot be read at all; while iterating, after the rows before it, for
            a damaged file.
    """

    files: list[Path]  # expanded inputs, in order
    bytes_total: int | None  # sum of (compressed) file sizes; None where stdin is among them
    columns: dict[str, tuple[str, str | None]]  # of each table begun: names of its SMILES and its id column
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
        asked_for = smiles_column is not None or id_column is not None
        if asked_for and all(file_format(path) == "smi" for path in self.files):
            raise InputError(
                "--smiles-column and --id-column are for .csv, .tsv and .parquet files, and no input is one; "
                "a .smi line is SMILES, then id: rename a file of tab-separated columns to .tsv"
            )
        self.bytes_total = None if STDIN in self.files else sum(path.stat().st_size for path in self.files)
        self._bytes_before = 0
        self._current: TextStream | ParquetTable | None = None

    @property
    def bytes_read(self) -> int:
        """Raw input bytes read so far; reaches `bytes_total` at the end."""
        return self._bytes_before + (self._current.position if self._current else 0)

    def __iter__(self) -> Iterator[Records]:
        self._bytes_before, self._current = 0, None
        for path in self.files:
            yield from self._read(path)
            self._bytes_before, self._current = self.bytes_read, None

    def _read(self, path: Path) -> Iterator[Records]:
        source = "<stdin>" if path == STDIN else str(path)
        kind = file_format(path)
        if kind == "parquet":
            table = self._current = ParquetTable(path, self._choice)
            yield from table.read(source, self.batch_size)
            self.hashes[str(path)] = file_sha256(path)  # its columns were read here and there, not all of it
            return
        with open_text(path) as stream:
            self._current = stream
            if kind == "smi":
                yield from read_smi(stream, source, self.batch_size)
            else:
                delimiter = "\t" if kind == "tsv" else ","
                yield from read_csv(stream, source, delimiter, self._choice, self.batch_size)
            self.hashes[str(path)] = stream.sha256


def _as_number(column: str | int | None) -> str | int | None:
    return int(column) if isinstance(column, str) and column.isdecimal() else column
