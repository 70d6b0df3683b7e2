"""Fit a student to labelled molecules: AdamW, linear warm-up and cosine decay, an averaged copy kept."""

import copy
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from stkd_screen import __version__
from stkd_screen.batching import equal_length_batches
from stkd_screen.errors import TrainingError
from stkd_screen.smiles.tokens import lay_out, random_positions, token_counts
from stkd_screen.student import PRESETS, Student, StudentConfig
from stkd_screen.teach.card import write_card
from stkd_screen.teach.checkpoint import read_checkpoint, write_checkpoint
from stkd_screen.teach.evaluate import evaluate_split
from stkd_screen.teach.tables import (
    SPLITS,
    LabelledMolecules,
    TargetColumn,
    label_coverage,
    standardisation,
)
from stkd_screen.weights import Weights, load_weights, save_weights


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained; saved with its weights and, to resume, with every checkpoint."""

    preset: str = "small"
    epochs: int = 100
    max_minutes: float | None = None  # turned into a number of steps after a measured warm-up
    batch_size: int = 128  # molecules
    learning_rate: float = 1e-3
    warmup_steps: int = 500  # at most a tenth of the run
    final_learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema: float = 0.999  # decay of the averaged copy that is evaluated and saved; less at the very start
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


CHECKPOINT_SECONDS = 120
# With max_minutes: steps of this process before and while the speed is measured, and the share of the time
# that is left for steps; evaluations and checkpoints take the rest.
WARM_STEPS, MEASURED_STEPS, SHARE_OF_STEPS = 20, 60, 0.93


def train(
    data: LabelledMolecules,
    columns: list[TargetColumn],
    config: TrainConfig,
    folder: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    restart: bool = False,
) -> Weights:
    """Train a student and leave the best weights, by valid loss, and their model card in `folder`.

    The folder holds checkpoint.pt while training runs; called again with the same arguments, training
    goes on from it and ends with the weights that an unbroken run would have given. Only the length of the
    run (epochs, max_minutes) may differ then. `restart` throws away what the folder holds.

    Raises:
        TrainingError: no training or valid rows, finished weights or a checkpoint of other data or options
            in the folder, a folder that cannot be written, or a loss that is no longer finite.
    """
    checkpoint = folder / "checkpoint.pt"
    if restart:
        checkpoint.unlink(missing_ok=True)
    elif (folder / "config.json").is_file() and not checkpoint.is_file():
        raise TrainingError(f"{folder} holds finished weights; give another -o, or --restart to replace them")
    trainer = Trainer(data, columns, config)
    if checkpoint.is_file():
        trainer.load_state(read_checkpoint(checkpoint, trainer.identity(), trainer.device))
    else:
        write_checkpoint(checkpoint, trainer.identity(), trainer.state())

    started = time.perf_counter() - trainer.seconds
    reported = saved = trainer.seconds
    for rows in trainer.remaining_batches():
        trainer.train_step(rows)
        trainer.seconds = time.perf_counter() - started
        trainer.fix_total_steps()
        valid = better = None
        if trainer.evaluation_is_due():
            valid, better = trainer.evaluate()
            trainer.seconds = time.perf_counter() - started
        if valid or trainer.seconds - saved > CHECKPOINT_SECONDS:
            saved = trainer.seconds
            write_checkpoint(checkpoint, trainer.identity(), trainer.state())
        if better:
            save_weights(trainer.best_weights(folder.name), folder)
        if valid or trainer.seconds - reported > 1.0:
            reported = trainer.seconds
            report(trainer.progress(valid))
    weights = _finish(trainer, folder)
    checkpoint.unlink()
    return weights


def _finish(trainer: "Trainer", folder: Path) -> Weights:
    """The best weights with their figures on the test split, looked at here for the first and only time."""
    weights = trainer.best_weights(folder.name)
    if len(trainer.data.rows("test")):
        test, _ = evaluate_split(weights.student, weights.targets, trainer.data, "test")
        weights = replace(weights, metrics=weights.metrics | {"test": test})
    save_weights(weights, folder)
    weights = load_weights(folder)
    write_card(weights, folder)
    return weights


class Trainer:
    """A student on its way: all that a checkpoint holds, and the steps that change it."""

    # Plain numbers of the state, saved and restored as they are.
    COUNTERS = (
        "step", "total_steps", "length_is_fixed", "seconds", "molecules_seen", "running_loss", "best_loss",
    )  # fmt: skip

    def __init__(self, data: LabelledMolecules, columns: list[TargetColumn], config: TrainConfig) -> None:
        self.data, self.columns, self.config = data, columns, config
        self.rows = data.rows("train")
        if not len(self.rows) or not len(data.rows("valid")):
            raise TrainingError(
                f"{len(self.rows)} training and {len(data.rows('valid'))} valid molecules: both are needed"
            )
        self.targets = standardisation(data.targets[self.rows], columns)
        self.coverage = label_coverage(data, self.rows, self.targets)
        mean, std = (np.array([getattr(t, key) for t in self.targets], np.float32) for key in ("mean", "std"))
        self.standardised = (data.targets - mean) / std
        self.token_counts = token_counts(data.molecules)
        self.device = torch.device(config.device)

        torch.manual_seed(config.seed)
        self.student = Student(_student_config(config, len(columns))).to(self.device)
        self.averaged = AveragedModel(self.student, multi_avg_fn=self._average)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.student, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.steps_per_epoch = len(self.epoch_batches(0))
        self.total_steps = config.epochs * self.steps_per_epoch
        self.length_is_fixed = config.max_minutes is None
        self.evaluate_every = min(self.steps_per_epoch, 2000)
        self.step = 0
        self.molecules_seen = 0
        self.seconds = 0.0
        self.running_loss = math.nan
        self.best_loss = math.inf
        self.best_metrics: dict[str, dict[str, float]] = {}
        self.best_student: dict[str, Tensor] = {}
        self.first_step = 0  # of this process, and its seconds when the measuring of the speed began
        self.measured_from = 0.0

    # Data

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each (<= batch_size,) rows: a function of the seed and the epoch alone."""
        generator = np.random.default_rng((self.config.seed, epoch))
        shuffled = generator.permutation(self.rows)
        batches = list(equal_length_batches(self.token_counts, shuffled, lambda T: self.config.batch_size))
        generator.shuffle(batches)
        return batches

    def remaining_batches(self) -> Iterator[np.ndarray]:
        """Batches from the present step on to the last one."""
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

    # Steps

    def train_step(self, rows: np.ndarray) -> None:
        """One step of the optimizer on a batch of rows that have one token count."""
        tokens, n_atoms = (
            torch.from_numpy(a).to(self.device) for a in lay_out(self.data.molecules, rows, self.positions)
        )
        target = torch.from_numpy(self.standardised[rows]).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.student.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            _, prediction = self.student(tokens, n_atoms)
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
        before = value if math.isnan(self.running_loss) else self.running_loss
        self.running_loss = 0.98 * before + 0.02 * value

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to the final rate."""
        config = self.config
        warmup = min(1.0, (self.step + 1) / max(1, min(config.warmup_steps, self.total_steps // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.total_steps)))
        decayed = config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine
        return warmup * decayed

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        # A short memory at first: the beginning is not worth remembering.
        decay = min(self.config.ema, (1 + float(updates)) / (10 + float(updates)))
        for average, parameter in zip(averaged, current, strict=True):
            average.lerp_(parameter, 1 - decay)

    def fix_total_steps(self) -> None:
        """Turn max_minutes into a number of steps, once, from the speed of some steps of this process."""
        if self.length_is_fixed or self.config.max_minutes is None:
            return
        steps = self.step - self.first_step
        if steps == WARM_STEPS:
            self.measured_from = self.seconds
        elif steps == WARM_STEPS + MEASURED_STEPS:
            rate = MEASURED_STEPS / (self.seconds - self.measured_from)
            left = max(0.0, self.config.max_minutes * 60 - self.seconds)
            self.total_steps = min(self.total_steps, self.step + int(SHARE_OF_STEPS * left * rate))
            self.length_is_fixed = True

    # Results

    def progress(self, valid: dict[str, dict[str, float]] | None) -> Progress:
        seconds_a_step = self.seconds / max(self.step, 1)
        return Progress(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.step / self.steps_per_epoch,
            loss=self.running_loss,
            molecules_per_second=self.molecules_seen / max(self.seconds, 1e-9),
            seconds_left=(self.total_steps - self.step) * seconds_a_step,
            valid=valid,
        )

    def evaluation_is_due(self) -> bool:
        return self.step % self.evaluate_every == 0 or self.step >= self.total_steps

    def evaluate(self) -> tuple[dict[str, dict[str, float]], bool]:
        """Metrics of the averaged copy on the valid split, and whether it is the best so far (kept then)."""
        student = cast(Student, self.averaged.module.eval())
        metrics, loss = evaluate_split(student, self.targets, self.data, "valid")
        better = loss < self.best_loss
        if better:
            self.best_loss, self.best_metrics = loss, metrics
            self.best_student = {name: t.detach().cpu().clone() for name, t in student.state_dict().items()}
        return metrics, better

    def best_weights(self, name: str) -> Weights:
        # A copy, not a new student, whose initial weights would use up random numbers of the run.
        student = copy.deepcopy(cast(Student, self.averaged.module)).cpu()
        student.load_state_dict(self.best_student)
        atom_types, max_heavy_atoms = self.coverage
        return Weights(
            student=student.eval(),
            targets=self.targets,
            atom_types=atom_types,
            max_heavy_atoms=max_heavy_atoms,
            metrics={"valid": self.best_metrics},
            training={
                "data": self.data.files,
                "columns": [asdict(column) for column in self.columns],
                "left_out": self.data.left_out,
                "molecules": {split: len(self.data.rows(split)) for split in SPLITS},
                "options": asdict(self.config),
                "steps": self.step,
                "epochs": round(self.step / self.steps_per_epoch, 2),
                "seconds": round(self.seconds),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, {self.device.type}",
                "versions": {"stkd-screen": __version__, "torch": torch.__version__},
            },
            name=name,
        )

    # Checkpoints

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: data, targets and options, but for the length of the run."""
        options = asdict(self.config)
        del options["epochs"], options["max_minutes"]
        return {"data": self.data.fingerprint(), "targets": [asdict(c) for c in self.columns], **options}

    def state(self) -> dict[str, Any]:
        return {
            "length": (self.config.epochs, self.config.max_minutes),
            "student": self.student.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "counters": {name: getattr(self, name) for name in self.COUNTERS},
            "best_metrics": self.best_metrics,
            "best_student": self.best_student,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        planned = {"total_steps": self.total_steps, "length_is_fixed": self.length_is_fixed}
        counters = state["counters"]
        if state["length"] != (self.config.epochs, self.config.max_minutes):
            counters |= planned  # the run was made longer or shorter
        for name, value in counters.items():
            setattr(self, name, value)
        self.student.load_state_dict(state["student"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        self.best_metrics, self.best_student = state["best_metrics"], state["best_student"]
        self.first_step = self.step


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


def _parameter_groups(student: Student, weight_decay: float) -> list[dict]:
    """Weight decay on the matrices of the layers; none on embeddings, biases and norms."""
    decayed = [p for name, p in student.named_parameters() if p.ndim == 2 and name != "table"]
    others = [p for name, p in student.named_parameters() if p.ndim != 2 or name == "table"]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
