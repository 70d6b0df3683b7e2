"""stkd-screen calibrate: learn how far off the predictions of weights may be."""

from pathlib import Path
from typing import Annotated

import typer

from stkd_screen.cli.options import Data, Device, SmilesColumn, SplitBy, SplitColumn, SplitSeed
from stkd_screen.cli.training import TargetOption


def calibrate(
    weights: Annotated[str, typer.Argument(help="Folder of a student; errors.safetensors is put into it.")],
    data: Data,
    target: TargetOption = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    device: Device = "auto",
) -> None:
    """Learn the expected error of each prediction from the valid split of the tables it was trained on.

    embed then gives half-widths of 90% intervals (gap_ev_err) and how far a molecule is from the labelled
    ones (domain); evaluate measures how many labels lie inside.

        stkd-screen calibrate weights/mine mine.csv
    """
    from dataclasses import replace

    from stkd_screen.cli.display import Terminal, intervals_table
    from stkd_screen.cli.training import read_for_model
    from stkd_screen.encoder import choose_device
    from stkd_screen.errors import WeightsError
    from stkd_screen.expected_errors import FILE, save_errors
    from stkd_screen.teach.calibrate import calibrate as learn
    from stkd_screen.teach.calibrate import interval_metrics, predictions_with_half_widths
    from stkd_screen.weights import find_weights, load_weights

    folder = find_weights(weights)
    if folder != Path(weights):
        raise WeightsError(
            f"{weights!r} is a model that comes with the package, not a folder of yours; copy {folder} and "
            "calibrate the copy"
        )
    model = load_weights(folder, with_errors=False)  # those that are there may be damaged
    model.student.to(choose_device(device))
    notes = Terminal(stderr=True)
    labelled = read_for_model(
        notes,
        data,
        target,
        model.training,
        smiles_column=smiles_column,
        split_column=split_column,
        split_by=split_by,
        split_seed=split_seed,
    )
    errors = learn(model, labelled)
    try:
        save_errors(errors, model.sha256, folder)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written: {error}; copy it to where it can") from error
    splits = ["valid", "test"]
    answers = predictions_with_half_widths(replace(model, errors=errors), labelled, splits)
    measured = interval_metrics(*answers, model.targets, labelled, splits)
    Terminal().print(intervals_table(measured, model.targets))
    notes.unbroken(f"in {folder}: {FILE}")
