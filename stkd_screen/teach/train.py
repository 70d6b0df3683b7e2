"""Fit a student to labelled molecules, from scratch or from other weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from stkd_screen.errors import TrainingError
from stkd_screen.smiles import AROMATIC_FLAG, Molecules
from stkd_screen.smiles.tokens import lay_out, random_positions, token_counts
from stkd_screen.student import PRESETS, Learned, Student, StudentConfig
from stkd_screen.teach.card import student_card
from stkd_screen.teach.coverage import Coverage, joint_coverage, label_coverage
from stkd_screen.teach.evaluate import Metrics, predict, predictions
from stkd_screen.teach.fingerprints import fingerprint_loss, fingerprint_targets, fit_fingerprint_basis
from stkd_screen.teach.grow import grown
from stkd_screen.teach.kinds import errors_by_kind
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.loop import Report, run
from stkd_screen.teach.losses import knowledge_mixing, task_loss
from stkd_screen.teach.start import take_over
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.trainer import LoopConfig, Trainer
from stkd_screen.weights import FingerprintBasis, Weights, load_weights, round_to_half, save_weights

# Table 6 of the paper, as far as all ways of training share it.
PAPER = {
    "epochs": 200, "batch_size": 256, "learning_rate": 1e-4, "weight_decay": 1e-5, "beta_2": 0.999,
    "half": True,
}  # fmt: skip
MEDIUM = {"batch_size": 256, "half": True}
# For a GPU. The rate of `small`, 1.5e-3 for 128 molecules, goes down with the width, by 4, and up with the
# square root of the batch, by 2: 7.5e-4. The paper's goes up to 1.4e-4. This is the middle of the two.
LARGE = {"batch_size": 512, "learning_rate": 3e-4, "half": True}


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """How a student is trained."""

    start: str | None = None  # weights to go on from, instead of the preset's random ones
    grow: str | None = None  # preset whose size they are given first, with the answers they have
    kekule: float = 0.0  # share of molecules shown in their Kekulé form
    fingerprint: float = 0.5  # weight of the fingerprint loss; 0 takes a student's fingerprint head away
    half: bool = False  # store the weights as float16, half as large
    # Where tokens have positions, those of a student without surroundings:
    random_orders: float = 0.0  # share of molecules whose atoms come in random order
    spread_positions: float = 0.05  # share of molecules that train the whole position table

    RECIPES = {"paper": PAPER, "large": LARGE, "medium": MEDIUM}  # noqa: RUF012 (a constant of the class)

    def __post_init__(self) -> None:
        for preset in {self.preset, self.grow or self.preset} - set(PRESETS):
            raise TrainingError(f"no preset {preset!r}; presets: {', '.join(PRESETS)}")
        if self.grow is not None and self.start is None:
            raise TrainingError("--grow makes trained weights larger: name them with --from, or leave it out")


def train(
    data: LabelledMolecules,
    config: TrainConfig,
    folder: Path,
    report: Report = lambda progress: None,
    *,
    restart: bool = False,
) -> Weights:
    """Train a student; see `run` for what the folder holds meanwhile.

    Raises:
        TrainingError: see `Trainer` and `run`.
    """
    return load_weights(run(StudentTrainer(data, config), folder, report, restart=restart))


class StudentTrainer(Trainer):
    """A student on its way."""

    config: TrainConfig

    def __init__(self, data: LabelledMolecules, config: TrainConfig) -> None:
        self._begun = Written(data.molecules, None)
        self.start = load_weights(config.start) if config.start is not None else None
        of_student = self.start.student.config if self.start is not None else PRESETS[config.preset]
        if config.random_orders and of_student.surroundings:
            raise TrainingError(
                "--random-orders: this student's tokens have no positions, so all orders of writing give it "
                "the same; leave the option out"
            )
        super().__init__(data, config)

    def build(self) -> nn.Module:
        return starting_student(self.config, self.columns, self.start)

    @cached_property  # a checkpoint brings its own, and fitting takes time
    def fingerprints(self) -> FingerprintBasis | None:
        """What the fingerprint head learns, if there is one: what its start learned, or else new components.

        New ones are of the molecules without labels, where there are any: a library, like what is searched.
        """
        width = self.student(self.model).config.fingerprint
        if not width:
            return None
        if self.start is not None and self.start.fingerprints is not None:
            return self.start.fingerprints
        rows = self.data.rows("train")
        unlabelled = rows[~np.isfinite(self.data.targets[rows]).any(axis=1)]
        rows = unlabelled if len(unlabelled) else rows
        return fit_fingerprint_basis(self.data.needed_graphs(), rows, width, self.config.seed)

    def identity(self) -> dict[str, Any]:
        """As for any model, and its configuration: presets change, and shapes of weights may stay."""
        student = self.student(self.model).config.to_dict()
        return super().identity() | {f"student.{name}": value for name, value in student.items()}

    @property
    def surrounded(self) -> bool:
        """Whether the student reads atoms with their surroundings, which have no positions."""
        return self.student(self.model).config.surroundings

    def lengths(self) -> np.ndarray:
        return token_counts(self.data.molecules, surroundings=self.surrounded)

    def begin_epoch(self, epoch: int) -> None:
        molecules, config = self.data.molecules, self.config
        seed = config.seed * 1_000_003 + epoch
        shares = config.random_orders, config.spread_positions
        positions = None if self.surrounded else random_positions(molecules.atom_offsets, *shares, seed)
        if config.kekule:
            chosen = np.random.default_rng((seed, 1)).random(len(molecules)) < config.kekule
            molecules = kekule_forms(molecules, self.data.needed_graphs().kekule_bonds, chosen)
        self._begun = Written(molecules, positions)

    def prepare(self, rows: np.ndarray) -> Any:
        begun = self._begun
        arrays = [
            *lay_out(begun.molecules, rows, begun.positions, surroundings=self.surrounded),
            self.standardised[rows],
        ]
        if self.fingerprints is not None:
            arrays += self.data.needed_graphs().set_bits(rows)
        return tuple(torch.from_numpy(array) for array in arrays)

    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        tokens, n_atoms, pairs, target, *bits = (part.to(self.device) for part in batch)
        learned = Learned() if self.config.lkm_gamma else None
        embedding, prediction = self.model(tokens, n_atoms, pairs, learned)
        terms = {"task": task_loss(prediction.float(), target, self.classes)}
        terms |= self.fingerprint_terms(embedding, bits)
        if learned is not None:
            terms["lkm"] = self.config.lkm_gamma * knowledge_mixing(learned.states)
        return terms

    def fingerprint_terms(self, embedding: Tensor, bits: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weighted loss of the fingerprint head; nothing for a student without."""
        if self.fingerprints is None:
            return {}
        target = fingerprint_targets(self.fingerprints, *bits)
        return {"fingerprint": self.config.fingerprint * fingerprint_loss(embedding.float(), target)}

    def state(self) -> dict[str, Any]:
        # The components, too: another machine would find them with other rounding.
        return super().state() | {"fingerprints": vars(self.fingerprints) if self.fingerprints else {}}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if basis := state["fingerprints"]:
            self.fingerprints = FingerprintBasis(**{name: tensor.cpu() for name, tensor in basis.items()})

    def student(self, model: nn.Module) -> Student:
        """The student in a model that learns."""
        return cast(Student, model)

    def predict(self, model: nn.Module, rows: np.ndarray) -> np.ndarray:
        return predict(self.student(model), self.data.molecules, rows)

    def best_copy(self) -> Any:
        model = super().best_copy()
        if self.config.half:  # so that what is measured of it is true of what is stored
            round_to_half(self.student(model))
        return model

    def known_coverage(self) -> list[Coverage]:
        """What labels stand behind the student: those of its data, and those of its start."""
        labelled = self.data, self.data.rows("train"), self.targets
        if self.start is None:
            return [label_coverage(*labelled)]
        known = Coverage(self.start.atom_types, self.start.max_heavy_atoms)
        return [label_coverage(*labelled, np.concatenate([*known.atom_types.values()])), known]

    def kinds(self) -> dict[str, Metrics]:
        """Errors on the test split by kind of molecule."""
        model = self.best_copy().to(self.device)
        predicted = predictions(lambda rows: self.predict(model, rows), self.targets, self.data, ["test"])
        return errors_by_kind(predicted, self.targets, self.data, ["test"])["test"]

    def save(self, folder: Path, metrics: dict[str, Metrics]) -> None:
        coverage = joint_coverage(self.known_coverage(), {target.level for target in self.targets})
        weights = Weights(
            student=self.student(self.best_copy()),
            targets=self.targets,
            atom_types=coverage.atom_types,
            max_heavy_atoms=coverage.max_heavy_atoms,
            fingerprints=self.fingerprints,
            metrics=metrics,
            kinds=self.kinds() if "test" in metrics else {},
            training=self.about(),
        )
        card = student_card(save_weights(weights, folder, half=self.config.half))
        (folder / "README.md").write_text(card, encoding="utf-8")


