"""Where indexes live: by name in the user's data folder, or by path. The last one built is the default."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_data_path

from stkd_screen.errors import OutputError, SearchError, StkdWarning
from stkd_screen.files import whole
from stkd_screen.parts.lock import Locked, locked

MANIFEST = "manifest.json"  # a folder that holds one is an index
_ASIDE = ".before"  # .NAME.before: the old index while a new one takes its place
HOME_VARIABLE = "STKD_SCREEN_HOME"  # another data folder than the platform's


def home() -> Path:
    return Path(os.environ.get(HOME_VARIABLE) or user_data_path("stkd-screen", appauthor=False))


def index_folder(name: str | Path) -> Path:
    """The folder of an index: a bare name stands for one in the data folder, anything else is a path.

    Raises:
        SearchError: the name cannot be that of a folder.
    """
    path = Path(name)
    if path.name in ("", ".."):
        raise SearchError(f"{str(name)!r} is no name for an index; give a name such as zinc, or a path")
    is_name = str(name) == path.name and not path.name.startswith(".")
    return home() / "indexes" / path if is_name else path


def find_index(name: str | Path | None = None) -> Path:
    """The folder of an index that is there; without a name, of the default one.

    Raises:
        SearchError: there is none; the message lists those there are.
        OutputError: it was left aside by a build that was killed, and cannot be put back.
    """
    if name is None:
        default = default_index()
        if default is None:
            raise SearchError(_no_default())
        return default
    folder = index_folder(name)
    put_back(folder)
    if not (folder / MANIFEST).is_file():
        raise SearchError(f"no index {str(name)!r}: {folder} holds no {MANIFEST}; {_known()}")
    return folder


def default_index() -> Path | None:
    """The index that was built last, None where there is none or it is gone."""
    try:
        folder = Path(_default_file().read_text(encoding="utf-8").strip())
    except OSError:
        return None
    put_back(folder)
    return folder if (folder / MANIFEST).is_file() else None


def set_default_index(folder: Path) -> None:
    """Remember the index that was built last.

    Warns:
        StkdWarning: that cannot be written down.
    """
    path = _default_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(f"{folder.resolve()}\n", encoding="utf-8")
    except OSError as error:
        warnings.warn(
            f"the index is built, but cannot be made the default ({error}); search it with "
            f"--index {folder.resolve()}, or name a folder that can be written by {HOME_VARIABLE}",
            StkdWarning,
            stacklevel=2,
        )


def list_indexes() -> list[Path]:
    """The indexes of the data folder, by name, and the default one where it stands elsewhere."""
    indexes = home() / "indexes"
    for aside in sorted(indexes.glob(f".*{_ASIDE}")):
        put_back(indexes / aside.name.removeprefix(".").removesuffix(_ASIDE))
    manifests = indexes.glob(f"*/{MANIFEST}")
    folders = sorted(path.parent for path in manifests if not path.parent.name.startswith("."))
    default = default_index()
    if default and default.resolve() not in [folder.resolve() for folder in folders]:
        folders.append(default)
    return folders


def place_aside(folder: Path) -> Path:
    """Where an index stands for the moment in which another takes its place."""
    return folder.with_name(f".{folder.name}{_ASIDE}")


def put_back(folder: Path) -> None:
    """Undo what a build did that was killed when it had moved the old index aside.

    Raises:
        OutputError: a build is at it, or its place cannot be written.
    """
    if not folder.exists() and place_aside(folder).exists():
        with building(folder):
            pass  # it is put back


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Keep every other build away from an index. One that a killed build left aside is put back first.

    Raises:
        OutputError: another build is at it, or its place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists() and place_aside(folder).exists():
                place_aside(folder).rename(folder)
            yield
    except Locked:
        raise OutputError(
            f"index {folder} is being built by another process; wait for it, or give another --name"
        ) from None
    except OSError as error:
        raise OutputError(
            f"index {folder} cannot be written: {error}; free space, give --name a path, or choose "
            f"another data folder by {HOME_VARIABLE}"
        ) from error


def _default_file() -> Path:
    return home() / "default_index"


def _no_default() -> str:
    if not list_indexes():
        return f"no index yet in {home()}; build one: stkd-screen index OUT.parquet"
    return f"the index that was built last is gone; choose one with --index, {_known()}"


def _known() -> str:
    names = ", ".join(folder.name for folder in list_indexes())
    return f"there are: {names}" if names else "there is none yet; build one: stkd-screen index OUT.parquet"
