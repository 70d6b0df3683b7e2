"""Train a teacher: a Graphormer on labelled molecules."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from stkd_screen.errors import TrainingError
from stkd_screen.teach.card import teacher_card
from stkd_screen.teach.coverage import joint_coverage, label_coverage
from stkd_screen.teach.evaluate import Metrics
from stkd_screen.teach.graphormer import PRESETS, Graphormer
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.loop import Report, run
from stkd_screen.teach.losses import knowledge_mixing, task_loss
from stkd_screen.teach.start import take_over
from stkd_screen.teach.structure import graph_batch
from stkd_screen.teach.teacher import Teacher, load_teacher, predict, save_teacher
from stkd_screen.teach.trainer import LoopConfig, Trainer


@dataclass(frozen=True)
class TeachConfig(LoopConfig):
    """How a teacher is trained."""

    preset: str = "slim"
    start: str | None = None  # teacher to go on from, instead of the preset's random weights

    RECIPES = {  # noqa: RUF012 (a constant of the class)
        # Ying et al. 2021, but for the batch of 1,024.
        "base": {
            "batch_size": 256,
            "learning_rate": 2e-4,
            "weight_decay": 0.0,
            "beta_2": 0.999,
            "clip_norm": 5.0,
        },
        "slim": {"learning_rate": 1.5e-3},
    }

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise TrainingError(f"no teacher preset {self.preset!r}; presets: {', '.join(PRESETS)}")


def teach(
    data: LabelledMolecules,
    config: TeachConfig,
    folder: Path,
    report: Report = lambda progress: None,
    *,
    restart: bool = False,
) -> Teacher:
    """Train a teacher; see `run` for what the folder holds meanwhile.

    Args:
        data: with graphs.

    Raises:
        TrainingError: see `Trainer` and `run`.
    """
    return load_teacher(run(TeacherTrainer(data, config), folder, report, restart=restart))


class TeacherTrainer(Trainer):
    """A Graphormer on its way."""

    config: TeachConfig

    def __init__(self, data: LabelledMolecules, config: TeachConfig) -> None:
        self.start = load_teacher(config.start) if config.start is not None else None
        super().__init__(data, config)

    def build(self) -> nn.Module:
        config = self.start.model.config if self.start else PRESETS[self.config.preset]
        config = replace(config, targets=len(self.columns))
        if self.config.dropout is not None:
            config = replace(config, dropout=self.config.dropout)
        graphormer = Graphormer(config)
        if self.start is not None:
            take_over(graphormer, self.start.model, "readout", self.columns, self.start.targets)
        return graphormer

    def lengths(self) -> np.ndarray:
        return np.diff(self.data.molecules.atom_offsets)

    def begin_epoch(self, epoch: int) -> None:
        pass  # a graph has no other form

    def prepare(self, rows: np.ndarray) -> Any:
        batch = graph_batch(self.data.molecules, self.data.needed_graphs(), rows)
        return batch, torch.from_numpy(self.standardised[rows])

    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        graphs, target = (part.to(self.device) for part in batch)
        teaching = self.model(graphs)
        terms = {"task": task_loss(teaching.prediction.float(), target, self.classes)}
        if self.config.lkm_gamma:
            terms["lkm"] = self.config.lkm_gamma * knowledge_mixing(teaching.states)
        return terms

    def predict(self, model: nn.Module, rows: np.ndarray) -> np.ndarray:
        return predict(cast(Graphormer, model), self.data.molecules, self.data.needed_graphs(), rows)

    def save(self, folder: Path, metrics: dict[str, Metrics]) -> None:
        coverage = label_coverage(self.data, self.data.rows("train"), self.targets)
        if self.start is not None:
            levels = {target.level for target in self.targets}
            coverage = joint_coverage([coverage, self.start.coverage], levels)
        teacher = Teacher(self.best_copy(), self.targets, coverage, self.about(), metrics)
        card = teacher_card(save_teacher(teacher, folder))
        (folder / "README.md").write_text(card, encoding="utf-8")
