"""A lock that lasts as long as its owner: the system takes it back when the process ends, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock there
    fcntl = None  # type: ignore[assignment]


class Locked(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file `path`, which is made for it and removed with it.

    On a network disk the lock holds between machines where the disk has flock (NFS 4, Lustre mounted with
    `flock`); on a disk without it there is no lock.

    Raises:
        Locked: another process holds it.
        OSError: the file cannot be made.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if fcntl is None:
            os.close(descriptor)  # Windows removes no open file
            path.unlink(missing_ok=True)
        else:
            try:
                path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Locked from None
        except OSError:
            return descriptor  # this disk has no locks
        # Its owner may have removed the file since it was opened here: that lock would keep nobody out.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)
