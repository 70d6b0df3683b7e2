"""The .smi format: a SMILES, white space, the rest of the line as id. Split a block at a time by numpy."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stkd_screen.records.batch import BATCH_BYTES, Records, id_text, smiles_text
from stkd_screen.records.columns import SMILES_NAMES
from stkd_screen.records.streams import LONGEST_LINE, Damaged, TextStream, damaged, line_too_long

HEADERS = {name.encode() for name in SMILES_NAMES}
_BLOCK = 4 << 20  # bytes: about 80,000 records, so little is split anew for the batch that spans two blocks
_START = 1 << 16  # bytes in which the first record line mostly is
_NEWLINE, _HASH, _BAR = b"\n#|"
_BOM = b"\xef\xbb\xbf"
_BOM_AT_LINE = re.compile(rb"(?m)^(?:\xef\xbb\xbf)+")


@dataclass(frozen=True)
class Spans:
    """Where the records of a block of N lines stand. Positions are bytes from the start of the block."""

    line: np.ndarray  # (R,) index of the line among the block's lines
    start: np.ndarray  # (R,) SMILES
    end: np.ndarray  # (R,)
    id_start: np.ndarray  # (R,) id; equal to id_end where there is none
    id_end: np.ndarray  # (R,)
    line_start: np.ndarray  # (N + 1,) first byte of each line; the last one is the incomplete line's

    def __len__(self) -> int:
        return len(self.line)

    def __getitem__(self, rows: slice) -> "Spans":
        return Spans(
            self.line[rows],
            self.start[rows],
            self.end[rows],
            self.id_start[rows],
            self.id_end[rows],
            self.line_start,
        )


def read_smi(stream: TextStream, source: str, batch_size: int) -> Iterator[Records]:
    """Batches of `batch_size` records. Shorter are the last one, those of very long lines, and those of a
    pipe that pauses.

    A first line whose SMILES is a usual column name is a header. The same line further down, where files
    were put one behind another, is one too.

    Raises:
        InputError: the file is damaged, or an end was asked for while a pipe kept one waiting; the records on
            whole lines before that come first.
    """
    text, lines_before = b"", 0  # not handed out yet, and the lines before it
    raw_before: float = 0  # raw bytes before the text
    header: bytes | None = None  # its whole line, empty where there is none; None: no record line came yet
    torn = False  # the block before ended in CR: a LF at the start of this one belongs to it
    fault: Damaged | None = None
    ended = False
    while not ended:
        size = max(_BLOCK, len(text))  # doubling keeps a very long line linear
        try:
            block = stream.read_soon(size)
        except Damaged as damage:
            fault, block = damage, b""
        ended = (stream.ended and not block) or fault is not None
        pauses = len(block) < size and not stream.ended  # a pipe, or a file before what is damaged
        whole = ended or pauses or len(text) + len(block) >= BATCH_BYTES  # no batch is kept incomplete
        if block:  # of a pipe there may be none yet
            block, torn = block.removeprefix(b"\n") if torn else block, block.endswith(b"\r")
        text += _unix_newlines(block)
        if ended and not fault and text:
            text += b"\n"  # after a fault the last line is cut off: half a molecule is no record

        if _BOM in text:
            text = _BOM_AT_LINE.sub(b"", text)  # a file put behind another brings its mark along
        if header is None:
            header = _header(text)
        if header:
            text = _without(header, text)
        spans = find_records(text)
        rows = len(spans) if whole else len(spans) - len(spans) % batch_size
        raw = stream.taken - raw_before  # bytes behind this text
        for row in range(0, rows, batch_size):
            batch = spans[row : min(row + batch_size, rows)]
            stream.backlog = raw * (1 - spans.line_start[batch.line[-1] + 1] / len(text))
            yield _records(text, batch, source, lines_before)

        lines_done = spans.line[rows] if rows < len(spans) else len(spans.line_start) - 1
        rest = text[spans.line_start[lines_done] :]
        stream.backlog = raw * len(rest) / max(len(text), 1)
        raw_before = stream.taken - stream.backlog
        text = rest
        lines_before += int(lines_done)
        if len(text) > LONGEST_LINE:
            raise line_too_long(source, lines_before)
    if fault:
        raise damaged(source, lines_before, fault) from fault


def _header(text: bytes) -> bytes | None:
    """The first record line where it is a header, empty where it is not; None where there is none."""
    spans = find_records(text[:_START]) or find_records(text)
    if not len(spans):
        return None
    start, end = spans.line_start[spans.line[0] :][:2]
    return text[start : end - 1] if text[spans.start[0] : spans.end[0]].lower() in HEADERS else b""


def _without(header: bytes, text: bytes) -> bytes:
    """The text with nothing on the lines that are the header."""
    if text.startswith(header + b"\n"):
        text = text[len(header) :]
    line = b"\n" + header + b"\n"
    while line in text:  # again where two stand one behind the other
        text = text.replace(line, b"\n\n")
    return text


def find_records(text: bytes) -> Spans:
    """Find the records on the whole lines of a block whose line ends are all LF."""
    data = np.frombuffer(text, np.uint8)[: text.rfind(b"\n") + 1]
    space = data == 32
    space |= data - np.uint8(9) < 5  # \t \n \v \f \r; smaller bytes wrap round to large numbers
    stop = np.flatnonzero(space)  # (S,) the one pass over all bytes that costs; the rest looks at these only

    # Words: the runs between stops. Lines end in a stop, so a word starts and ends within its line.
    before = np.concatenate([[-1], stop])[:-1]  # (S,) the stop before each
    ends_word = stop - before > 1
    word_start, word_end = before[ends_word] + 1, stop[ends_word]  # (W,) each
    newline = np.flatnonzero(data[stop] == _NEWLINE)  # (N,) among the stops
    line_start = np.concatenate([[0], stop[newline] + 1])  # (N + 1,)
    first_word = np.concatenate([[0], np.cumsum(ends_word)[newline]])  # (N + 1,) index of a line's first word
    words = np.diff(first_word)  # (N,)

    line = np.flatnonzero(words)
    line = line[data[word_start[first_word[line]]] != _HASH]
    first, last = first_word[line], first_word[line + 1] - 1
    second = np.minimum(first + 1, last)
    id_start = np.where(last > first, word_start[second], word_end[first])
    spans = Spans(line, word_start[first], word_end[first], id_start, word_end[last], line_start)
    has_tail = (last > first) & (data[word_start[second]] == _BAR)
    return _skip_cxsmiles(data, spans, has_tail, word_start) if has_tail.any() else spans


def _skip_cxsmiles(data: np.ndarray, spans: Spans, has_tail: np.ndarray, word_start: np.ndarray) -> Spans:
    """Let ids start after the `|...|` of extended SMILES; a `|` that is never closed belongs to the id."""
    bars = np.append(np.flatnonzero(data == _BAR), len(data))
    closing = bars[np.searchsorted(bars, spans.id_start[has_tail], side="right")]
    tail_end = np.where(closing < spans.id_end[has_tail], closing + 1, spans.id_start[has_tail])
    next_word = np.append(word_start, len(data))[np.searchsorted(word_start, tail_end)]
    space_follows = data[tail_end] <= 32  # in range: a line end follows at the least
    id_start = spans.id_start.copy()
    id_start[has_tail] = np.minimum(np.where(space_follows, next_word, tail_end), spans.id_end[has_tail])
    return Spans(spans.line, spans.start, spans.end, id_start, spans.id_end, spans.line_start)


def _records(text: bytes, spans: Spans, source: str, lines_before: int) -> Records:
    # The block itself is the data of an Arrow array whose elements are SMILES, gap, id, gap, and so on.
    # Taking every fourth one copies SMILES (or ids) together without a Python object for any of them.
    offsets = np.stack([spans.start, spans.end, spans.id_start, spans.id_end], axis=1)  # (R, 4) int64
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    pieces = pa.Array.from_buffers(pa.large_binary(), offsets.size - 1, buffers)
    index = np.arange(0, offsets.size, 4)
    smiles, errors = smiles_text(pieces.take(pa.array(index)))
    missing = spans.id_start == spans.id_end
    ids, letters_lost = id_text(pieces.take(pa.array(index + 2, mask=missing if missing.any() else None)))
    lines = lines_before + spans.line + 1
    return Records(smiles, ids, errors, source, lines, letters_lost=letters_lost)


def _unix_newlines(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
