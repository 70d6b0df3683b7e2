"""stkd-screen bench: measurements on this machine and with this model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stkd_screen.cli.options import Device

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

app = typer.Typer(
    help="Measurements: how good the similarity search of a model is.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("search")
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
    encoder = load(model, device)
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
