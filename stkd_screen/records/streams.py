"""Text inputs: progress in raw bytes, patience with pipes, and damage reported after the last good byte."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stkd_screen.errors import InputError
from stkd_screen.records.decompression import COMPRESSIONS, FAULTS, MAGIC, decompressed
from stkd_screen.records.raw import CHUNK, RawBytes, open_file, standard_input

LONGEST_LINE = 1 << 26  # bytes: a line beyond this is no record, and would fill the memory
_START = 16  # bytes that tell a compression
_PAUSE = 1.0  # seconds that what a pipe has given waits for more
_GRACE = 0.2  # seconds within which a signal to several programs has come to all of them
# What is often found instead of molecules: how its text begins, what it is, and what to do.
_FOREIGN = (
    (re.compile(rb"\xff\xfe|\xfe\xff|(?:[^\0]\0){4}|(?:\0[^\0]){4}"), "UTF-16 text", "save it as UTF-8"),
    (re.compile(rb"PK\x03\x04"), "a zip archive or a spreadsheet", "unpack it, or save it as .csv"),
    (re.compile(rb"PAR1"), "a Parquet file", "rename it to .parquet"),
    (re.compile(rb"(?s).{257}ustar"), "a tar archive", "unpack it"),
    (re.compile(rb"(?i)\s*<(?:!doctype\s+)?html"), "a web page", "download the file anew"),
    *((magic, "compressed twice", "decompress it once") for magic in MAGIC.values()),
)
AGAIN = "copy or download it again"


class Damaged(Exception):
    """The input cannot be read any further. Everything before the fault has been handed over."""

    def __init__(self, reason: str, fix: str = AGAIN, *, altered: bool = False):
        super().__init__(reason)
        self.fix = fix
        self.altered = altered  # whether what was handed over may be wrong, as before a wrong checksum


class Stopped(Damaged):
    """An end was asked for while a pipe kept one waiting, or just before it ended.

    Nothing is wrong with its whole lines. Ctrl-C in a terminal goes to all programs of a pipeline, so the
    last line may be half of one.
    """

    def __init__(self) -> None:
        super().__init__("stopped")


def damaged(source: str, line: int, fault: Damaged) -> InputError:
    """The error that says how far a damaged input could be read."""
    if isinstance(fault, Stopped):
        return InputError(f"{source}: stopped after line {line}")
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

    def __init__(self, raw: Any, decompressed: Any, source: str, should_stop: Callable[[], bool] | None):
        self._raw = raw
        self._decompressed = decompressed
        self._source = source
        self._should_stop = should_stop
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
            data: bytes = self._decompressed.read1(min(size, CHUNK) if size > 0 else CHUNK)
            if self.delivered == 0:
                _refuse_foreign(data)
            if not data and not self.ended and self._was_stopped():
                raise Stopped
        except Damaged as fault:
            self._fault = fault
            raise
        except FAULTS as fault:
            compressed = self._decompressed is not self._raw
            self._fault = Stopped() if self._was_stopped() else _described(fault, compressed)
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
        """As `read`, but of a pipe what it gives within a second, which may be nothing: see `ended`.

        Raises:
            Damaged: see the class. `Stopped` where a pipe gives nothing and an end was asked for.
        """
        if self._fault:
            raise self._fault
        given = self._gather(size, until=time.monotonic() + _PAUSE)
        if not given and not self.ended and self._should_stop and self._should_stop():
            self._fault = Stopped()
            raise self._fault
        return given

    def _was_stopped(self) -> bool:
        """Whether a pipe that ended was, as it seems, ended by what asked this program for an end, too."""
        if not (self._should_stop and self._raw.may_wait):
            return False
        time.sleep(_GRACE)
        return self._should_stop()

    def _gather(self, size: int, until: float | None = None) -> bytes:
        chunks: list[bytes] = []

        def comes() -> bool:
            holds_more = getattr(self._decompressed, "holds_more", False)
            return until is None or holds_more or self._raw.comes(until)

        try:
            while size > 0 and comes() and (chunk := self.read1(size)):
                chunks.append(chunk)
                size -= len(chunk)
        except Damaged:
            if not chunks:
                raise  # else what came before the fault is handed over first; the next read raises again
        return b"".join(chunks)

    def close(self) -> None:
        self._raw.close()
        super().close()


def open_text(path: Path, should_stop: Callable[[], bool] | None = None) -> TextStream:
    """Open a text input for reading; `-` is standard input.

    It is decompressed by its content. An extension that promises a compression has to keep it.

    Args:
        should_stop: asked where a pipe keeps one waiting or ends: whether an end was asked for.

    Raises:
        InputError: it cannot be opened, or is not compressed as its extension says.
    """
    raw = RawBytes(standard_input() if str(path) == "-" else open_file(path))
    try:
        start = raw.peek(_START)
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror})") from fault
    found = next((name for name, magic in MAGIC.items() if magic.match(start)), None)
    promised = path.suffix.lower()
    if found is None and promised in COMPRESSIONS:
        raw.close()
        if not start:
            raise InputError(f"{path}: empty, not even the start of {promised} data; {AGAIN}")
        raise InputError(
            f"{path}: no {promised} data in it; if it is plain text, rename it to {path.stem}, else {AGAIN}"
        )
    return TextStream(raw, decompressed(raw, found), str(path), should_stop)


def _refuse_foreign(start: bytes) -> None:
    for pattern, what, fix in _FOREIGN:
        if pattern.match(start):
            raise Damaged(what, fix)


def _described(fault: BaseException, compressed: bool) -> Damaged:
    if isinstance(fault, EOFError) or "Truncated" in str(fault):
        return Damaged("compressed data ended early")
    return Damaged(str(fault) or type(fault).__name__, altered=compressed)
