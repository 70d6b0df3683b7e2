"""Building an index: gather the vectors, make inverted lists where they pay, measure, put it in its place."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stkd_screen.errors import OutputError, SearchError
from stkd_screen.files import sync
from stkd_screen.search.home import MANIFEST, building, place_aside, set_default_index
from stkd_screen.search.index import Index
from stkd_screen.search.inverted_lists import (
    EXACT,
    KINDS,
    LEAST_ROWS,
    build_lists,
    choose_kind,
    open_lists,
)
from stkd_screen.search.library import Library, check_same_origin
from stkd_screen.search.manifest import Manifest, describe_files, save_manifest
from stkd_screen.search.recall import tune_effort
from stkd_screen.search.store import Store, StoreWriter

Report = Callable[[str, int, int | None], None]  # stage, rows done, rows in all where they are known


@dataclass(frozen=True)
class BuildOptions:
    kind: str | None = None  # exact, ivf or ivf-pq; None: by size
    memory: int = 2 << 30  # bytes the build may take at its peak
    add: bool = False  # keep the molecules of the index that is there
    overwrite: bool = False  # replace the index that is there


def build_index(
    library: Library,
    folder: Path,
    options: BuildOptions,
    report: Report = lambda stage, done, total: None,
) -> tuple[Manifest, str]:
    """Build an index, or extend one, and make it the default.

    All is written beside the final place, flushed to disk and moved there at the end: a build that fails or
    is killed leaves an index that was there before as it was. An index that is extended keeps its vectors,
    and its lists are made anew for all of them.

    Args:
        library: the embedded molecules.
        folder: where the index shall stand.
        options: how to build it.
        report: called as the work goes on.

    Returns:
        The manifest, and why the index is of its kind.

    Raises:
        SearchError: the library has no usable row, does not fit the index it is added to, or has too few
            rows for the kind asked for.
        OutputError: the index is there already, cannot be written, or another build is at it.
    """
    with _replacing(folder) as partial:
        old = _old_index(library, folder, options)
        left_out = _gather(library, old, partial, report)
        store = Store(partial, library.origin.width)
        kind, why = _kind(len(store), library.origin.width, options)
        effort, recall = None, 1.0
        if kind != EXACT:
            report("sorting the vectors into lists", 0, None)
            build_lists(store, kind, partial, options.memory)
            report("measuring recall", 0, None)
            effort, recall = tune_effort(store, open_lists(partial))
        manifest = Manifest(
            origin=library.origin,
            kind=kind,
            effort=effort,
            recall=recall,
            rows=len(store),
            left_out=left_out,
            sources=(old.manifest.sources if old else []) + _sources(library),
            built=datetime.now().astimezone().isoformat(timespec="seconds"),
            files=describe_files(partial),
        )
        save_manifest(manifest, partial)
    set_default_index(folder)
    return manifest, why


def _old_index(library: Library, folder: Path, options: BuildOptions) -> Index | None:
    """The index to extend, None where a new one is built."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise OutputError(f"{folder} is there and no index; give another --name")
    if not options.add:
        if (folder / MANIFEST).is_file() and not options.overwrite:
            raise OutputError(
                f"index {folder} is there already; give another --name, --add to extend it, "
                "or --overwrite to replace it"
            )
        return None
    old = Index(folder)
    check_same_origin(library.origin, str(library.files[0]), old.manifest.origin, f"index {folder.name}")
    again = set(_sources(library)) & set(old.manifest.sources)
    if again:
        raise SearchError(
            f"index {folder.name} holds {min(again)} already; to take it in anew, build the whole index "
            "with --overwrite"
        )
    return old


def _gather(library: Library, old: Index | None, partial: Path, report: Report) -> int:
    """Write all molecules into a new store; how many rows of the library were left out."""
    left_out = old.manifest.left_out if old else 0
    done, total = 0, library.rows + (len(old) if old else 0)
    with StoreWriter(partial, library.origin.schema()) as writer:
        for vectors, records in old.store.batches() if old else ():
            writer.append(vectors, records)
            done += len(records)
            report("copying the index", done, total)
        for vectors, records, without in library.batches():
            writer.append(vectors, records)
            left_out += without
            done += len(records) + without
            report("reading", done, total)
    if writer.rows == 0:
        names = ", ".join(map(str, library.files[:3]))
        if library.rows == 0:
            raise SearchError(f"{names}: no rows; embed a library that has molecules")
        raise SearchError(
            f"{names}: none of {library.rows:,} rows has an embedding; the column `error` says why"
        )
    return left_out


def _kind(rows: int, width: int, options: BuildOptions) -> tuple[str, str]:
    if options.kind is None:
        return choose_kind(rows, width, options.memory)
    if options.kind not in KINDS:
        raise SearchError(f"--kind {options.kind}: there is no such kind; choose one of {', '.join(KINDS)}")
    if rows < LEAST_ROWS[options.kind]:
        raise SearchError(
            f"--kind {options.kind} needs {LEAST_ROWS[options.kind]} molecules to learn from, "
            f"there are {rows}; leave --kind out"
        )
    return options.kind, "asked for"


def _sources(library: Library) -> list[str]:
    return [str(path.resolve()) for path in library.files]


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` at the end, or vanishes after an error."""
    partial = folder.with_name(f".{folder.name}.partial")
    before = place_aside(folder)
    with building(folder):
        try:
            shutil.rmtree(partial, ignore_errors=True)  # what a killed build left
            partial.mkdir()
            yield partial
            for path in (*partial.iterdir(), partial):
                sync(path)
            shutil.rmtree(before, ignore_errors=True)
            if folder.exists():
                folder.rename(before)
            partial.rename(folder)
            sync(folder.parent)
            if before.exists():
                before.rename(partial)  # half removed, it would be no index to put back
        finally:
            shutil.rmtree(partial, ignore_errors=True)
