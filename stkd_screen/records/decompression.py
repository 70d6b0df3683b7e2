"""Decompression that delivers every byte before a fault."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from stkd_screen.records.raw import CHUNK, RawBytes

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# How compressed data begins. No text of molecules does.
MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b\x08"),
    ".bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    ".xz": re.compile(rb"\xfd7zXZ\0"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
# EOFError: cut off; the others: the decompressors' own words for corrupt data (gzip's and bz2's are OSError).
FAULTS = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)
_XZ_MEMORY = 1 << 30  # bytes: 16 times what xz -9 needs, a quarter of what a file can ask for


def decompressed(raw: RawBytes, compression: str | None) -> Any:
    """What to call `read1` of for the bytes of `raw`: compressed as one of `MAGIC`, or not at all.

    Its `holds_more`, where it has one, says whether it can give more without taking any of `raw`.
    """
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".bz2":
        return _Members(raw, bz2.BZ2Decompressor)
    if compression == ".xz":
        return _Members(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    if compression == ".zst":
        return _Zstd(raw)
    return raw


class _Members:
    """Decompressed bytes of .bz2 or .xz data, one member after another.

    Python's own readers take whatever follows the first member and is damaged for nothing at all.
    """

    def __init__(self, raw: RawBytes, decompressor: Callable[[], Any]):
        self._raw = raw
        self._decompressor = decompressor
        self._member = decompressor()

    @property
    def holds_more(self) -> bool:
        return bool(self._member.unused_data) if self._member.eof else not self._member.needs_input

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

    def __init__(self, raw: RawBytes):
        self._raw = raw
        self.holds_more = False
        self._delivered = 0
        self._most = 1 << 16
        self._stream = self._open()

    def _open(self) -> Any:
        return pa.CompressedInputStream(pa.PythonFile(self._raw, mode="r"), "zstd")

    def read1(self, size: int) -> bytes:
        try:
            data = self._stream.read(min(size, self._most))
        except FAULTS:
            if self._most == 1 or not self._raw.can_restart():
                raise
            self._replay()
            data = self._stream.read(1)
        self.holds_more = len(data) == self._most
        self._delivered += len(data)
        return data

    def _replay(self) -> None:
        self._failed = self._stream  # kept, for its end would close the file
        self._raw.restart()
        self._stream = self._open()
        self._most = 1
        left = self._delivered
        while left:
            left -= len(self._stream.read(min(left, CHUNK)))
