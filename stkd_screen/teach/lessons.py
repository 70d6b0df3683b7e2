"""What a teacher says of the molecules of a training set, asked once and kept.

A teacher looks at the graph alone. How a molecule is written, in which order or Kekulé form, changes nothing,
so what it says of a molecule serves in every epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stkd_screen.teach.graphormer import Teaching
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.teacher import Teacher, answers


@dataclass(frozen=True)
class Lesson:
    """What a student learns of B molecules from the layers of its teacher that it is compared with."""

    prediction: Tensor  # (B, targets), standardised as the teacher does
    states: list[Tensor]  # a layer each, (B, D_V): the virtual node, `scale_free`
    attention: list[Tensor]  # a layer each, (B, H, T, T), T = 1 + atoms of the largest molecule

    @classmethod
    def of(cls, taught: Teaching, layers: Sequence[int]) -> "Lesson":
        """The part of what a teacher says that concerns some layers."""
        attention = [taught.attention[p].float() for p in layers] if taught.attention else []
        return cls(
            taught.prediction.float(), [scale_free(taught.states[p].float()) for p in layers], attention
        )

    def to(self, device: torch.device) -> "Lesson":
        return Lesson(
            self.prediction.to(device),
            [state.to(device) for state in self.states],
            [weights.to(device) for weights in self.attention],
        )


def scale_free(state: Tensor) -> Tensor:
    """A state of the teacher with mean 0 and variance 1 over its width, as its next layer looks at it.

    As it leaves a layer its size differs a hundredfold between molecules, and the feature loss with it.
    """
    return F.layer_norm(state, state.shape[-1:])


class Lessons:
    """Lessons of chosen rows of a data set, in memory.

    Attention weights, nearly all of it, are kept as float16, which is far finer than a student reaches.

    Args:
        teacher: asked of each row.
        data: with graphs.
        rows: (M,) the molecules.
        layers: of the teacher, those that the student is compared with.
        with_attention: whether attention is kept, by far the largest part.
    """

    def __init__(
        self,
        teacher: Teacher,
        data: LabelledMolecules,
        rows: np.ndarray,
        layers: Sequence[int],
        with_attention: bool,
    ) -> None:
        config, self.heads = teacher.model.config, teacher.model.config.heads
        tokens = np.diff(data.molecules.atom_offsets)[rows] + 1
        entries = tokens.astype(np.int64) ** 2 if with_attention else np.zeros(len(rows), np.int64)
        self.place = np.full(len(data.molecules), -1)
        self.place[rows] = np.arange(len(rows))
        self.tokens = tokens
        self.starts = np.concatenate([[0], np.cumsum(entries)])
        self.prediction = np.empty((len(rows), config.targets), np.float32)
        self.states = np.empty((len(rows), len(layers), config.width), np.float32)
        self.attention = np.empty((self.starts[-1], len(layers), self.heads), np.float16)
        for batch, taught in answers(
            teacher.model, data.molecules, data.needed_graphs(), rows, with_attention=with_attention
        ):
            lesson, places = Lesson.of(taught, layers), self.place[batch]
            self.prediction[places] = lesson.prediction.cpu().numpy()
            if layers:
                self.states[places] = torch.stack(lesson.states, 1).cpu().numpy()
            if with_attention:
                # (B, T, T, layers, H): of one molecule a row of the table for each pair of tokens.
                weights = torch.stack(lesson.attention, 1).permute(0, 3, 4, 1, 2).half().cpu().numpy()
                for place, of_molecule in zip(places, weights, strict=True):
                    self.attention[self.starts[place] : self.starts[place + 1]] = of_molecule.reshape(
                        -1, len(layers), self.heads
                    )

    def batch(self, rows: np.ndarray) -> Lesson:
        """The lesson of some molecules, on the CPU."""
        places = self.place[rows]
        states = torch.from_numpy(self.states[places])
        attention: list[Tensor] = []
        if len(self.attention):
            T = int(self.tokens[places].max())
            weights = np.zeros((len(rows), T, T, *self.attention.shape[1:]), np.float16)
            for b, place in enumerate(places):
                n = self.tokens[place]
                weights[b, :n, :n] = self.attention[self.starts[place] : self.starts[place + 1]].reshape(
                    n, n, *self.attention.shape[1:]
                )
            attention = [*torch.from_numpy(weights).permute(3, 0, 4, 1, 2).float()]
        return Lesson(torch.from_numpy(self.prediction[places]), [*states.unbind(1)], attention)


def lessons_bytes(
    teacher: Teacher, data: LabelledMolecules, rows: np.ndarray, layers: int, with_attention: bool
) -> int:
    """Memory that `Lessons` take."""
    config = teacher.model.config
    tokens = np.diff(data.molecules.atom_offsets)[rows].astype(np.int64) + 1
    attention = int((tokens**2).sum()) * layers * config.heads * 2 if with_attention else 0
    return len(rows) * (config.targets * 4 + layers * config.width * 4) + attention
