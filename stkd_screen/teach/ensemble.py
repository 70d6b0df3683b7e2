"""Further models that teach a student beside its teacher: the soft targets are the average of all of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stkd_screen.targets import Target, in_units
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.teacher import Model


class Ensemble:
    """What some models, students or teachers, predict of the molecules of a data set.

    Args:
        models: none is an ensemble, too; each knows some of the targets, or none.
        data: R molecules; with graphs, where a model needs them.
        rows: those that the models are asked of.
        targets: K, in whose scale the predictions are summed.
        device: of the counts.
    """

    total: np.ndarray  # (R, K) float32: the sum over the models, of probabilities for classes
    count: Tensor  # (K,) float32: how many models know a target

    def __init__(
        self,
        models: Sequence[Model],
        data: LabelledMolecules,
        rows: np.ndarray,
        targets: Sequence[Target],
        device: torch.device,
    ) -> None:
        self.total = np.zeros((len(data.molecules), len(targets)), np.float32)
        self.count = torch.zeros(len(targets), device=device)
        for model in models:
            predicted = in_units(model.predict(data, rows), model.targets)
            place = {(target.full_name, target.unit): k for k, target in enumerate(model.targets)}
            for k, target in enumerate(targets):
                known = place.get((target.full_name, target.unit))
                if known is not None:
                    self.total[rows, k] += (predicted[:, known] - target.mean) / target.std
                    self.count[k] += 1
