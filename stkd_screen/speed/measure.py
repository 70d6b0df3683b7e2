"""The measurement itself: a library through `embed`, and through each of its stages alone."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stkd_screen.embed import embed
from stkd_screen.encoder import Encoder, load, molecules_of
from stkd_screen.errors import InputError, OutputError
from stkd_screen.output import OutputOptions, result_table, schema
from stkd_screen.parts.manifest import describe_inputs
from stkd_screen.parts.parquet import ParquetPart
from stkd_screen.precision import DTYPES
from stkd_screen.records import RecordReader, Records
from stkd_screen.speed.machine import machine, peak_gpu_memory_mb, peak_memory_mb, versions
from stkd_screen.speed.result import Speed, Stage
from stkd_screen.student import Student
from stkd_screen.weights import DEFAULT_MODEL

STAGES = ("read", "pre-transform", "batch", "transfer", "forward", "return", "write")
# Side of a square matrix product that keeps the device busy.
MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
# Where nobody says how many molecules: seconds for all repeats, and most molecules (of a GPU four windows).
BUDGET = 60.0
MOST_MOLECULES = {"cpu": 65_536, "cuda": 524_288}
PILOT_MOLECULES, PILOT_SECONDS = 64, 1.0


def measure(
    library: Sequence[str | Path],
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    *,
    molecules: int | None = None,
    batch_tokens: int | None = None,
    precision: str = "auto",
    repeats: int = 3,
    report: Callable[[str], None] = lambda what: None,
) -> Speed:
    """Take the first molecules of a library through `embed`, and then through its stages one by one.

    Args:
        library: inputs of `embed` that can be read more than once.
        model: shipped name or weights folder.
        device: auto, cpu, cuda or cuda:N.
        molecules: how many; by default as many as about a minute is enough for.
        batch_tokens: most tokens in one forward pass; by default what suits the device.
        precision: auto, float32, bfloat16 or int8.
        repeats: of each measurement.
        report: told what comes next.

    Raises:
        InputError: the library cannot be read, or has no molecule.
        OutputError: there is no place for temporary files.
        StkdError: the model or the device fails.
    """
    report("loading; the first run after an installation compiles the SMILES parser (40 s)")
    startup: dict[str, float] = {}
    with _timed(startup, "weights"):
        encoder = load(model, device, batch_tokens=batch_tokens, precision=precision)
    most = molecules or MOST_MOLECULES[encoder.device.type]
    records = _first(library, most)
    _start(encoder, records[0].head(PILOT_MOLECULES), startup)
    try:
        with TemporaryDirectory(prefix="stkd-screen-bench-") as folder:
            bench = _Bench(encoder, library, records, Path(folder))
            report("finding out how many molecules to take")
            affordable = bench.pilot_rate(most) * BUDGET / (2 * repeats)
            molecules = molecules or max(1, min(most, int(affordable)))
            runs = []
            for k in range(repeats):
                report(f"{molecules:,} molecules end to end, {k + 1} of {repeats}")
                runs.append(molecules / bench.embed(molecules))
            peaks = peak_memory_mb(), peak_gpu_memory_mb(encoder.device)
            passes = []
            for k in range(repeats):
                report(f"{molecules:,} molecules stage by stage, {k + 1} of {repeats}")
                passes.append(bench.stage_by_stage(molecules))
    except (OSError, OutputError) as error:
        raise OutputError(
            f"temporary files cannot be written in {gettempdir()} ({error.__cause__ or error}); "
            "set TMPDIR to a folder with room for the output of a run"
        ) from error
    report("a large matrix product")
    matmul = matmul_flops_per_second(encoder.device, DTYPES[encoder.precision])
    seconds = {stage: median(one.seconds[stage] for one in passes) for stage in STAGES}
    whole, rate, taken = sum(seconds.values()), median(runs), passes[0]
    laid_out = Counter[int]()  # tokens -> molecules
    for size, tokens in taken.batches:
        laid_out[tokens] += size
    flops = sum(size * forward_flops(encoder.student, tokens) for tokens, size in laid_out.items())
    cells = sum(size * tokens for size, tokens in taken.batches)
    return Speed(
        machine=machine(encoder.device),
        versions=versions(),
        model=encoder.weights.name,
        model_sha256=encoder.weights.sha256,
        device=encoder.device.type,
        dtype=encoder.precision,
        library={file.path: file.sample_sha256 for file in describe_inputs(RecordReader(library).files)},
        library_molecules=sum(map(len, records)),
        molecules=molecules,
        unreadable=molecules - taken.molecules,
        repeats=repeats,
        batch_tokens=encoder.forward.batch_tokens,
        tokens_per_molecule=taken.tokens / taken.molecules,
        batches={
            "count": len(taken.batches),
            "molecules": taken.molecules / len(taken.batches),
            "tokens": cells / len(taken.batches),
        },
        padding=1 - taken.tokens / cells,
        startup_seconds=startup,
        stages={stage: Stage(s, molecules / s, s / whole) for stage, s in seconds.items()},
        one_after_another=molecules / whole,
        end_to_end=rate,
        end_to_end_runs=runs,
        flops_per_molecule=flops / taken.molecules,
        forward_flops_per_second=flops / seconds["forward"],
        matmul_flops_per_second=matmul,
        matmul_share=flops / seconds["forward"] / matmul,
        peak_memory_mb=peaks[0],
        peak_gpu_memory_mb=peaks[1],
        seconds_for={str(count): count / rate for count in (10**6, 10**9)},
    )


def forward_flops(student: Student, tokens: int) -> int:
    """Floating-point operations of the matrix products for a molecule of so many tokens, two a multiply-add.

    Counted by PyTorch while they run; attention in its plain form, for not every fused kernel is counted.
    """
    device = student.table.device
    batch = torch.zeros(1, tokens, student.entries, dtype=torch.int16, device=device)
    n_atoms = torch.ones(1, dtype=torch.int32, device=device)
    pairs = torch.zeros(1, tokens, tokens, dtype=torch.uint8, device=device)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        student(batch, n_atoms, pairs)
    return int(counter.get_total_flops())


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """The best of ten products of large square matrices, in the type that the forward pass computes in."""
    side = MATMUL_SIDE[device.type]
    factor = torch.randn(side, side, device=device).to(dtype)
    multiply = torch._int_mm if dtype == torch.int8 else torch.mm
    seconds: dict[str, float] = {}
    for k in range(10):
        with _timed(seconds, str(k), device):
            multiply(factor, factor)
    return 2 * side**3 / min(seconds.values())


def _first(library: Sequence[str | Path], most: int) -> list[Records]:
    """The first records of a library."""
    reader = RecordReader(library)
    for file in describe_inputs(reader.files):
        if file.bytes is None:
            raise InputError(f"{file.path} cannot be read more than once; give --library a file")
    found: list[Records] = []
    left = most
    for records in reader:
        found.append(records.head(left))
        left -= len(found[-1])
        if not left:
            break
    if left == most:
        raise InputError(f"{_named(library)}: no record in it; give another --library")
    return found


def _start(encoder: Encoder, records: Records, startup: dict[str, float]) -> None:
    """What is done once a process, or once an installation: compiling."""
    with _timed(startup, "parser"):
        molecules = molecules_of(records, OutputOptions())
        for batch in encoder.forward.split(encoder.forward.token_counts(molecules)):
            encoder.forward.lay_out(molecules, batch)
    with _timed(startup, "first_forward"):
        encoder.encode(molecules)


@dataclass
class _Pass:
    """What was seen of the molecules on their way through the stages."""

    seconds: dict[str, float] = field(default_factory=dict)  # of each stage
    molecules: int = 0  # that could be read
    tokens: int = 0  # of them
    batches: list[tuple[int, int]] = field(default_factory=list)  # molecules, and tokens laid out for each


@dataclass
class _Bench:
    encoder: Encoder
    library: Sequence[str | Path]
    records: list[Records]  # of the library, as many as may be wanted or as it has
    folder: Path  # for temporary files

    def __post_init__(self) -> None:
        self.options = OutputOptions().checked(self.encoder.weights)

    def pilot_rate(self, most: int) -> float:
        """Molecules a second, by so few that they take about a second."""
        molecules = min(most, PILOT_MOLECULES)
        while (seconds := self.embed(molecules)) < PILOT_SECONDS and molecules < most:
            molecules = min(most, 4 * molecules)
        return molecules / seconds

    def embed(self, molecules: int) -> float:
        """Seconds end to end."""
        reader = self._reader(molecules)
        with TemporaryDirectory(dir=self.folder) as folder:
            start = time.perf_counter()
            summary = embed(reader, self.encoder, Path(folder) / "out.parquet", self.options, limit=molecules)
            seconds = time.perf_counter() - start
        if not summary.good:
            raise InputError(
                f"{_named(self.library)}: none of its first {summary.records:,} records is a molecule; "
                "give another --library"
            )
        return seconds

    def stage_by_stage(self, molecules: int) -> _Pass:
        """The same work, but of each window one stage after the other."""
        encoder, forward, weights = self.encoder, self.encoder.forward, self.encoder.weights
        taken = _Pass()

        def timed(stage: str) -> AbstractContextManager[None]:
            return _timed(taken.seconds, stage, encoder.device)

        reading, row = iter(self._reader(molecules)), 0
        columns = schema(weights, self.options)
        with open(self.folder / "part.parquet", "wb") as file, ParquetPart(file, columns) as part:
            while row < molecules:
                with timed("read"):
                    records = next(reading).head(molecules - row)
                with timed("pre-transform"):
                    parsed = molecules_of(records, self.options)
                with timed("batch"):
                    counts = forward.token_counts(parsed)
                    batches = list(forward.split(counts))
                    arrays = list(forward.each(partial(forward.lay_out, parsed), batches))
                with timed("transfer"):
                    tensors = list(map(forward.to_device, arrays))
                with timed("forward"):
                    results = list(forward.each(forward.run, tensors))
                with timed("return"):
                    on_host = zip(batches, map(forward.to_host, results), strict=True)
                    encoded = encoder.in_order(len(parsed), ((rows, *both) for rows, both in on_host))
                with timed("write"):
                    part.write(result_table(records, parsed, encoded, weights, self.options, row)[0])
                row += len(records)
                taken.molecules += int(np.count_nonzero(counts))
                taken.tokens += int(counts.sum())
                taken.batches += [tokens.shape[:2] for tokens, *_ in arrays]
            with timed("write"):
                part.finish()
        return taken

    def _reader(self, molecules: int) -> RecordReader:
        """Over the library, or over a file of so many copies of it that there are enough molecules."""
        library = self.library
        if (there := sum(map(len, self.records))) < molecules:
            columns = {
                "smiles": pa.chunked_array([records.smiles for records in self.records]),
                "id": pa.chunked_array([records.id for records in self.records]),
            }
            library = [self.folder / "library.parquet"]
            pq.write_table(pa.concat_tables([pa.table(columns)] * -(-molecules // there)), library[0])
        return RecordReader(library, batch_size=min(self.encoder.window, molecules))


@contextmanager
def _timed(seconds: dict[str, float], what: str, device: torch.device | None = None) -> Iterator[None]:
    """Adds the time that a block takes, until the device is done with it."""
    start = time.perf_counter()
    yield
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - start


def _named(library: Sequence[str | Path]) -> str:
    return ", ".join(map(str, library))
