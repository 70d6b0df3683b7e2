"""Opening text inputs: decompression, progress in raw bytes, and damage reported after the last good byte."""

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from stkd_screen.errors import InputError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_CHUNK = 1 << 18  # most bytes a read: decompressors allot what is asked for and mostly fill a part
# EOFError: cut off; the others: the decompressors' own words for corrupt data (gzip's and bz2's are OSError).
_FAULTS = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)


class Damaged(Exception):
    """The input cannot be read any further. Everything before the fault has been handed over."""


def damaged(source: str, line: int, fault: Damaged, unit: str = "line") -> InputError:
    """The error that says how far a damaged input could be read."""
    if line == 0:
        return InputError(f"{source}: cannot be read ({fault}); is the file what its extension says?")
    return InputError(f"{source}: damaged after {unit} {line} ({fault}); the rows before it were read")


class TextStream(io.BufferedIOBase):
    """Decompressed bytes of one input.

    Every byte before a fault is delivered first; from then on each read raises `Damaged`.
    """

    def __init__(self, raw: Any, decompressed: Any):
        self._raw = raw
        self._decompressed = decompressed
        self._fault: Damaged | None = None
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
            return self._decompressed.read1(min(size, _CHUNK) if size > 0 else _CHUNK)
        except _FAULTS as fault:
            self._fault = Damaged(_reason(fault))
            raise self._fault from fault

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only where the input ends or is damaged; `b""` at the end."""
        left = sys.maxsize if size is None or size < 0 else size
        chunks: list[bytes] = []
        try:
            while left > 0 and (chunk := self.read1(left)):
                chunks.append(chunk)
                left -= len(chunk)
        except Damaged:
            if not chunks:
                raise  # else what came before the fault is handed over first; the next read raises again
        return b"".join(chunks)

    def close(self) -> None:
        self._raw.close()
        super().close()


def open_text(path: Path) -> TextStream:
    """Open a text input for reading, decompressed by its extension; `-` is standard input.

    Raises:
        InputError: it cannot be opened.
    """
    if str(path) == "-":
        stdin = _Counted(sys.stdin.buffer)
        return TextStream(stdin, stdin)
    try:
        raw = _Counted(path.open("rb"))
        empty = path.stat().st_size == 0
    except OSError as fault:
        raise InputError(f"{path}: cannot be opened ({fault.strerror}); check its permissions") from fault
    compression = path.suffix.lower()
    if empty or compression not in COMPRESSIONS:  # an empty file is no compressed file, but no error either
        return TextStream(raw, raw)
    opened: Any
    if compression == ".gz":
        opened = gzip.GzipFile(fileobj=raw)
    elif compression == ".bz2":
        opened = bz2.BZ2File(raw)
    elif compression == ".xz":
        opened = lzma.LZMAFile(cast(BinaryIO, raw))  # noqa: SIM115
    else:
        opened = _Zstd(raw)
    return TextStream(raw, opened)


class _Counted(io.BufferedIOBase):
    """A binary file that counts and hashes what is taken from it. Closing it leaves standard input open."""

    def __init__(self, file: Any):
        self.file = file
        self.taken = 0
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        data = self.file.read(size)
        self.taken += len(data)
        self.digest.update(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        data = self.file.read1(size)
        self.taken += len(data)
        self.digest.update(data)
        return data

    def restart(self) -> None:
        self.file.seek(0)
        self.taken = 0
        self.digest = hashlib.sha256()

    def close(self) -> None:
        if self.file is not getattr(sys.stdin, "buffer", None):
            self.file.close()
        super().close()


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
            if self._most == 1:
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


def _reason(fault: BaseException) -> str:
    if isinstance(fault, EOFError) or "Truncated" in str(fault):
        return "compressed data ended early"
    return str(fault) or type(fault).__name__
