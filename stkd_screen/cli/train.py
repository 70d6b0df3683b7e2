"""stkd-screen train: fit a student to labelled molecules."""

from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Device, SmilesColumn, SplitColumn

DEFAULT_TARGETS = [
    "qm9.homo=homo_hartree:hartree",
    "qm9.lumo=lumo_hartree:hartree",
    "qm9.gap=gap_hartree:hartree",
    "pcqm.gap=gap_ev:eV",
]


def train(
    data: Annotated[list[Path], typer.Argument(help="CSV, TSV or Parquet tables (.csv.gz too).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Weights folder to write.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What to learn, as LEVEL.NAME=COLUMN:UNIT; repeat for more. Energies in hartree or eV "
            "become eV. A table that lacks a column only lacks that target. "
            "[default: the columns of the QM9 and PCQM-level tables, see docs/train.md]"
        ),
    ] = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    preset: Annotated[str, typer.Option(help="Size of the student: small, paper or tiny.")] = "small",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training molecules.")] = 100,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="Wall-clock budget; cuts the epochs to what fits, after a measured warm-up."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Molecules a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 1e-3,
    random_orders: Annotated[
        float, typer.Option(min=0, max=1, help="Share of molecules shown with their atoms in random order.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, batches and orders.")] = 0,
    device: Device = "auto",
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew, replacing what the folder holds.")
    ] = False,
) -> None:
    """Fit a student to SMILES and targets, from scratch.

    An interrupted run goes on where it stopped when the same command is given again. The best weights so
    far, by the valid split, are in the output folder at any time.

        stkd-screen train qm9.csv.gz --target qm9.gap=gap_hartree:hartree -o weights/mine
    """
    from rich.console import Console

    from stkd_screen.cli.display import TrainingDisplay, metrics_table
    from stkd_screen.encoder import choose_device
    from stkd_screen.teach.tables import TargetColumn, read_labelled
    from stkd_screen.teach.train import TrainConfig
    from stkd_screen.teach.train import train as run_training

    console = Console(stderr=True)
    columns = [TargetColumn.parse(text) for text in target or DEFAULT_TARGETS]
    config = TrainConfig(
        preset=preset,
        epochs=epochs,
        max_minutes=max_minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        random_orders=random_orders,
        seed=seed,
        device=str(choose_device(device)),
    )
    labelled = read_labelled(data, columns, smiles_column=smiles_column, split_column=split_column)
    counts = ", ".join(f"{len(labelled.rows(name)):,} {name}" for name in ("train", "valid", "test"))
    ways = ", ".join(dict.fromkeys(file["split"] for file in labelled.files))
    console.print(f"{counts} molecules, split: {ways}", highlight=False)
    for reason in labelled.left_out:
        console.print(f"left out: {reason}", style="yellow", highlight=False)
    with TrainingDisplay(console) as display:
        weights = run_training(labelled, columns, config, output, display.update, restart=restart)
    console.print(metrics_table(weights.metrics, weights.targets))
    tables = " ".join(map(str, data))
    console.print(f"weights in {output}; measure them with: stkd-screen evaluate {output} {tables}")
