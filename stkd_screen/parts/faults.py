"""What a user is told when an output cannot be written, and which faults are worth waiting for."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from stkd_screen.errors import OutputError
from stkd_screen.parts.outputs import OutputFile, OutputFolder

T = TypeVar("T")

_FREE_SPACE = "free space there"
_MENDS = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "give -o a folder, whose parts are smaller files",
    errno.EACCES: "get the permission to write there",
    errno.EPERM: "get the permission to write there",
    errno.EROFS: "make that disk writable",
    errno.ENOENT: "somebody removed it during the run, see who",
}
# Faults of a disk at the other end of a network, which mostly comes back.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}
# Seconds to wait after each such fault in a row.
PATIENCE = (1, 10, 60, 300)


@contextmanager
def faults_named(output: OutputFile | OutputFolder) -> Iterator[None]:
    """Turns an OSError into an OutputError that says what mends it, what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        mend = _MENDS.get(error.errno or 0, "see to that disk")
        raise OutputError(
            f"{output.path} cannot be written: {error.strerror or error}; {mend}, or choose another -o, "
            f"and give the command again{_what_is_safe(output)}"
        ) from error


def _what_is_safe(output: OutputFile | OutputFolder) -> str:
    try:
        unfinished = output.unfinished()
        if not unfinished or not unfinished.rows or output.missing(unfinished):
            return ""
    except (OSError, OutputError):
        return ""
    if not unfinished.can_be_read_again:
        return " with --restart, for a pipe cannot be read again from its beginning"
    return f": its first {unfinished.rows:,} rows are safe in {output.work}, and it goes on after them"


def patiently(
    attempt: Callable[[], T],
    progress: Callable[[], int],
    on_fault: Callable[[OutputError, int], None],
    should_stop: Callable[[], bool],
) -> T:
    """What `attempt` returns; it is called again after each fault of a disk that may pass.

    Nothing is written a second time from memory: what the system had taken before such a fault may be lost
    without a word, so an attempt goes on from the last part that is known to be safe.

    Args:
        attempt: may raise OutputError, from an OSError.
        progress: what grows with every success; faults with a success between them are not in a row.
        on_fault: called with the fault and the seconds until the next attempt.
        should_stop: asked every second of them; ends the waiting with the fault.
    """
    waits, before = iter(PATIENCE), progress()
    while True:
        try:
            return attempt()
        except OutputError as fault:
            if progress() > before:
                waits, before = iter(PATIENCE), progress()
            wait = next(waits, None)
            if wait is None or getattr(fault.__cause__, "errno", None) not in _PASSING:
                raise
            on_fault(fault, wait)
            for _ in range(wait):
                if should_stop():
                    raise
                time.sleep(1)
