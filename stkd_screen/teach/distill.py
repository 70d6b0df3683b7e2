"""Distil a student from a teacher (ST-KD, section 3.3)."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stkd_screen.student import Learned, Student
from stkd_screen.targets import Target, in_units
from stkd_screen.teach.coverage import Coverage
from stkd_screen.teach.ensemble import Ensemble, in_scale_of, taught_coverage, taught_targets
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules
from stkd_screen.teach.layer_pairs import layer_pairs
from stkd_screen.teach.lessons import Lesson, Lessons, lessons_bytes
from stkd_screen.teach.loop import Report, run
from stkd_screen.teach.losses import attention_loss, feature_loss, knowledge_mixing, task_loss
from stkd_screen.teach.structure import GraphBatch, graph_batch
from stkd_screen.teach.teacher import Model, Teacher, predict
from stkd_screen.teach.train import StudentTrainer, TrainConfig, starting_student
from stkd_screen.weights import Weights, load_weights


@dataclass(frozen=True)
class DistillConfig(TrainConfig):
    """How a student is distilled. The weights of the terms are those of eq. 16, by default as in table 6."""

    alpha: float = 0.5  # of the feature loss
    beta: float = 2.0  # of the attention loss
    soft: float = 1.0  # of the task loss where the teacher stands in for a missing label
    layer_pairs: tuple[tuple[int, int], ...] | None = None  # (teacher, student), from 0; None: the last three
    initial_stage: float = 0.025  # share of the steps without task loss
    initial_alpha: float = 1.0
    initial_beta: float = 4.0
    unlabelled_share: float = 0.5  # of the molecules of an epoch, where there are enough unlabelled ones
    # Compare states of the teacher as they leave its layers (eq. 8 to the letter), not standardised.
    raw_states: bool = False
    # GB; where what the teacher says of the training molecules fits in, it is asked once, else in each step.
    teacher_memory: float = 2.0

    RECIPES = TrainConfig.RECIPES | {"paper": TrainConfig.RECIPES["paper"] | {"raw_states": True}}

    @property
    def stages(self) -> list[tuple[float, float]]:
        """Alpha and beta of each stage that takes place."""
        initial = [(self.initial_alpha, self.initial_beta)] if self.initial_stage else []
        return [*initial, (self.alpha, self.beta)]


def distill(
    data: LabelledMolecules,
    teacher: Teacher,
    config: DistillConfig,
    folder: Path,
    report: Report = lambda progress: None,
    *,
    further: Sequence[Model] = (),
    restart: bool = False,
) -> Weights:
    """Distil a student; see `run` for what the folder holds meanwhile.

    Args:
        data: with graphs. Molecules without a label have the teacher as their only source. Where no
            molecule has one, the teacher's predictions stand in for the labels of the valid and test splits.
        teacher: what to learn from; without labels also what the student is measured by.
        further: students or teachers whose predictions are averaged with the teacher's. They are asked once,
            whatever the memory and the minutes.

    Raises:
        TrainingError: the layer pairs do not fit the two models, or see `Trainer` and `run`.
    """
    trainer = Distiller(data, teacher, config, further)
    return load_weights(run(trainer, folder, report, restart=restart))


SAMPLE = 4096  # training molecules over which the states of the teacher are standardised
# Training molecules that tell how long the teacher takes: at most so many, in blocks of nearly one size, for
# few of a size take it many times as long.
PROBE, PROBE_BLOCK = 1024, 128
MOST_OF_THE_TIME = 1 / 3  # of max_minutes, for asking it of all of them


class Distillation(nn.Module):
    """A student and the projections that compare it with its teacher (W_feat and W_attn of eq. 8 and 15)."""

    centre: Tensor  # (pairs, D_V), see `Distiller.standardise_states`
    spread: Tensor  # (pairs,)

    def __init__(self, student: Student, teacher: Teacher, pairs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(pairs, teacher.model.config.width))
        self.register_buffer("spread", torch.ones(pairs))
        self.student = student
        theirs, ours = teacher.model.config, student.config
        self.features = nn.ParameterList(
            torch.randn(ours.width, theirs.width) * ours.width**-0.5 for _ in range(pairs)
        )
        self.attention = nn.ParameterList(
            torch.randn(theirs.heads, ours.heads) * ours.heads**-0.5 for _ in range(pairs)
        )


class Distiller(StudentTrainer):
    """A student on its way, and its teacher."""

    config: DistillConfig
    COUNTERS = (*StudentTrainer.COUNTERS, "asked_once")

    def __init__(
        self,
        data: LabelledMolecules,
        teacher: Teacher,
        config: DistillConfig,
        further: Sequence[Model] = (),
    ) -> None:
        self.teacher = teacher
        self.teacher.model.to(config.device).requires_grad_(False)
        self.taught = taught_targets(teacher, data.columns)  # its column for each target that it knows
        self.further = [(model, taught_targets(model, data.columns)) for model in further]
        labelled = np.isfinite(data.targets).any(axis=1)
        self.judged_by_the_teacher = not labelled.any()
        if self.judged_by_the_teacher:
            data = self._with_its_predictions(data)
        self.labelled, self.unlabelled = (
            np.flatnonzero(rows & (data.split == SPLITS.index("train"))) for rows in (labelled, ~labelled)
        )
        super().__init__(data, config)
        self.asked_once: bool | None = None  # see `is_worth_asking_once`; unknown before the first step
        self.lessons: Lessons | None = None

    def _with_its_predictions(self, data: LabelledMolecules) -> LabelledMolecules:
        """Data without any label, with the (first) teacher's predictions as those of the other splits."""
        targets = data.targets.copy()
        rows = np.flatnonzero(data.split != SPLITS.index("train"))
        standardised = predict(self.teacher.model, data.molecules, data.needed_graphs(), rows)
        predicted = in_units(standardised, self.teacher.targets)
        for k, t in self.taught.items():
            targets[rows, k] = predicted[:, t]
        return replace(data, targets=targets)

    def build(self) -> nn.Module:
        student = starting_student(self.config, self.columns, self.start)
        self.pairs = layer_pairs(self.teacher, student, self.config.layer_pairs)
        return Distillation(student, self.teacher, len(self.pairs))

    def get_ready(self, say: Callable[[str], None]) -> None:
        rows = self.data.rows("train")
        if self.asked_once is None:
            self.asked_once = self.is_worth_asking_once(rows, say)
        if self.asked_once:
            say(f"the teacher is asked once of {len(rows):,} molecules")
            self.lessons = self.lessons_of(rows)
        for model, _ in self.further:
            say(f"{model.name} is asked once of {len(rows):,} molecules")
        self.ensemble = Ensemble(self.further, self.data, rows, self.targets, self.device)
        if self.step == 0 and self.compares_states and not self.config.raw_states:
            self.standardise_states(rows)

    @property
    def compares_states(self) -> bool:
        """Whether some stage has a feature loss."""
        return any(alpha for alpha, _ in self.config.stages)

    @property
    def attends(self) -> bool:
        """Whether some stage has an attention loss."""
        return any(beta for _, beta in self.config.stages)

    @property
    def layers(self) -> list[int]:
        """Of the teacher, those that the student is compared with."""
        return [p for p, _ in self.pairs] if np.any(self.config.stages) else []

    def is_worth_asking_once(self, rows: np.ndarray, say: Callable[[str], None]) -> bool:
        """Whether there is memory, and time, for what the teacher says of all training molecules."""
        gigabytes = lessons_bytes(self.teacher, self.data, rows, self.layers, self.attends) / 1e9
        if gigabytes > self.config.teacher_memory:
            say(f"the teacher is asked in each step: {gigabytes:.1f} GB of answers are over --teacher-memory")
            return False
        if self.config.max_minutes is None:
            return True
        self.lessons_of(rows[:1])  # compiles, which would count for each of the molecules
        started = time.perf_counter()
        probe = self.probe(rows)
        self.lessons_of(probe)
        minutes = (time.perf_counter() - started) / 60 * len(rows) / len(probe)
        if minutes > MOST_OF_THE_TIME * self.config.max_minutes:
            say(
                "the teacher is asked in each step: to ask it of all molecules first would take "
                f"{minutes:.1f} of the {self.config.max_minutes:g} minutes"
            )
            return False
        return True

    def lessons_of(self, rows: np.ndarray, with_attention: bool | None = None) -> Lessons:
        """What the teacher says of some molecules, in the precision that it would be asked in in a step."""
        attention = self.attends if with_attention is None else with_attention
        return Lessons(self.teacher, self.data, rows, self.layers, attention, self.config.precision)

    def probe(self, rows: np.ndarray) -> np.ndarray:
        """About a tenth of the rows at most, in blocks evenly over their sizes."""
        by_size = rows[np.argsort(np.diff(self.data.molecules.atom_offsets)[rows], kind="stable")]
        block = np.arange(len(rows)) // min(PROBE_BLOCK, math.ceil(len(rows) / 10))
        of_these = min(max(10, math.ceil(len(rows) / PROBE)), block[-1] + 1)
        return by_size[block % of_these == of_these // 2]

    def standardise_states(self, rows: np.ndarray) -> None:
        """Find the mean of the states that are compared, and the size of the deviations from it.

        Over a sample of the training molecules. Seven eighths of a state are the same for all molecules, so
        without this a student that has learned nothing of a molecule has nearly all of the feature loss
        behind it.
        """
        rows = np.random.default_rng(self.config.seed).choice(rows, min(SAMPLE, len(rows)), replace=False)
        lessons = self.lessons or self.lessons_of(rows, with_attention=False)
        model = cast(Distillation, self.model)
        for k, states in enumerate(lessons.batch(rows).states):
            whole = scale_free(states)
            model.centre[k] = whole.mean(0)
            model.spread[k] = (whole - whole.mean(0)).square().mean().sqrt()

    def known_scales(self) -> list[Target]:
        """As for any student; a target without labels is scaled as the teacher scales it."""
        labels = np.isfinite(self.data.targets[self.data.rows("train")]).any(axis=0)
        of_teacher = [self.teacher.targets[t] for k, t in self.taught.items() if not labels[k]]
        return [*of_teacher, *super().known_scales()]

    def training_rows(self, generator: np.random.Generator) -> np.ndarray:
        """All labelled rows, and a random choice among the unlabelled ones."""
        share = self.config.unlabelled_share
        wanted = len(self.unlabelled)
        if len(self.labelled) and share < 1:
            wanted = min(wanted, round(len(self.labelled) * share / (1 - share)))
        chosen = generator.choice(self.unlabelled, wanted, replace=False) if wanted else self.unlabelled[:0]
        return generator.permutation(np.concatenate([self.labelled, chosen]))

    def prepare(self, rows: np.ndarray) -> Any:
        source: Lesson | GraphBatch
        if self.lessons is not None:
            source = self.lessons.batch(rows)
        else:
            source = graph_batch(self.data.molecules, self.data.needed_graphs(), rows)
        return *super().prepare(rows), torch.from_numpy(self.ensemble.total[rows]), source

    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        tokens, n_atoms, pairs, target, *bits, others, source = (part.to(self.device) for part in batch)
        config = self.config
        initial = self.step < config.initial_stage * self.total_steps
        alpha, beta = (config.initial_alpha, config.initial_beta) if initial else (config.alpha, config.beta)
        lesson = source if isinstance(source, Lesson) else self.ask(source, with_attention=beta > 0)
        model = cast(Distillation, self.model)
        learned = Learned(atoms=lesson.attention[0].shape[-1] - 1 if beta else None)
        embedding, prediction = model.student(tokens, n_atoms, pairs, learned)
        prediction = prediction.float()

        soft = self.soft_targets(target, lesson.prediction, others)
        terms = {
            "task": task_loss(prediction, target, self.classes),
            "soft": config.soft * task_loss(prediction, soft, self.classes),
        }
        if initial:
            terms = {name: 0.0 * term for name, term in terms.items()}
        terms |= self.fingerprint_terms(embedding, bits)
        if alpha:
            losses = [
                feature_loss(state, learned.states[q].float(), W_feat)
                for (_, q), state, W_feat in zip(
                    self.pairs, self.as_compared(lesson.states), model.features, strict=True
                )
            ]
            terms["feature"] = alpha * torch.stack(losses).sum()
        if beta:
            losses = [
                attention_loss(weights, learned.bias(q).float(), n_atoms, W_attn)
                for (_, q), weights, W_attn in zip(self.pairs, lesson.attention, model.attention, strict=True)
            ]
            terms["attention"] = beta * torch.stack(losses).sum()
        if config.lkm_gamma:
            terms["lkm"] = config.lkm_gamma * knowledge_mixing(learned.states)
        return terms

    @torch.no_grad()
    def ask(self, graphs: GraphBatch, with_attention: bool) -> Lesson:
        """What the teacher says of a batch."""
        return Lesson.of(self.teacher.model(graphs, with_attention), self.layers)

    def as_compared(self, states: list[Tensor]) -> list[Tensor]:
        """States of the teacher as the feature loss sees them."""
        if self.config.raw_states:
            return states
        model = cast(Distillation, self.model)
        return [
            (scale_free(state) - centre) / spread
            for state, centre, spread in zip(states, model.centre, model.spread, strict=True)
        ]

    def soft_targets(self, target: Tensor, taught: Tensor, others: Tensor) -> Tensor:
        """(B, targets): what is learned where a label is missing, in the student's scale; else NaN.

        Args:
            target: (B, targets), NaN where a label is missing.
            taught: (B, targets of the teacher), in the teacher's scale.
            others: (B, targets), see `Ensemble.total`.
        """
        soft = in_scale_of(self.targets, taught, self.teacher.targets, self.taught)
        mean = self.ensemble.mean_with(soft, others)
        return torch.where(torch.isfinite(target), math.nan, mean)

    def student(self, model: nn.Module) -> Student:
        return cast(Distillation, model).student

    def known_coverage(self) -> list[Coverage]:
        models: list[tuple[Model | Teacher, dict[int, int]]] = [(self.teacher, self.taught), *self.further]
        return [*super().known_coverage(), *(taught_coverage(*model) for model in models)]

    def about(self) -> dict[str, Any]:
        teacher = {"name": self.teacher.name, "sha256": self.teacher.sha256, "metrics": self.teacher.metrics}
        about = super().about() | {"teacher": teacher, "layer_pairs": self.pairs}
        if self.further:
            about["further_teachers"] = [{"name": m.name, "sha256": m.sha256} for m, _ in self.further]
        return about | ({"judge": self.teacher.name} if self.judged_by_the_teacher else {})

    def identity(self) -> dict[str, Any]:
        teachers = [self.teacher.sha256, *(model.sha256 for model, _ in self.further)]
        return super().identity() | {"teacher": " ".join(teachers)}


def scale_free(state: Tensor) -> Tensor:
    """A state of the teacher with mean 0 and variance 1 over its width, as its next layer looks at it.

    As it leaves a layer its size differs a hundredfold between molecules, and the feature loss with it.
    """
    return F.layer_norm(state, state.shape[-1:])
