"""Aromatic systems: which bonds belong to them, and whether single and double bonds can alternate in them.

Each aromatic atom that lacks a bond (ATOM.double) needs a double bond to another such atom. Pairing the atoms
in the order of writing, each with the one it is chained to, leaves nobody over in most molecules, and pairing
them backwards mends most of the others; for the rest `matching.py` decides.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import compiled, index, inlined
from stkd_screen.smiles.brackets import aromatic_bonds
from stkd_screen.smiles.elements import AROMATIC_FLAG, BondType
from stkd_screen.smiles.errors import ParseError
from stkd_screen.smiles.matching import AT_WILDCARD, NOBODY, unpaired_atom

BETWEEN_RINGS = 7  # bond type, for the time of this pass, of an aromatic bond that lies in no ring

# One record an atom: where it lies in rings.
SPAN = np.dtype(
    [
        ("lowest", np.int32),  # ring bond partners and atoms at and below this atom
        ("highest", np.int32),
        ("last", np.int32),
        ("in_ring", np.uint8),
        ("by_parent", np.uint8),  # whether by the bond to its parent
    ],
    align=True,
)


@inlined
def pair_with_parent(atoms, atom):
    """Pair an atom with the one it is chained to, if both need it: the change in the number left over."""
    alone = np.int64(atom.double)
    if alone and atom.kind == BondType.AROMATIC:
        parent = atoms[index(atom.parent)]
        alone -= parent.lonely
        atom.lonely = alone
        change = alone - parent.lonely
        parent.lonely = False
        return change
    atom.lonely = alone
    return alone


@compiled
def pair_otherwise(atoms, ring_bonds, row, left):
    """Pair those left over along ring bonds, or else all anew from the last atom on: the number left over."""
    left -= pair_over_ring_bonds(atoms, ring_bonds, row)
    if left == 0:
        return left
    left = np.int64(0)
    for i in range(row.atoms):
        atoms[i].lonely = atoms[i].double
        left += np.int64(atoms[i].double)
    for i in range(row.atoms - 1, 0, -1):
        if atoms[index(i)].kind == BondType.AROMATIC:
            left -= pair_if_lonely(atoms[index(atoms[index(i)].parent)], atoms[index(i)])
    return left - pair_over_ring_bonds(atoms, ring_bonds, row)


@inlined
def pair_over_ring_bonds(atoms, ring_bonds, row):
    paired = np.int64(0)
    for k in range(row.ring_bonds):
        if ring_bonds[k].kind == BondType.AROMATIC:
            paired += pair_if_lonely(atoms[index(ring_bonds[k].first)], atoms[index(ring_bonds[k].second)])
    return paired


@inlined
def pair_if_lonely(a, b):
    both = a.lonely & b.lonely
    a.lonely ^= both
    b.lonely ^= both
    return 2 * np.int64(both)


@inlined
def is_crossing(atom):
    """Whether an atom is anything but a member of one aromatic ring, or of none."""
    return aromatic_bonds(atom) != 2 * (atom.element // AROMATIC_FLAG)


@compiled
def aromatic_rings_cover(atoms, ring_bonds, row):
    """Whether all aromatic atoms and bonds of a connected row lie in rings closed by an aromatic bond.

    False also where that is not sure: it walks along each such ring, and gives up in thickets of them.
    """
    missing = 0
    for i in range(row.atoms):
        atom = atoms[i]
        atom.in_ring = False
        missing += atom.kind == BondType.AROMATIC or (
            atom.element >= AROMATIC_FLAG and aromatic_bonds(atom) == 0
        )
    steps = 8 * row.atoms
    for k in range(row.ring_bonds):
        if ring_bonds[k].kind == BondType.AROMATIC:
            i, j = np.int64(ring_bonds[k].first), np.int64(ring_bonds[k].second)
            while i != j and steps > 0:  # the way up from both until they meet
                i, j = min(i, j), max(i, j)
                atom = atoms[index(j)]
                missing -= atom.kind == BondType.AROMATIC and not atom.in_ring
                atom.in_ring = True
                j = np.int64(atom.parent)
                steps -= 1
    return missing == 0


@compiled
def find_rings(atoms, ring_bonds, row, spans):
    """Note which atoms are in a ring, and which by the bond to their parent.

    The atoms below one are numbered consecutively, so the bond to its parent is in a ring exactly where
    some ring bond leaves their range. (A component begun by a dot within a branch lies in the range
    too; its ring bonds are taken for the branch's own.)
    """
    for i in range(row.atoms):
        span = spans[i]
        span.lowest = span.highest = span.last = i
        span.in_ring = False
    for k in range(row.ring_bonds):
        first, second = spans[ring_bonds[k].first], spans[ring_bonds[k].second]
        second.lowest = min(second.lowest, ring_bonds[k].first)
        first.highest = max(first.highest, ring_bonds[k].second)
        first.in_ring = second.in_ring = True
    for i in range(row.atoms - 1, -1, -1):
        span = spans[i]
        span.by_parent = False
        if atoms[i].parent >= 0:
            above = spans[atoms[i].parent]
            above.lowest = min(above.lowest, span.lowest)
            above.highest = max(above.highest, span.highest)
            above.last = max(above.last, span.last)
            if span.lowest < i or span.highest > span.last:
                span.by_parent = span.in_ring = above.in_ring = True


@compiled
def check_aromatic(row, scratch, molecule, single_between_rings):
    """What is wrong with the aromatic atoms to keep: (ParseError, atom).

    The bonds between rings, such as the unwritten one of c1ccccc1c1ccccc1, become single.
    """
    atoms, spans = scratch.atoms, scratch.spans
    find_rings(atoms, scratch.ring_bonds, row, spans)
    for i in range(row.atoms):
        if scratch.notes[i].keep and atoms[i].element >= AROMATIC_FLAG and not spans[i].in_ring:
            return ParseError.AROMATIC_OUTSIDE_RING, i
    marked = mark_bonds(atoms, row, molecule, spans)
    atom = unpaired_atom(row, scratch, molecule)
    if marked:
        for k in range(row.bonds):
            if molecule.bond_type[k] == BETWEEN_RINGS:
                molecule.bond_type[k] = BondType.SINGLE if single_between_rings else BondType.AROMATIC
            elif molecule.bond_type[k] == AT_WILDCARD:
                molecule.bond_type[k] = BondType.SINGLE
    return (ParseError.OK if atom == NOBODY else ParseError.KEKULE), atom


@compiled
def mark_bonds(atoms, row, molecule, spans):
    """Give their type to the bonds BETWEEN_RINGS and AT_WILDCARD; whether there are any."""
    found = False
    for k in range(row.bonds):
        first, second = molecule.bond_atoms[k, 0], molecule.bond_atoms[k, 1]
        in_ring = spans[second].by_parent or atoms[second].parent != first
        both_aromatic = atoms[first].element & atoms[second].element & AROMATIC_FLAG
        if molecule.bond_type[k] == BondType.AROMATIC and both_aromatic and not in_ring:
            molecule.bond_type[k] = BETWEEN_RINGS
            found = True
        elif (
            molecule.bond_type[k] == BondType.SINGLE and in_ring and at_wildcard(atoms[first], atoms[second])
        ):
            molecule.bond_type[k] = AT_WILDCARD
            found = True
    return found


@inlined
def at_wildcard(a, b):
    return (a.double and b.element == 0) or (b.double and a.element == 0)
