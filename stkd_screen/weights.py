"""A weights folder: model.safetensors, config.json, README.md (the model card) and, where the expected errors
were calibrated, errors.safetensors. Nothing is unpickled.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from stkd_screen.errors import WeightsError
from stkd_screen.expected_errors import FILE as ERRORS
from stkd_screen.expected_errors import ExpectedErrors, load_errors
from stkd_screen.files import file_sha256, whole
from stkd_screen.smiles import AROMATIC_FLAG, Molecules
from stkd_screen.smiles.tokens import VOCABULARY_VERSION
from stkd_screen.student import Student, StudentConfig
from stkd_screen.targets import Target

FORMAT = 1
DEFAULT_MODEL = "small"
# Prefixes of the tensors that are no parameters: atom types labelled at a level, and the fingerprint basis.
ATOM_TYPES, FINGERPRINTS = "atom_types.", "fingerprint_basis."

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class FingerprintBasis:
    """Principal components of ECFP4 that an embedding was taught, kept so that training can go on."""

    mean: Tensor  # (bits,) float16, share of molecules that set each bit
    components: Tensor  # (bits, E) float16, the leading ones first


@dataclass(frozen=True)
class Weights:
    """A student with all that is needed to use and to judge it."""

    student: Student
    targets: list[Target]
    atom_types: dict[str, np.ndarray]  # level -> sorted codes (`smiles.tokens.atom_types`) with a label
    max_heavy_atoms: dict[str, int]  # level -> heavy atoms of the largest labelled molecule
    fingerprints: FingerprintBasis | None = None  # what a student's fingerprint head was taught
    errors: dict[str, ExpectedErrors] = field(default_factory=dict)  # level -> how far off it may be
    errors_sha256: str = ""  # of errors.safetensors; empty where there is none
    training: dict[str, Any] = field(default_factory=dict)  # data, hashes, options, time, machine
    metrics: dict[str, Any] = field(default_factory=dict)  # split -> level.target -> mae, rmse, r2, n
    kinds: dict[str, Any] = field(default_factory=dict)  # of the test split: kind -> level.target -> likewise
    name: str = ""
    sha256: str = ""

    @property
    def levels(self) -> list[str]:
        return list(dict.fromkeys(target.level for target in self.targets))

    def with_unlabelled_element(self, molecules: Molecules) -> np.ndarray:
        """Rows with an element that no label has, at any level, so that nothing calibrates their errors.

        Returns:
            (R,) bool.
        """
        known = np.zeros(AROMATIC_FLAG, bool)
        for codes in self.atom_types.values():
            known[codes & (AROMATIC_FLAG - 1)] = True
        return molecules.sums(~known[molecules.element & (AROMATIC_FLAG - 1)]) > 0


def shipped_folder() -> Path:
    """Where the weights that come with the package are: inside an installed package, or in the checkout."""
    package = Path(__file__).parent
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def shipped_names(kind: str = "student") -> list[str]:
    """Names of the students, or of the teachers, that come with the package."""
    folders = [path.parent for path in shipped_folder().glob("*/config.json")]
    return sorted(folder.name for folder in folders if model_kind(folder) == kind)


def find_weights(model: str | Path) -> Path:
    """Folder of a model given by shipped name or by path.

    Raises:
        WeightsError: no such name or folder; the message lists the names there are.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        folder = shipped_folder() / str(model)
    if not (folder / "config.json").is_file():
        names = ", ".join(shipped_names() + shipped_names("teacher")) or "none"
        raise WeightsError(
            f"no weights at {str(model)!r}: neither a folder with a config.json nor a shipped model; "
            f"shipped models: {names}"
        )
    return folder


def save_weights(weights: Weights, folder: Path, *, half: bool = False) -> Weights:
    """Write model.safetensors and config.json, each whole or not at all; the same with name and hash.

    Args:
        half: store the student as float16; see `round_to_half`.

    Raises:
        WeightsError: float16 cannot hold a value.
    """
    tensors = weights.student.state_dict()
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            if tensor.isinf().any():
                raise WeightsError(f"{name} has values that float16 cannot hold; store float32, --no-half")
    tensors |= {ATOM_TYPES + level: torch.from_numpy(codes) for level, codes in weights.atom_types.items()}
    if weights.fingerprints is not None:
        tensors |= {FINGERPRINTS + name: tensor for name, tensor in vars(weights.fingerprints).items()}
    config = {
        "kind": "student",
        "format": FORMAT,
        "vocabulary": VOCABULARY_VERSION,
        "student": weights.student.config.to_dict(),
        "targets": [asdict(target) for target in weights.targets],
        "max_heavy_atoms": weights.max_heavy_atoms,
        "metrics": weights.metrics,
        "kinds": weights.kinds,
        "training": weights.training,
    }
    (folder / ERRORS).unlink(missing_ok=True)  # those of the weights that were there
    sha256 = write_model_folder(folder, tensors, config)
    return replace(weights, name=folder.name, sha256=sha256)


@torch.no_grad()
def round_to_half(student: Student) -> None:
    """Make a student what it will be when it was stored as float16."""
    for parameter in student.parameters():
        parameter.copy_(parameter.half())


