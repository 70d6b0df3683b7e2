"""Train one of the paper's baselines on the data, splits, schedule and evaluation of the package's students.

    python benchmarks/train_baseline.py gin-vn qm9.csv pcqm.csv -o out/gin-vn --max-minutes 30

Models: st-base, mlp-ecfp, gcn, gin, gcn-vn, gin-vn. An interrupted run goes on where it stopped when the same
command is given again. The output folder then holds model.safetensors, config.json with the metrics of all
splits, curves.csv and curves.png.
"""

import hashlib
import json
import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer
from baselines import (
    GRAPH_PRESETS,
    MLP_PRESETS,
    FingerprintMLP,
    GraphNetwork,
    SmilesTransformer,
    code_of_each,
    pack_graphs,
    packed_fingerprints,
    smiles_tokens,
    token_codes,
)
from rdkit import Chem
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stkd_screen.batching import equal_length_batches
from stkd_screen.cli.display import Terminal, TrainingDisplay, metrics_table
from stkd_screen.cli.options import Data, Device, SmilesColumn, SplitBy, SplitColumn, SplitSeed
from stkd_screen.cli.training import (
    BatchSize,
    Dropout,
    Ema,
    Epochs,
    LearningRate,
    LkmGamma,
    MaxMinutes,
    Restart,
    Seed,
    TargetOption,
    WeightDecay,
    given,
    read_training_set,
)
from stkd_screen.encoder import choose_device
from stkd_screen.errors import StkdError, TrainingError
from stkd_screen.smiles import Molecules
from stkd_screen.student import PRESETS
from stkd_screen.teach.datasets import find_table
from stkd_screen.teach.evaluate import Metrics
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules
from stkd_screen.teach.loop import run
from stkd_screen.teach.losses import knowledge_mixing, task_loss
from stkd_screen.teach.prepared import SUFFIX
from stkd_screen.teach.tables import _open_table, _smiles, parse_series
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.train import PAPER
from stkd_screen.teach.trainer import LoopConfig, Trainer
from stkd_screen.weights import write_model_folder

FORMAT = 1  # of the folder
PREDICTED_AT_ONCE = 256  # molecules of one forward pass where nothing is learned

# What the preset `paper` is trained with where that differs from the student `small`: OGB's scripts; table 6
# of the paper for ST-BASE.
OGB = {"epochs": 100, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 0.0, "beta_2": 0.999}


@dataclass(frozen=True)
class BaselineConfig(LoopConfig):
    """How a baseline is trained."""

    model: str = "gin-vn"
    random_writings: int = 5  # equivalent SMILES of each training molecule that ST-BASE also sees


