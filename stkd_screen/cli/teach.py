"""stkd-screen teach: train a graph Transformer teacher."""

from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Data, Device, Precision, SmilesColumn, SplitBy, SplitColumn, SplitSeed
from stkd_screen.cli.training import (
    BatchSize,
    Dropout,
    Ema,
    Epochs,
    LearningRate,
    LkmGamma,
    MaxMinutes,
    Restart,
    Seed,
    TargetOption,
    WeightDecay,
)


def teach(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Teacher folder to write.")],
    start: Annotated[
        str | None, typer.Option("--from", help="Teacher to go on from; its size is kept.")
    ] = None,
    target: TargetOption = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    preset: Annotated[
        str | None,
        typer.Option(help="Size of the teacher: slim, base or tiny. [default: slim, or that of --from]"),
    ] = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    ema: Ema = None,
    dropout: Dropout = None,
    lkm_gamma: LkmGamma = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    restart: Restart = False,
) -> None:
    """Train a Graphormer on molecular graphs and targets, to distil students from.

    An interrupted run goes on where it stopped when the same command is given again.

        stkd-screen teach qm9.csv -o teachers/qm9
    """
    from stkd_screen.cli.display import Terminal, TrainingDisplay
    from stkd_screen.cli.training import given, preset_of, read_training_set, report_end
    from stkd_screen.encoder import choose_device
    from stkd_screen.teach.teach import TeachConfig
    from stkd_screen.teach.teach import teach as run_teaching

    console = Terminal(stderr=True)
    config = TeachConfig.of(
        preset_of(preset, start, "slim"),
        **given(
            start=start,
            epochs=epochs,
            max_minutes=max_minutes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            ema=ema,
            dropout=dropout,
            lkm_gamma=lkm_gamma,
            seed=seed,
            device=str(choose_device(device)),
            precision=precision,
        ),
    )
    labelled = read_training_set(
        console,
        data,
        target,
        smiles_column=smiles_column,
        split_column=split_column,
        split_by=split_by,
        split_seed=split_seed,
        graphs=True,
    )
    with TrainingDisplay(console) as display:
        teacher = run_teaching(labelled, config, output, display.update, restart=restart)
    report_end(console, output, teacher.metrics, teacher.training, teacher.targets)
    console.print(
        f"distil a student with: stkd-screen distill {' '.join(data)} --teacher {output} -o weights/mine"
    )
