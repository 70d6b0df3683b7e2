"""stkd-screen evaluate: measure weights on labelled molecules."""

import json
from typing import Annotated

import typer

from stkd_screen.cli.options import Data, Device, SmilesColumn, SplitBy, SplitColumn, SplitSeed


def evaluate(
    weights: Annotated[str, typer.Argument(help="Shipped model name, or folder of a student or a teacher.")],
    data: Data,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns to compare with, as LEVEL.NAME=COLUMN:UNIT [default: those trained on, or what is "
            "known of the table by its columns]."
        ),
    ] = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    split: Annotated[list[str] | None, typer.Option(help="Splits to measure [default: all].")] = None,
    device: Device = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """MAE, RMSE and R2, or AUC, of each target on each split.

    stkd-screen evaluate small qm9.csv.gz pcqm.csv.gz
    """
    from stkd_screen.cli.display import Terminal, metrics_table
    from stkd_screen.cli.training import read_training_set
    from stkd_screen.encoder import choose_device
    from stkd_screen.teach.evaluate import evaluate_model
    from stkd_screen.teach.splits import split_notes
    from stkd_screen.teach.targets import TargetColumn
    from stkd_screen.teach.teacher import load_model

    notes = Terminal(stderr=True)
    model = load_model(weights, choose_device(device))
    labelled = read_training_set(
        notes,
        data,
        target,
        preferred=[TargetColumn(**column) for column in model.training["columns"]],
        smiles_column=smiles_column,
        split_column=split_column,
        split_by=split_by,
        split_seed=split_seed,
        graphs=model.needs_graphs,
    )
    for note in split_notes(labelled.files, model.training["data"]):
        notes.print(f"note: {note}", style="yellow", highlight=False)
    metrics = evaluate_model(lambda rows: model.predict(labelled, rows), model.targets, labelled, split)
    if json_output:
        typer.echo(json.dumps(metrics))
    else:
        Terminal().print(metrics_table(metrics, model.targets))
