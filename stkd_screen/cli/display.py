"""What a run looks like while it goes on, and its tables at the end."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stkd_screen.cli.interrupts import Interrupted
from stkd_screen.cli.text import printable

_SOON = 5.0  # seconds in which all is loaded but on a first run
# Measures and their headings, in the order of columns.
MEASURES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "auc": "AUC",
    "log_loss": "log loss",
    "covered": "inside",
}

if TYPE_CHECKING:
    from stkd_screen.embed import Summary
    from stkd_screen.records import RecordReader
    from stkd_screen.targets import Target
    from stkd_screen.teach.evaluate import Metrics
    from stkd_screen.teach.loop import Progress as TrainingProgress


class Terminal(Console):
    """A console for texts that come from files: nothing in them is markup or an order to it."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def unbroken(self, text: str, style: str | None = None) -> None:
        """A line to be copied or searched for: it is never broken."""
        self.print(text, style=style, soft_wrap=True)

    def note(self, text: str, style: str | None = None) -> None:
        """Sentences: broken between words where a person reads them, one line in a log."""
        self.print(text, style=style, soft_wrap=not self.is_terminal)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


@contextmanager
def loading(console: Terminal) -> Iterator[None]:
    """Says what takes so long once loading takes as long as only a first run does."""
    with console.status("Loading") as status:
        why = "Loading; the first run after an installation compiles the SMILES parser (40 s)"
        timer = Timer(_SOON, status.update, [why])
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def metrics_table(
    metrics: "dict[str, Metrics]",
    targets: "list[Target]",
    of: str = "split",
    measures_shown: Sequence[str] = tuple(MEASURES),
) -> Table:
    """split, or whatever `of` calls it -> measures of each target, as a table."""
    units = {target.full_name: target.unit for target in targets}
    known = {name for by_target in metrics.values() for measures in by_target.values() for name in measures}
    shown = {name: MEASURES[name] for name in measures_shown if name in known}
    table = _table(("target", of), [*shown.values()], no_wrap=True)
    table.add_column("molecules", justify="right")
    for split, by_target in metrics.items():
        for name, measures in by_target.items():
            figures = [_figure(measures.get(key, math.nan), key) for key in shown]
            table.add_row(name, split, *figures, units[name], f"{measures['n']:,}")
    return table


def kinds_table(kinds: "dict[str, Metrics]", targets: "list[Target]", split: str) -> Table:
    """What `errors_by_kind` measured of a split: the main measures alone, so that it fits a terminal."""
    table = metrics_table(kinds, targets, f"of split {split}", ("mae", "auc", "covered"))
    table.columns[1].no_wrap = False
    return table


def intervals_table(intervals: "dict[str, dict[str, dict[str, float]]]", targets: "list[Target]") -> Table:
    """What `interval_metrics` measured, as a table."""
    units = {target.full_name: target.unit for target in targets}
    table = _table(("target", "split"), ("inside", "half-width", "score", "constant"))
    table.add_column("molecules", justify="right")
    for split, by_target in intervals.items():
        for name, measures in by_target.items():
            figures = [_figure(measures[key], key) for key in ("covered", "width", "score", "constant_score")]
            table.add_row(name, split, *figures, units[name], f"{measures['n']:,}")
    return table


def worst_table(worst: "dict[str, dict[str, list[dict]]]", targets: "list[Target]") -> Table:
    """The molecules that `furthest_off` found, as a table."""
    units = {target.full_name: target.unit for target in targets}
    shown = ("label", "predicted", "off", "half_width")
    table = _table(("target", "split"), [key.replace("_", "-") for key in shown])
    table.add_column("molecule", overflow="fold")
    for split, by_target in worst.items():
        for name, molecules in by_target.items():
            for one in molecules:
                figures = [f"{one[key]:.3f}" if key in one else "" for key in shown]
                table.add_row(name, split, *figures, units[name], one["smiles"])
    return table


