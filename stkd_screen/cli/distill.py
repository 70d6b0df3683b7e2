"""stkd-screen distill: a SMILES student from a graph Transformer teacher."""

from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Device, Precision, SmilesColumn, SplitBy, SplitColumn, SplitSeed
from stkd_screen.cli.training import (
    BatchSize,
    Dropout,
    Ema,
    Epochs,
    Exclude,
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
    Unlabelled,
    UnlabelledMolecules,
    WeightDecay,
)

EXAMPLE_MINUTES = 5.0


def distill(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tables or a prepared file, as for train. [default: a shipped library without labels]"
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="Shipped teacher's name or teacher folder. After it, repeated, more models, students too, "
            "whose predictions are averaged with those of the first. [default: slim-teacher]"
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Weights folder to write.")] = Path(
        "distilled"
    ),
    start: Annotated[
        str | None,
        typer.Option("--from", help="Weights to go on from. [default without DATA: small; else none]"),
    ] = None,
    grow: Grow = None,
    target: TargetOption = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    unlabelled: Unlabelled = None,
    unlabelled_molecules: UnlabelledMolecules = 100_000,
    exclude: Exclude = None,
    unlabelled_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of unlabelled molecules in an epoch, where there are enough."),
    ] = None,
    preset: Preset = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    ema: Ema = None,
    dropout: Dropout = None,
    lkm_gamma: LkmGamma = None,
    alpha: Annotated[float | None, typer.Option(min=0, help="Weight of the feature loss (eq. 8).")] = None,
    beta: Annotated[float | None, typer.Option(min=0, help="Weight of the attention loss (eq. 15).")] = None,
    soft: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the teacher's predictions where a label is missing."),
    ] = None,
    layer_pairs: Annotated[
        str | None,
        typer.Option(help="Layers compared, as TEACHER:STUDENT,... from 0. [default: the last three]"),
    ] = None,
    initial_stage: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the steps, at first, without task loss.")
    ] = None,
    raw_states: Annotated[
        bool | None,
        typer.Option(
            "--raw-states/--standardised-states",
            help="How the feature loss sees the teacher's states. [default: standardised; raw for paper]",
        ),
    ] = None,
    teacher_memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GB for what the teacher says of the training molecules; where it fits in, the teacher is "
            "asked once, else in each step. [default: 2]",
        ),
    ] = None,
    random_orders: RandomOrders = None,
    kekule: Kekule = None,
    fingerprint: Fingerprint = None,
    half: Half = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    restart: Restart = False,
) -> None:
    """Distil a SMILES student from a graph Transformer teacher (ST-KD).

    Without arguments: a few minutes on a shipped library, from the shipped student and teacher.

        stkd-screen distill qm9.csv --teacher teachers/qm9 --unlabelled zinc/ -o mine
    """
    from stkd_screen.cli.display import Terminal, TrainingDisplay
    from stkd_screen.cli.training import announce, given, preset_of, read_training_set, report_end
    from stkd_screen.encoder import choose_device
    from stkd_screen.precision import choose_precision
    from stkd_screen.teach.distill import DistillConfig
    from stkd_screen.teach.distill import distill as run_distillation
    from stkd_screen.teach.labelled import joined
    from stkd_screen.teach.layer_pairs import parse_layer_pairs
    from stkd_screen.teach.teacher import load_model, load_teacher
    from stkd_screen.teach.unlabelled import apart_from, excluded_keys, read_unlabelled
    from stkd_screen.weights import DEFAULT_MODEL

    console = Terminal(stderr=True)
    if not data and not unlabelled:
        from stkd_screen.teach.example import EXAMPLE_LIBRARY

        unlabelled, start = [str(EXAMPLE_LIBRARY)], start or DEFAULT_MODEL
        max_minutes = max_minutes or EXAMPLE_MINUTES
        # Soft targets alone: a trained student's states are far from the scale that W_feat starts with.
        alpha, beta, initial_stage = alpha or 0.0, beta or 0.0, initial_stage or 0.0
    chosen = choose_device(device)
    config = DistillConfig.of(
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
            alpha=alpha,
            beta=beta,
            soft=soft,
            layer_pairs=parse_layer_pairs(layer_pairs) if layer_pairs else None,
            initial_stage=initial_stage,
            raw_states=raw_states,
            teacher_memory=teacher_memory,
            unlabelled_share=unlabelled_share,
            random_orders=random_orders,
            kekule=kekule,
            fingerprint=fingerprint,
            half=half,
            seed=seed,
            device=str(chosen),
            precision=precision,
        ),
    )
    first, *more = teacher or ["slim-teacher"]
    loaded = load_teacher(first)
    further = [load_model(name, chosen, choose_precision(precision, chosen)) for name in more]
    excluded = excluded_keys(exclude or [])
    sets = []
    if data:
        sets.append(
            read_training_set(
                console,
                data,
                target,
                smiles_column=smiles_column,
                split_column=split_column,
                split_by=split_by,
                split_seed=split_seed,
                graphs=True,
                exclude=excluded,
            )
        )
    if unlabelled:
        columns = sets[0].columns if sets else loaded.columns
        library = read_unlabelled(unlabelled, columns, unlabelled_molecules, seed, excluded)
        sets.append(apart_from(library, sets[0]) if sets else library)
        console.print("unlabelled: ", end="")
        announce(console, sets[-1])
    with TrainingDisplay(console) as display:
        weights = run_distillation(
            joined(*sets), loaded, config, output, display.update, further=further, restart=restart
        )
    report_end(console, output, weights.metrics, weights.training, weights.targets)
    console.print(f"use them with: stkd-screen embed library.smi --model {output} -o out.parquet")
