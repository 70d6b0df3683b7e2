"""Further models that teach a student beside its teacher: the soft targets are the average of all of them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stkd_screen.errors import TrainingError
from stkd_screen.targets import Target
from stkd_screen.teach.coverage import Coverage
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.teacher import Model, Teacher


def taught_targets(model: Model | Teacher, columns: Sequence[TargetColumn]) -> dict[int, int]:
    """For each column that a model predicts, by its place, which of the model's targets it is.

    Raises:
        TrainingError: the model predicts none of them, or one in another unit.
    """
    known = {target.full_name: t for t, target in enumerate(model.targets)}
    taught = {k: known[column.full_name] for k, column in enumerate(columns) if column.full_name in known}
    if not taught:
        raise TrainingError(
            f"teacher {model.name!r} predicts {_names(model.targets)}, the data hold {_names(columns)}: "
            "nothing in common; name --target as the teacher does, or teach a teacher of these data"
        )
    for k, t in taught.items():
        ours, theirs = columns[k].output_unit, model.targets[t].unit
        if ours != theirs:
            raise TrainingError(
                f"target {columns[k].full_name}: the data hold {ours}, the teacher {model.name!r} "
                f"predicts {theirs}; mend the unit in --target, or teach a teacher of these data"
            )
    return taught


def taught_coverage(model: Model | Teacher, taught: dict[int, int]) -> Coverage:
    """What the labels behind a model cover, of the levels at which a student learns from it."""
    levels = {model.targets[t].level for t in taught.values()}
    types, largest = model.coverage.atom_types, model.coverage.max_heavy_atoms
    return Coverage({k: types[k] for k in levels & {*types}}, {k: largest[k] for k in levels & {*largest}})


def in_scale_of(
    ours: Sequence[Target], said: Tensor, theirs: Sequence[Target], taught: dict[int, int]
) -> Tensor:
    """What a model says, standardised in its own scale, in that of a student.

    Args:
        ours: K, of the student.
        said: (B, targets of the model).
        theirs: the targets of the model.
        taught: which of them stands for which of ours, see `taught_targets`.

    Returns:
        (B, K), for classes probabilities; NaN where the model knows no such target.
    """
    said = said.float()
    scaled = said.new_full((len(said), len(ours)), math.nan)
    for k, t in taught.items():
        mine, its = ours[k], theirs[t]
        if mine.is_class:
            scaled[:, k] = torch.sigmoid(said[:, t])
        else:
            scaled[:, k] = said[:, t] * (its.std / mine.std) + (its.mean - mine.mean) / mine.std
    return scaled


class Ensemble:
    """What some models, students or teachers, predict of the molecules of a data set.

    Args:
        models: none is an ensemble, too. Each with what it knows of the targets (`taught_targets`).
        data: R molecules; with graphs, where a model needs them.
        rows: those that the models are asked of.
        targets: K, in whose scale the predictions are summed.
        device: of the counts.
    """

    total: np.ndarray  # (R, K) float32: the sum over the models, of probabilities for classes
    count: Tensor  # (K,) float32: how many models know a target

    def __init__(
        self,
        models: Sequence[tuple[Model, dict[int, int]]],
        data: LabelledMolecules,
        rows: np.ndarray,
        targets: Sequence[Target],
        device: torch.device,
    ) -> None:
        self.total = np.zeros((len(data.molecules), len(targets)), np.float32)
        self.count = torch.zeros(len(targets), device=device)
        for model, taught in models:
            said = in_scale_of(targets, torch.from_numpy(model.predict(data, rows)), model.targets, taught)
            for k in taught:
                self.total[rows, k] += said[:, k].numpy()
                self.count[k] += 1

    def mean_with(self, one: Tensor, total: Tensor) -> Tensor:
        """The average of another model's word and that of these, (B, K); NaN where none has one.

        Args:
            one: (B, K), not finite where that model has none.
            total: (B, K) of these.
        """
        known = torch.isfinite(one)
        return (torch.where(known, one, 0.0) + total) / (known + self.count)


def _names(targets: Sequence[Target | TargetColumn]) -> str:
    return ", ".join(target.full_name for target in targets)