@dataclass(frozen=True)
class Written:
    """How the molecules are written in one epoch."""

    molecules: Molecules
    positions: np.ndarray | None  # (N,) int16, see `random_positions`; None: the order of writing


def needs_graphs(config: TrainConfig) -> bool:
    """Whether training looks at RDKit's features: Kekulé forms or fingerprints."""
    student = load_weights(config.start).student.config if config.start else PRESETS.get(config.preset)
    return bool(config.kekule or (config.fingerprint and student and student.fingerprint))


def starting_student(config: TrainConfig, columns: list[TargetColumn], start: Weights | None) -> Student:
    """The preset with random weights; or the weights to go on from, but for targets they do not know.

    Raises:
        TrainingError: the weights cannot grow to that preset.
    """
    if start is not None:
        trained = start.student if config.grow is None else grown(start.student, config.grow)
        student = Student(_configured(trained.config, config, columns))
        take_over(student, trained, "readout.2", columns, start.targets)
        return student
    return Student(_configured(PRESETS[config.preset], config, columns))


def _configured(student: StudentConfig, config: TrainConfig, columns: list[TargetColumn]) -> StudentConfig:
    """A student's configuration with these targets and what the options say of it."""
    return replace(
        student,
        targets=len(columns),
        dropout=student.dropout if config.dropout is None else config.dropout,
        fingerprint=student.fingerprint if config.fingerprint else 0,
    )


def kekule_forms(molecules: Molecules, kekule_bonds: np.ndarray, chosen: np.ndarray) -> Molecules:
    """The molecules with the chosen ones in their Kekulé form.

    Args:
        molecules: R packed molecules.
        kekule_bonds: (M,) BondType of each bond in that form.
        chosen: (R,) bool.
    """
    atoms = np.repeat(chosen, np.diff(molecules.atom_offsets))
    bonds = np.repeat(chosen, np.diff(molecules.bond_offsets))
    return replace(
        molecules,
        element=np.where(atoms, molecules.element & (AROMATIC_FLAG - 1), molecules.element),
        bond_type=np.where(bonds, kekule_bonds, molecules.bond_type),
    )
