"""What surrounds an atom, found from the bonds alone and alike for all usual writings of a molecule.

A token of element, charge and hydrogens says little of an atom's place in its molecule, and a student needs
many epochs to work it out from the bonds. So the tokens may also carry, at no cost in the forward pass:

    shape         of an atom: neighbours, unsaturation, in a ring; of a bond: conjugated, in a ring
    environment   a hash of the atom with its neighbours (radius 1), and with theirs (radius 2), the
                  environments that ECFP4 counts (Rogers and Hahn, J. Chem. Inf. Model. 50, 742, 2010)

Neither looks at whether a ring was written aromatic or with alternating bonds. Trained weights depend on
every line here: a change that gives other numbers needs a new VOCABULARY_VERSION.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import compiled, inlined
from stkd_screen.smiles.elements import AROMATIC_FLAG, BondType
from stkd_screen.smiles.hashing import mix

MAX_NEIGHBOURS = 7  # more share one shape
ATOM_SHAPES = 2 * 4 * (MAX_NEIGHBOURS + 1)  # ring, unsaturation, neighbours
BOND_SHAPES = 4  # ring, conjugated
ENVIRONMENTS = (4096, 6144)  # hashes of radius 1 and of radius 2

# Unsaturation of an atom.
# The last: a lone pair, or an empty orbital, next to a double or triple bond.
SATURATED, DOUBLE, TRIPLE, LONE_PAIR = range(4)
# Elements whose lone pair joins a neighbouring double bond: when neutral, or (carbon) when negative. The
# empty orbital of boron and of a carbon cation does so too.
CHALCOGENS, PNICTOGENS, CARBON, BORON = (8, 16, 34, 52), (7, 15, 33), 6, 5

ATOM_WORK = np.dtype(
    [
        ("first", np.int32),  # of its neighbours in the list of them; one more atom marks the end
        ("next", np.int32),  # the next of its neighbours to look at
        ("parent", np.int32),  # bond by which the search came
        ("found", np.int32),  # when the search came, from 1; 0 before
        ("lowest", np.int32),  # earliest atom that its part of the search reaches
        ("above", np.int32),  # atom from which the search came
        ("doubles", np.int32),
        ("triples", np.int32),
        ("aromatic", np.int32),  # aromatic bonds
        ("in_ring", np.int32),
        ("unsaturation", np.int32),
        ("shape", np.int32),
        ("hash_0", np.uint64),
        ("hash_1", np.uint64),
        ("hash_2", np.uint64),
    ]
)
BOND_WORK = np.dtype([("in_ring", np.int32), ("conjugated", np.int32), ("shape", np.int32)])
END_WORK = np.dtype([("atom", np.int32), ("bond", np.int32)])  # a neighbour and the bond to it


def work_space(n_atoms: int, n_bonds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scratch memory of `find_surroundings` for up to that many atoms and bonds."""
    return np.zeros(n_atoms + 1, ATOM_WORK), np.zeros(n_bonds, BOND_WORK), np.zeros(2 * n_bonds, END_WORK)


@compiled
def find_surroundings(element, charge, hydrogens, bond_atoms, bond_type, atoms, bonds, ends):
    """Fill the work space of one molecule; the results are `shape`, `hash_1` and `hash_2`.

    Args:
        element, charge, hydrogens: (n,) of its atoms.
        bond_atoms, bond_type: (m, 2), (m,) of its bonds.
        atoms, bonds, ends: see `work_space`.
    """
    _list_neighbours(len(element), bond_atoms, bond_type, atoms, bonds, ends)
    _find_rings(len(element), bond_atoms, atoms, bonds, ends)
    _find_unsaturation(element, charge, hydrogens, atoms, ends)
    _find_conjugation(bond_atoms, bond_type, atoms, bonds, ends)
    for i in range(len(element)):
        neighbours = min(atoms[i + 1].first - atoms[i].first, MAX_NEIGHBOURS)
        atoms[i].shape = (neighbours * 4 + atoms[i].unsaturation) * 2 + atoms[i].in_ring
    for k in range(len(bond_atoms)):
        bonds[k].shape = bonds[k].in_ring * 2 + bonds[k].conjugated
    _hash_environments(element, charge, hydrogens, atoms, bonds, ends)


@compiled
def _list_neighbours(n, bond_atoms, bond_type, atoms, bonds, ends):
    for i in range(n + 1):
        atoms[i].first = 0
    for i in range(n):
        atoms[i].found = atoms[i].in_ring = 0
        atoms[i].doubles = atoms[i].triples = atoms[i].aromatic = 0
    for k in range(len(bond_atoms)):
        bonds[k].in_ring = 0
        for end in range(2):
            atom = atoms[bond_atoms[k, end]]
            atoms[bond_atoms[k, end] + 1].first += 1
            atom.doubles += bond_type[k] == BondType.DOUBLE
            atom.triples += bond_type[k] == BondType.TRIPLE or bond_type[k] == BondType.QUADRUPLE
            atom.aromatic += bond_type[k] == BondType.AROMATIC
    for i in range(n):
        atoms[i + 1].first += atoms[i].first
        atoms[i].next = atoms[i].first
    for k in range(len(bond_atoms)):
        for end in range(2):
            atom = atoms[bond_atoms[k, end]]
            ends[atom.next].atom = bond_atoms[k, 1 - end]
            ends[atom.next].bond = k
            atom.next += 1


