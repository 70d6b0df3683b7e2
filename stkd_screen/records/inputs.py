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
_ONLY_BY_NAME = ".txt"  # in a folder it is as often a note as a list of molecules


def file_format(path: Path) -> str | None:
    """'smi', 'csv', 'tsv' or 'parquet' by the file's extension; None where it is unknown."""
    if path == STDIN:
        return "smi"
    extension, compressed = _extension(path)
    name = FORMATS.get(extension)
    return None if compressed and name == "parquet" else name


def expand(inputs: Sequence[str | Path], exclude: Path | None = None) -> list[Path]:
    """Files to read, in order; a folder stands for the files of known extension in it, sorted by path.

    Of a folder, hidden files, those in hidden folders and .txt files are left out: they have to be named.

    Args:
        inputs: files, folders, `-` for standard input.
        exclude: a file or folder that is not to be read: the output of the run.

    Raises:
        InputError: a file is missing, of an unknown extension or the excluded one; a folder has nothing to
            read.
    """
    output = exclude.resolve() if exclude else None
    files: list[Path] = []
    for path in map(Path, inputs):
        if path == STDIN:
            files.append(path)
        elif path.is_dir():
            files.extend(_folder(path, output))
        elif not path.exists():
            raise InputError(f"no such file: {path}; check the name and the folder you are in")
        elif file_format(path) is None:
            raise InputError(f"{path}: unknown extension; rename it to one of these: {_KNOWN}")
        elif path.resolve() == output:
            raise InputError(f"{path} is both input and output; give another -o")
        elif _is_in(path, output):
            raise InputError(f"{path} lies in the folder of the output; give another -o")
        else:
            files.append(path)
    return files


def _folder(folder: Path, output: Path | None) -> list[Path]:
    def wanted(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        listed = file_format(path) is not None and _extension(path)[0] != _ONLY_BY_NAME
        return listed and not hidden and path.is_file() and not _is_in(path, output)

    found = sorted(filter(wanted, folder.rglob("*")))
    if not found:
        raise InputError(
            f"{folder}: no molecule file in this folder; name hidden and {_ONLY_BY_NAME} files themselves; "
            f"known extensions: {_KNOWN}"
        )
    return found


def _is_in(path: Path, output: Path | None) -> bool:
    return output is not None and path.resolve().is_relative_to(output)


def _extension(path: Path) -> tuple[str, bool]:
    """The extension that tells the format, in lower case, and whether that of a compression follows it."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    if compressed:
        suffixes.pop()
    return (suffixes[-1] if suffixes else ""), compressed
