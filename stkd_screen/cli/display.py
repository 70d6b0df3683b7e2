"""What a run looks like while it goes on, and its tables at the end."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from stkd_screen.embed import Summary
    from stkd_screen.records import RecordReader
    from stkd_screen.teach.train import Progress as TrainingProgress
    from stkd_screen.weights import Target


def metrics_table(metrics: dict[str, dict[str, dict[str, float]]], targets: "list[Target]") -> Table:
    """split -> level.target -> mae, rmse, r2, n as a table."""
    units = {f"{target.level}.{target.name}": target.unit for target in targets}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("target", "split"):
        table.add_column(heading)
    for heading in ("MAE", "RMSE", "unit", "R2", "molecules"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    for split, by_target in metrics.items():
        for name, m in by_target.items():
            table.add_row(
                name,
                split,
                f"{m['mae']:.4f}",
                f"{m['rmse']:.4f}",
                units[name],
                f"{m['r2']:.4f}",
                f"{m['n']:,}",
            )
    return table


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    hours, rest = divmod(max(0, round(seconds)), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class TrainingDisplay:
    """A live bar in a terminal; one line after each evaluation in a terminal or a log."""

    def __init__(self, console: Console) -> None:
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
            "loss": f"{progress.loss:.4f}",
            "rate": f"{progress.molecules_per_second:,.0f}",
            "left": duration(progress.seconds_left),
        }
        self.bar.update(self.task, completed=progress.step, total=progress.total_steps, **shown)
        if progress.valid is not None:
            errors = "  ".join(f"{name} {m['mae']:.4f}" for name, m in progress.valid.items())
            self.console.print(
                f"epoch {shown['epoch']}  step {progress.step}/{progress.total_steps}  loss {shown['loss']}  "
                f"valid MAE {errors}  {shown['rate']} molecules/s  {shown['left']} left",
                highlight=False,
                soft_wrap=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()


class EmbedDisplay:
    """A progress bar by input bytes; silent where standard error is no terminal."""

    def __init__(self, console: Console, reader: "RecordReader") -> None:
        self.bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]} molecules  {task.fields[rate]}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("embed", total=reader.bytes_total, records="0", rate="-")

    def __enter__(self) -> "EmbedDisplay":
        self.bar.start()
        return self

    def update(self, summary: "Summary") -> None:
        rate = summary.records / max(summary.seconds, 1e-9)
        self.bar.update(
            self.task, completed=summary.bytes_read, records=f"{summary.records:,}", rate=f"{rate:,.0f}"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
