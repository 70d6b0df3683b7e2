"""Where the rows go: one Parquet file, or a folder of numbered ones. Either grows part by part.

A part counts from the moment the manifest names it. Whatever else a killed run left behind is overwritten.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stkd_screen.errors import OutputError
from stkd_screen.files import sync, whole
from stkd_screen.parts.lock import Locked, locked
from stkd_screen.parts.manifest import Manifest, load_manifest, save_manifest
from stkd_screen.parts.parquet import joined_footer, joined_metadata
from stkd_screen.records.parquet import READ_AHEAD

# Readers of Parquet folders pass over names that start with _ or a dot.
MANIFEST = "_manifest.json"
LOCK = ".lock"
MANIFEST_KEY = b"stkd_screen.manifest"  # of the metadata of a single file
_PART = re.compile(r"part-\d{5,}\.parquet")


class Output:
    """What a file and a folder have in common: a working folder with the manifest and a lock."""

    def __init__(self, path: Path, work: Path) -> None:
        self.path = path
        self.work = work

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run away from this output. A run that leaves no part leaves nothing at all.

        Raises:
            OutputError: another run is at it.
        """
        made = not self.work.exists()
        self.work.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.work / LOCK):
                try:
                    yield
                finally:
                    with suppress(OSError, OutputError):  # the error that came first matters more
                        unfinished = self.unfinished()
                        if unfinished and not unfinished.parts:
                            self.discard()
        except Locked:
            manifest = load_manifest(self.work / MANIFEST)
            who = f" ({manifest.writer})" if manifest else ""
            raise OutputError(
                f"{self.path} is being written by another run{who}; wait for it, or give another -o"
            ) from None
        finally:
            if made or self.work != self.path:
                with suppress(OSError):  # there is work in it
                    self.work.rmdir()

    @property
    def replaces(self) -> bool:
        """Whether something is there whose place the finished output would take."""
        return self.work != self.path and self.path.exists()

    def unfinished(self) -> Manifest | None:
        """The manifest of a run that has not come to its end, None where there is none."""
        manifest = load_manifest(self.work / MANIFEST)
        return None if manifest and manifest.complete else manifest

    def discard(self) -> None:
        """Remove what a run without parts left."""
        (self.work / MANIFEST).unlink(missing_ok=True)

    def save(self, manifest: Manifest) -> None:
        save_manifest(manifest, self.work / MANIFEST)


class OutputFile(Output):
    """out.parquet. Until it is whole, its parts stand end to end in out.parquet.partial/rows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.with_name(path.name + ".partial"))
        self._rows = self.work / "rows"

    def finished(self) -> Manifest | None:
        """The manifest of the whole output, None where there is none.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            metadata = pq.read_metadata(self.path)
        except (OSError, pa.ArrowException):
            return None
        return manifest_in(metadata, self.path)

    def missing(self, manifest: Manifest) -> str | None:
        """What of the parts of an unfinished output is not there, None where all is."""
        size = self._rows.stat().st_size if self._rows.is_file() else 0
        if size >= manifest.size:
            return None
        return f"{self._rows} has {size:,} bytes, its parts have {manifest.size:,}"

    def begin(self, manifest: Manifest) -> None:
        """Save the manifest of a run that starts anew, and so throw away the parts of any other."""
        self.save(manifest)

    @contextmanager
    def part(self, manifest: Manifest) -> Iterator[BinaryIO]:
        """A file to write the next part to; after the `with` block it is safe on disk."""
        with open(self._rows, "r+b" if manifest.parts else "wb") as file:
            file.truncate(manifest.size)
            file.seek(manifest.size)
            yield file
            file.flush()
            os.fsync(file.fileno())

    def place(self, manifest: Manifest, number: int) -> tuple[Path, int]:
        """The file of a part, the next one at most, and the byte where it starts."""
        start = sum(part.bytes for part in manifest.parts[:number])
        return self.path if manifest.complete else self._rows, start

    def finish(self, manifest: Manifest) -> None:
        """Put the parts together under the name of the output."""
        about = {MANIFEST_KEY: manifest.to_json().encode()}
        with open(self._rows, "r+b") as file:
            file.truncate(manifest.size)
            file.seek(manifest.size)
            file.write(joined_footer(self._rows, manifest.places(), about))
        sync(self._rows)
        os.replace(self._rows, self.path)
        sync(self.path.parent)
        self.discard()

    def discard(self) -> None:
        """Remove what a run left beside the output, but for the lock, which is held still."""
        (self.work / MANIFEST).unlink(missing_ok=True)  # first: without it there is no run
        with suppress(OSError):
            for path in self.work.iterdir():
                if path.name != LOCK:
                    path.unlink()

    def open(self, manifest: Manifest) -> Iterator[pq.ParquetFile]:
        """The rows, finished or not, in order."""
        if manifest.complete:
            yield _open(self.path)
        elif manifest.parts:
            yield _open(self._rows, joined_metadata(self._rows, manifest.places()))


