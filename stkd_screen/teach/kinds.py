"""Where a model errs: its errors by kind of molecule, and the molecules furthest off."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from stkd_screen.smiles import AROMATIC_FLAG, ELEMENT_SYMBOLS, BondType, Molecules
from stkd_screen.targets import Target
from stkd_screen.teach.evaluate import Metrics, labels_of, split_metrics
from stkd_screen.teach.labelled import LabelledMolecules

SIZES = (0, 5, 7, 8, 9, 10, 15, 20, 25, 30, 40, 60)  # fewest heavy atoms of each class of size
_UNNAMED = (0, 1, 6)  # wildcard, hydrogen and carbon tell no molecules apart


def kinds_of(molecules: Molecules) -> dict[str, np.ndarray]:
    """Name -> which of R molecules are of that kind, (R,) bool; a molecule is of several."""
    heavy, ionic = molecules.heavy_atoms(), molecules.ionic
    owner_of_bond = np.repeat(np.arange(len(molecules)), np.diff(molecules.bond_offsets))
    element = molecules.element & (AROMATIC_FLAG - 1)
    ends = element[molecules.bond_ends()]  # (M, 2)

    def holds(atoms: np.ndarray) -> np.ndarray:
        return molecules.sums(atoms) > 0

    def has_bond(bonds: np.ndarray) -> np.ndarray:
        return np.bincount(owner_of_bond[bonds], minlength=len(molecules)) > 0

    kinds = {}
    for fewest, above in pairwise(SIZES):
        size = f"{fewest}" if above == fewest + 1 else f"{fewest} to {above - 1}"
        kinds[f"{size} heavy atoms"] = (heavy >= fewest) & (heavy < above)
    kinds[f"{SIZES[-1]} or more heavy atoms"] = heavy >= SIZES[-1]
    for number in np.unique(element):
        if number not in _UNNAMED:
            kinds[f"with {ELEMENT_SYMBOLS[number]}"] = holds(element == number)
    return kinds | {
        "of C and H alone": ~holds(~np.isin(element, (1, 6))),
        "aromatic": holds(molecules.element >= AROMATIC_FLAG),
        "triple bond": has_bond(np.equal(molecules.bond_type, BondType.TRIPLE)),
        "N or O bound to N or O": has_bond(np.all(np.isin(ends, (7, 8)), axis=1)),
        "ions and zwitterions": ionic,
        "charges that cancel": holds(molecules.charge != 0) & ~ionic,
        "unpaired electron": molecules.unpaired,
        "several fragments": molecules.fragments > 1,
    }


def errors_by_kind(
    predicted: np.ndarray,
    targets: Sequence[Target],
    data: LabelledMolecules,
    splits: Sequence[str],
    half_widths: np.ndarray | None = None,
) -> dict[str, dict[str, Metrics]]:
    """split -> kind -> metrics, for the kinds that have labelled molecules.

    With half-widths also `covered`, the share of the labels that lie inside.

    Args:
        predicted: (R, targets), as `predictions` gives them.
        targets: of the model.
        data: labelled molecules.
        splits: to be measured.
        half_widths: (R, targets), as `predictions_with_half_widths` gives them.

    Raises:
        TrainingError: model and data share no target, or their units differ.
    """
    truth, kinds = labels_of(targets, data), kinds_of(data.molecules)
    found: dict[str, dict[str, Metrics]] = {}
    for split in splits:
        of_split = data.rows(split)
        measured = {
            kind: _known(
                split_metrics(
                    predicted[rows],
                    truth[rows],
                    targets,
                    None if half_widths is None else half_widths[rows],
                )
            )
            for kind, is_of_it in kinds.items()
            if len(rows := of_split[is_of_it[of_split]])
        }
        found[split] = {kind: metrics for kind, metrics in measured.items() if metrics}
    return found


def _known(metrics: Metrics) -> Metrics:
    """Without the measures that few molecules do not have, such as R2 of a single one."""
    return {
        name: {key: value for key, value in measures.items() if not math.isnan(value)}
        for name, measures in metrics.items()
    }


def furthest_off(
    predicted: np.ndarray,
    targets: Sequence[Target],
    data: LabelledMolecules,
    splits: Sequence[str],
    count: int,
    half_widths: np.ndarray | None = None,
) -> dict[str, dict[str, list[dict[str, str | float]]]]:
    """split -> target -> the molecules whose predictions are furthest from their labels, worst first.

    Args:
        predicted, targets, data, splits, half_widths: as in `errors_by_kind`.
        count: molecules of each target and split.

    Returns:
        For each the SMILES, and in the unit of the target the label, the prediction, how far off it is, and
        the half-width of its interval where there is one.

    Raises:
        TrainingError: as in `errors_by_kind`.
    """
    truth = labels_of(targets, data)
    intervals = half_widths if half_widths is not None else np.full_like(predicted, np.nan)
    found: dict[str, dict[str, list[dict[str, str | float]]]] = {}
    for split in splits:
        rows = data.rows(split)
        off = np.abs(predicted[rows] - truth[rows])
        for k, target in enumerate(targets):
            known = np.flatnonzero(np.isfinite(off[:, k]))
            worst = known[np.argsort(-off[known, k], kind="stable")][:count]
            if len(worst):
                found.setdefault(split, {})[target.full_name] = [
                    {
                        "smiles": written(data.molecules, int(rows[i])),
                        "label": float(truth[rows[i], k]),
                        "predicted": float(predicted[rows[i], k]),
                        "off": float(off[i, k]),
                        **({"half_width": float(width)} if np.isfinite(width) else {}),
                    }
                    for i, width in zip(worst, intervals[rows[worst], k], strict=True)
                ]
    return found


def written(molecules: Molecules, row: int) -> str:
    """A molecule as RDKit's canonical SMILES, without stereo."""
    from rdkit import Chem, rdBase  # here, so that a machine without it can train from a prepared file

    atoms = range(*molecules.atom_offsets[row : row + 2])
    bonds = range(*molecules.bond_offsets[row : row + 2])
    bond_types = Chem.BondType.names | {"OTHER": Chem.BondType.ZERO}
    molecule = Chem.RWMol()
    for i in atoms:
        atom = Chem.Atom(int(molecules.element[i] & (AROMATIC_FLAG - 1)))
        atom.SetIsAromatic(bool(molecules.element[i] & AROMATIC_FLAG))
        atom.SetFormalCharge(int(molecules.charge[i]))
        atom.SetNumExplicitHs(int(molecules.hydrogens[i]))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    for i in bonds:
        u, v = map(int, molecules.bond_atoms[i])
        molecule.AddBond(u, v, bond_types[BondType(molecules.bond_type[i]).name])
    with rdBase.BlockLogs():
        Chem.SanitizeMol(molecule, catchErrors=True)
    return Chem.MolToSmiles(molecule)
