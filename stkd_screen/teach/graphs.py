"""Molecular graphs as the teacher sees them, atom i being the student's atom i.

The features are those that do not depend on how the SMILES was written: RDKit perceives aromaticity,
conjugation and hybridisation anew (see `features`). Stereo is left out, as in the student.
"""

from dataclasses import dataclass

import numpy as np

from stkd_screen.smiles import Molecules
from stkd_screen.smiles.hashing import mix

# Columns of `Graphs.atom_features` and the number of values of each; larger values share the last one.
ATOM_FEATURES = {
    "element": 128,
    "degree": 16,  # the centrality encoding: neighbours in the graph
    "charge": 32,  # + CHARGE_OFFSET
    "hydrogens": 16,
    "radical_electrons": 5,
    "hybridisation": 9,
    "aromatic": 2,
    "in_ring": 2,
}
CHARGE_OFFSET = 16
BOND_TYPES = 7  # values of BondType
BOND_FEATURES = BOND_TYPES * 2 * 2  # type, conjugated, in a ring: one number a bond
FINGERPRINT_BITS = 2048  # of ECFP4 (chem.py)


@dataclass(frozen=True)
class Graphs:
    """RDKit's features of R molecules, in the order of the atoms and bonds of their `Molecules`."""

    atom_features: np.ndarray  # (N, len(ATOM_FEATURES)) uint8
    bond_features: np.ndarray  # (M,) uint8, below BOND_FEATURES
    kekule_bonds: np.ndarray  # (M,) uint8 BondType of one Kekulé form: nothing aromatic
    # ECFP4, the second teacher: row i has set the bits `fingerprint_bits[offsets[i]:offsets[i + 1]]`.
    fingerprint_offsets: np.ndarray  # (R + 1,) int64
    fingerprint_bits: np.ndarray  # (K,) uint16, below FINGERPRINT_BITS

    def of_rows(self, molecules: Molecules, rows: np.ndarray) -> "Graphs":
        """The graphs of some of their molecules.

        Args:
            molecules: the R molecules they are of.
            rows: ascending.
        """
        chosen = np.zeros(len(molecules), bool)
        chosen[rows] = True
        atoms = np.repeat(chosen, np.diff(molecules.atom_offsets))
        bonds = np.repeat(chosen, np.diff(molecules.bond_offsets))
        bits = np.diff(self.fingerprint_offsets)
        return Graphs(
            self.atom_features[atoms],
            self.bond_features[bonds],
            self.kekule_bonds[bonds],
            np.concatenate([[0], np.cumsum(bits[rows])]),
            self.fingerprint_bits[np.repeat(chosen, bits)],
        )

    def molecule_codes(self, molecules: Molecules, rounds: int = 6) -> np.ndarray:
        """(R,) uint64: the same for the same molecule, however it is written, stereo aside.

        Each atom gathers the codes of its neighbours and bonds, round after round (Weisfeiler and Lehman).
        Other molecules share a code only where they look alike within that many bonds of every atom.

        Args:
            molecules: the R molecules they are of.
            rounds: bonds that are looked along.
        """
        weights = np.random.default_rng(0).integers(1, 2**63, len(ATOM_FEATURES), np.uint64)
        atoms = mix((self.atom_features * weights).sum(axis=1, dtype=np.uint64))
        u, v = molecules.bond_ends().T
        bonds = mix(self.bond_features.astype(np.uint64) + np.uint64(1))
        for _ in range(rounds):
            gathered = np.zeros_like(atoms)
            np.add.at(gathered, u, mix(atoms[v] + bonds))
            np.add.at(gathered, v, mix(atoms[u] + bonds))
            atoms = mix(atoms * np.uint64(3) + gathered)
        codes = np.zeros(len(molecules), np.uint64)
        np.add.at(codes, np.repeat(np.arange(len(molecules)), np.diff(molecules.atom_offsets)), mix(atoms))
        return codes

    def set_bits(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bits (K,) int32 that the fingerprints of some rows set, and the first place of each row."""
        starts = self.fingerprint_offsets[rows]
        counts = self.fingerprint_offsets[rows + 1] - starts
        offsets = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(starts - offsets, counts)
        return self.fingerprint_bits[places].astype(np.int32), offsets.astype(np.int32)

    def fingerprints(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), FINGERPRINT_BITS) float32, 1 where a bit is set."""
        bits, offsets = self.set_bits(rows)
        dense = np.zeros((len(rows), FINGERPRINT_BITS), np.float32)
        dense[np.repeat(np.arange(len(rows)), np.diff(offsets, append=len(bits))), bits] = 1
        return dense
