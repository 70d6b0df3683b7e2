"""stkd-screen bench: measurements on this machine and with this model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stkd_screen.cli.options import Device, StudentPrecision

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

app = typer.Typer(invoke_without_command=True)


@app.callback()
def speed(
    context: typer.Context,
    library: Annotated[
        list[str] | None,
        typer.Option(help="Input of embed, may be given again. [default: 10,000 molecules of the package]"),
    ] = None,
    model: Annotated[str, typer.Option(help="Shipped model name or weights folder.")] = "small",
    device: Device = "auto",
    precision: StudentPrecision = "auto",
    molecules: Annotated[
        int | None,
        typer.Option(min=1, help="How many, from the first on. [default: what a minute is enough for]"),
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens in one forward pass. [default: by device]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of which the median counts.")] = 3,
    compare: Annotated[
        Path | None, typer.Option(help="File that an earlier bench printed to: show it beside this one.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print nothing but the JSON line.")] = False,
) -> None:
    """How fast this machine embeds and where the time goes; `bench search`: how good a model's search is.

    Takes molecules of a library through `embed`, and through each of its stages alone: about two minutes.

        stkd-screen bench --library zinc.smi.gz
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from dataclasses import asdict

    from stkd_screen.cli.display import Terminal
    from stkd_screen.cli.speed import earlier, show
    from stkd_screen.speed.measure import measure
    from stkd_screen.speed.result import differences
    from stkd_screen.teach.example import EXAMPLE_LIBRARY

    console = Terminal(stderr=True, quiet=json_output)
    before = earlier(compare) if compare else None
    with console.status("starting") as status:
        speed = measure(
            library or [EXAMPLE_LIBRARY],
            model,
            device,
            molecules=molecules,
            batch_tokens=batch_tokens,
            precision=precision,
            repeats=repeats,
            report=status.update,
        )
    result = asdict(speed)
    show(console, result, before)
    if before:
        result["compared"] = {
            "file": str(compare),
            "differences": differences(before, result),
            "end_to_end_ratio": result["end_to_end"] / before["end_to_end"],
        }
    typer.echo(json.dumps(result))


def _refuse_options(context: typer.Context) -> None:
    """Those that stand before a subcommand would be passed over without a word."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            option, command = parameter.opts[0], context.invoked_subcommand
            raise typer.BadParameter(f"{option} is given before {command!r}; give it after", ctx=context)


@app.command("search", short_help="How early a ranking finds the actives of a target.")
def search(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of sets: NAME_actives.dat.gz and NAME_decoys.dat.gz; subfolders too."),
    ],
    model: Annotated[str, typer.Option(help="Shipped model name or weights folder.")] = "small",
    library: Annotated[
        Path | None,
        typer.Option(help="Parquet file that embed wrote: measure on it how neighbours agree, too."),
    ] = None,
    rows: Annotated[int, typer.Option(min=101, help="Molecules of the library to look at.")] = 100_000,
    repeats: Annotated[int, typer.Option(min=1, help="Random choices of queries for each target.")] = 10,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Use only so many leading dimensions. [default: all]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of these choices.")] = 0,
    device: Device = "auto",
    precision: StudentPrecision = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print nothing but the JSON line.")] = False,
) -> None:
    """How early a ranking by embedding finds the actives of a target, beside one by ECFP4 and Tanimoto.

    For each target some actives are queries; the others and the decoys are ranked by their best similarity.

        stkd-screen bench search sets/ --library zinc.parquet
    """
    from stkd_screen.cli.display import Terminal
    from stkd_screen.encoder import load
    from stkd_screen.search.enrichment import (
        library_molecules,
        measure_enrichment,
        neighbour_agreement,
        read_targets,
        summary,
    )

    console = Terminal(stderr=True, quiet=json_output)
    targets = read_targets(folder)
    encoder = load(model, device, precision=precision)
    with console.status(f"{len(targets)} targets"):
        means = summary(measure_enrichment(targets, encoder, repeats, seed, dims))
    console.print(_table(means))
    result = {
        "benchmark": "search",
        "model": model,
        "model_sha256": encoder.weights.sha256,
        "dims": dims or encoder.student.config.embedding_width,
        "repeats": repeats,
        "seed": seed,
        "means": means.to_dicts(),
    }
    if library is not None:
        with console.status("neighbours in the library"):
            molecules = library_molecules(library, rows, encoder, dims)
            share = neighbour_agreement(molecules, seed=seed)
        console.print(f"{share:.3f} of the 10 nearest by cosine are among the 100 nearest by Tanimoto")
        result |= {"library": str(library), "rows": len(molecules.vectors), "neighbour_agreement": share}
    typer.echo(json.dumps(result))


def _table(means: "pl.DataFrame") -> "Table":
    from rich.table import Table

    table = Table("sets", "ranked by", "targets", "AUC", "EF 1%", "BEDROC(20)", pad_edge=False)
    for row in means.iter_rows(named=True):
        figures = [
            f"{row[name]:.{digits}f} ± {row[f'{name}_spread'] or 0:.{digits}f}"
            for name, digits in (("auc", 3), ("ef1", 1), ("bedroc", 3))
        ]
        table.add_row(row["collection"], row["method"], str(row["targets"]), *figures)
    table.caption = "mean over targets ± standard deviation among them"
    return table
