"""The main path: read records, pre-transform, encode, write one row for each."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from stkd_screen.background import in_background
from stkd_screen.encoder import Encoder
from stkd_screen.errors import InputError
from stkd_screen.output import OutputOptions, schema
from stkd_screen.parquet import ParquetWriter
from stkd_screen.records import RecordReader, Records


@dataclass
class Summary:
    """What a run did."""

    records: int = 0
    bad: Counter[str] = field(default_factory=Counter)  # kind of error -> rows
    warned: int = 0
    seconds: float = 0.0
    bytes_read: int = 0  # raw input bytes of the records done
    output_bytes: int = 0
    input_fault: str | None = None  # what could not be read, if anything

    @property
    def good(self) -> int:
        return self.records - self.bad.total()


def embed(
    reader: RecordReader,
    encoder: Encoder,
    output: Path,
    options: OutputOptions,
    *,
    limit: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    report: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Write one Parquet row for every input record, in input order.

    Args:
        reader: the input.
        encoder: the model.
        output: the Parquet file; it appears when all is written.
        options: checked against the encoder's weights.
        limit: most records to read.
        strict: stop at the first record that cannot be used.
        overwrite: replace an output that is there already.
        report: called after each window.

    Raises:
        InputError: with `strict`, at the first bad record.
        OutputError: the output cannot be written.

    Damaged inputs do not end the run: all rows that could be read are written, and `input_fault` of the
    summary says what happened.
    """
    summary = Summary()
    started = time.perf_counter()
    with (
        ParquetWriter(output, schema(encoder.weights, options), overwrite=overwrite) as writer,
        closing(in_background(_encoded(reader, encoder, options, limit, summary))) as results,
    ):
        for records, table, reasons, summary.bytes_read in results:
            if strict:
                _stop_at_first_bad(records, table)
            writer.write(table)
            summary.records += len(table)
            summary.bad += reasons
            summary.warned += len(table) - table["warning"].null_count
            summary.seconds = time.perf_counter() - started
            report(summary)
    summary.seconds = time.perf_counter() - started
    summary.output_bytes = output.stat().st_size
    return summary


def _encoded(
    reader: RecordReader, encoder: Encoder, options: OutputOptions, limit: int | None, summary: Summary
) -> Iterator[tuple[Records, pa.Table, Counter[str], int]]:
    row = 0
    try:
        read = ((records, reader.bytes_read, reader.fault) for records in reader)
        with closing(in_background(read)) as batches:
            for records, bytes_read, fault_before in batches:
                if limit is not None:
                    records = records.head(limit - row)
                if len(records):
                    yield records, *encoder.table(records, options, first_row=row), bytes_read
                row += len(records)
                if row == limit:
                    summary.input_fault = fault_before
                    return
    except InputError as fault:
        if row == 0:
            raise
        summary.input_fault = str(fault)


def _stop_at_first_bad(records: Records, table: pa.Table) -> None:
    bad = np.flatnonzero(table["error"].is_valid().to_numpy())
    if len(bad):
        i = int(bad[0])
        smiles = table["smiles"][i].as_py()
        raise InputError(
            f"{records.place(i)}: {table['error'][i].as_py()}: {smiles[:80]!r} "
            "(--strict stops at the first bad record; without it such rows are kept with their reason)"
        )