class BaselineTrainer(Trainer):
    """A baseline on its way. What it makes of molecules is left to the classes derived from this one."""

    config: BaselineConfig

    def __init__(self, data: LabelledMolecules, config: BaselineConfig) -> None:
        super().__init__(data, config)
        # The running statistics of batch norms are averaged like the weights that they belong to.
        self.averaged = AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True)
        self.averaged.n_averaged = self.averaged.n_averaged.cpu()

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():  # not the counters of the batch norms
            super()._average(averaged, current, updates)

    @abstractmethod
    def inputs(self, rows: np.ndarray) -> Any:
        """What the model takes, on the CPU."""

    def training_inputs(self, rows: np.ndarray) -> Any:
        """The same as this epoch shows it."""
        return self.inputs(rows)

    def plain_lengths(self) -> np.ndarray:
        """(R,) tokens of each molecule; all 1 where batches mix molecules of any size."""
        return np.ones(len(self.data.molecules), np.int64)

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Size, and what else belongs in the configuration."""

    def lengths(self) -> np.ndarray:
        return self.plain_lengths()

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """As for every model, but for single molecules left over: batch norm needs two."""
        return [rows for rows in super().epoch_batches(epoch) if len(rows) > 1]

    def begin_epoch(self, epoch: int) -> None:
        pass  # fingerprints and graphs are the same in every epoch

    def prepare(self, rows: np.ndarray) -> Any:
        return self.training_inputs(rows), torch.from_numpy(self.standardised[rows])

    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        inputs, target = (part.to(self.device) for part in batch)
        states: list[Tensor] | None = [] if self.config.lkm_gamma else None
        terms = {"task": task_loss(self.model(inputs, states), target, self.classes)}
        if states is not None:
            terms["lkm"] = self.config.lkm_gamma * knowledge_mixing(states)
        return terms

    @torch.inference_mode()
    def predict(self, model: nn.Module, rows: np.ndarray) -> np.ndarray:
        predicted = np.empty((len(self.data.molecules), len(self.targets)), np.float32)
        for batch in equal_length_batches(self.plain_lengths(), rows, lambda T: PREDICTED_AT_ONCE):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                predicted[batch] = model(self.inputs(batch).to(self.device)).cpu().numpy()
        return predicted[rows]

    def finish(self, folder: Path) -> None:
        """Save the best model with its figures on all splits."""
        model = self.best_copy().to(self.device)
        splits = [split for split in SPLITS if len(self.data.rows(split))]
        self.save(folder, {split: self.metrics(model, split) for split in splits})

    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def save(self, folder: Path, metrics: dict[str, Metrics]) -> None:
        model = self.best_copy()
        config = {
            "kind": "baseline",
            "format": FORMAT,
            "model": self.config.model,
            "parameters": self.parameters(),
            **self.description(),
            "targets": [asdict(target) for target in self.targets],
            "metrics": metrics,
            "training": self.about(),
        }
        write_model_folder(folder, model.state_dict(), config)


class GraphTrainer(BaselineTrainer):
    """GCN or GIN."""

    def build(self) -> nn.Module:
        self.graphs = self.data.needed_graphs()
        kind, _, virtual = self.config.model.partition("-")
        self.size = chosen_size(GRAPH_PRESETS, self.config)
        return GraphNetwork(kind, self.size, bool(virtual), len(self.columns))

    def inputs(self, rows: np.ndarray) -> Any:
        return pack_graphs(self.data.molecules, self.graphs, rows)

    def description(self) -> dict[str, Any]:
        return {"size": asdict(self.size)}


class FingerprintTrainer(BaselineTrainer):
    """MLP-ECFP."""

    def __init__(self, data: LabelledMolecules, config: BaselineConfig, smiles: list[str]) -> None:
        self.packed = packed_fingerprints(smiles)
        super().__init__(data, config)

    def build(self) -> nn.Module:
        self.size = chosen_size(MLP_PRESETS, self.config)
        return FingerprintMLP(self.size, len(self.columns))

    def inputs(self, rows: np.ndarray) -> Any:
        return torch.from_numpy(np.unpackbits(self.packed[rows], axis=1))

    def description(self) -> dict[str, Any]:
        return {"size": asdict(self.size)}


class SmilesTrainer(BaselineTrainer):
    """ST-BASE. An epoch shows a training molecule as it is written, or in one of its random writings.

    The paper adds 5 random writings of every molecule to the training set. Here each epoch draws one of the
    6, so that an epoch is as long as that of the other models.
    """

    def __init__(self, data: LabelledMolecules, config: BaselineConfig, smiles: list[str]) -> None:
        train = data.rows("train")
        others = [
            random_writings(smiles[row], config.random_writings, config.seed * 1_000_003 + int(row))
            for row in train
        ]
        # Writing r < R is row r as it stands in the table; then come the others, training row after row.
        texts = [smiles_tokens(text) for text in chain(smiles, *others)]
        known = {token for row in train for token in texts[row]}
        known |= {token for text in texts[len(smiles) :] for token in text}
        code = code_of_each(known)
        self.vocabulary = list(code)
        codes = [token_codes(text, code) for text in texts]
        self.token_counts = np.array([len(row) for row in codes])
        self.first_token = np.cumsum(self.token_counts) - self.token_counts
        self.tokens = np.fromiter(chain.from_iterable(codes), np.int16)
        self.shown = np.arange(len(smiles))  # (R,) the writing of each row in this epoch
        self.smiles_sha256 = hashlib.sha256("\n".join(smiles).encode()).hexdigest()
        super().__init__(data, config)

    def build(self) -> nn.Module:
        size = chosen_size(PRESETS, self.config)
        self.size = replace(size, targets=len(self.columns))
        return SmilesTransformer(self.size, len(self.vocabulary))

    def plain_lengths(self) -> np.ndarray:
        return self.token_counts[: len(self.data.molecules)]

    def lengths(self) -> np.ndarray:
        return self.token_counts[self.shown]

    def begin_epoch(self, epoch: int) -> None:
        train, count = self.data.rows("train"), self.config.random_writings
        chosen = np.random.default_rng((self.config.seed, epoch, 1)).integers(0, count + 1, len(train))
        other = len(self.shown) + np.arange(len(train)) * count + chosen - 1
        self.shown[train] = np.where(chosen == 0, train, other)

    def inputs(self, rows: np.ndarray) -> Any:
        return self.laid_out(rows)

    def training_inputs(self, rows: np.ndarray) -> Any:
        return self.laid_out(self.shown[rows])

    def laid_out(self, writings: np.ndarray) -> Tensor:
        """(B, T) int16 of writings that all have T tokens."""
        T = self.token_counts[writings[0]]
        return torch.from_numpy(self.tokens[self.first_token[writings][:, None] + np.arange(T)])

    def description(self) -> dict[str, Any]:
        return {"size": asdict(self.size), "vocabulary": self.vocabulary}

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"smiles": self.smiles_sha256}


def chosen_size(presets: dict[str, Any], config: BaselineConfig) -> Any:
    """The size of the preset, with the dropout that was asked for.

    Raises:
        TrainingError: no such preset.
    """
    if config.preset not in presets:
        raise TrainingError(f"no preset {config.preset!r}; presets: {', '.join(presets)}")
    size = presets[config.preset]
    return size if config.dropout is None else replace(size, dropout=config.dropout)


def random_writings(smiles: str, count: int, seed: int) -> list[str]:
    """Equivalent SMILES with the atoms in random order."""
    return [*Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), count, 1 + seed % 2**30)] if count else []


# Data


def smiles_of(
    data: LabelledMolecules,
    tables: Sequence[str],
    columns: Sequence[TargetColumn] = (),
    smiles_column: str | None = None,
) -> list[str]:
    """The SMILES of each row, from the tables that the rows were read from.

    The rows are those of the tables in order, some left out: each takes the next SMILES that is read as the
    very same atoms and bonds.
    """
    texts = pl.concat([_smiles(_open_table(find_table(name), columns, ()), smiles_column) for name in tables])
    candidates = zip(_keys(parse_series(texts)), texts.to_list(), strict=True)
    return [next(text for key, text in candidates if key == wanted) for wanted in _keys(data.molecules)]


def _keys(molecules: Molecules) -> list[bytes]:
    """The atoms and bonds of each molecule as bytes."""
    m = molecules
    keys = []
    for row in range(len(m)):
        atoms = slice(*m.atom_offsets[row : row + 2])
        bonds = slice(*m.bond_offsets[row : row + 2])
        parts = [array[atoms] for array in (m.element, m.charge, m.hydrogens, m.chirality)]
        parts += [m.bond_atoms[bonds], m.bond_type[bonds]]
        keys.append(b"|".join(part.tobytes() for part in parts))
    return keys


# The command

FROM_SMILES = {"st-base": SmilesTrainer, "mlp-ecfp": FingerprintTrainer}
FROM_GRAPHS = ("gcn", "gin", "gcn-vn", "gin-vn")
MODELS = (*FROM_SMILES, *FROM_GRAPHS)
RECIPES = {"paper": {"st-base": PAPER} | dict.fromkeys(MODELS[1:], OGB)}


def configuration(model: str, preset: str, **options: Any) -> BaselineConfig:
    """The recipe of a model, with single options of one's own.

    Raises:
        TrainingError: no such model.
    """
    if model not in MODELS:
        raise TrainingError(f"no model {model!r}; models: {', '.join(MODELS)}")
    recipe = RECIPES.get(preset, {}).get(model, {})
    return BaselineConfig(model=model, preset=preset, **(recipe | options))


def needs_smiles(model: str, tables: Sequence[str]) -> bool:
    """Whether a model reads the text of the SMILES.

    Raises:
        TrainingError: it does, and there is only a prepared file.
    """
    prepared = [name for name in tables if name.endswith(SUFFIX)]
    if model in FROM_SMILES and prepared:
        raise TrainingError(
            f"{model} reads SMILES, and a prepared file such as {prepared[0]} holds none: give the tables "
            "that it was prepared from"
        )
    return model in FROM_SMILES


def trainer_of(
    data: LabelledMolecules, config: BaselineConfig, smiles: list[str] | None = None
) -> BaselineTrainer:
    """The trainer of a model; with the SMILES of each row where the model reads them."""
    if config.model in FROM_GRAPHS:
        return GraphTrainer(data, config)
    assert smiles is not None
    return FROM_SMILES[config.model](data, config, smiles)


def train_baseline(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS)}.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    target: TargetOption = None,
    smiles_column: SmilesColumn = None,
    split_column: SplitColumn = None,
    split_by: SplitBy = None,
    split_seed: SplitSeed = 0,
    preset: Annotated[str, typer.Option(help="Size of the model: small, paper or tiny.")] = "small",
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    ema: Ema = None,
    dropout: Dropout = None,
    lkm_gamma: LkmGamma = None,
    random_writings: Annotated[
        int | None, typer.Option(min=0, help="Of ST-BASE: random writings of each training molecule.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    restart: Restart = False,
) -> None:
    """Train one of the paper's baselines as the students are trained.

    An interrupted run goes on where it stopped when the same command is given again.

        python benchmarks/train_baseline.py gin-vn qm9.csv pcqm.csv -o out/gin-vn
    """
    console = Terminal(stderr=True)
    config = configuration(
        model,
        preset,
        **given(
            epochs=epochs,
            max_minutes=max_minutes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            ema=ema,
            dropout=dropout,
            lkm_gamma=lkm_gamma,
            random_writings=random_writings,
            seed=seed,
            device=str(choose_device(device)),
            precision="auto",
        ),
    )
    reads_smiles = needs_smiles(model, data)
    # With graphs for every model, so that all of them learn from the same rows.
    labelled = read_training_set(
        console,
        data,
        target,
        smiles_column=smiles_column,
        split_column=split_column,
        split_by=split_by,
        split_seed=split_seed,
        graphs=True,
    )
    columns = [TargetColumn.parse(text) for text in target or ()]
    smiles = smiles_of(labelled, data, columns, smiles_column) if reads_smiles else None
    trainer = trainer_of(labelled, config, smiles)
    console.note(f"{model}, {preset}: {trainer.parameters():,} parameters")
    with TrainingDisplay(console) as display:
        run(trainer, output, display.update, restart=restart)
    metrics = json.loads((output / "config.json").read_text(encoding="utf-8"))["metrics"]
    console.print(metrics_table({"valid, at the start": trainer.before, **metrics}, trainer.targets))
    console.print(
        f"in {output}: model.safetensors, config.json with these figures, curves.png and curves.csv"
    )


if __name__ == "__main__":
    try:
        typer.run(train_baseline)
    except StkdError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
