"""What lies between two atoms: the bonds on a shortest path, the same for all writings of a molecule.

A bias of the attention, as the spatial encoding of Graphormer (Ying et al. 2021), but from what the SMILES
itself says. A pair of tokens has one code, a byte:

    two atoms    4 * (bonds between them) + shapes that all bonds of a shortest path have in common:
                 conjugated 1, in a ring 2 (smiles/surroundings.py); both for an atom with itself
    with [V]     FROM_VIRTUAL, TO_VIRTUAL, VIRTUAL_ITSELF

Trained weights depend on every line here: a change that gives other numbers needs a new VOCABULARY_VERSION.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import compiled, index
from stkd_screen.smiles.surroundings import BOND_SHAPES

# The most bonds between atoms that are told apart, for each shape of the path: few training molecules have
# more. Atoms of different fragments count as the farthest.
FARTHEST = (20, 15, 9, 8)
FROM_VIRTUAL = BOND_SHAPES * (FARTHEST[0] + 1)
TO_VIRTUAL, VIRTUAL_ITSELF = FROM_VIRTUAL + 1, FROM_VIRTUAL + 2
PAIRS = VIRTUAL_ITSELF + 1

# The searches from 64 atoms go on at once, a bit of a word each. Of an atom, the searches that
REACHED = 0  # have come to it
FRESH, CONJUGATED, IN_RING = 1, 2, 3  # came last; of these, on a way all conjugated, all in rings
NEXT, NEXT_CONJUGATED, NEXT_IN_RING = 4, 5, 6  # are about to come
ALL_CONJUGATED, ALL_IN_RING = 7, 8  # have come on such a way
DISTANCE = 9  # and four more: a bit each of how many bonds they have come
MASKS = DISTANCE + 5


def pair_space(n_atoms: int) -> np.ndarray:
    """Scratch memory of `find_pairs` for up to that many atoms."""
    return np.empty((n_atoms, MASKS), np.uint64)


@compiled
def find_pairs(n, atoms, bonds, ends, masks, pairs):
    """Fill the codes of one molecule, after `find_surroundings`.

    Args:
        n: its atoms.
        atoms, bonds, ends: the work space that holds them.
        masks: see `pair_space`.
        pairs: (1 + n, 1 + n) uint8, of [V] and the atoms: row i, column j is the way from i to j.
    """
    pairs[0, 0] = VIRTUAL_ITSELF
    for i in range(n):
        pairs[0, 1 + i] = FROM_VIRTUAL
        pairs[1 + i, 0] = TO_VIRTUAL
    for first in range(0, n, 64):
        _search(n, first, min(first + 64, n), atoms, bonds, ends, masks)
        for i in range(n):
            _write(masks, index(i), pairs[1 + i, 1 + first :])


@compiled
def _search(n, first, last, atoms, bonds, ends, masks):
    """Breadth first from up to 64 atoms."""
    for i in range(n):
        for k in range(MASKS):
            masks[index(i), index(k)] = 0
    for i in range(first, last):
        bit = np.uint64(1) << np.uint64(i - first)
        a = index(i)
        masks[a, REACHED] = masks[a, FRESH] = masks[a, CONJUGATED] = masks[a, IN_RING] = bit
        masks[a, ALL_CONJUGATED] = masks[a, ALL_IN_RING] = bit
    distance, found = 0, True
    while found:
        distance = min(distance + 1, FARTHEST[0])
        _step(n, atoms, bonds, ends, masks)
        found = _arrive(n, distance, masks)


@compiled
def _step(n, atoms, bonds, ends, masks):
    """From each atom to its neighbours."""
    for i in range(n):
        a = index(i)
        found = conjugated = in_ring = np.uint64(0)
        for place in range(atoms[a].first, atoms[a + index(1)].first):
            end = ends[index(place)]
            b, bond = index(end.atom), bonds[index(end.bond)]
            found |= masks[b, FRESH]
            # Of several shortest paths each may have shapes that all of its bonds share.
            conjugated |= masks[b, CONJUGATED] * np.uint64(bond.conjugated)
            in_ring |= masks[b, IN_RING] * np.uint64(bond.in_ring)
        found &= ~masks[a, REACHED]
        masks[a, NEXT] = found
        masks[a, NEXT_CONJUGATED] = conjugated & found
        masks[a, NEXT_IN_RING] = in_ring & found


@compiled
def _arrive(n, distance, masks):
    """Whether any search has come to another atom."""
    any_found = np.uint64(0)
    for i in range(n):
        a = index(i)
        found = masks[a, NEXT]
        any_found |= found
        masks[a, REACHED] |= found
        masks[a, FRESH] = found
        masks[a, CONJUGATED] = masks[a, NEXT_CONJUGATED]
        masks[a, IN_RING] = masks[a, NEXT_IN_RING]
        masks[a, ALL_CONJUGATED] |= masks[a, NEXT_CONJUGATED]
        masks[a, ALL_IN_RING] |= masks[a, NEXT_IN_RING]
        for k in range(5):
            masks[a, DISTANCE + k] |= found * np.uint64(distance >> k & 1)
    return any_found != 0


@compiled
def _write(masks, a, pairs):
    """The codes of an atom and up to 64 others."""
    one, reached = np.uint64(1), masks[a, REACHED]
    conjugated, in_ring = masks[a, ALL_CONJUGATED], masks[a, ALL_IN_RING]
    d0, d1, d2 = masks[a, DISTANCE], masks[a, DISTANCE + 1], masks[a, DISTANCE + 2]
    d3, d4 = masks[a, DISTANCE + 3], masks[a, DISTANCE + 4]
    for j in range(min(len(pairs), 64)):
        bit = np.uint64(j)
        distance = d0 >> bit & one | (d1 >> bit & one) << 1 | (d2 >> bit & one) << 2
        distance |= (d3 >> bit & one) << 3 | (d4 >> bit & one) << 4
        shapes = conjugated >> bit & one | (in_ring >> bit & one) << 1
        farthest = np.uint64(FARTHEST[0])
        farthest = np.uint64(FARTHEST[1]) if shapes == 1 else farthest
        farthest = np.uint64(FARTHEST[2]) if shapes == 2 else farthest
        farthest = np.uint64(FARTHEST[3]) if shapes == 3 else farthest
        distance = distance if reached >> bit & one else farthest
        pairs[j] = np.uint64(BOND_SHAPES) * min(distance, farthest) + shapes
