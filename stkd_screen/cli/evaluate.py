"""stkd-screen evaluate: measure weights on labelled molecules."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from stkd_screen.cli.options import (
    Device,
    OptionalData,
    SmilesColumn,
    SplitBy,
    SplitColumn,
    SplitSeed,
    StudentPrecision,
)

if TYPE_CHECKING:
    from rich.table import Table

    from stkd_screen.teach.labelled import LabelledMolecules
    from stkd_screen.teach.teacher import Model


def evaluate(
    weights: Annotated[str, typer.Argument(help="Shipped model name, or folder of a student or a teacher.")],
    data: OptionalData = None,
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
    by_kind: Annotated[
        bool, typer.Option("--by-kind", help="Also by size, element and other kinds of molecule.")
    ] = False,
    worst: Annotated[
        int,
        typer.Option(min=0, help="Also the molecules furthest off, so many of each target."),
    ] = 0,
    writings: Annotated[
        list[str] | None,
        typer.Option(
            help="Libraries, any input of embed: how far predictions of one molecule lie apart when it is "
            "written otherwise; repeat for more."
        ),
    ] = None,
    writings_molecules: Annotated[
        int, typer.Option(min=1, help="Molecules to choose from them at random, where there are more.")
    ] = 1000,
    device: Device = "auto",
    precision: StudentPrecision = "float32",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """MAE, RMSE and R2, or AUC, of each target on each split.

    Where the weights were calibrated, also how many labels lie inside the 90% intervals, their median
    half-width, and their interval score beside that of the best interval that is as wide for all.

        stkd-screen evaluate small qm9.csv.gz pcqm.csv.gz

    Where it errs: by kind of molecule, and the molecules that are furthest off:

        stkd-screen evaluate small qm9.csv.gz --split test --by-kind --worst 10

    And how much the answer of a student depends on the way a SMILES is written:

        stkd-screen evaluate small --writings library.smi
    """
    from stkd_screen.cli.display import Terminal, writings_table
    from stkd_screen.cli.training import read_for_model
    from stkd_screen.encoder import choose_device
    from stkd_screen.precision import choose_precision
    from stkd_screen.teach.teacher import load_model
    from stkd_screen.teach.writings import spread_over_writings
    from stkd_screen.weights import load_weights

    if not data and not writings:
        raise typer.BadParameter("give tables to compare with, or a library with --writings")
    if (by_kind or worst) and not data:
        raise typer.BadParameter("--by-kind and --worst compare with labels: give tables")
    notes = Terminal(stderr=True)
    chosen = choose_device(device)
    measured: dict[str, dict] = {}
    tables: list[Table] = []
    if data:
        model = load_model(weights, chosen, precision)
        labelled = read_for_model(
            notes,
            data,
            target,
            model.training,
            smiles_column=smiles_column,
            split_column=split_column,
            split_by=split_by,
            split_seed=split_seed,
            graphs=model.needs_graphs,
        )
        measured, tables = _against_labels(model, labelled, split, by_kind, worst)
    if writings:
        student = load_weights(weights, with_errors=False)
        of_student = choose_precision(precision, chosen, int8=True)
        spread = spread_over_writings(student, writings, writings_molecules, chosen, of_student)
        measured["writings"] = spread
        tables.append(writings_table(spread, student.targets))
    if json_output:
        typer.echo(json.dumps(measured))
    else:
        for table in tables:
            Terminal().print(table, "")


def _against_labels(
    model: "Model", labelled: "LabelledMolecules", split: list[str] | None, by_kind: bool, worst: int
) -> tuple[dict[str, dict], list["Table"]]:
    """What a model's predictions are worth beside labels: figures, and the tables that show them."""
    from stkd_screen.cli.display import intervals_table, kinds_table, metrics_table, worst_table
    from stkd_screen.teach.calibrate import interval_metrics, predictions_with_half_widths
    from stkd_screen.teach.evaluate import evaluate_model, predictions
    from stkd_screen.teach.kinds import errors_by_kind, furthest_off
    from stkd_screen.teach.labelled import SPLITS

    targets, asked = model.targets, split or SPLITS
    half_widths = None
    if model.weights is not None and model.weights.errors:
        predicted, half_widths = predictions_with_half_widths(model.weights, labelled, asked, model.precision)
    else:
        predicted = predictions(lambda rows: model.predict(labelled, rows), targets, labelled, asked)
    measured: dict[str, dict] = {**evaluate_model(predicted, targets, labelled, asked)}
    tables = [metrics_table(measured, targets)]
    splits = [name for name in measured if split or name != "train"]
    intervals: dict[str, dict] = {}
    if half_widths is not None:
        intervals = interval_metrics(predicted, half_widths, targets, labelled, splits)
    if intervals:
        measured["intervals"] = intervals
        tables.append(intervals_table(intervals, targets))
    if by_kind:
        measured["kinds"] = errors_by_kind(predicted, targets, labelled, splits, half_widths)
        tables += [kinds_table(kinds, targets, name) for name, kinds in measured["kinds"].items()]
    if worst:
        measured["worst"] = furthest_off(predicted, targets, labelled, splits, worst, half_widths)
        tables.append(worst_table(measured["worst"], targets))
    return measured, tables
