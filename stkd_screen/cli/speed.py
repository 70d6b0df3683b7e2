"""What `bench` shows of a measurement, with an earlier one beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from stkd_screen.cli.display import Terminal, duration
from stkd_screen.errors import InputError
from stkd_screen.speed.result import differences, read_result

Result = dict[str, Any]
Figures = dict[str, tuple[float, str]]  # label -> value, and the same as text


def show(console: Terminal, result: Result, before: Result | None = None) -> None:
    """Print tables of a measurement; of an earlier one its figures, the ratios to them and what differs."""
    shares = {name: f"{stage['share']:.1%}" for name, stage in result["stages"].items()}
    runs = result["end_to_end_runs"]
    shares |= {"one after another": "", "end to end": f"{min(runs):,.0f} to {max(runs):,.0f}"}
    rates = Table("stage", "molecules/s", "share", box=None, pad_edge=False)
    figures = Table("", "", box=None, pad_edge=False, show_header=before is not None)
    for table in rates, figures:
        for heading in ("before", "ratio") if before else ():
            table.add_column(heading)
        for column in table.columns[1:]:
            column.justify = "right"
    for name, cells in _beside(_rates, result, before).items():
        rates.add_row(name, cells[0], shares[name], *cells[1:])
    for name, cells in _beside(_figures, result, before).items():
        figures.add_row(name, *cells)
    console.note(_about(result))
    console.print(rates, "", figures)
    for difference in differences(before, result) if before else ():
        console.note(f"not measured alike, {difference}", "yellow")


def earlier(path: Path) -> Result:
    """An earlier measurement that can be shown.

    Raises:
        InputError: the file holds none.
    """
    result = read_result(path)
    try:
        _about(result), _rates(result), _figures(result), differences(result, result)
        1 / result["end_to_end"]
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(
            f"{path}: its result of bench is damaged or of another version ({error!r}); measure anew"
        ) from error
    return result


def _about(result: Result) -> str:
    machine, there = result["machine"], result["library_molecules"]
    threads = f"cores {machine['cores']}, threads {machine['threads']}"
    memory = machine["memory_gb"] and f"{machine['memory_gb']:,.1f} GB"
    names = ", ".join(Path(path).name for path in result["library"])
    again = f" ({there:,} again and again)" if result["molecules"] > there else ""
    return (
        f"{result['model']} ({result['model_sha256'][:12]}) on {result['device']} in {result['dtype']}: "
        f"{', '.join(filter(None, [machine['gpu'], machine['cpu'], threads, memory]))}\n"
        f"{result['molecules']:,} molecules of {names}{again}, "
        f"{result['unreadable']:,} unreadable; median of {result['repeats']}"
    )


def _rates(result: Result) -> Figures:
    rates = {name: stage["molecules_per_second"] for name, stage in result["stages"].items()}
    rates |= {"one after another": result["one_after_another"], "end to end": result["end_to_end"]}
    return {name: (rate, f"{rate:,.0f}") for name, rate in rates.items()}


def _figures(result: Result) -> Figures:
    forward = result["stages"]["forward"]["molecules_per_second"]
    figures: list[tuple[str, float | None, str]] = [
        ("end to end by forward pass", result["end_to_end"] / forward, "{:.1%}"),
        ("forward pass, GFLOP/s", result["forward_flops_per_second"] / 1e9, "{:,.1f}"),
        ("matrix product, GFLOP/s", result["matmul_flops_per_second"] / 1e9, "{:,.1f}"),
        ("forward pass by matrix product", result["matmul_share"], "{:.1%}"),
        ("MFLOP a molecule", result["flops_per_molecule"] / 1e6, "{:,.1f}"),
        ("tokens a molecule", result["tokens_per_molecule"], "{:,.1f}"),
        ("molecules a batch", result["batches"]["molecules"], "{:,.1f}"),
        ("tokens a batch", result["batches"]["tokens"], "{:,.0f}"),
        ("padding", result["padding"], "{:.1%}"),
        ("peak memory, MB", result["peak_memory_mb"], "{:,.0f}"),
        ("peak GPU memory, MB", result["peak_gpu_memory_mb"], "{:,.0f}"),
        *(
            (f"once: {what.replace('_', ' ')}, s", seconds, "{:,.1f}")
            for what, seconds in result["startup_seconds"].items()
        ),
    ]
    times = {f"{int(count):,} molecules": seconds for count, seconds in result["seconds_for"].items()}
    return {name: (seconds, _long(seconds)) for name, seconds in times.items()} | {
        name: (value, text.format(value)) for name, value, text in figures if value is not None
    }


def _long(seconds: float) -> str:
    return duration(seconds) if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


def _beside(
    figures: Callable[[Result], Figures], result: Result, before: Result | None
) -> dict[str, list[str]]:
    """Each figure as text; and, of an earlier measurement, its figure and the ratio of the new one to it."""
    old = figures(before) if before else {}
    cells = {}
    for name, (value, text) in figures(result).items():
        cells[name] = [text]
        if before:
            was, was_text = old.get(name, (0.0, ""))
            cells[name] += [was_text, f"{value / was:.2f}" if was else ""]
    return cells