@compiled
def _find_rings(n, bond_atoms, atoms, bonds, ends):
    """Mark the bonds that are no bridges (Tarjan 1974): a depth-first search without recursion."""
    for i in range(n):
        atoms[i].next = atoms[i].first
    time = 0
    for start in range(n):
        if atoms[start].found:
            continue
        time += 1
        atoms[start].found = atoms[start].lowest = time
        atoms[start].parent = atoms[start].above = -1
        i = start
        while i >= 0:
            atom = atoms[i]
            if atom.next < atoms[i + 1].first:
                neighbour, bond = ends[atom.next].atom, ends[atom.next].bond
                atom.next += 1
                if bond == atom.parent:
                    continue
                if atoms[neighbour].found:
                    bonds[bond].in_ring = 1
                    atom.lowest = min(atom.lowest, atoms[neighbour].found)
                else:
                    time += 1
                    atoms[neighbour].found = atoms[neighbour].lowest = time
                    atoms[neighbour].parent, atoms[neighbour].above = bond, i
                    i = neighbour
            else:
                above = atom.above
                if above >= 0:
                    atoms[above].lowest = min(atoms[above].lowest, atom.lowest)
                    if atom.lowest <= atoms[above].found:
                        bonds[atom.parent].in_ring = 1
                i = above
    for k in range(len(bond_atoms)):
        if bonds[k].in_ring:
            atoms[bond_atoms[k, 0]].in_ring = atoms[bond_atoms[k, 1]].in_ring = 1


@inlined
def _has_free_orbital(element, charge, hydrogens, neighbours, atom):
    """Whether an atom without multiple bonds (in a Kekulé form) can share a lone pair or an empty orbital."""
    if atom.doubles + atom.triples > 0:
        return False
    if element in CHALCOGENS:
        # An aromatic o+ or s+ takes part with a double bond, a neutral one with its lone pair.
        return charge <= 0
    if element in PNICTOGENS:
        return charge <= 0 and (atom.aromatic == 0 or charge < 0 or neighbours + hydrogens >= 3)
    if element == BORON:
        return charge == 0 and neighbours + hydrogens >= 3
    return element == CARBON and (charge < 0 or (charge > 0 and neighbours + hydrogens >= 3))


@compiled
def _find_unsaturation(element, charge, hydrogens, atoms, ends):
    n = len(element)
    for i in range(n):
        atom = atoms[i]
        bare, neighbours = element[i] & (AROMATIC_FLAG - 1), atoms[i + 1].first - atom.first
        if _has_free_orbital(bare, charge[i], hydrogens[i], neighbours, atom):
            atom.unsaturation = LONE_PAIR
        elif atom.triples > 0 or atom.doubles > 1:
            atom.unsaturation = TRIPLE
        elif bare in PNICTOGENS and atom.doubles * atom.aromatic > 0:
            atom.unsaturation = TRIPLE  # n(=O): in a Kekulé form it has a second double bond
        elif atom.doubles + atom.aromatic > 0:
            atom.unsaturation = DOUBLE
        else:
            atom.unsaturation = SATURATED
    for i in range(n):
        if atoms[i].unsaturation == LONE_PAIR:
            joins = False
            for place in range(atoms[i].first, atoms[i + 1].first):
                joins |= _is_multiple(atoms[ends[place].atom].unsaturation)
            if not joins:
                atoms[i].unsaturation = SATURATED


@inlined
def _is_multiple(unsaturation):
    return unsaturation in (DOUBLE, TRIPLE)


@compiled
def _find_conjugation(bond_atoms, bond_type, atoms, bonds, ends):
    """Bonds between unsaturated atoms; a double bond only where a third unsaturated atom follows."""
    for k in range(len(bond_atoms)):
        first, second = bond_atoms[k, 0], bond_atoms[k, 1]
        one, other = atoms[first].unsaturation, atoms[second].unsaturation
        conjugated = one != SATURATED and other != SATURATED and (_is_multiple(one) or _is_multiple(other))
        if conjugated and bond_type[k] != BondType.SINGLE and bond_type[k] != BondType.AROMATIC:
            conjugated = _goes_on(atoms, ends, first, second) or _goes_on(atoms, ends, second, first)
        bonds[k].conjugated = conjugated


@inlined
def _goes_on(atoms, ends, i, j):
    """Whether atom i has an unsaturated neighbour besides j."""
    for place in range(atoms[i].first, atoms[i + 1].first):
        neighbour = ends[place].atom
        if neighbour != j and atoms[neighbour].unsaturation != SATURATED:
            return True
    return False


_mix = inlined(mix)


@compiled
def _hash_environments(element, charge, hydrogens, atoms, bonds, ends):
    """Hashes of each atom alone, with its neighbours, with theirs. Sums make them blind to order."""
    three = np.uint64(3)
    for i in range(len(element)):
        code = np.int64(element[i] & (AROMATIC_FLAG - 1))
        code = ((code * 32 + charge[i] + 16) * 256 + hydrogens[i]) * ATOM_SHAPES + atoms[i].shape
        atoms[i].hash_0 = _mix(np.uint64(code + 1))
    for i in range(len(element)):
        total = np.uint64(0)
        for place in range(atoms[i].first, atoms[i + 1].first):
            bond = np.uint64(bonds[ends[place].bond].shape + 1)
            total += _mix(atoms[ends[place].atom].hash_0 + bond)
        atoms[i].hash_1 = _mix(atoms[i].hash_0 * three + total)
    for i in range(len(element)):
        total = np.uint64(0)
        for place in range(atoms[i].first, atoms[i + 1].first):
            total += _mix(atoms[ends[place].atom].hash_1)
        atoms[i].hash_2 = _mix(atoms[i].hash_1 * three + total)
