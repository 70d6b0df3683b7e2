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

from stkd_screen.jit import compiled, index
from stkd_screen.smiles.surroundings import BOND_SHAPES

# The most bonds between atoms that are told apart, for each shape of the path: few training molecules have
# more. Atoms of different fragments count as the farthest.
FARTHEST = (20, 15, 9, 8)
ALL_SHAPES = BOND_SHAPES - 1
FROM_VIRTUAL = BOND_SHAPES * (FARTHEST[0] + 1)
TO_VIRTUAL, VIRTUAL_ITSELF = FROM_VIRTUAL + 1, FROM_VIRTUAL + 2
PAIRS = VIRTUAL_ITSELF + 1


@compiled
def find_pairs(n, atoms, bonds, ends, queue, pairs):
    """Fill the codes of one molecule, after `find_surroundings`.

    Args:
        n: its atoms.
        atoms, bonds, ends: the work space that holds them.
        queue: (n,) int32 work space.
        pairs: (1 + n, 1 + n) uint8, of [V] and the atoms: row i, column j is the way from i to j.
    """
    pairs[0, 0] = VIRTUAL_ITSELF
    for i in range(n):
        pairs[0, 1 + i] = FROM_VIRTUAL
        pairs[1 + i, 0] = TO_VIRTUAL
    for start in range(n):
        way = pairs[1 + start, 1:]
        _search(start, n, atoms, bonds, ends, queue, way)
        for i in range(n):
            shapes, distance = way[index(i)], atoms[index(i)].distance
            farthest = FARTHEST[shapes]
            if distance < 0 or distance > farthest:
                distance = farthest
            way[index(i)] = BOND_SHAPES * distance + shapes


@compiled
def _search(start, n, atoms, bonds, ends, queue, shapes):
    """Breadth first from one atom: the distance of each, -1 without a path, and the shapes on the way."""
    for i in range(n):
        shapes[index(i)] = 0
        atoms[index(i)].distance = -1
    shapes[index(start)] = ALL_SHAPES
    atoms[index(start)].distance = 0
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        i = index(queue[index(head)])
        head += 1
        distance = atoms[i].distance + 1
        for place in range(atoms[i].first, atoms[i + index(1)].first):
            end = ends[index(place)]
            j = index(end.atom)
            if atoms[j].distance < 0:
                atoms[j].distance = distance
                queue[index(tail)] = end.atom
                tail += 1
            if atoms[j].distance == distance:
                # Of several shortest paths each may have shapes that all of its bonds share.
                shapes[j] |= shapes[i] & bonds[index(end.bond)].shape
