"""A training set in one file that is mapped into memory: training then needs neither RDKit nor the tables.

The file is in the safetensors format: arrays one after another behind a header, nothing to unpickle.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stkd_screen.errors import TrainingError
from stkd_screen.files import whole
from stkd_screen.smiles import Molecules
from stkd_screen.teach.graphs import Graphs
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.teach.targets import TargetColumn

SUFFIX = ".prepared"
FORMAT = 2


def save_prepared(data: LabelledMolecules, path: Path) -> None:
    """Write a training set; the file appears whole or not at all.

    Raises:
        TrainingError: the file cannot be written, or its name does not end in .prepared.
    """
    if path.suffix != SUFFIX:
        raise TrainingError(
            f"{path}: a prepared training set is recognised by its name; call it {path.stem}{SUFFIX}"
        )
    arrays = _arrays(data.molecules, "molecules") | {"targets": data.targets, "split": data.split}
    if data.graphs is not None:
        arrays |= _arrays(data.graphs, "graphs")
    about = {
        "format": FORMAT,
        "columns": [asdict(column) for column in data.columns],
        "files": data.files,
        "left_out": data.left_out,
        "notes": data.notes,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with whole(path) as partial:
            # With the usual permissions; save_file makes a private file.
            partial.write_bytes(save(tensors, metadata={"stkd_screen": json.dumps(about)}))
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be written: {error}; choose another -o") from error


def load_prepared(path: Path) -> LabelledMolecules:
    """A training set; the arrays stay in the file until they are looked at.

    Raises:
        TrainingError: no such file, or it is damaged or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("stkd_screen", "{}"))
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path} cannot be read as a prepared training set ({error}); prepare it anew"
        ) from error
    if about.get("format") != FORMAT:
        raise TrainingError(
            f"{path}: format version is {about.get('format')}, this program reads {FORMAT}; prepare it anew"
        )
    return LabelledMolecules(
        molecules=Molecules(**_of(arrays, "molecules")),
        targets=arrays["targets"],
        split=arrays["split"],
        files=about["files"],
        left_out=about["left_out"],
        notes=about["notes"],
        columns=[TargetColumn(**column) for column in about["columns"]],
        graphs=Graphs(**graphs) if (graphs := _of(arrays, "graphs")) else None,
    )


def _arrays(packed: Molecules | Graphs, name: str) -> dict[str, np.ndarray]:
    return {f"{name}.{field.name}": getattr(packed, field.name) for field in fields(packed)}


def _of(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {
        key.removeprefix(name + "."): array for key, array in arrays.items() if key.startswith(name + ".")
    }
