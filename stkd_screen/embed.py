"""The main path: read records, pre-transform, encode, write one row for each, part by part."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stkd_screen.background import in_background
from stkd_screen.encoder import Encoder
from stkd_screen.errors import InputError, OutputError
from stkd_screen.files import file_sha256
from stkd_screen.output import OutputOptions, schema
from stkd_screen.parts.faults import faults_named, patiently
from stkd_screen.parts.manifest import Manifest, Part, column_types, describe_inputs, this_writer
from stkd_screen.parts.outputs import OutputFile, OutputFolder, output_at
from stkd_screen.parts.parquet import ParquetPart
from stkd_screen.parts.resume import begin
from stkd_screen.parts.stored import StoredRecords
from stkd_screen.records import RecordReader
from stkd_screen.windows import Ending, Window, by_part, encode, pass_over, tabulate

# Most rows of a part: some minutes of work, which is what a killed run loses at the worst.
PART_ROWS = {"cpu": 131_072, "cuda": 1_048_576}
# Threads that make rows of the output: a GPU would wait for one, and a CPU needs its cores to compute.
TABLE_THREADS = {"cpu": 1, "cuda": 4}
_STOPPED = "stopped before the end of the input"


@dataclass
class Summary:
    """What there is of an output, and what this run did for it."""

    records: int = 0
    resumed: int = 0  # of the records, those that were done before this run
    bad: Counter[str] = field(default_factory=Counter)  # kind of error -> rows
    warned: int = 0  # rows
    warnings: Counter[str] = field(default_factory=Counter)  # kind of warning -> rows; a row may have several
    seconds: float = 0.0  # of this run
    bytes_read: int = 0  # raw input bytes of the records done
    output_bytes: int = 0
    stopped: bool = False  # it was asked for
    complete: bool = False  # the output is whole
    input_fault: str | None = None  # what could not be read, if anything
    disk_faults: list[str] = field(default_factory=list)  # those that were waited for

    @property
    def good(self) -> int:
        return self.records - self.bad.total()

    @property
    def rate(self) -> float:
        """Molecules a second of this run."""
        return (self.records - self.resumed) / max(self.seconds, 1e-9)


def embed(
    reader: RecordReader,
    encoder: Encoder,
    output: str | Path,
    options: OutputOptions,
    *,
    limit: int | None = None,
    strict: bool = False,
    rows_per_part: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Write one Parquet row for every input record, in input order; go on where an earlier run stopped.

    Args:
        reader: the input.
        encoder: the model.
        output: a Parquet file, which appears when all is written; or a folder of numbered ones.
        options: checked against the encoder's weights.
        limit: most records to read.
        strict: stop at the first record that cannot be used.
        rows_per_part: most rows of a part; `PART_ROWS` by default.
        overwrite: replace a finished output.
        restart: throw away what an unfinished run left, instead of going on from it.
        should_stop: asked after each window, and where a pipe keeps one waiting; when it says so, what is
            encoded becomes a part and the run ends. Where an input is a pipe, which no run could go on
            reading, that part is the last one of a whole output, unless that would replace another one.
        report: called after each window, and while the records that are done are passed over.

    Raises:
        InputError: with `strict`, at the first bad record.
        OutputError: the output cannot be written; or it is there, and was made otherwise.

    Rows before an error are kept, and the same call goes on after them. Damaged inputs do not end the run:
    all rows that could be read are written, and `input_fault` of the summary says what happened.
    """
    rows_per_part = rows_per_part or PART_ROWS[encoder.device.type]
    plan = _plan(reader, encoder, options, limit, rows_per_part)
    run = _Run(
        output=output_at(output),
        plan=plan,
        overwrite=overwrite,
        restart=restart,
        reader=reader,
        encoder=encoder,
        options=options,
        limit=limit,
        strict=strict,
        rows_per_part=rows_per_part,
        should_stop=should_stop,
        report=report,
    )
    with faults_named(run.output), run.output.locked():
        if plan.can_be_read_again:
            patiently(run.go_on, lambda: run.parts_safe, run.wait, should_stop)
        else:
            run.go_on()
    return run.summary


def _plan(
    reader: RecordReader, encoder: Encoder, options: OutputOptions, limit: int | None, rows_per_part: int
) -> Manifest:
    """The manifest of a run that has not begun. What it names has to be the same for a run to go on."""
    weights = encoder.weights
    return Manifest(
        model=weights.name,
        model_sha256=weights.sha256,
        options={
            **asdict(options),
            "errors": weights.errors_sha256[:12] or None,
            "smiles_column": reader.smiles_column,
            "id_column": reader.id_column,
            "limit": limit,
            "device": encoder.device.type,
            "precision": encoder.precision,
            "window": reader.batch_size,
            "rows_per_part": rows_per_part,
        },
        inputs=describe_inputs(reader.files),
        columns=column_types(schema(weights, options)),
        writer=this_writer(),
    )


