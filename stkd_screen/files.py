"""Files that appear whole or not at all, also when the machine loses power in between."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20  # bytes read at a time


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write under. What stands there at the end is flushed to disk and becomes
    `path`; after an error it vanishes.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        with suppress(OSError):  # the error that came first matters more
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Raises OSError where the file cannot be written."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps names by a journal of its own
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path, start: int = 0, size: int | None = None) -> str:
    """SHA-256 of a file, or of `size` bytes of it (fewer where it ends) from byte `start` on."""
    digest = hashlib.sha256()
    left = os.path.getsize(path) - start if size is None else size
    with open(path, "rb") as file:
        file.seek(start)
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
