"""What the commands that train have in common: options, reading the training set, the end of a run."""

import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stkd_screen.cli.display import Terminal
    from stkd_screen.targets import Target
    from stkd_screen.teach.labelled import LabelledMolecules
    from stkd_screen.teach.targets import TargetColumn

TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="What to learn, as LEVEL.NAME=COLUMN:UNIT; repeat for more. Energies in hartree or eV become "
        "eV. A table that lacks a column only lacks that target. "
        "[default: what is known of the table by its columns, see docs/train.md]",
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training molecules.")]


def _above_zero(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter("must be above 0")
    return value


MaxMinutes = Annotated[
    float | None,
    typer.Option(
        callback=_above_zero,
        help="Wall-clock budget; cuts the epochs to what fits, after a measured warm-up.",
    ),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Molecules a step.")]
LearningRate = Annotated[
    float | None, typer.Option(callback=_above_zero, help="Peak learning rate of AdamW.")
]
WeightDecay = Annotated[float | None, typer.Option(min=0, help="Weight decay of AdamW.")]
Ema = Annotated[
    float | None, typer.Option(min=0, max=1, help="Decay of the averaged copy that is evaluated and saved.")
]
Dropout = Annotated[float | None, typer.Option(min=0, max=1, help="Instead of the preset's.")]
LkmGamma = Annotated[
    float | None, typer.Option(min=0, help="Strength of layer-to-layer knowledge mixing, 0.02 for example.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Size of the student: small, medium, large, paper, mini or tiny. [default: that of --grow or "
        "--from, else small]"
    ),
]
RandomOrders = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Share of molecules with their atoms in random order (not for small to large)."
    ),
]
Kekule = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of molecules shown in their Kekulé form.")
]
Fingerprint = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Weight of the loss that teaches the embedding ECFP4; 0: the embedding is the state of [V].",
    ),
]
Unlabelled = Annotated[
    list[str] | None,
    typer.Option(help="Libraries of molecules without labels, any input of embed; repeat for more."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Libraries of molecules to leave out of everything that is learned from, a benchmark's for "
        "example; repeat for more."
    ),
]
UnlabelledMolecules = Annotated[
    int, typer.Option(min=1, help="Molecules to choose from them at random, where there are more.")
]
Grow = Annotated[
    str | None,
    typer.Option(help="With --from: make those weights as wide as this preset first, with the same answers."),
]
Half = Annotated[
    bool | None,
    typer.Option(
        "--half/--no-half", help="Store the weights as float16, half as large. [default: that of the preset]"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, batches and orders.")]
Restart = Annotated[bool, typer.Option("--restart", help="Start anew, replacing what the folder holds.")]


def read_training_set(
    console: "Terminal",
    data: Sequence[str],
    target: Sequence[str] | None,
    *,
    smiles_column: str | None,
    split_column: str | None,
    split_by: str | None,
    split_seed: int,
    preferred: "Sequence[TargetColumn]" = (),
    graphs: bool = False,
    exclude: Set[str] = frozenset(),
) -> "LabelledMolecules":
    """Tables, or one prepared file, and a word on what they hold."""
    from stkd_screen.errors import TrainingError
    from stkd_screen.teach.prepared import SUFFIX, load_prepared
    from stkd_screen.teach.targets import TargetColumn

    if len(data) == 1 and data[0].endswith(SUFFIX):
        of_tables = {
            "--target": target,
            "--smiles-column": smiles_column,
            "--split-column": split_column,
            "--split-by": split_by,
            "--split-seed": split_seed,
            "--exclude": exclude,
        }
        if given := [option for option, value in of_tables.items() if value]:
            raise TrainingError(
                f"{data[0]} is prepared: its targets, molecules and split were chosen when it was written; "
                f"give {', '.join(given)} to stkd-screen prepare"
            )
        labelled = load_prepared(Path(data[0]))
    else:
        from stkd_screen.teach.tables import read_labelled

        labelled = read_labelled(
            data,
            [TargetColumn.parse(text) for text in target or ()],
            smiles_column=smiles_column,
            split_column=split_column,
            split=split_by,
            split_seed=split_seed,
            preferred=preferred,
            graphs=graphs,
            exclude=exclude,
        )
    announce(console, labelled)
    return labelled


def read_for_model(
    console: "Terminal",
    data: Sequence[str],
    target: Sequence[str] | None,
    training: dict[str, Any],
    **options: Any,
) -> "LabelledMolecules":
    """Tables to measure a trained model on, by the columns that it was trained on where they are there.

    Where one is split otherwise than when it was learned from, a note says so. Options: those of
    `read_training_set`.
    """
    from stkd_screen.teach.splits import split_notes
    from stkd_screen.teach.targets import TargetColumn

    preferred = [TargetColumn(**column) for column in training["columns"]]
    labelled = read_training_set(console, data, target, preferred=preferred, **options)
    for note in split_notes(labelled.files, training["data"]):
        console.note(f"note: {note}", "yellow")
    return labelled


def announce(console: "Terminal", data: "LabelledMolecules") -> None:
    """Say what there is to learn from, and what was left out."""
    counts = ", ".join(f"{len(data.rows(name)):,} {name}" for name in ("train", "valid", "test"))
    ways = ", ".join(dict.fromkeys(file["split"] for file in data.files))
    console.note(f"{counts} molecules, split: {ways}")
    for reason in data.left_out:
        console.note(f"left out: {reason}", "yellow")
    for note in data.notes:
        console.note(f"note: {note}", "yellow")


def preset_of(preset: str | None, start: str | None, default: str, grow: str | None = None) -> str:
    """Whose options a run takes: the preset given, else that it grows to, or its start was trained with."""
    from stkd_screen.weights import find_weights, trained_preset

    return preset or grow or (start and trained_preset(find_weights(start))) or default


def given(**options: Any) -> dict[str, Any]:
    """The options that the user gave: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def report_end(
    console: "Terminal", output: Path, metrics: dict, training: dict[str, Any], targets: "list[Target]"
) -> None:
    """The final table: where the run started from, and where it ended."""
    from stkd_screen.cli.display import metrics_table

    console.print(metrics_table({"valid, at the start": training["before"], **metrics}, targets))
    console.print(
        f"in {output}: model.safetensors, config.json, the card README.md, curves.png and curves.csv"
    )
