"""From what the user names (files, folders, -) to a list of files, each of a known format."""

from collections.abc import Sequence
from pathlib import Path

from stkd_screen.errors import InputError
from stkd_screen.records.streams import COMPRESSIONS

STDIN = Path("-")
FORMATS = {
    ".smi": "smi",
    ".smiles": "smi",
    ".ism": "smi",
    ".txt": "smi",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_KNOWN = f"{' '.join(FORMATS)}, text ones also with {' '.join(COMPRESSIONS)}"


def file_format(path: Path) -> str | None:
    """'smi', 'csv', 'tsv' or 'parquet' by the file's extension; None where it is unknown."""
    if path == STDIN:
        return "smi"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    if compressed:
        suffixes.pop()
    name = FORMATS.get(suffixes[-1]) if suffixes else None
    return None if compressed and name == "parquet" else name


def expand(inputs: Sequence[str | Path]) -> list[Path]:
    """Files to read, in order; a folder stands for the files of known extension in it, sorted by path.

    Raises:
        InputError: a file is missing or of an unknown extension, a folder has nothing to read.
    """
    files: list[Path] = []
    for path in map(Path, inputs):
        if path == STDIN:
            files.append(path)
        elif path.is_dir():
            files.extend(_folder(path))
        elif not path.exists():
            raise InputError(f"no such file: {path}; check the name and the folder you are in")
        elif file_format(path) is None:
            raise InputError(f"{path}: unknown extension; rename it to one of these: {_KNOWN}")
        else:
            files.append(path)
    return files


def _folder(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if file_format(path) and path.is_file())
    if not found:
        raise InputError(f"{folder}: no molecule file in this folder; known extensions: {_KNOWN}")
    return found
