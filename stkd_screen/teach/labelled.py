"""What training sees: molecules, their labels, their side of the split and, for a teacher, their graphs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np

from stkd_screen.errors import TrainingError
from stkd_screen.smiles import Molecules
from stkd_screen.targets import Target
from stkd_screen.teach.graphs import Graphs
from stkd_screen.teach.targets import TargetColumn

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class LabelledMolecules:
    """R usable rows of one or more tables."""

    molecules: Molecules
    targets: np.ndarray  # (R, targets) float32 in output units, NaN where a molecule lacks a target
    split: np.ndarray  # (R,) int8, index into SPLITS
    files: list[dict]  # name, sha256, rows and the way of splitting of each table
    left_out: list[str]  # why rows were left out, with a count and the first place of each reason
    notes: list[str] = field(default_factory=list)  # what looks odd about the labels
    columns: list[TargetColumn] = field(default_factory=list)  # where the targets come from
    graphs: Graphs | None = None

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def labelled(self, split: str) -> np.ndarray:
        """Row numbers of the molecules of a split that have a label, ascending."""
        rows = self.rows(split)
        return rows[np.isfinite(self.targets[rows]).any(axis=1)]

    def needed_graphs(self) -> Graphs:
        """The graphs.

        Raises:
            TrainingError: the molecules were read without.
        """
        if self.graphs is None:
            raise TrainingError("these molecules come without graphs; read them with graphs=True")
        return self.graphs

    def fingerprint(self) -> str:
        """SHA-256 of everything a run learns from."""
        digest = hashlib.sha256()
        m = self.molecules
        parts = [m.atom_offsets, m.element, m.charge, m.hydrogens, m.bond_atoms, m.bond_type]
        if self.graphs is not None:
            parts += [getattr(self.graphs, field_.name) for field_ in fields(self.graphs)]
        for array in (*parts, self.targets, self.split):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def joined(*sets: LabelledMolecules) -> LabelledMolecules:
    """Several sets with the same targets as one."""
    if len(sets) == 1:
        return sets[0]
    graphs = [part.graphs for part in sets if part.graphs is not None]
    return LabelledMolecules(
        molecules=concatenated([part.molecules for part in sets]),
        targets=np.concatenate([part.targets for part in sets]),
        split=np.concatenate([part.split for part in sets]),
        files=[file for part in sets for file in part.files],
        left_out=[reason for part in sets for reason in part.left_out],
        notes=[note for part in sets for note in part.notes],
        columns=sets[0].columns,
        graphs=concatenated(graphs) if len(graphs) == len(sets) else None,
    )


Packed = TypeVar("Packed", Molecules, Graphs)


def concatenated(parts: list[Packed]) -> Packed:
    """Packed arrays one after another, field by field; offsets go on from those of the part before."""
    arrays = {}
    for field_ in fields(parts[0]):
        values = [getattr(part, field_.name) for part in parts]
        if field_.name.endswith("_offsets"):
            starts = np.cumsum([0] + [offsets[-1] for offsets in values])
            values = [
                offsets[k > 0 :] + start
                for k, (offsets, start) in enumerate(zip(values, starts[:-1], strict=True))
            ]
        arrays[field_.name] = np.concatenate(values)
    return type(parts[0])(**arrays)


def standardisation(
    values: np.ndarray, columns: Sequence[TargetColumn], known: Sequence[Target] = ()
) -> list[Target]:
    """Mean and standard deviation of each target over the molecules that have it; 0 and 1 for a class.

    Args:
        values: (R, targets) of the training molecules, NaN where missing.
        columns: the targets.
        known: targets that keep their scale, where name, level and unit are the same.

    Raises:
        TrainingError: a target has fewer than two different values.
    """
    scales = {(target.full_name, target.unit): target for target in known}
    targets = []
    for k, column in enumerate(columns):
        if (scale := scales.get((column.full_name, column.output_unit))) is not None:
            targets.append(scale)
            continue
        labels = values[np.isfinite(values[:, k]), k].astype(np.float64)
        if len(labels) < 2 or labels.std() == 0:
            raise TrainingError(
                f"target {column.full_name} (column {column.column!r}): {len(labels)} training "
                "values, and they must be at least two different ones"
            )
        mean, std = (0.0, 1.0) if column.is_class else (labels.mean(), labels.std())
        targets.append(Target(column.name, column.level, column.output_unit, mean, std))
    return targets
