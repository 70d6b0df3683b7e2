"""stkd-screen train: fit a student to labelled molecules."""

from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Data, Device, Precision, SmilesColumn, SplitBy, SplitColumn, SplitSeed
from stkd_screen.cli.training import (
    BatchSize,
    Dropout,
    Ema,
    Epochs,
    Fingerprint,
    Grow,
    Half,
    Kekule,
    LearningRate,
    LkmGamma,
    MaxMinutes,
    Preset,
    RandomOrders,
    Restart,
    Seed,
    TargetOption,
    WeightDecay,
)


def train(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Weights folder to write.")],
    start: Annotated[
        str | None, typer.Option("--from", help="Weights to go on from: fine-tuning, also to new targets.")
    ] = None,
    grow: Grow = None,
    target: TargetOption = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    preset: Preset = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    ema: Ema = None,
    dropout: Dropout = None,
    lkm_gamma: LkmGamma = None,
    random_orders: RandomOrders = None,
    kekule: Kekule = None,
    fingerprint: Fingerprint = None,
    half: Half = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    restart: Restart = False,
) -> None:
    """Fit a student to SMILES and targets, from scratch or from other weights.

    An interrupted run goes on where it stopped when the same command is given again. The best weights so
    far, by the valid split, are in the output folder at any time.

        stkd-screen train mine.csv --target lab.gap=gap_ev:eV -o weights/mine
    """
    from stkd_screen.cli.display import Terminal, TrainingDisplay
    from stkd_screen.cli.training import given, preset_of, read_training_set, report_end
    from stkd_screen.encoder import choose_device
    from stkd_screen.teach.train import TrainConfig, needs_graphs
    from stkd_screen.teach.train import train as run_training

    console = Terminal(stderr=True)
    config = TrainConfig.of(
        preset_of(preset, start, "small", grow),
        **given(
            start=start,
            grow=grow,
            epochs=epochs,
            max_minutes=max_minutes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            ema=ema,
            dropout=dropout,
            lkm_gamma=lkm_gamma,
            random_orders=random_orders,
            kekule=kekule,
            fingerprint=fingerprint,
            half=half,
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
        graphs=needs_graphs(config),
    )
    with TrainingDisplay(console) as display:
        weights = run_training(labelled, config, output, display.update, restart=restart)
    report_end(console, output, weights.metrics, weights.training, weights.targets)
    tables = " ".join(data) + (f" --split-by {split_by} --split-seed {split_seed}" if split_by else "")
    console.print(f"measure them with: stkd-screen evaluate {output} {tables}")
