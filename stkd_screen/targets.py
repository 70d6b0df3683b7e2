"""What a model predicts, and in what units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLASS_UNIT = "class"


@dataclass(frozen=True)
class Target:
    """One predicted property at one level of theory, with the scale the model was trained in."""

    name: str  # homo, lumo, gap, or any other name
    level: str  # qm9, pcqm, or any other name
    unit: str
    mean: float
    std: float

    @property
    def full_name(self) -> str:
        return f"{self.level}.{self.name}"

    @property
    def is_class(self) -> bool:
        """Whether the target is a class, 0 or 1, of which the model gives the probability."""
        return self.unit == CLASS_UNIT


def in_units(standardised: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """What a model gives, (R, targets) float32, in the units of the targets; probabilities for classes."""
    mean, std = (np.array([getattr(t, key) for t in targets], np.float32) for key in ("mean", "std"))
    values = standardised * std + mean
    classes = [k for k, target in enumerate(targets) if target.is_class]
    values[:, classes] = 1 / (1 + np.exp(-standardised[:, classes]))
    return values


def of_level(targets: Sequence[Target], level: str) -> list[int]:
    """Which targets are those of a level of theory."""
    return [k for k, target in enumerate(targets) if target.level == level]
