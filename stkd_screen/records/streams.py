"""Opening text inputs: decompression, progress in raw bytes, and damage reported after the last good byte."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import select
import stat
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from stkd_screen.errors import InputError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
LONGEST_LINE = 1 << 26  # bytes: a line beyond this is no record, and would fill the memory
_CHUNK = 1 << 18  # most bytes a read: decompressors allot what is asked for and mostly fill a part
_XZ_MEMORY = 1 << 30  # bytes: 16 times what xz -9 needs, a quarter of what a file can ask for
_START = 16  # bytes that tell a compression
_PAUSE = 1.0  # seconds that what a pipe has given waits for more
# How compressed data begins. No text of molecules does.
_MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b\x08"),
    ".bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    ".xz": re.compile(rb"\xfd7zXZ\0"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
# What is often found instead of molecules: how its text begins, what it is, and what to do.
_FOREIGN = (
    (re.compile(rb"\xff\xfe|\xfe\xff|(?:[^\0]\0){4}|(?:\0[^\0]){4}"), "UTF-16 text", "save it as UTF-8"),
    (re.compile(rb"PK\x03\x04"), "a zip archive or a spreadsheet", "unpack it, or save it as .csv"),
    (re.compile(rb"PAR1"), "a Parquet file", "rename it to .parquet"),
    (re.compile(rb"(?s).{257}ustar"), "a tar archive", "unpack it"),
    (re.compile(rb"(?i)\s*<(?:!doctype\s+)?html"), "a web page", "download the file anew"),
    *((magic, "compressed twice", "decompress it once") for magic in _MAGIC.values()),
)
AGAIN = "copy or download it again"
# EOFError: cut off; the others: the decompressors' own words for corrupt data (gzip's and bz2's are OSError).
_FAULTS = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)


class Damaged(Exception):
    """The input cannot be read any further. Everything before the fault has been handed over."""

    def __init__(self, reason: str, fix: str = AGAIN, *, altered: bool = False):
        super().__init__(reason)
        self.fix = fix
        self.altered = altered  # whether what was handed over may be wrong, as before a wrong checksum


def damaged(source: str, line: int, fault: Damaged) -> InputError:
    """The error that says how far a damaged input could be read."""
    if line == 0:
        return InputError(f"{source}: cannot be read: {fault}; {fault.fix}")
    altered = ", but some may be altered" if fault.altered else ""
    return InputError(
        f"{source}: damaged after line {line} ({fault}); the rows before it were read{altered}; {fault.fix}"
    )


def line_too_long(source: str, lines_before: int) -> InputError:
    return InputError(
        f"{source} line {lines_before + 1}: over {LONGEST_LINE >> 20} MB without a line end; the rows "
        f"before it were read; {AGAIN}"
    )


class TextStream(io.BufferedIOBase):
    """Decompressed bytes of one input.

    Every byte before a fault is delivered first; from then on each read raises `Damaged`.
    """

    def __init__(self, raw: Any, decompressed: Any, source: str):
        self._raw = raw
        self._decompressed = decompressed
        self._source = source
        self._fault: Damaged | None = None
        self.delivered = 0  # decompressed bytes
        self.ended = False  # all is delivered
        self.backlog = 0.0  # raw bytes that were taken but whose records were not handed out yet, estimated

    @property
    def taken(self) -> int:
        """Raw (compressed) bytes taken from the input so far."""
        return self._raw.taken

    @property
    def sha256(self) -> str:
        """Of the raw bytes taken so far."""
        return str(self._raw.digest.hexdigest())

    @property
    def position(self) -> int:
        """Raw (compressed) bytes of the records handed out so far, estimated."""
        return self._raw.taken - int(self.backlog)

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        if self._fault:
            raise self._fault
        try:
            # read1, not read: read would throw away what it had gathered when a later part is damaged.
            data: bytes = self._decompressed.read1(min(size, _CHUNK) if size > 0 else _CHUNK)
            if self.delivered == 0:
                _refuse_foreign(data)
        except Damaged as fault:
            self._fault = fault
            raise
        except _FAULTS as fault:
            self._fault = _described(fault, self._decompressed is not self._raw)
            raise self._fault from fault
        self.delivered += len(data)
        self.ended = not data
        return data

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only where the input ends or is damaged; `b""` at the end.

        Raises:
            InputError: all was asked for, and the input is damaged.
        """
        if size is not None and size >= 0:
            return self._gather(size)
        try:
            return b"".join(iter(self.read1, b""))
        except Damaged as fault:
            raise InputError(f"{self._source}: damaged ({fault}); {fault.fix}") from fault

    def read_soon(self, size: int) -> bytes:
        """As `read`, but of a pipe what it gives within a second, which may be nothing: see `ended`."""
        if self._fault:
            raise self._fault
        return self._gather(size, until=time.monotonic() + _PAUSE)

    def _gather(self, size: int, until: float | None = None) -> bytes:
        chunks: list[bytes] = []
        try:
            while size > 0 and (until is None or self._raw.comes(until)) and (chunk := self.read1(size)):
                chunks.append(chunk)
                size -= len(chunk)
        except Damaged:
            if not chunks:
                raise  # else what came before the fault is handed over first; the next read raises again
        return b"".join(chunks)

    def close(self) -> None:
        self._raw.close()
        super().close()


