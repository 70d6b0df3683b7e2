"""What a teacher says of the molecules of a training set, asked once and kept.

A teacher looks at the graph alone. How a molecule is written, in which order or Kekulé form, changes nothing,
so what it says of a molecule serves in every epoch.

Shapes: B molecules, T tokens (the virtual node and the atoms), D width, H heads, all of the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stkd_screen.teach.graphormer import Teaching
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.teacher import Teacher, answers


@dataclass(frozen=True)
class Lesson:
    """What a student learns of B molecules from the layers of its teacher that it is compared with."""

    prediction: Tensor  # (B, targets), standardised as the teacher does
    states: list[Tensor]  # a layer each, (B, D): the virtual node as it leaves the layer
    attention: list[Tensor]  # a layer each, (B, H, T, T); nothing where not asked for

    @classmethod
    def of(cls, taught: Teaching, layers: Sequence[int]) -> "Lesson":
        """The part of what a teacher says that concerns some layers."""
        return cls(
            taught.prediction.float(),
            [taught.states[p].float() for p in layers],
            [taught.attention[p].float() for p in layers] if taught.attention else [],
        )

    def to(self, device: torch.device) -> "Lesson":
        """On a device, in float32; what is kept as float16 is sent so."""
        states, attention = ([t.to(device).float() for t in part] for part in (self.states, self.attention))
        return Lesson(self.prediction.to(device), states, attention)


class Lessons:
    """Lessons of M molecules of a data set, in memory.

    Attention weights, nearly all of it, are kept as float16, which is far finer than a student reaches.

    Args:
        teacher: asked of each row.
        data: with graphs.
        rows: (M,) the molecules.
        layers: of the teacher, those that the student is compared with.
        with_attention: whether attention is kept.
        precision: of its forward pass.
    """

    prediction: np.ndarray  # (M, targets) float32
    states: np.ndarray  # (M, layers, D) float32
    attention: np.ndarray  # (sum of T * T, layers, H) float16: of one molecule a line for each pair of tokens

    def __init__(
        self,
        teacher: Teacher,
        data: LabelledMolecules,
        rows: np.ndarray,
        layers: Sequence[int],
        with_attention: bool,
        precision: str = "float32",
    ) -> None:
        config = teacher.model.config
        self._place = np.full(len(data.molecules), -1)  # of each row of the data among the M
        self._place[rows] = np.arange(len(rows))
        self._tokens = _tokens(data, rows)
        pairs = self._tokens**2 if with_attention else 0 * self._tokens
        self._first_pair = np.concatenate([[0], np.cumsum(pairs)])
        self.prediction = np.empty((len(rows), config.targets), np.float32)
        self.states = np.empty((len(rows), len(layers), config.width), np.float32)
        self.attention = np.empty((self._first_pair[-1], len(layers), config.heads), np.float16)
        for batch, taught in answers(
            teacher.model,
            data.molecules,
            data.needed_graphs(),
            rows,
            with_attention=with_attention,
            precision=precision,
        ):
            self._keep(self._place[batch], Lesson.of(taught, layers))

    def _keep(self, places: np.ndarray, lesson: Lesson) -> None:
        self.prediction[places] = lesson.prediction.cpu().numpy()
        if lesson.states:
            self.states[places] = torch.stack(lesson.states, 1).cpu().numpy()
        if lesson.attention:
            by_pair = torch.stack(lesson.attention, 1).permute(0, 3, 4, 1, 2).half().cpu().numpy()
            for place, weights in zip(places, by_pair, strict=True):  # (T, T, layers, H)
                self._pairs(place)[:] = weights

    def _pairs(self, place: int) -> np.ndarray:
        """The attention of one molecule, (T, T, layers, H)."""
        T = self._tokens[place]
        kept = self.attention[self._first_pair[place] : self._first_pair[place + 1]]
        return kept.reshape(T, T, *self.attention.shape[1:])

    def batch(self, rows: np.ndarray) -> Lesson:
        """The lesson of some molecules, on the CPU; attention in float16, 0 where padded."""
        places = self._place[rows]
        attention: list[Tensor] = []
        if len(self.attention):
            T = int(self._tokens[places].max())
            weights = np.zeros((len(rows), T, T, *self.attention.shape[1:]), np.float16)
            for padded, place in zip(weights, places, strict=True):
                n = self._tokens[place]
                padded[:n, :n] = self._pairs(place)
            attention = [*torch.from_numpy(weights).permute(3, 0, 4, 1, 2)]
        states = torch.from_numpy(self.states[places]).unbind(1)
        return Lesson(torch.from_numpy(self.prediction[places]), [*states], attention)


def lessons_bytes(
    teacher: Teacher, data: LabelledMolecules, rows: np.ndarray, layers: Sequence[int], with_attention: bool
) -> int:
    """Memory that such `Lessons` take."""
    config = teacher.model.config
    pairs = int((_tokens(data, rows) ** 2).sum()) if with_attention else 0
    of_each = 4 * config.targets + 4 * len(layers) * config.width
    return len(rows) * of_each + 2 * pairs * len(layers) * config.heads


def _tokens(data: LabelledMolecules, rows: np.ndarray) -> np.ndarray:
    """(M,) int64."""
    return np.diff(data.molecules.atom_offsets)[rows].astype(np.int64) + 1
