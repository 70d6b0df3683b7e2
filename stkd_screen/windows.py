"""From records to results, a window of records at a time."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stkd_screen.background import by_threads
from stkd_screen.encoder import Encoder, molecules_of
from stkd_screen.errors import InputError
from stkd_screen.output import Encoded, OutputOptions, result_table
from stkd_screen.parts.stored import StoredRecords
from stkd_screen.records import Records
from stkd_screen.smiles import Molecules
from stkd_screen.weights import Weights

# Records, raw input bytes read up to their end, and what is wrong with the inputs before it.
Batches = Iterator[tuple[Records, int, str | None]]


@dataclass(frozen=True)
class EncodedWindow:
    """Consecutive records with what the student says of them."""

    records: Records
    molecules: Molecules
    encoded: Encoded
    first_row: int  # number of the first record in the whole input
    bytes_read: int  # raw input bytes up to its end


@dataclass(frozen=True)
class Window:
    """Consecutive records with their output rows."""

    table: pa.Table
    bad: Counter[str]  # kind of error -> rows
    warnings: Counter[str]  # kind of warning -> rows; a row may have several
    bytes_read: int  # raw input bytes up to its end

    def __len__(self) -> int:
        return len(self.table)

    @property
    def warned(self) -> int:
        return len(self.table) - int(self.table["warning"].null_count)


@dataclass
class Ending:
    """Why the windows of a run came to an end, if not because the input did."""

    over: bool = False  # whatever the reason: nothing more is taken
    stopped: bool = False  # it was asked for
    input_fault: str | None = None  # what is wrong with the inputs up to there, if anything
    fault: Exception | None = None  # to be raised once the rows before it are safe


def pass_over(
    batches: Batches,
    done: int,
    stored: StoredRecords,
    limit: int | None,
    should_stop: Callable[[], bool],
    report: Callable[[int, int], None],
) -> str | None:
    """Take the batches of the records that are done, and see that they are the ones that are stored.

    Args:
        batches: from the first record on.
        done: records that are done.
        stored: what they were.
        limit: most records of the whole input.
        should_stop: asked after each batch.
        report: called with the records passed and the raw bytes read.

    Returns:
        What is wrong with the inputs before the end of those records.

    Raises:
        InputError: they are others, or are not as many.
    """
    row, fault_before = 0, None
    while row < done and not should_stop():
        records, bytes_read, fault_before = next(batches, (None, 0, None))
        if records is None and should_stop():
            break
        if records is None:
            raise InputError(f"the input ends after {row:,} records, but {done:,} are done; {_CHANGED}")
        rest = records.head(done - row)
        if len(rest) < len(records) and done != limit:  # a part ends where a window does
            raise InputError(f"the input goes on where it ended before, after {done:,} records; {_CHANGED}")
        if (i := stored.first_difference(rest)) is not None:
            raise InputError(
                f"{records.place(i)} is not the record that was embedded as row {row + i}; {_CHANGED}"
            )
        row += len(rest)
        report(row, bytes_read)
    return fault_before


_CHANGED = "the input was changed since: give the one it was, another -o, or --restart to begin anew"


def encode(
    batches: Batches,
    row: int,
    encoder: Encoder,
    options: OutputOptions,
    *,
    limit: int | None,
    should_stop: Callable[[], bool],
    ending: Ending,
) -> Iterator[EncodedWindow]:
    """A window for each batch.

    Args:
        batches: from record `row` on.
        row: number of the first record in the whole input.
        encoder: the model.
        options: checked against its weights.
        limit: most records of the whole input.
        should_stop: asked after each window, and where there are no more records.
        ending: filled in; its input fault is at first that of the records before `row`.

    Raises:
        InputError: nothing can be read.
        StkdError: the model or the device fails.
    """
    taken: deque[tuple[Records, int, int, str | None]] = deque()  # those that are being encoded

    def molecules() -> Iterator[Molecules]:
        nonlocal row
        while row != limit:
            records, bytes_read, fault_before = next(batches, (None, 0, None))
            if records is None:
                return
            if limit is not None:
                records = records.head(limit - row)
            taken.append((records, row, bytes_read, fault_before))
            row += len(records)
            yield molecules_of(records, options)

    if ending.stopped:
        return
    try:
        with closing(encoder.encode_windows(molecules())) as encoded_windows:
            for of_window, encoded in encoded_windows:
                records, first_row, bytes_read, ending.input_fault = taken.popleft()
                yield EncodedWindow(records, of_window, encoded, first_row, bytes_read)
                ending.stopped = should_stop()
                if ending.stopped:
                    return
        ending.stopped = should_stop() and row != limit
    except InputError as fault:  # of the reader, behind all that it could read
        ending.stopped = should_stop()
        if not row and not ending.stopped:
            raise
        ending.input_fault = str(fault)


def tabulate(
    windows: Iterator[EncodedWindow],
    weights: Weights,
    options: OutputOptions,
    *,
    threads: int,
    strict: bool,
    ending: Ending,
) -> Generator[Window]:
    """The output rows of each window. It never raises: `ending` says what happened.

    Args:
        windows: as `encode` gives them; what it raises ends them like a fault here.
        weights: what they were encoded with.
        options: checked against the weights.
        threads: that make the rows of several windows at once.
        strict: end before the first window that has a bad record in it.
        ending: filled in.
    """

    def rows(window: EncodedWindow) -> tuple[EncodedWindow, pa.Table, Counter[str], Counter[str]]:
        of_window = window.records, window.molecules, window.encoded
        return window, *result_table(*of_window, weights, options, window.first_row)

    with closing(by_threads(rows, windows, threads, ahead=threads)) as tables:
        try:
            for window, table, bad, warnings in tables:
                if strict and bad:
                    ending.fault = _first_bad(window.records, table)
                    return
                yield Window(table, bad, warnings, window.bytes_read)
        except Exception as fault:
            ending.fault = fault
        finally:
            ending.over = True  # before the threads are waited for: they may wait for a pipe


def by_part(windows: Iterator[Window], rows: int, window_rows: int) -> Iterator[Iterator[Window]]:
    """The windows of one part after the other.

    Args:
        windows: all of them; the windows of a part have to be taken before the next part is asked for.
        rows: most rows of a part, but for a window that is larger.
        window_rows: most rows of a window. A part ends where one more might not fit, without waiting for it.
    """

    def part(window: Window | None) -> Iterator[Window]:
        taken = 0
        while window is not None:
            yield window
            taken += len(window)
            window = next(windows, None) if taken + window_rows <= rows else None

    for first in windows:
        yield part(first)


def _first_bad(records: Records, table: pa.Table) -> InputError:
    i = int(np.argmax(table["error"].is_valid().to_numpy()))
    smiles = table["smiles"][i].as_py()
    return InputError(
        f"{records.place(i)}: {table['error'][i].as_py()}: {smiles[:80]!r} "
        "(--strict stops at the first bad record; without it such rows are kept with their reason)"
    )