def writings_table(spread: "dict[str, dict[str, float]]", targets: "list[Target]") -> Table:
    """What `spread_over_writings` measured, as a table."""
    table = _table(("target",), ("random orders", "95%", "Kekulé"))
    table.add_column("molecules", justify="right")
    for target in targets:
        measures = spread[target.full_name]
        figures = [_figure(measures[key], key) for key in ("random", "random_95", "kekule")]
        table.add_row(target.full_name, *figures, target.unit, f"{measures['n']:,}")
    return table


def _table(names: Sequence[str], figures: Sequence[str], *, no_wrap: bool = False) -> Table:
    """An empty table whose columns are names, figures, and the unit of these."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in names:
        table.add_column(heading, no_wrap=no_wrap)
    for heading in figures:
        table.add_column(heading, justify="right")
    table.add_column("unit")
    return table


def _figure(value: float, measure: str) -> str:
    """Nothing where a measure does not exist: a class has no MAE, a single molecule no R2."""
    if math.isnan(value):
        return ""
    return f"{value:.1%}" if measure == "covered" else f"{value:.4f}"


def _main_measure(name: str, measures: dict[str, float]) -> str:
    return f"{name} MAE {measures['mae']:.4f}" if "mae" in measures else f"{name} AUC {measures['auc']:.4f}"


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    hours, rest = divmod(max(0, round(seconds)), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class TrainingDisplay:
    """A live bar in a terminal; one line after each evaluation in a terminal or a log."""

    def __init__(self, console: Terminal) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} molecules/s  {task.fields[left]} left"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("train", total=None, epoch="0.0", loss="-", rate="-", left="-")

    def __enter__(self) -> "TrainingDisplay":
        self.bar.start()
        return self

    def update(self, progress: "TrainingProgress") -> None:
        shown: dict[str, Any] = {
            "epoch": f"{progress.epoch:.1f}",
            "loss": "  ".join(f"{name} {value:.4f}" for name, value in progress.losses.items()),
            "rate": f"{progress.molecules_per_second:,.0f}",
            "left": duration(progress.seconds_left),
        }
        if progress.note:
            self.console.note(progress.note)
        self.bar.update(self.task, completed=progress.step, total=progress.total_steps, **shown)
        if progress.valid is not None:
            errors = "  ".join(_main_measure(name, m) for name, m in progress.valid.items())
            self.console.note(
                f"epoch {shown['epoch']}  step {progress.step}/{progress.total_steps}  loss {shown['loss']}  "
                f"valid {errors}  {shown['rate']} molecules/s  {shown['left']} left"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if isinstance(error, Interrupted):
            self.console.note("the same command goes on from the last checkpoint, two minutes back at most")


_WHOLE = 1_000_000  # of a progress bar


class EmbedDisplay:
    """A progress bar by input bytes, or by records of a limit where these are further; silent where standard
    error is no terminal.
    """

    def __init__(self, console: Terminal, reader: "RecordReader", limit: int | None = None) -> None:
        self.console = console
        self.bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]} molecules  {task.fields[rate]}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.faults_shown = 0
        self.bytes_total, self.limit = reader.bytes_total, limit
        total = None if limit is None and self.bytes_total is None else _WHOLE
        self.task = self.bar.add_task("embed", total=total, records="0", rate="-")

    def __enter__(self) -> "EmbedDisplay":
        self.bar.start()
        return self

    def update(self, summary: "Summary") -> None:
        for fault in summary.disk_faults[self.faults_shown :]:
            self.console.note(fault, "yellow")
        self.faults_shown = len(summary.disk_faults)
        passing_over = summary.records == summary.resumed
        shown: dict[str, Any] = {
            "records": f"{summary.records:,}",
            "rate": "-" if passing_over else f"{summary.rate:,.0f}",
        }
        of_bytes = summary.bytes_read / self.bytes_total if self.bytes_total else 0.0
        of_limit = summary.records / self.limit if self.limit else 0.0
        completed = int(_WHOLE * max(of_bytes, of_limit))
        if passing_over:
            # What is passed over says nothing of the time that the rest will take.
            self.bar.reset(self.task, completed=completed, **shown)
        else:
            self.bar.update(self.task, completed=completed, **shown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
