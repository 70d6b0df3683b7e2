"""What labels cover: the types of atom and the sizes of the molecules that a model has seen with a label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stkd_screen.smiles import AROMATIC_FLAG
from stkd_screen.smiles.tokens import atom_types
from stkd_screen.targets import Target
from stkd_screen.teach.graphs import ATOM_FEATURES
from stkd_screen.teach.labelled import LabelledMolecules


@dataclass(frozen=True)
class Coverage:
    """By level of theory; see `Weights`."""

    atom_types: dict[str, np.ndarray]  # sorted codes of the types of atom (`atom_types`)
    max_heavy_atoms: dict[str, int]  # heavy atoms of the largest molecule


def label_coverage(
    data: LabelledMolecules,
    rows: np.ndarray,
    targets: Sequence[Target],
    known_types: np.ndarray | None = None,
) -> Coverage:
    """What the labels of each level cover among some rows.

    Args:
        data: labelled molecules.
        rows: of the data.
        targets: of the model.
        known_types: types that it knew before. An atom that RDKit takes for aromatic covers both of its
            types, in an aromatic and in a Kekulé form, where they are among these: a table may have been
            written all in one form.
    """
    types, heavy = atom_types(data.molecules), data.molecules.heavy_atoms()
    other_form, has_other = types ^ AROMATIC_FLAG, np.zeros(len(types), bool)
    if known_types is not None and data.graphs is not None:
        aromatic = data.graphs.atom_features[:, [*ATOM_FEATURES].index("aromatic")] > 0
        has_other = aromatic & np.isin(other_form, known_types)
    atoms = np.diff(data.molecules.atom_offsets)
    row_of_atom = np.repeat(np.arange(len(atoms)), atoms)
    in_rows = np.zeros(len(atoms), bool)
    in_rows[rows] = True
    covered, largest = {}, {}
    for level in dict.fromkeys(target.level for target in targets):
        of_level = [k for k, target in enumerate(targets) if target.level == level]
        labelled = in_rows & np.isfinite(data.targets[:, of_level]).any(axis=1)
        of_labelled = labelled[row_of_atom]
        covered[level] = np.union1d(types[of_labelled], other_form[of_labelled & has_other])
        largest[level] = int(heavy[labelled].max(initial=0))
    return Coverage(covered, largest)


def joint_coverage(coverages: Sequence[Coverage], levels: Iterable[str]) -> Coverage:
    """What several sets of labels cover together, of some levels."""
    of_level = {level: [c for c in coverages if level in c.atom_types] for level in levels}
    return Coverage(
        {k: np.unique(np.concatenate([c.atom_types[k] for c in of])) for k, of in of_level.items()},
        {k: max(c.max_heavy_atoms[k] for c in of) for k, of in of_level.items()},
    )
