"""RDKit's features of molecules, for the teacher."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from stkd_screen.chem import ECFP4, read_molecule
from stkd_screen.smiles import AROMATIC_FLAG, Molecules, describe_error
from stkd_screen.smiles.elements import BondType
from stkd_screen.teach.graphs import (
    ATOM_FEATURES,
    BOND_TYPES,
    CHARGE_OFFSET,
    Graphs,
)
from stkd_screen.teach.processes import in_processes

_BOND_TYPE = {
    Chem.BondType.SINGLE: BondType.SINGLE,
    Chem.BondType.DOUBLE: BondType.DOUBLE,
    Chem.BondType.TRIPLE: BondType.TRIPLE,
    Chem.BondType.QUADRUPLE: BondType.QUADRUPLE,
    Chem.BondType.AROMATIC: BondType.AROMATIC,
}
# Atom features, bonds, bond features, Kekulé bond types and fingerprint of one molecule; see
# `molecule_features`.
Features = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def prepare_graphs(
    smiles: Sequence[str], molecules: Molecules, workers: int | None = None
) -> tuple[Graphs, dict[int, str]]:
    """Features of many molecules, computed in parallel processes.

    Args:
        smiles: R SMILES.
        molecules: the same, pre-transformed.
        workers: processes; by default one for each usable core.

    Returns:
        The graphs, and the reason for each row that has none: RDKit does not accept the molecule or reads
        other atoms than the student. The features of such rows are zero.
    """
    atom_features = np.zeros((molecules.atom_offsets[-1], len(ATOM_FEATURES)), np.uint8)
    bond_features = np.zeros(molecules.bond_offsets[-1], np.uint8)
    kekule_bonds = np.zeros(molecules.bond_offsets[-1], np.uint8)
    fingerprints: list[np.ndarray] = []
    failures: dict[int, str] = {}
    for row, features in enumerate(in_processes(_features, smiles, workers)):
        atoms = slice(*molecules.atom_offsets[row : row + 2])
        bonds = slice(*molecules.bond_offsets[row : row + 2])
        fingerprints.append(features[-1] if not isinstance(features, str) else np.empty(0, np.uint16))
        if isinstance(features, str):
            failures[row] = features
        elif molecules.error[row]:
            failures[row] = describe_error(molecules.error[row], molecules.error_column[row], smiles[row])
        elif (aligned := _aligned(features, molecules, atoms, bonds)) is None:
            failures[row] = "RDKit and the student read other atoms or bonds"
        else:
            atom_features[atoms], bond_features[bonds], kekule_bonds[bonds] = aligned
    offsets = np.cumsum([0, *map(len, fingerprints)], dtype=np.int64)
    bits = np.concatenate([np.empty(0, np.uint16), *fingerprints])
    return Graphs(atom_features, bond_features, kekule_bonds, offsets, bits), failures


def _aligned(
    features: Features, molecules: Molecules, atoms: slice, bonds: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The features in the order of the student's atoms and bonds; None where they do not fit."""
    atom_features, pairs, bond_features, kekule_bonds, _ = features
    ours = molecules.bond_atoms[bonds]
    order = np.lexsort((ours[:, 1], ours[:, 0]))
    elements = molecules.element[atoms] & (AROMATIC_FLAG - 1)
    if not np.array_equal(elements, atom_features[:, 0]) or not np.array_equal(ours[order], pairs):
        return None
    rank = np.argsort(order)  # of each of our bonds among the sorted ones
    # Only aromatic bonds change in a Kekulé form; elsewhere RDKit may write other bonds, as to metals.
    written = molecules.bond_type[bonds]
    kekule = np.where(written == BondType.AROMATIC, kekule_bonds[rank], written)
    return atom_features, bond_features[rank], kekule


def _features(smiles: Sequence[str]) -> list[Features | str]:
    with rdBase.BlockLogs():
        return [molecule_features(text) for text in smiles]


def _folding() -> Chem.RemoveHsParameters:
    """The [H] atoms that the student folds: RDKit's usual ones, isotopes, and those that mark stereo."""
    parameters: Any = Chem.RemoveHsParameters()
    parameters.removeIsotopes = True
    parameters.removeDefiningBondStereo = True
    return parameters


def molecule_features(smiles: str) -> Features | str:
    """Features of a molecule with n atoms and m bonds, or why there are none.

    Returns:
        atom features (n, len(ATOM_FEATURES)), bonds (m, 2) sorted by first and second atom, bond features
        (m,) and Kekulé bond types (m,) in that order; all uint8 but the bonds, which are int32; the bits that
        its ECFP4 has set, uint16.
    """
    parameters: Any = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    parameters.removeHs = False
    molecule = read_molecule(smiles, parameters)
    if isinstance(molecule, str):
        return molecule
    molecule = Chem.RemoveHs(molecule, _folding())
    atoms, pairs, bonds = graph_features(molecule)
    fingerprint = np.array(ECFP4.GetFingerprint(molecule).GetOnBits(), np.uint16)
    Chem.Kekulize(molecule)
    kekule = [_BOND_TYPE.get(bond.GetBondType(), BondType.OTHER) for bond in molecule.GetBonds()]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return atoms, pairs[order], bonds[order], np.array(kekule, np.uint8)[order], fingerprint


def graph_features(molecule: Chem.Mol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The graph of a molecule with n atoms and m bonds, in RDKit's order.

    Returns:
        atom features (n, len(ATOM_FEATURES)) uint8, bonds (m, 2) int32, lower atom first, and bond features
        (m,) uint8, below BOND_FEATURES.
    """
    atoms = np.array(
        [
            (
                atom.GetAtomicNum(),
                atom.GetDegree(),
                atom.GetFormalCharge() + CHARGE_OFFSET,
                atom.GetTotalNumHs(),
                atom.GetNumRadicalElectrons(),
                int(atom.GetHybridization()),
                atom.GetIsAromatic(),
                atom.IsInRing(),
            )
            for atom in molecule.GetAtoms()
        ],
        dtype=np.int64,
    ).reshape(-1, len(ATOM_FEATURES))
    atoms = np.clip(atoms, 0, np.array([*ATOM_FEATURES.values()]) - 1).astype(np.uint8)
    bonds = [
        (
            *sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())),
            _BOND_TYPE.get(bond.GetBondType(), BondType.OTHER),
            bond.GetIsConjugated(),
            bond.IsInRing(),
        )
        for bond in molecule.GetBonds()
    ]
    table = np.array(bonds, np.int32).reshape(-1, 5)
    features = table[:, 2] + BOND_TYPES * (table[:, 3] + 2 * table[:, 4])
    return atoms, table[:, :2], features.astype(np.uint8)