class OutputFolder(Output):
    """zinc/: part-00000.parquet, part-00001.parquet, ... and the manifest that names those that are whole."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path)

    def finished(self) -> Manifest | None:
        manifest = load_manifest(self.path / MANIFEST)
        return manifest if manifest and manifest.complete else None

    def missing(self, manifest: Manifest) -> str | None:
        for part in manifest.parts:
            path = self.path / str(part.file)
            size = path.stat().st_size if path.is_file() else 0
            if size != part.bytes:
                return f"{path} has {size:,} bytes, its manifest says {part.bytes:,}"
        return None

    def begin(self, manifest: Manifest) -> None:
        names = self.parquet_names()
        if names and not (self.path / MANIFEST).exists():
            raise OutputError(
                f"{self.path} holds Parquet files that no manifest names ({', '.join(names[:3])}); they are "
                "left alone: give -o another folder"
            )
        self.save(manifest)
        for name in filter(_PART.fullmatch, names):
            (self.path / name).unlink()

    def parquet_names(self) -> list[str]:
        return sorted(path.name for path in self.path.glob("*.parquet") if not path.name.startswith("."))

    @contextmanager
    def part(self, manifest: Manifest) -> Iterator[BinaryIO]:
        with whole(self.place(manifest, len(manifest.parts))[0]) as partial, open(partial, "wb") as file:
            yield file

    def place(self, manifest: Manifest, number: int) -> tuple[Path, int]:
        return self.path / f"part-{number:05}.parquet", 0

    def finish(self, manifest: Manifest) -> None:
        self.save(manifest)

    def open(self, manifest: Manifest) -> Iterator[pq.ParquetFile]:
        for part in manifest.parts:
            yield _open(self.path / str(part.file))


def manifest_in(metadata: pq.FileMetaData, path: Path) -> Manifest | None:
    """The manifest of a single file, of which the footer was read; None where it has none.

    Raises:
        OutputError: it cannot be read.
    """
    text = (metadata.metadata or {}).get(MANIFEST_KEY)
    return Manifest.from_json(text, path) if text else None


def output_at(path: str | Path) -> OutputFile | OutputFolder:
    """out.parquet is a file; a folder is what ends in a slash, is one already or has no extension.

    Raises:
        OutputError: no name, or an extension of something else.
    """
    if path == "":  # Path("") is the folder one is in
        raise OutputError("an output without a name (an empty variable?); name a file or a folder")
    as_path = Path(path)
    if str(path).endswith(("/", os.sep)) or as_path.is_dir():
        return OutputFolder(as_path)
    if as_path.suffix.lower() == ".parquet":
        return OutputFile(as_path)
    if as_path.suffix or as_path.exists():
        stem = as_path.stem.removesuffix(".parquet")
        raise OutputError(
            f"{path}: the output is a Parquet file or a folder of them; name it {stem}.parquet, "
            f"or {as_path}{os.sep} for a folder"
        )
    return OutputFolder(as_path)


def _open(path: Path, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    return pq.ParquetFile(path, metadata=metadata, buffer_size=READ_AHEAD, pre_buffer=False)
