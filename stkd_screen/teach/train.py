"""Fit a student to labelled molecules: AdamW, linear warm-up and cosine decay, an averaged copy kept."""

import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stkd_screen import __version__
from stkd_screen.batching import equal_length_batches
from stkd_screen.errors import TrainingError
from stkd_screen.smiles.tokens import atom_types, lay_out, random_positions, token_counts
from stkd_screen.student import PRESETS, Student, StudentConfig
from stkd_screen.teach.card import write_card
from stkd_screen.teach.evaluate import evaluate_split
from stkd_screen.teach.tables import LabelledMolecules, TargetColumn
from stkd_screen.weights import Target, Weights, load_weights, save_weights


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained; saved with its weights and, to resume, with every checkpoint."""

    preset: str = "small"
    epochs: int = 100
    max_minutes: float | None = None  # turned into a number of steps after a measured warm-up
    batch_size: int = 128  # molecules
    learning_rate: float = 1e-3
    warmup_steps: int = 500
    final_learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema: float = 0.999  # decay of the averaged copy that is evaluated and saved
    random_orders: float = 0.0  # share of molecules whose atoms come in random order
    spread_positions: float = 0.05  # share of molecules that train the whole position table
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Progress:
    """What the loop tells its caller, about once a second and after each evaluation."""

    step: int
    total_steps: int
    epoch: float
    loss: float  # running mean of the standardised L1 loss
    molecules_per_second: float
    seconds_left: float
    valid: dict[str, dict[str, float]] | None = None  # level.target -> metrics, after an evaluation


SPEED_TEST_STEPS = (20, 80)  # steps between which the speed is measured for max_minutes


def train(
    data: LabelledMolecules,
    columns: list[TargetColumn],
    config: TrainConfig,
    folder: Path,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Weights:
    """Train a student and leave the best weights, by valid loss, and their model card in `folder`.

    The folder holds checkpoint.pt while training runs; called again with the same arguments, training
    goes on from it and ends with the weights that an unbroken run would have given.

    Raises:
        TrainingError: no training or valid rows, a checkpoint of other data or options, or a loss that
            is no longer finite.
    """
    run = _Run(data, columns, config, folder)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        run.restore(checkpoint)
    started = time.perf_counter() - run.seconds
    last_report = 0.0
    for rows in run.remaining_batches():
        loss = run.train_step(rows)
        run.seconds = time.perf_counter() - started
        if run.step % run.evaluate_every == 0 or run.step == run.total_steps:
            valid = run.evaluate()
            run.seconds = time.perf_counter() - started
            run.save(checkpoint)
            report(run.progress(loss, valid))
        elif run.seconds - last_report > 1.0:
            last_report = run.seconds
            report(run.progress(loss))
    weights = run.finish()
    checkpoint.unlink()
    return weights


class _Run:
    """The state of one training run: everything that a checkpoint holds, and the steps that change it."""

    def __init__(
        self, data: LabelledMolecules, columns: list[TargetColumn], config: TrainConfig, folder: Path
    ) -> None:
        self.data, self.columns, self.config, self.folder = data, columns, config, folder
        self.rows = data.rows("train")
        if not len(self.rows) or not len(data.rows("valid")):
            raise TrainingError(
                f"{len(self.rows)} training and {len(data.rows('valid'))} valid molecules: both are needed"
            )
        self.targets = _standardisation(data.targets[self.rows], columns)
        mean, std = (np.array([getattr(t, key) for t in self.targets], np.float32) for key in ("mean", "std"))
        self.standardised = (data.targets - mean) / std
        self.token_counts = token_counts(data.molecules)
        self.device = torch.device(config.device)

        torch.manual_seed(config.seed)
        self.student = Student(_student_config(config, len(columns))).to(self.device)
        self.averaged = AveragedModel(self.student, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.student, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0
        self.steps_per_epoch = len(self.epoch_batches(0))
        self.total_steps = config.epochs * self.steps_per_epoch
        self.evaluate_every = min(self.steps_per_epoch, 2000)
        self.seconds = 0.0
        self.smooth_loss = math.nan
        self.best_loss = math.inf
        self.best_metrics: dict = {}
        self.best_state: dict[str, Tensor] = {}
        self.molecules_seen = 0
        self.speed_test = (0, 0.0)  # molecules and seconds at its start

    # Data ---------------------------------------------------------------------------------------------

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, a function of the seed and the epoch alone."""
        generator = np.random.default_rng((self.config.seed, epoch))
        shuffled = generator.permutation(self.rows)
        batches = list(equal_length_batches(self.token_counts, shuffled, lambda T: self.config.batch_size))
        generator.shuffle(batches)
        return batches

    def remaining_batches(self) -> Iterator[np.ndarray]:
        while self.step < self.total_steps:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            self.positions = random_positions(
                self.data.molecules.atom_offsets,
                self.config.random_orders,
                self.config.spread_positions,
                self.config.seed * 1_000_003 + epoch,
            )
            for rows in self.epoch_batches(epoch)[done:]:
                if self.step >= self.total_steps:
                    return
                yield rows

    # Steps --------------------------------------------------------------------------------------------

    def learning_rate(self) -> float:
        config = self.config
        warmup = min(1.0, (self.step + 1) / config.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.total_steps)))
        decayed = config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine
        return warmup * decayed

    def train_step(self, rows: np.ndarray) -> float:
        tokens, n_atoms = lay_out(self.data.molecules, rows, self.positions)
        target = torch.from_numpy(self.standardised[rows]).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.student.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            _, prediction = self.student(
                torch.from_numpy(tokens).to(self.device), torch.from_numpy(n_atoms).to(self.device)
            )
        loss = masked_l1(prediction.float(), target, self.config.batch_size)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.student)
        self.step += 1
        self.molecules_seen += len(rows)

        value = loss.item() * self.config.batch_size / len(rows)
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {self.step}; lower --learning-rate (now "
                f"{self.config.learning_rate:g}) or look for absurd targets"
            )
        self.smooth_loss = value if math.isnan(self.smooth_loss) else 0.98 * self.smooth_loss + 0.02 * value
        self._fix_total_steps()
        return value

    def _fix_total_steps(self) -> None:
        """Turn max_minutes into a number of steps, once, from the speed of some early steps."""
        if self.config.max_minutes is None:
            return
        first, last = SPEED_TEST_STEPS
        if self.step == first:
            self.speed_test = (self.molecules_seen, time.perf_counter())
        elif self.step == last:
            molecules, since = self.speed_test
            rate = (self.molecules_seen - molecules) / (time.perf_counter() - since)
            left = 0.93 * self.config.max_minutes * 60 * rate  # the rest goes to evaluation and checkpoints
            steps = int(left / (len(self.rows) / self.steps_per_epoch))
            self.total_steps = min(self.total_steps, max(steps, last + 1))

    def progress(self, loss: float, valid: dict | None = None) -> Progress:
        rate = self.step / max(self.seconds, 1e-9)
        return Progress(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.step / self.steps_per_epoch,
            loss=self.smooth_loss,
            molecules_per_second=self.molecules_seen / max(self.seconds, 1e-9),
            seconds_left=(self.total_steps - self.step) / rate,
            valid=valid,
        )

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics of the averaged copy on the valid split; keeps and saves it where it is the best so far."""
        student = cast(Student, self.averaged.module.eval())
        metrics, loss = evaluate_split(student, self.targets, self.data, "valid")
        if loss < self.best_loss:
            self.best_loss, self.best_metrics = loss, metrics
            self.best_state = {name: t.detach().cpu().clone() for name, t in student.state_dict().items()}
            save_weights(self.best_weights(), self.folder)
        return metrics

    def finish(self) -> Weights:
        """The best weights with their figures on the test split, seen here for the first and only time."""
        weights = self.best_weights()
        if len(self.data.rows("test")):
            weights.metrics["test"], _ = evaluate_split(weights.student, self.targets, self.data, "test")
        save_weights(weights, self.folder)
        weights = load_weights(self.folder)
        write_card(weights, self.folder)
        return weights

    # Results ------------------------------------------------------------------------------------------

    def best_weights(self) -> Weights:
        student = Student(self.student.config)
        student.load_state_dict(self.best_state)
        labelled_types, max_heavy_atoms = _label_coverage(self.data, self.rows, self.targets)
        return Weights(
            student=student.eval(),
            targets=self.targets,
            atom_types=labelled_types,
            max_heavy_atoms=max_heavy_atoms,
            metrics={"valid": self.best_metrics},
            training={
                "data": self.data.files,
                "left_out": self.data.left_out,
                "molecules": {name: len(self.data.rows(name)) for name in ("train", "valid", "test")},
                "options": asdict(self.config),
                "steps": self.step,
                "epochs": round(self.step / self.steps_per_epoch, 2),
                "seconds": round(self.seconds),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, {self.device.type}",
                "versions": {"stkd-screen": __version__, "torch": torch.__version__},
            },
            name=self.folder.name,
        )

    def _identity(self) -> dict:
        """What a checkpoint must agree with: data, targets and options, but for the length of the run."""
        options = asdict(self.config)
        del options["epochs"], options["max_minutes"]
        return {"data": self.data.files, "targets": [asdict(c) for c in self.columns], **options}

    def save(self, path: Path) -> None:
        state = {
            "identity": self._identity(),
            "length": (self.config.epochs, self.config.max_minutes),
            "student": self.student.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "counters": {name: getattr(self, name) for name in self._COUNTERS},
            "best_metrics": self.best_metrics,
            "best_state": self.best_state,
        }
        partial = path.with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        os.replace(partial, path)

    _COUNTERS = ("step", "total_steps", "seconds", "smooth_loss", "best_loss", "molecules_seen")

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        ours, theirs = self._identity(), state["identity"]
        differing = sorted(key for key in ours if ours[key] != theirs.get(key))
        if differing:
            raise TrainingError(
                f"{path} is of a run with other {', '.join(differing)}; give the same options to go on with "
                "it, another -o, or --restart to throw it away"
            )
        self.student.load_state_dict(state["student"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        planned_steps = self.total_steps
        for name, value in state["counters"].items():
            setattr(self, name, value)
        if state["length"] != (self.config.epochs, self.config.max_minutes):
            self.total_steps = planned_steps  # a run may be made longer or shorter when it goes on
        self.best_metrics, self.best_state = state["best_metrics"], state["best_state"]


def masked_l1(prediction: Tensor, target: Tensor, batch_size: int) -> Tensor:
    """L1 over the targets a molecule has (NaN: has not), averaged per molecule, summed over batch_size.

    Dividing by the nominal batch size gives each molecule the same weight in batches of any size.

    Args:
        prediction: (B, targets), standardised.
        target: (B, targets), standardised, NaN where missing.
        batch_size: the nominal number of molecules a batch.
    """
    known = torch.isfinite(target)
    difference = (prediction - torch.where(known, target, prediction.detach())).abs()
    return (difference.sum(1) / known.sum(1)).sum() / batch_size


def _student_config(config: TrainConfig, targets: int) -> StudentConfig:
    if config.preset not in PRESETS:
        raise TrainingError(f"no preset {config.preset!r}; presets: {', '.join(PRESETS)}")
    return replace(PRESETS[config.preset], targets=targets)


def _standardisation(values: np.ndarray, columns: list[TargetColumn]) -> list[Target]:
    """Mean and standard deviation of each target over the training rows that have it."""
    targets = []
    for k, column in enumerate(columns):
        known = values[np.isfinite(values[:, k]), k].astype(np.float64)
        if len(known) < 2 or known.std() == 0:
            raise TrainingError(
                f"target {column.level}.{column.name} (column {column.column!r}): {len(known)} training "
                "values, and they must be at least two different ones"
            )
        targets.append(Target(column.name, column.level, column.output_unit, known.mean(), known.std()))
    return targets


def _label_coverage(
    data: LabelledMolecules, rows: np.ndarray, targets: list[Target]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Atom types and the largest number of heavy atoms among the training molecules of each level."""
    molecules = data.molecules
    types = atom_types(molecules)
    atoms = np.diff(molecules.atom_offsets)
    row_of_atom = np.repeat(np.arange(len(atoms)), atoms)
    heavy = np.bincount(row_of_atom, (molecules.element & 127) > 1, minlength=len(atoms)).astype(int)
    in_training = np.zeros(len(atoms), bool)
    in_training[rows] = True
    covered, largest = {}, {}
    for level in dict.fromkeys(target.level for target in targets):
        of_level = [k for k, target in enumerate(targets) if target.level == level]
        labelled = in_training & np.isfinite(data.targets[:, of_level]).any(axis=1)
        covered[level] = np.unique(types[labelled[row_of_atom]])
        largest[level] = int(heavy[labelled].max())
    return covered, largest


def _parameter_groups(student: Student, weight_decay: float) -> list[dict]:
    """Weight decay on the matrices of the layers; none on embeddings, biases and norms."""
    decayed = [p for name, p in student.named_parameters() if p.ndim == 2 and name != "table"]
    others = [p for name, p in student.named_parameters() if p.ndim != 2 or name == "table"]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
