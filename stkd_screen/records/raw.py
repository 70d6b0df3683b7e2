"""The bytes of an input as they are stored or sent: files, standard input and other pipes."""

import hashlib
import io
import os
import select
import stat
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from stkd_screen.errors import InputError

CHUNK = 1 << 18  # most bytes a read: decompressors allot what is asked for and mostly fill a part


class RawBytes(io.BufferedIOBase):
    """A binary file that counts and hashes what is taken from it. Closing it leaves standard input open."""

    def __init__(self, file: Any):
        self.file = file
        self.taken = 0
        self._begin = file.tell() if file.seekable() else 0
        self._peeked = b""
        self.may_wait = _may_wait(file)
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def comes(self, until: float) -> bool:
        """Whether more can be read before a time of `time.monotonic`. A file never keeps one waiting."""
        return bool(self._peeked) or self._wait(1000 * max(0.0, until - time.monotonic()))

    def _wait(self, milliseconds: float | None = None) -> bool:
        """Whether more can be read before so long; without a limit it is waited for."""
        if not self.may_wait:
            return True
        poll = select.poll()  # not select.select, which knows only the first 1,024 open files
        poll.register(self.file, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of a line or of all, which are read again afterwards."""
        while len(self._peeked) < size and b"\n" not in self._peeked:
            data = self._read_file(size - len(self._peeked))
            if not data:
                break
            self._peeked += data
        return self._peeked

    def read(self, size: int | None = -1) -> bytes:
        """Fewer bytes than asked for where a pipe has no more yet, which gzip and pyarrow put up with."""
        return self.read1(-1 if size is None else size)

    def read1(self, size: int = -1) -> bytes:
        if size < 0:
            size = CHUNK
        data, self._peeked = self._peeked[:size], self._peeked[size:]
        if not data or self.comes(until=0):
            data += self._read_file(size - len(data))
        self.taken += len(data)
        self.digest.update(data)
        return data

    def _read_file(self, size: int) -> bytes:
        self._wait()  # another program may have made standard input one that does not wait
        return bytes(self.file.read1(size))

    def restart(self) -> None:
        self.file.seek(self._begin)
        self.taken = 0
        self.digest = hashlib.sha256()

    def can_restart(self) -> bool:
        return bool(self.file.seekable())

    def close(self) -> None:
        if self.file is not getattr(sys.stdin, "buffer", None):
            self.file.close()
        super().close()


def standard_input() -> BinaryIO:
    """Through a file of our own: the program could not end while a thread waits in that of `sys`."""
    if sys.stdin is None:
        raise InputError("<stdin>: standard input is closed; give it a pipe or a file, or name a file")
    try:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except (OSError, AttributeError):  # of a program that has put something else in its place
        return sys.stdin.buffer


def open_file(path: Path) -> BinaryIO:
    """Raises InputError, with the way out, where the file cannot be opened."""
    try:
        return path.open("rb")
    except OSError as fault:
        if os.path.exists(path):
            fix = "check its permissions"
        elif os.path.islink(path):
            fix = "mend or remove this link to nothing"
        else:
            fix = "put it back, it was there at the start"
        raise InputError(f"{path}: cannot be opened ({fault.strerror}); {fix}") from fault


def _may_wait(file: Any) -> bool:
    """Whether reading may have to wait for another program, and `select` can tell."""
    try:
        return os.name == "posix" and not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # not a file of the system
        return False
