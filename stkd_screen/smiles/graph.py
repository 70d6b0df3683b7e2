"""The passes over a molecule once it is read: ring bonds, fragments, folding.

All are linear in the size of the row (components: nearly so), and the ones that few molecules need are
entered only for those. `notes` holds one record an atom of what the passes find out.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.smiles.brackets import MAX_HYDROGENS
from stkd_screen.smiles.elements import BondSymbol
from stkd_screen.smiles.jit import compiled, inlined

NOTES = np.dtype(
    [
        ("keep", np.int32),  # 0 where the atom is left out of the result
        ("chain", np.int32),  # ring bonds that begin here, linked by `following` (indexed by ring bond)
        ("following", np.int32),
        ("marked", np.int32),  # the ring bond last seen to end here
        ("lowest", np.int32),  # ring bond partners and atoms at and below this atom
        ("highest", np.int32),
        ("last", np.int32),
        ("root", np.int32),  # first atom of its component
        ("heavy", np.int32),  # heavy atoms of the component, at its root
        ("degree", np.int32),
        ("neighbour", np.int32),  # of an atom with one bond, if that is single; else -1
        ("charge", np.int32),  # after clean-up
        ("form", np.int32),  # which clean-up may apply
        ("place", np.int32),  # index in the result
    ]
)


@inlined
def duplicate_ring_bond(bonds, row, rings, atoms, notes):
    """Byte of the first ring number that joins two bonded atoms again, or -1.

    Ring bonds are chained by their first atom, and along a chain each marks its second atom.
    """
    none = np.int64(1 << 31)  # beyond any byte
    found = none
    for index in range(row.rings):
        bond = bonds[rings[index].bond]
        notes[bond.first].chain = -1
        notes[bond.second].marked = -1
        if atoms[bond.second].parent == bond.first:
            found = min(found, rings[index].byte)
    for index in range(row.rings):
        first = bonds[rings[index].bond].first
        notes[index].following = notes[first].chain
        notes[first].chain = index
    for index in range(row.rings):
        first = bonds[rings[index].bond].first
        link = notes[first].chain
        notes[first].chain = -1
        while link >= 0:
            second = bonds[rings[link].bond].second
            twin = notes[second].marked
            if twin >= 0 and bonds[rings[twin].bond].first == first:
                found = min(found, max(rings[link].byte, rings[twin].byte))
            notes[second].marked = link
            link = notes[link].following
    return found if found < none else -1


@compiled
def free_biaryl_bonds(atoms, bonds, row, rings, notes):
    """Make the aromatic bonds that lie in no ring single.

    An unwritten bond between two aromatic atoms reads as aromatic, also the one that joins the rings of
    c1ccccc1c1ccccc1. In a molecule whose aromatic atoms are all in rings, such a bond has at each end two
    aromatic bonds besides, a valence sum of 4.5 or more; only where one is found are the rings searched.
    """
    searched = False
    for i in range(row.atoms):
        atom = atoms[i]
        if atom.halves <= 8 or atom.parent < 0 or atoms[atom.parent].halves <= 8:
            continue
        bond = bonds[atom.bond]
        if bond.symbol == BondSymbol.AROMATIC:
            if not searched:
                span_ring_bonds(atoms, bonds, row, rings, notes)
                searched = True
            if notes[i].lowest >= i and notes[i].highest <= notes[i].last:
                bond.symbol = BondSymbol.SINGLE


@compiled
def span_ring_bonds(atoms, bonds, row, rings, notes):
    """Note for each atom, over all atoms written below it: lowest and highest ring bond partner, last atom.

    The atoms below one are numbered consecutively, so the bond to its parent is in a ring exactly where
    some ring bond leaves their range. (A component begun by a dot within a branch lies in the range
    too; its ring bonds are taken for the branch's own.)
    """
    for i in range(row.atoms):
        note = notes[i]
        note.lowest = i
        note.highest = i
        note.last = i
    for index in range(row.rings):
        bond = bonds[rings[index].bond]
        notes[bond.second].lowest = min(notes[bond.second].lowest, bond.first)
        notes[bond.first].highest = max(notes[bond.first].highest, bond.second)
    for i in range(row.atoms - 1, 0, -1):
        parent = atoms[i].parent
        if parent >= 0:
            notes[parent].lowest = min(notes[parent].lowest, notes[i].lowest)
            notes[parent].highest = max(notes[parent].highest, notes[i].highest)
            notes[parent].last = max(notes[parent].last, notes[i].last)


@compiled
def find_components(bonds, row, notes):
    """Number of connected components; notes their first atom as each atom's `root`."""
    for i in range(row.atoms):
        notes[i].root = i
    count = row.atoms
    for k in range(row.bonds):
        a, b = find_root(notes, bonds[k].first), find_root(notes, bonds[k].second)
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
def keep_largest(atoms, row, notes):
    """Keep only the component with the most heavy atoms, the first of several."""
    for i in range(row.atoms):
        notes[i].heavy = 0
    for i in range(row.atoms):
        notes[notes[i].root].heavy += atoms[i].element != 1
    best = 0
    for i in range(row.atoms):
        if notes[i].heavy > notes[best].heavy:
            best = i
    for i in range(row.atoms):
        notes[i].keep = notes[i].root == best


@compiled
def fold_plain_hydrogens(atoms, bonds, row, notes):
    """Count plain [H] atoms at their neighbour and drop them; index of an overfull neighbour, or -1.

    Plain: neutral, without hydrogens of its own, one bond, single, to a heavy atom.
    """
    for i in range(row.atoms):
        notes[i].degree = 0
    for k in range(row.bonds):
        first, second, single = bonds[k].first, bonds[k].second, bonds[k].symbol == BondSymbol.SINGLE
        notes[first].degree += 1
        notes[second].degree += 1
        notes[first].neighbour = second if single else -1
        notes[second].neighbour = first if single else -1
    for i in range(row.atoms):
        atom = atoms[i]
        if atom.element == 1 and atom.charge == 0 and atom.hydrogens == 0 and notes[i].degree == 1:
            heavy = notes[i].neighbour
            if heavy >= 0 and atoms[heavy].element > 1:
                if atoms[heavy].hydrogens == MAX_HYDROGENS:
                    return heavy
                atoms[heavy].hydrogens += 1
                notes[i].keep = 0
    return -1


@compiled
def drop_atoms(atoms, bonds, row, notes):
    """Close the gaps left by atoms not kept; the numbers of atoms and bonds that remain."""
    n_atoms = n_bonds = 0
    for i in range(row.atoms):
        if notes[i].keep:
            notes[i].place = n_atoms
            atoms[n_atoms] = atoms[i]
            n_atoms += 1
    for k in range(row.bonds):
        first, second = bonds[k].first, bonds[k].second
        if notes[first].keep and notes[second].keep:
            bonds[n_bonds].first = notes[first].place
            bonds[n_bonds].second = notes[second].place
            bonds[n_bonds].symbol = bonds[k].symbol
            n_bonds += 1
    return n_atoms, n_bonds