def open_text(path: Path) -> TextStream:
    """Open a text input for reading; `-` is standard input.

    It is decompressed by its content. An extension that promises a compression has to keep it.

    Raises:
        InputError: it cannot be opened, or is not compressed as its extension says.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise InputError("<stdin>: standard input is closed; give it a pipe or a file, or name a file")
        raw = _Counted(_standard_input())
    else:
        raw = _Counted(open_file(path))
    try:
        start = raw.peek(_START)
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror})") from fault
    found = next((name for name, magic in _MAGIC.items() if magic.match(start)), None)
    promised = path.suffix.lower()
    if found is None and promised in COMPRESSIONS:
        raw.close()
        if not start:
            raise InputError(f"{path}: empty, not even the start of {promised} data; {AGAIN}")
        raise InputError(
            f"{path}: no {promised} data in it; if it is plain text, rename it to {path.stem}, else {AGAIN}"
        )
    opened: Any = raw
    if found == ".gz":
        opened = gzip.GzipFile(fileobj=raw)
    elif found == ".bz2":
        opened = _Members(raw, bz2.BZ2Decompressor)
    elif found == ".xz":
        opened = _Members(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    elif found == ".zst":
        opened = _Zstd(raw)
    return TextStream(raw, opened, str(path))


def _standard_input() -> BinaryIO:
    """Through a file of our own: the program could not end while a thread waits in that of `sys`."""
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


def _is_pipe(file: Any) -> bool:
    """Whether reading may have to wait for another program, and `select` can tell."""
    try:
        return os.name == "posix" and not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # not a file of the system
        return False


class _Counted(io.BufferedIOBase):
    """A binary file that counts and hashes what is taken from it. Closing it leaves standard input open."""

    def __init__(self, file: Any):
        self.file = file
        self.taken = 0
        self._peeked = b""
        self._is_pipe = _is_pipe(file)
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def comes(self, until: float) -> bool:
        """Whether more can be read before a time of `time.monotonic`. A file never keeps one waiting."""
        if self._peeked or not self._is_pipe:
            return True
        waiting = select.poll()  # not select.select, which knows only the first 1,024 open files
        waiting.register(self.file, select.POLLIN)
        return bool(waiting.poll(1000 * max(0.0, until - time.monotonic())))

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, which are read again afterwards."""
        while len(self._peeked) < size and (data := self.file.read1(size - len(self._peeked))):
            self._peeked += data
        return self._peeked

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = sys.maxsize
        data = self._take(size)
        if len(data) < size:
            data += self.file.read(size - len(data) if size < sys.maxsize else -1)
        self.taken += len(data)
        self.digest.update(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        data = self._take(size if size >= 0 else sys.maxsize) or self.file.read1(size)
        self.taken += len(data)
        self.digest.update(data)
        return data

    def _take(self, size: int) -> bytes:
        data, self._peeked = self._peeked[:size], self._peeked[size:]
        return data

    def restart(self) -> None:
        self.file.seek(0)
        self.taken = 0
        self.digest = hashlib.sha256()

    def can_restart(self) -> bool:
        return bool(self.file.seekable())

    def close(self) -> None:
        if self.file is not getattr(sys.stdin, "buffer", None):
            self.file.close()
        super().close()


class _Members:
    """Decompressed bytes of .bz2 or .xz data, one member after another.

    Python's own readers take whatever follows the first member and is damaged for nothing at all.
    """

    def __init__(self, raw: _Counted, decompressor: Callable[[], Any]):
        self._raw = raw
        self._decompressor = decompressor
        self._member = decompressor()

    def read1(self, size: int) -> bytes:
        data = b""
        while not data:
            if self._member.eof and not self._next_member():
                break
            given = b""
            if self._member.needs_input and not (given := self._raw.read1(io.DEFAULT_BUFFER_SIZE)):
                raise EOFError
            data = self._member.decompress(given, size)
        return data

    def _next_member(self) -> bool:
        """Go on to the member that follows, if one does; zeros may pad the end."""
        rest = self._member.unused_data.lstrip(b"\0")
        while not rest and (given := self._raw.read1(io.DEFAULT_BUFFER_SIZE)):
            rest = given.lstrip(b"\0")
        if rest:
            self._member = self._decompressor()
            self._member.decompress(rest, 0)  # takes it in, gives nothing yet
        return bool(rest)


class _Zstd:
    """pyarrow's zstd reader, made to deliver every byte before a fault.

    pyarrow drops what it has decompressed in the call that meets the fault. So the file is then read again up
    to that call, and from there byte by byte: slow, but for one chunk at most.
    """

    def __init__(self, raw: _Counted):
        self._raw = raw
        self._delivered = 0
        self._most = 1 << 16
        self._stream = self._open()

    def _open(self) -> Any:
        return pa.CompressedInputStream(pa.PythonFile(self._raw, mode="r"), "zstd")

    def read1(self, size: int) -> bytes:
        try:
            data = self._stream.read(min(size, self._most))
        except _FAULTS:
            if self._most == 1 or not self._raw.can_restart():
                raise
            self._replay()
            data = self._stream.read(1)
        self._delivered += len(data)
        return data

    def _replay(self) -> None:
        self._failed = self._stream  # kept, for its end would close the file
        self._raw.restart()
        self._stream = self._open()
        self._most = 1
        left = self._delivered
        while left:
            left -= len(self._stream.read(min(left, _CHUNK)))


def _refuse_foreign(start: bytes) -> None:
    for pattern, what, fix in _FOREIGN:
        if pattern.match(start):
            raise Damaged(what, fix)


def _described(fault: BaseException, compressed: bool) -> Damaged:
    if isinstance(fault, EOFError) or "Truncated" in str(fault):
        return Damaged("compressed data ended early")
    return Damaged(str(fault) or type(fault).__name__, altered=compressed)
