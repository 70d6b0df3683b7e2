"""The passes over a molecule once it is read: bonds, fragments, folding.

All are linear in the size of the row (components: nearly so), and the ones that few molecules need are
entered only for those. `notes` holds one record an atom of what the passes find out.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from typing import NamedTuple

import numpy as np

from stkd_screen.jit import compiled, inlined
from stkd_screen.smiles.brackets import MAX_HYDROGENS
from stkd_screen.smiles.elements import BondType
from stkd_screen.smiles.grammar import with_counts

NOTES = np.dtype(
    [
        ("keep", np.int32),  # 0 where the atom is left out of the result
        ("chain", np.int32),  # ring bonds that begin here, linked by `following` (indexed by ring bond)
        ("following", np.int32),
        ("marked", np.int32),  # the ring bond last seen to end here
        ("root", np.int32),  # first atom of its component
        ("heavy", np.int32),  # heavy atoms of the component, at its root
        ("degree", np.int32),
        ("neighbour", np.int32),  # of an atom with one bond, if that is single; else -1
        ("form", np.int32),  # which clean-up may apply
        ("place", np.int32),  # index in the result
    ]
)


class Molecule(NamedTuple):
    """Where a row's atoms and bonds go: the rest of the arrays of `Molecules`, from its place on."""

    element: np.ndarray
    charge: np.ndarray
    hydrogens: np.ndarray
    chirality: np.ndarray
    bond_atoms: np.ndarray
    bond_type: np.ndarray


@inlined
def written_from(written, n_atoms, n_bonds):
    """The same arrays from another atom and bond on."""
    return Molecule(
        written.element[n_atoms:],
        written.charge[n_atoms:],
        written.hydrogens[n_atoms:],
        written.chirality[n_atoms:],
        written.bond_atoms[n_bonds:],
        written.bond_type[n_bonds:],
    )


@compiled
def duplicate_ring_bond(ring_bonds, row, atoms, notes):
    """Byte of the first ring number that joins two bonded atoms again, or -1.

    Ring bonds are chained by their first atom, and along a chain each marks its second atom.
    """
    none = np.int64(1 << 31)  # beyond any byte
    found = none
    for index in range(row.ring_bonds):
        bond = ring_bonds[index]
        notes[bond.first].chain = -1
        notes[bond.second].marked = -1
        if atoms[bond.second].parent == bond.first:
            found = min(found, bond.byte)
    for index in range(row.ring_bonds):
        first = ring_bonds[index].first
        notes[index].following = notes[first].chain
        notes[first].chain = index
    for index in range(row.ring_bonds):
        first = ring_bonds[index].first
        link = notes[first].chain
        notes[first].chain = -1
        while link >= 0:
            second = ring_bonds[link].second
            twin = notes[second].marked
            if twin >= 0 and ring_bonds[twin].first == first:
                found = min(found, max(ring_bonds[link].byte, ring_bonds[twin].byte))
            notes[second].marked = link
            link = notes[link].following
    return found if found < none else -1


@compiled
def find_components(molecule, row, notes):
    """Number of connected components; notes their first atom as each atom's `root`."""
    for i in range(row.atoms):
        notes[i].root = i
    count = row.atoms
    for k in range(row.bonds):
        a, b = find_root(notes, molecule.bond_atoms[k, 0]), find_root(notes, molecule.bond_atoms[k, 1])
        if a != b:
            notes[max(a, b)].root = min(a, b)
            count -= 1
    for i in range(row.atoms):
        notes[i].root = notes[notes[i].root].root
    return count


@compiled
def find_root(notes, i):
    while notes[i].root != i:
        notes[i].root = notes[notes[i].root].root
        i = notes[i].root
    return i


@compiled
def keep_largest(molecule, row, notes):
    """Keep only the component with the most heavy atoms, the first of several."""
    for i in range(row.atoms):
        notes[i].heavy = 0
    for i in range(row.atoms):
        notes[notes[i].root].heavy += molecule.element[i] != 1
    best = 0
    for i in range(row.atoms):
        if notes[i].heavy > notes[best].heavy:
            best = i
    for i in range(row.atoms):
        notes[i].keep = notes[i].root == best


@compiled
def fold_plain_hydrogens(atoms, molecule, row, notes):
    """Count plain [H] atoms at their neighbour and drop them; index of an overfull neighbour, or -1.

    Plain: neutral, without hydrogens of its own, one bond, single, to a heavy atom.
    """
    for i in range(row.atoms):
        notes[i].degree = 0
    for k in range(row.bonds):
        first, second = molecule.bond_atoms[k, 0], molecule.bond_atoms[k, 1]
        single = molecule.bond_type[k] == BondType.SINGLE
        notes[first].degree += 1
        notes[second].degree += 1
        notes[first].neighbour = second if single else -1
        notes[second].neighbour = first if single else -1
    for i in range(row.atoms):
        atom = atoms[i]
        if atom.element == 1 and atom.charge == 0 and atom.hydrogens == 0 and notes[i].degree == 1:
            heavy = notes[i].neighbour
            if heavy >= 0 and atoms[heavy].element > 1:
                if molecule.hydrogens[heavy] == MAX_HYDROGENS:
                    return heavy
                molecule.hydrogens[heavy] += 1
                notes[i].keep = 0
    return -1


@compiled
def drop_atoms(molecule, row, notes):
    """Close the gaps left by atoms not kept; the Row that remains."""
    kept_atoms = kept_bonds = 0
    for i in range(row.atoms):
        if notes[i].keep:
            notes[i].place = kept_atoms
            molecule.element[kept_atoms] = molecule.element[i]
            molecule.charge[kept_atoms] = molecule.charge[i]
            molecule.hydrogens[kept_atoms] = molecule.hydrogens[i]
            molecule.chirality[kept_atoms] = molecule.chirality[i]
            kept_atoms += 1
    for k in range(row.bonds):
        first, second = molecule.bond_atoms[k, 0], molecule.bond_atoms[k, 1]
        if notes[first].keep and notes[second].keep:
            molecule.bond_atoms[kept_bonds, 0] = notes[first].place
            molecule.bond_atoms[kept_bonds, 1] = notes[second].place
            molecule.bond_type[kept_bonds] = molecule.bond_type[k]
            kept_bonds += 1
    return with_counts(row, kept_atoms, kept_bonds)
