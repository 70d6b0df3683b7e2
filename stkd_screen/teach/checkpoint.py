"""A run that can be killed: its state in one file, written whole or not at all, refused by any other run."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from stkd_screen.errors import TrainingError
from stkd_screen.files import whole


def write_checkpoint(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the state of a run under its identity.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            torch.save({"identity": identity, **state}, partial)
    except (OSError, RuntimeError) as error:  # torch turns some failed writes into RuntimeError
        raise TrainingError(f"{path.parent} cannot be written: {error}; choose another -o") from error


def read_checkpoint(path: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The state of a run with this identity.

    Raises:
        TrainingError: the checkpoint is damaged, or of a run with other data or options.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        theirs = state.pop("identity")
    except (OSError, EOFError, RuntimeError, UnpicklingError, KeyError, AttributeError) as error:
        raise TrainingError(
            f"{path} is no checkpoint, or a damaged one; --restart throws it away, another -o leaves it"
        ) from error
    differing = sorted(key for key in identity if identity[key] != theirs.get(key))
    if differing:
        raise TrainingError(
            f"{path} is of a run with other {', '.join(differing)}; give the same data and options to go on "
            "with it, another -o, or --restart to throw it away"
        )
    return state
