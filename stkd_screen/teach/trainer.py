"""A model on its way: all that a checkpoint holds, and the steps that change it.

AdamW, linear warm-up and cosine decay, an averaged copy kept; what teacher and students share.
"""

import copy
import math
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stkd_screen import __version__
from stkd_screen.batching import equal_length_batches
from stkd_screen.errors import TrainingError
from stkd_screen.precision import autocast, choose_precision
from stkd_screen.targets import Target, in_units
from stkd_screen.teach.evaluate import Metrics, split_metrics, valid_loss
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules, standardisation

# With max_minutes: steps of this process before and while the speed is measured, and the share of the time
# that is left for steps; evaluations and checkpoints take the rest.
WARM_STEPS, MEASURED_STEPS, SHARE_OF_STEPS = 20, 60, 0.93


@dataclass(frozen=True)
class LoopConfig:
    """How a model is trained; saved with its weights and, to resume, with every checkpoint."""

    preset: str = "small"
    epochs: int = 100
    max_minutes: float | None = None  # turned into a number of steps after a measured warm-up
    batch_size: int = 128  # molecules
    learning_rate: float = 1e-3
    warmup_steps: int = 500  # at most a tenth of the run
    final_learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    beta_2: float = 0.98  # of AdamW; beta_1 is 0.9
    clip_norm: float = 1.0
    ema: float = 0.999  # decay of the averaged copy that is evaluated and saved; less at the very start
    dropout: float | None = None  # None: as the preset has it
    lkm_gamma: float = 0.0  # strength of layer-to-layer knowledge mixing
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # of the matrix products: float32, bfloat16 or auto

    # What a preset is trained with, where that differs from the defaults.
    RECIPES: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def of(cls, preset: str, **given: Any) -> Self:
        """The recipe of a preset, with single options of one's own."""
        return cls(preset=preset, **(cls.RECIPES.get(preset, {}) | given))


@dataclass(frozen=True)
class Progress:
    """What the loop tells its caller, about once a second and after each evaluation."""

    step: int
    total_steps: int
    epoch: float
    losses: dict[str, float]  # running means of the weighted terms; their sum is what is minimised
    molecules_per_second: float
    seconds_left: float
    valid: Metrics | None = None  # after an evaluation
    note: str = ""  # what is done before the first step


