"""A weights folder: model.safetensors, config.json and README.md (the model card). Nothing is unpickled."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from stkd_screen.errors import WeightsError
from stkd_screen.smiles.tokens import VOCABULARY_VERSION
from stkd_screen.student import Student, StudentConfig

FORMAT = 1
DEFAULT_MODEL = "small"
ATOM_TYPES = "atom_types."  # prefix of the tensors that are no parameters: atom types labelled at a level


@dataclass(frozen=True)
class Target:
    """One predicted property at one level of theory, with the scale the model was trained in."""

    name: str  # homo, lumo, gap, or any other name
    level: str  # qm9, pcqm, or any other name
    unit: str
    mean: float
    std: float


@dataclass(frozen=True)
class Weights:
    """A student with all that is needed to use and to judge it."""

    student: Student
    targets: list[Target]
    atom_types: dict[
        str, np.ndarray
    ]  # level -> sorted codes of the atom types a label covered (`atom_types`)
    max_heavy_atoms: dict[str, int]  # level -> heavy atoms of the largest labelled molecule
    training: dict[str, Any] = field(default_factory=dict)  # data, hashes, options, time, machine
    metrics: dict[str, Any] = field(default_factory=dict)  # split -> level.target -> mae, rmse, r2, n
    name: str = ""
    sha256: str = ""

    @property
    def levels(self) -> list[str]:
        return list(dict.fromkeys(target.level for target in self.targets))


def shipped_folder() -> Path:
    """Where the weights that come with the package are: inside an installed package, or in the checkout."""
    package = Path(__file__).parent
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def shipped_names() -> list[str]:
    return sorted(path.parent.name for path in shipped_folder().glob("*/config.json"))


def find_weights(model: str | Path) -> Path:
    """Folder of a model given by shipped name or by path.

    Raises:
        WeightsError: no such name or folder; the message lists the names there are.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        folder = shipped_folder() / str(model)
    if not (folder / "config.json").is_file():
        names = ", ".join(shipped_names()) or "none"
        raise WeightsError(
            f"no weights at {str(model)!r}: neither a folder with a config.json nor a shipped model; "
            f"shipped models: {names}"
        )
    return folder


def save_weights(weights: Weights, folder: Path) -> None:
    """Write model.safetensors and config.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in weights.student.state_dict().items()}
    tensors |= {ATOM_TYPES + level: torch.from_numpy(codes) for level, codes in weights.atom_types.items()}
    partial = folder / "model.safetensors.partial"
    partial.write_bytes(serialize(tensors))  # with the usual permissions; save_file makes a private file
    config = {
        "format": FORMAT,
        "vocabulary": VOCABULARY_VERSION,
        "sha256": file_sha256(partial),
        "student": weights.student.config.to_dict(),
        "targets": [asdict(target) for target in weights.targets],
        "max_heavy_atoms": weights.max_heavy_atoms,
        "metrics": weights.metrics,
        "training": weights.training,
    }
    config_partial = folder / "config.json.partial"
    config_partial.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / "model.safetensors")
    os.replace(config_partial, folder / "config.json")


def load_weights(model: str | Path = DEFAULT_MODEL) -> Weights:
    """Load a shipped model by name, or any weights folder by path.

    Raises:
        WeightsError: the folder is missing or incomplete, was altered, comes from another version of the
            format or the vocabulary, or its tensors do not fit its configuration.
    """
    folder = find_weights(model)
    config = _read_config(folder)
    file = folder / "model.safetensors"
    if not file.is_file():
        raise WeightsError(f"{folder}: config.json is there but model.safetensors is missing")
    sha256 = file_sha256(file)
    if sha256 != config["sha256"]:
        raise WeightsError(
            f"{file}: its SHA-256 is {sha256[:12]}..., config.json says {config['sha256'][:12]}...: "
            "the file was altered or cut short; copy the folder anew"
        )
    tensors = load_file(file)
    atom_types = {
        name.removeprefix(ATOM_TYPES): tensors.pop(name).numpy()
        for name in list(tensors)
        if name.startswith(ATOM_TYPES)
    }
    student = Student(StudentConfig(**config["student"]))
    try:
        student.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{file} does not fit {folder / 'config.json'}: {error}") from error
    return Weights(
        student=student.eval(),
        targets=[Target(**target) for target in config["targets"]],
        atom_types=atom_types,
        max_heavy_atoms=config["max_heavy_atoms"],
        training=config["training"],
        metrics=config["metrics"],
        name=folder.name,
        sha256=sha256,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    wanted = {"format": FORMAT, "vocabulary": VOCABULARY_VERSION}
    for key, version in wanted.items():
        if config.get(key) != version:
            raise WeightsError(
                f"{path}: {key} version is {config.get(key)}, this program reads {version}; "
                "use the stkd-screen version that wrote it, or train anew"
            )
    missing = {"sha256", "student", "targets", "max_heavy_atoms", "metrics", "training"} - config.keys()
    if missing:
        raise WeightsError(f"{path}: missing {', '.join(sorted(missing))}; copy the folder anew")
    return config


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
