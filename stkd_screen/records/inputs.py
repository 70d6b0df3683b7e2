"""From what the user names (files, folders, -) to a list of files, each of a known format."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from stkd_screen.errors import InputError, StkdWarning
from stkd_screen.records.decompression import COMPRESSIONS
from stkd_screen.records.parquet import is_output

STDIN = Path("-")
_STDIN_BY_PATH = Path("/dev/stdin")  # a file, where one was put in its place by <
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


def file_format(path: Path, *, has_columns: bool = False) -> str | None:
    """'smi', 'csv', 'tsv' or 'parquet' by the file's extension; None where it is unknown.

    A pipe without an extension, such as standard input, holds .smi lines, or a table where columns are told.
    """
    extension, compressed = _extension(path)
    if not extension and is_pipe(path):
        return "csv" if has_columns else "smi"
    name = FORMATS.get(extension)
    return None if compressed and name == "parquet" else name


def is_pipe(path: Path) -> bool:
    """Whether it is standard input or another file that gives what it has once only."""
    return path == STDIN or (os.path.exists(path) and not path.is_file() and not path.is_dir())


def expand(inputs: Sequence[str | Path], exclude: Path | None = None) -> list[Path]:
    """Files to read, in order; a folder stands for the files of known extension in it, sorted by path.

    Of a folder, hidden and .txt files, those in hidden folders and pipes are left out: they have to be named.

    Args:
        inputs: files, folders, `-` for standard input.
        exclude: a file or folder that is not to be read: the output of the run.

    Raises:
        InputError: a name is empty; a file is missing, of an unknown extension or the excluded one; a folder
            has nothing to read.
    """
    output = os.path.realpath(exclude) if exclude else None
    files: list[Path] = []
    if "" in inputs:  # Path("") is the folder one is in
        raise InputError("an input without a name (an empty variable?); name a file, a folder or -")
    for path in map(Path, inputs):
        if path in (STDIN, _STDIN_BY_PATH):
            files.append(STDIN)
        elif os.path.isdir(path):
            files.extend(_folder(path, output))
        elif not os.path.exists(path):
            raise _missing(path)
        elif file_format(path) is None:
            raise InputError(
                f"{path}: unknown extension; convert it to one of these, or rename it if it is one: {_KNOWN}"
            )
        elif os.path.realpath(path) == output:
            raise InputError(f"{path} is both input and output; give another -o")
        elif _is_in(path, output):
            raise InputError(f"{path} lies in the folder of the output; give another -o")
        else:
            files.append(path)
    return files


def _missing(path: Path) -> InputError:
    if os.path.islink(path):
        return InputError(f"{path} is a link to {os.readlink(path)}, which is not there; mend the link")
    return InputError(
        f"no such file: {path}; check the name, the folder you are in and who may read its folder"
    )


def _folder(folder: Path, output: str | None) -> list[Path]:
    def wanted(path: Path) -> bool:
        listed = file_format(path) is not None and _extension(path)[0] != _ONLY_BY_NAME
        return listed and not _is_in(path, output) and not is_pipe(path)

    found = sorted(filter(wanted, _files(folder)))
    outputs = [path for path in found if file_format(path) == "parquet" and is_output(path)]
    if outputs and len(outputs) < len(found):
        named = ", ".join(map(str, outputs[:3])) + (", ..." if len(outputs) > 3 else "")
        warnings.warn(
            f"{named}: left out, for embed wrote it; name it to read it again", StkdWarning, stacklevel=2
        )
        found = [path for path in found if path not in outputs]
    if not found:
        raise InputError(
            f"{folder}: no molecule file in this folder; name hidden and {_ONLY_BY_NAME} files themselves; "
            f"known extensions: {_KNOWN}"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden, behind links too but no folder twice.

    Links to nothing are among them: opening them says so.

    Raises:
        InputError: a folder that cannot be listed, since nobody would miss what is in it.
    """

    def refuse(fault: OSError) -> None:
        raise InputError(f"{fault.filename}: cannot be listed ({fault.strerror}); check its permissions")

    seen: set[str] = set()
    for at, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()  # a link back
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in names if not name.startswith("."))


def _is_in(path: Path, output: str | None) -> bool:
    return output is not None and Path(os.path.realpath(path)).is_relative_to(output)


def _extension(path: Path) -> tuple[str, bool]:
    """The extension that tells the format, in lower case, and whether that of a compression follows it."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    if compressed:
        suffixes.pop()
    return (suffixes[-1] if suffixes else ""), compressed