class Trainer(ABC):
    """A model on its way. What a model makes of its input is left to the classes derived from this one."""

    # Plain values of the state, saved and restored as they are.
    COUNTERS: ClassVar[tuple[str, ...]] = (
        "step", "epoch", "batches_done", "total_steps", "length_is_fixed", "seconds", "molecules_seen",
        "losses", "before", "best_loss", "best_metrics", "history",
    )  # fmt: skip

    start: Any = None  # the trained model it goes on from, if any: its weights or teacher

    def __init__(self, data: LabelledMolecules, config: LoopConfig) -> None:
        self.device = torch.device(config.device)
        config = replace(config, precision=choose_precision(config.precision, self.device))
        self.data, self.columns, self.config = data, data.columns, config
        if not len(data.rows("train")) or not len(data.rows("valid")):
            raise TrainingError(
                f"{len(data.rows('train'))} training and {len(data.rows('valid'))} valid molecules: "
                "both are needed"
            )
        if not len(data.labelled("valid")):
            raise TrainingError(
                "no molecule of the valid split has a label: there is nothing to choose the best weights by; "
                "choose another split with --split-by"
            )
        self.targets = standardisation(
            data.targets[data.rows("train")], data.columns, known=self.known_scales()
        )
        mean, std = (np.array([getattr(t, key) for t in self.targets], np.float32) for key in ("mean", "std"))
        self.standardised = (data.targets - mean) / std
        self.classes = [k for k, target in enumerate(self.targets) if target.is_class]

        torch.manual_seed(config.seed)
        self.model = self.build().to(self.device)
        self.averaged = AveragedModel(self.model, multi_avg_fn=self._average)
        self.averaged.n_averaged = self.averaged.n_averaged.cpu()  # on a GPU each look at it would wait
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, config.beta_2),
            fused=True,
        )
        self.steps_per_epoch = len(self.epoch_batches(0))
        self.total_steps = config.epochs * self.steps_per_epoch
        self.length_is_fixed = config.max_minutes is None
        self.evaluate_every = min(self.steps_per_epoch, 2000)
        self.step = 0
        self.epoch = self.batches_done = 0  # the epoch of the last batch, and how many of it are done
        self.molecules_seen = 0
        self.seconds = 0.0
        self.seconds_before = 0.0  # what getting ready took this process; max_minutes holds for it, too
        self.losses: dict[str, float] = {}
        self.before: Metrics = {}  # of the valid split, at the start
        self.best_loss = math.inf
        self.best_metrics: Metrics = {}
        self.best_model: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.first_step = 0  # of this process, and its seconds when the measuring of the speed began
        self.measured_from = 0.0

    # What a derived class says of its model

    def known_scales(self) -> list[Target]:
        """Targets that keep their scale, instead of that of the training labels; the last of a name holds."""
        return self.start.targets if self.start is not None else []

    @abstractmethod
    def build(self) -> nn.Module:
        """All that learns, on the CPU, with initial values drawn from torch's seeded generator."""

    @abstractmethod
    def lengths(self) -> np.ndarray:
        """(R,) tokens of each molecule; a batch holds one length."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Draw what differs from epoch to epoch, from the seed and the epoch alone."""

    @abstractmethod
    def prepare(self, rows: np.ndarray) -> Any:
        """The tensors of a batch, on the CPU."""

    @abstractmethod
    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        """The weighted terms of the loss of a prepared batch."""

    @abstractmethod
    def predict(self, model: nn.Module, rows: np.ndarray) -> np.ndarray:
        """Standardised predictions (len(rows), targets) float32 of a model in evaluation mode."""

    @abstractmethod
    def save(self, folder: Path, metrics: dict[str, Metrics]) -> None:
        """Write the best model so far as a folder that the commands can use.

        It must draw no random number: a run that goes on from the checkpoint before would not draw it.
        """

    def get_ready(self, say: Callable[[str], None]) -> None:
        """What takes long before the first step of this process, with a word on it; nothing by default."""
        return

    # Data

    def training_rows(self, generator: np.random.Generator) -> np.ndarray:
        """The rows of an epoch, in random order."""
        return generator.permutation(self.data.rows("train"))

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each (<= batch_size,) rows: a function of the seed and the epoch alone."""
        generator = np.random.default_rng((self.config.seed, epoch))
        rows = self.training_rows(generator)
        batches = list(equal_length_batches(self.lengths(), rows, lambda T: self.config.batch_size))
        generator.shuffle(batches)
        return batches

    def remaining_batches(self) -> Iterator["Prepared"]:
        """Batches from the present place on, without end."""
        epoch, done = self.epoch, self.batches_done  # as they are now: the batches run ahead of the steps
        while True:
            self.begin_epoch(epoch)
            for i, rows in enumerate(self.epoch_batches(epoch)):
                if i >= done:
                    yield Prepared(epoch, i + 1, len(rows), self.prepare(rows))
            epoch, done = epoch + 1, 0

    # Steps

    def train_step(self, batch: "Prepared") -> None:
        """One step of the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.model.train()
        with autocast(self.device, self.config.precision):
            terms = self.loss_terms(batch.tensors)
        # By the nominal size, so that each molecule has the same weight in batches of any size.
        total = torch.stack([*terms.values()]).sum() * (batch.molecules / self.config.batch_size)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.model)
        self.step += 1
        self.molecules_seen += batch.molecules
        self.epoch, self.batches_done = batch.epoch, batch.number
        if self.device.type == "cpu" or self.step % 10 == 0:  # reading a loss makes a GPU wait
            self._note_losses(terms)

    def _note_losses(self, terms: dict[str, Tensor]) -> None:
        values = dict(zip(terms, torch.stack([*terms.values()]).tolist(), strict=True))
        if not math.isfinite(sum(values.values())):
            raise TrainingError(
                f"the loss is {values} at step {self.step}; lower --learning-rate (now "
                f"{self.config.learning_rate:g}) or look for absurd targets"
            )
        self.losses = {
            name: 0.98 * self.losses.get(name, value) + 0.02 * value for name, value in values.items()
        }

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to the final rate."""
        config = self.config
        warmup = min(1.0, (self.step + 1) / max(1, min(config.warmup_steps, self.total_steps // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.total_steps)))
        final = min(config.final_learning_rate, config.learning_rate)
        return warmup * (final + (config.learning_rate - final) * cosine)

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        # A short memory at first: the beginning is not worth remembering.
        decay = min(self.config.ema, (1 + float(updates)) / (10 + float(updates)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    def fix_total_steps(self) -> None:
        """Turn max_minutes into a number of steps, once, from the speed of some steps of this process."""
        if self.length_is_fixed or self.config.max_minutes is None:
            return
        steps = self.step - self.first_step
        if steps == WARM_STEPS:
            self.measured_from = self.seconds
        elif steps == WARM_STEPS + MEASURED_STEPS:
            rate = MEASURED_STEPS / (self.seconds - self.measured_from)
            left = max(0.0, self.config.max_minutes * 60 - self.seconds_before - self.seconds)
            self.total_steps = min(self.total_steps, self.step + int(SHARE_OF_STEPS * left * rate))
            self.length_is_fixed = True

    # Results

    def progress(self, valid: Metrics | None) -> Progress:
        left = (self.total_steps - self.step) * self.seconds / max(self.step, 1)
        if not self.length_is_fixed and self.config.max_minutes is not None:
            left = self.config.max_minutes * 60 - self.seconds_before - self.seconds
        return Progress(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.step / self.steps_per_epoch,
            losses=self.losses,
            molecules_per_second=self.molecules_seen / max(self.seconds, 1e-9),
            seconds_left=max(0.0, left),
            valid=valid,
        )

    def evaluation_is_due(self) -> bool:
        return self.step % self.evaluate_every == 0 or self.step >= self.total_steps

    def evaluate(self) -> tuple[Metrics, bool]:
        """Metrics of the averaged copy on the valid split, and whether it is the best so far (kept then)."""
        module = self.averaged.module.eval()
        metrics = self.metrics(module, "valid")
        loss = valid_loss(metrics, self.targets)
        better = loss < self.best_loss
        if better:
            self.best_loss, self.best_metrics = loss, metrics
            self.best_model = {name: t.detach().cpu().clone() for name, t in module.state_dict().items()}
        return metrics, better

    def metrics(self, model: nn.Module, split: str) -> Metrics:
        rows = self.data.labelled(split)
        return split_metrics(
            in_units(self.predict(model, rows), self.targets), self.data.targets[rows], self.targets
        )

    def record(self, valid: Metrics) -> None:
        """Add a line to the learning curves."""
        line = {"step": self.step, "epoch": self.step / self.steps_per_epoch, "seconds": self.seconds}
        line |= {"learning_rate": self.learning_rate()} | {
            f"loss {name}": v for name, v in self.losses.items()
        }
        for name, measures in valid.items():
            line |= {f"{name} {measure}": value for measure, value in measures.items() if measure != "n"}
        self.history.append(line)

    def best_copy(self) -> Any:
        """The best model so far, on the CPU."""
        # A copy, not a new model, whose initial values would use up random numbers of the run.
        model = copy.deepcopy(self.averaged.module).cpu()
        model.load_state_dict(self.best_model)
        return model.eval()

    def finish(self, folder: Path) -> None:
        """Save the best model with its figures, on the test split too, looked at here for the only time."""
        model = self.best_copy().to(self.device)
        splits = [split for split in ("valid", "test") if len(self.data.labelled(split))]
        self.save(folder, {split: self.metrics(model, split) for split in splits})

    def about(self) -> dict[str, Any]:
        """How the model came to be, for its folder."""
        return self._of_start() | {
            "data": self.data.files,
            "columns": [asdict(column) for column in self.columns],
            "left_out": self.data.left_out,
            "molecules": {split: len(self.data.rows(split)) for split in SPLITS},
            "options": asdict(self.config),
            "before": self.before,
            "steps": self.step,
            "epochs": round(self.step / self.steps_per_epoch, 2),
            "seconds": round(self.seconds),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {self.device.type}",
            "versions": {"stkd-screen": __version__, "torch": torch.__version__},
        }

    def _of_start(self) -> dict[str, str]:
        return {"start": self.start.sha256} if self.start is not None else {}

    # Checkpoints

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: data, targets, options but for length, storage and memory."""
        free = ("epochs", "max_minutes", "half", "teacher_memory")
        options = {name: value for name, value in asdict(self.config).items() if name not in free}
        return {
            "kind": type(self).__name__,
            "data": self.data.fingerprint(),
            "targets": [asdict(column) for column in self.columns],
            **options,
            **self._of_start(),  # by its hash, not its name
        }

    def state(self) -> dict[str, Any]:
        return {
            "length": (self.config.epochs, self.config.max_minutes),
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_of_gpus": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "counters": {name: getattr(self, name) for name in self.COUNTERS},
            "best_model": self.best_model,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        planned = {"total_steps": self.total_steps, "length_is_fixed": self.length_is_fixed}
        counters = state["counters"]
        if state["length"] != (self.config.epochs, self.config.max_minutes):
            counters = counters | planned  # the run was made longer or shorter
        for name, value in counters.items():
            setattr(self, name, value)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_of_gpus"]:
            torch.cuda.set_rng_state_all([random.cpu() for random in state["random_of_gpus"]])
        self.best_model = state["best_model"]
        self.first_step = self.step


@dataclass(frozen=True)
class Prepared:
    """A batch ready for a step, and its place in the run."""

    epoch: int
    number: int  # in its epoch, from 1
    molecules: int
    tensors: Any


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on the weights of linear layers; none on tables, biases and norms."""
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
