"""stkd-screen evaluate: measure weights on labelled molecules."""

import json
from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Device, SmilesColumn, SplitColumn


def evaluate(
    weights: Annotated[str, typer.Argument(help="Shipped model name or weights folder.")],
    data: Annotated[list[Path], typer.Argument(help="CSV, TSV or Parquet tables (.csv.gz too).")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="Columns to compare with, as LEVEL.NAME=COLUMN:UNIT [default: those trained on]."),
    ] = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to measure [default: all].")] = None,
    device: Device = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """MAE, RMSE and R2 of each target on each split.

    stkd-screen evaluate small qm9.csv.gz pcqm.csv.gz
    """
    from rich.console import Console

    from stkd_screen.cli.display import metrics_table
    from stkd_screen.encoder import choose_device
    from stkd_screen.teach.evaluate import evaluate_weights
    from stkd_screen.teach.tables import TargetColumn, read_labelled
    from stkd_screen.weights import load_weights

    console = Console()
    loaded = load_weights(weights)
    columns = [TargetColumn.parse(text) for text in target or ()]
    columns = columns or [TargetColumn(**column) for column in loaded.training["columns"]]
    labelled = read_labelled(data, columns, smiles_column=smiles_column, split_column=split_column)
    for reason in labelled.left_out:
        Console(stderr=True).print(f"left out: {reason}", style="yellow", highlight=False)
    metrics = evaluate_weights(loaded, labelled, columns, split, choose_device(device))
    if json_output:
        typer.echo(json.dumps(metrics))
    else:
        console.print(metrics_table(metrics, loaded.targets))
