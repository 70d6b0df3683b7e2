"""A teacher's folder, and what a teacher says."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stkd_screen.batching import equal_length_batches
from stkd_screen.precision import autocast, choose_precision
from stkd_screen.smiles import Molecules
from stkd_screen.targets import Target
from stkd_screen.teach.coverage import Coverage
from stkd_screen.teach.evaluate import Metrics
from stkd_screen.teach.evaluate import predict as predict_student
from stkd_screen.teach.graphormer import Graphormer, GraphormerConfig, Teaching
from stkd_screen.teach.graphs import Graphs
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.structure import graph_batch
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.weights import (
    ATOM_TYPES,
    Weights,
    built,
    find_weights,
    load_weights,
    model_kind,
    pop_atom_types,
    read_model_folder,
    write_model_folder,
)

FORMAT = 1  # of the folder, and of the features that a teacher sees
BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}  # of one forward pass where nothing is learned
ATTENTION_WEIGHTS = 2**26  # of all layers, in one such pass that keeps them: 256 MB


@dataclass(frozen=True)
class Teacher:
    """A trained Graphormer with all that is needed to learn from it."""

    model: Graphormer
    targets: list[Target]
    coverage: Coverage  # of the labels it was trained on
    training: dict[str, Any] = field(default_factory=dict)  # data, hashes, options, time, machine
    metrics: dict[str, Metrics] = field(default_factory=dict)
    name: str = ""
    sha256: str = ""

    @property
    def columns(self) -> list[TargetColumn]:
        """The targets as columns of the tables it was trained on."""
        return [TargetColumn(**column) for column in self.training["columns"]]


def save_teacher(teacher: Teacher, folder: Path) -> Teacher:
    """Write model.safetensors and config.json; the same with name and hash."""
    config = {
        "kind": "teacher",
        "format": FORMAT,
        "graphormer": teacher.model.config.to_dict(),
        "targets": [asdict(target) for target in teacher.targets],
        "max_heavy_atoms": teacher.coverage.max_heavy_atoms,
        "metrics": teacher.metrics,
        "training": teacher.training,
    }
    types = {
        ATOM_TYPES + level: torch.from_numpy(codes) for level, codes in teacher.coverage.atom_types.items()
    }
    sha256 = write_model_folder(folder, teacher.model.state_dict() | types, config)
    return replace(teacher, name=folder.name, sha256=sha256)


def load_teacher(folder: str | Path) -> Teacher:
    """Load a teacher's folder, or a shipped teacher by name.

    Raises:
        WeightsError: the folder is missing, incomplete, altered, or holds no teacher.
    """
    folder = find_weights(folder)
    keys = {"graphormer", "targets", "max_heavy_atoms", "metrics", "training"}
    config, tensors = read_model_folder(folder, "teacher", {"format": FORMAT}, keys)
    coverage = Coverage(pop_atom_types(tensors), config["max_heavy_atoms"])
    model, targets = built(
        lambda: Graphormer(GraphormerConfig(**config["graphormer"])), "teacher", config, tensors, folder
    )
    return Teacher(
        model=model,
        targets=targets,
        coverage=coverage,
        training=config["training"],
        metrics=config["metrics"],
        name=folder.name,
        sha256=config["sha256"],
    )


@torch.inference_mode()
def answers(
    model: Graphormer,
    molecules: Molecules,
    graphs: Graphs,
    rows: np.ndarray,
    *,
    with_attention: bool = False,
    precision: str = "float32",
) -> Iterator[tuple[np.ndarray, Teaching]]:
    """What a teacher says of some molecules, batch by batch of one size, with the rows of each."""
    device, config = model.virtual.device, model.config

    def batch_size(atoms: int) -> int:
        T = atoms + 1
        size = BATCH_TOKENS[device.type] // T
        if with_attention:
            size = min(size, ATTENTION_WEIGHTS // (config.layers * config.heads * T * T))
        return max(1, size)

    for batch in equal_length_batches(np.diff(molecules.atom_offsets), rows, batch_size):
        with autocast(device, precision):
            yield batch, model(graph_batch(molecules, graphs, batch).to(device), with_attention)


def predict(
    model: Graphormer, molecules: Molecules, graphs: Graphs, rows: np.ndarray, precision: str = "float32"
) -> np.ndarray:
    """Standardised predictions (len(rows), targets) float32."""
    predicted = np.empty((len(molecules), model.config.targets), np.float32)
    for batch, taught in answers(model, molecules, graphs, rows, precision=precision):
        predicted[batch] = taught.prediction.float().cpu().numpy()
    return predicted[rows]


@dataclass(frozen=True)
class Model:
    """A student or a teacher, as far as measuring it and learning from its predictions go."""

    name: str
    sha256: str
    targets: list[Target]
    coverage: Coverage
    training: dict[str, Any]
    needs_graphs: bool
    precision: str  # that it is computed in
    predict: Callable[[LabelledMolecules, np.ndarray], np.ndarray]  # standardised predictions of rows
    weights: Weights | None = None  # of a student, on the device


def load_model(name: str | Path, device: torch.device, precision: str = "float32") -> Model:
    """Load a student or a teacher by shipped name or by folder.

    Args:
        name: as above.
        device, precision: of the forward pass.

    Raises:
        WeightsError: see `load_weights`.
        StkdError: the model cannot be computed in that precision.
    """
    if model_kind(find_weights(name)) == "teacher":
        precision = choose_precision(precision, device)
        teacher = load_teacher(name)
        graphormer = teacher.model.to(device)

        def predict_graphs(data: LabelledMolecules, rows: np.ndarray) -> np.ndarray:
            return predict(graphormer, data.molecules, data.needed_graphs(), rows, precision)

        return Model(
            name=teacher.name,
            sha256=teacher.sha256,
            targets=teacher.targets,
            coverage=teacher.coverage,
            training=teacher.training,
            needs_graphs=True,
            precision=precision,
            predict=predict_graphs,
        )
    precision = choose_precision(precision, device, int8=True)
    weights = load_weights(name)
    student = weights.student.to(device)
    return Model(
        name=weights.name,
        sha256=weights.sha256,
        targets=weights.targets,
        coverage=Coverage(weights.atom_types, weights.max_heavy_atoms),
        training=weights.training,
        needs_graphs=False,
        precision=precision,
        predict=lambda data, rows: predict_student(student, data.molecules, rows, precision),
        weights=weights,
    )