@dataclass
class _Run:
    output: OutputFile | OutputFolder
    plan: Manifest
    overwrite: bool
    restart: bool
    reader: RecordReader
    encoder: Encoder
    options: OutputOptions
    limit: int | None
    strict: bool
    rows_per_part: int
    should_stop: Callable[[], bool]
    report: Callable[[Summary], None]
    summary: Summary = field(default_factory=Summary)
    parts_safe: int = 0
    _started: float = 0.0

    def go_on(self) -> None:
        """From the start, or from the last whole part, to the end."""
        with faults_named(self.output):
            manifest = begin(self.output, self.plan, overwrite=self.overwrite, restart=self.restart)
            self.restart = False  # from here on the unfinished run is this one
            self._count_from(manifest)
            if self.strict and manifest.bad:
                anew = "--overwrite" if manifest.complete else "--restart"
                raise InputError(
                    f"{manifest.bad.total():,} of the {manifest.rows:,} rows that are done are bad "
                    f"({', '.join(manifest.bad)}); go on without --strict, or {anew} with it"
                )
            if not manifest.complete:
                self._embed(manifest)

    def wait(self, fault: OutputError, seconds: int) -> None:
        """Say that the disk failed and that the run goes on by itself."""
        self.summary.disk_faults.append(f"{fault}; trying that in {seconds} s")
        self.report(self.summary)

    def _embed(self, manifest: Manifest) -> None:
        ending = Ending()

        def no_more() -> bool:
            return ending.over or self.should_stop()

        reader = self.reader
        read = ((records, reader.bytes_read, reader.fault) for records in reader.batches(no_more))
        with closing(in_background(read, should_stop=no_more)) as batches:
            with closing(StoredRecords(self.output, manifest)) as stored:
                ending.input_fault = pass_over(
                    batches, manifest.rows, stored, self.limit, self.should_stop, self._passed
                )
            # What a pipe has given by then is encoded: it will not give it again.
            ending.stopped = self.should_stop() and manifest.can_be_read_again
            encoded = encode(
                batches,
                manifest.rows,
                self.encoder,
                self.options,
                limit=self.limit,
                should_stop=self.should_stop,
                ending=ending,
            )
            with closing(in_background(encoded)) as ahead:
                tables = tabulate(
                    ahead,
                    self.encoder.weights,
                    self.options,
                    threads=TABLE_THREADS[self.encoder.device.type],
                    strict=self.strict,
                    ending=ending,
                )
                with closing(tables) as windows:
                    for part in by_part(windows, self.rows_per_part, self.reader.batch_size):
                        manifest = manifest.with_part(self._write_part(manifest, part))
                        self.output.save(manifest)
                        self.parts_safe, self.summary.output_bytes = len(manifest.parts), manifest.size
        if ending.fault:
            raise ending.fault
        self.summary.stopped = ending.stopped
        if not ending.stopped:
            self._finish(manifest, ending.input_fault)
        elif manifest.parts and not manifest.can_be_read_again and not self.output.replaces:
            # No run will go on after these rows, and they take the place of no others.
            self._finish(manifest, "; ".join(filter(None, [_STOPPED, ending.input_fault])))

    def _write_part(self, manifest: Manifest, windows: Iterator[Window]) -> Part:
        bad, warnings, warned = Counter[str](), Counter[str](), 0
        columns = schema(self.encoder.weights, self.options)
        with self.output.part(manifest) as file, ParquetPart(file, columns) as part:
            for window in windows:
                part.write(window.table)
                bad += window.bad
                warnings += window.warnings
                warned += window.warned
                self._count(window)
            part.finish()
        path, start = self.output.place(manifest, len(manifest.parts))
        size = path.stat().st_size - start
        name = path.name if isinstance(self.output, OutputFolder) else None
        digest = file_sha256(path, start)
        return Part(part.rows, size, digest, dict(bad), warned, dict(warnings), name)

    def _finish(self, manifest: Manifest, input_fault: str | None) -> None:
        if not manifest.parts:  # nothing to embed: an output of no rows
            manifest = manifest.with_part(self._write_part(manifest, iter(())))
        manifest = manifest.completed(self.reader.hashes, input_fault)
        self.output.finish(manifest)
        self.summary.complete, self.summary.input_fault = True, input_fault
        self.summary.output_bytes = manifest.size

    def _count_from(self, manifest: Manifest) -> None:
        """Start the summary with what is done."""
        self.summary = Summary(
            records=manifest.rows,
            resumed=manifest.rows,
            bad=manifest.bad,
            warned=manifest.warned,
            warnings=manifest.warnings,
            output_bytes=manifest.size,
            complete=manifest.complete,
            input_fault=manifest.input_fault,
            disk_faults=self.summary.disk_faults,
        )
        self._started = time.perf_counter()

    def _passed(self, row: int, bytes_read: int) -> None:
        """Records that were done before are read again."""
        self.summary.bytes_read = bytes_read
        self._started = time.perf_counter()
        self.report(self.summary)

    def _count(self, window: Window) -> None:
        self.summary.records += len(window)
        self.summary.bad += window.bad
        self.summary.warned += window.warned
        self.summary.warnings += window.warnings
        self.summary.bytes_read = window.bytes_read
        self.summary.seconds = time.perf_counter() - self._started
        self.report(self.summary)