def load_weights(model: str | Path = DEFAULT_MODEL, *, with_errors: bool = True) -> Weights:
    """Load a shipped model by name, or any weights folder by path; with its expected errors, or without.

    Raises:
        WeightsError: the folder is missing or incomplete, was altered, comes from another version of the
            format or the vocabulary, or its tensors do not fit its configuration.
    """
    folder = find_weights(model)
    keys = {"student", "targets", "max_heavy_atoms", "metrics", "training"}
    versions = {"format": FORMAT, "vocabulary": VOCABULARY_VERSION}
    config, tensors = read_model_folder(folder, "student", versions, keys)
    atom_types = pop_atom_types(tensors)
    taken = {field.name: tensors.pop(FINGERPRINTS + field.name, None) for field in fields(FingerprintBasis)}
    basis = {name: tensor.clone() for name, tensor in taken.items() if tensor is not None}
    student, targets = built(
        lambda: Student(StudentConfig(**config["student"])), "student", config, tensors, folder
    )
    return Weights(
        student=student,
        targets=targets,
        atom_types=atom_types,
        max_heavy_atoms=config["max_heavy_atoms"],
        fingerprints=FingerprintBasis(**basis) if len(basis) == len(taken) else None,
        errors=load_errors(folder, config["sha256"]) if with_errors else {},
        errors_sha256=file_sha256(folder / ERRORS) if with_errors and (folder / ERRORS).is_file() else "",
        training=config["training"],
        metrics=config["metrics"],
        kinds=config.get("kinds", {}),
        name=folder.name,
        sha256=config["sha256"],
    )


def write_model_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> str:
    """Write model.safetensors and config.json with the hash of the former, each whole or not at all.

    Returns:
        The hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "config.json") as config_file, whole(folder / "model.safetensors") as file:
        # With the usual permissions; save_file makes a private file.
        file.write_bytes(serialize({name: tensor.contiguous() for name, tensor in tensors.items()}))
        sha256 = file_sha256(file)
        config_file.write_text(json.dumps(config | {"sha256": sha256}, indent=1) + "\n", encoding="utf-8")
    return sha256


def read_model_folder(
    folder: Path, kind: str, versions: dict[str, int], keys: set[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a folder, checked.

    Args:
        folder: holds config.json and model.safetensors.
        kind: student or teacher.
        versions: values that the configuration must have.
        keys: what else it must have.

    Raises:
        WeightsError: see `load_weights`.
    """
    path = folder / "config.json"
    config = _read_config(path)
    found = config.get("kind", "student")
    if found != kind:
        raise WeightsError(f"{folder} holds a {found}; a {kind} is needed here")
    for key, version in versions.items():
        if config.get(key) != version:
            raise WeightsError(
                f"{path}: {key} version is {config.get(key)}, this program reads {version}; "
                "use the stkd-screen version that wrote it, or train anew"
            )
    missing = (keys | {"sha256"}) - config.keys()
    if missing:
        raise WeightsError(f"{path}: missing {', '.join(sorted(missing))}; copy the folder anew")
    file = folder / "model.safetensors"
    if not file.is_file():
        raise WeightsError(f"{folder}: config.json is there but model.safetensors is missing")
    sha256 = file_sha256(file)
    if sha256 != config["sha256"]:
        raise WeightsError(
            f"{file}: its SHA-256 is {sha256[:12]}..., config.json says {str(config['sha256'])[:12]}...: "
            "the file was altered or cut short; copy the folder anew"
        )
    try:
        return config, load_file(file)
    except SafetensorError as error:
        raise WeightsError(f"{file} is no safetensors file: {error}; copy the folder anew") from error


def pop_atom_types(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Take the atom types that labels covered, level -> codes, out of the tensors of a folder."""
    names = [name for name in tensors if name.startswith(ATOM_TYPES)]
    return {name.removeprefix(ATOM_TYPES): tensors.pop(name).numpy() for name in names}


def model_kind(folder: Path) -> str:
    """Student or teacher, by a folder's config.json."""
    return str(_read_config(folder / "config.json").get("kind", "student"))


def trained_preset(folder: Path) -> str | None:
    """The preset whose options a folder's model was trained with, as far as its config.json says so."""
    training = _read_config(folder / "config.json").get("training", {})
    return training.get("options", {}).get("preset")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} describes no model; copy the folder anew")
    return config


def built(
    make: Callable[[], M], kind: str, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path
) -> tuple[M, list[Target]]:
    """A model of a folder, in float32 and in evaluation mode, and its targets.

    Args:
        make: the model by its configuration, with any values.
        kind: student or teacher.
        config, tensors, folder: as `read_model_folder` gives and takes them.

    Raises:
        WeightsError: there is no model of that configuration, or the tensors do not fit it.
    """
    try:
        with torch.device("meta"):  # takes no memory before the tensors are known to fit
            model = make()
        targets = [Target(**target) for target in config["targets"]]
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(f"{folder / 'config.json'} describes no {kind}: {error}; copy it anew") from error
    # Not maps of the file.
    own = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    try:
        model.load_state_dict(own, assign=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{folder / 'model.safetensors'} does not fit {folder / 'config.json'}: {error}"
        ) from error
    return model.eval(), targets
