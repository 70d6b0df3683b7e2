"""Can the aromatic atoms that need a double bond be paired? A maximum matching.

J. Edmonds, Paths, trees, and flowers (1965): an atom left over is paired by an alternating path, found by a
search that treats odd cycles ("blossoms") as one atom. Nothing simpler is exact, since rings of five and
seven are such cycles. Entered for few molecules, of at most 256 atoms to pair.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import compiled, inlined
from stkd_screen.smiles.elements import AROMATIC_FLAG, BondType

AT_WILDCARD = 8  # bond type, for the time of this pass, of a single bond in a ring that may be a double bond
NOBODY = -1
BARE_NITROGEN = 7 + AROMATIC_FLAG

# One record an atom.
PAIRING = np.dtype(
    [
        ("must_pair", np.int32),
        ("partner", np.int32),
        ("edge", np.int32),  # the first of its edges
        ("outer", np.int32),  # could be left over in place of the root of the search
        ("reached_from", np.int32),  # the outer atom before it
        ("base", np.int32),  # of the blossom it lies in: its first atom on the way from the root
        ("queued", np.int32),  # not about this atom: the queue of the search
        ("in_blossom", np.int32),
        ("on_way", np.int32),
    ]
)
EDGE = np.dtype([("atom", np.int32), ("following", np.int32)])  # from one atom to `atom`


@compiled
def unpaired_atom(row, scratch, molecule):
    """An atom to blame where the kept atoms that need a double bond cannot all be paired, or NOBODY."""
    pairing, edges = scratch.pairing, scratch.edges
    link_neighbours(row, scratch, molecule)
    for i in range(row.atoms):
        link = pairing[i].edge
        while pairing[i].partner == NOBODY and link >= 0:
            if pairing[edges[link].atom].partner == NOBODY:
                pair(pairing, i, edges[link].atom)
            link = edges[link].following
    for i in range(row.atoms):
        lonely = pairing[i].must_pair and pairing[i].partner == NOBODY
        if lonely and not find_partner(i, row.atoms, pairing, edges):
            return atom_to_blame(scratch.atoms, row, pairing)
    return NOBODY


@inlined
def pair(pairing, i, j):
    pairing[i].partner = j
    pairing[j].partner = i


@compiled
def link_neighbours(row, scratch, molecule):
    """Chain the bonds that may be double at both their atoms. A wildcard may be paired but need not."""
    atoms, pairing, edges = scratch.atoms, scratch.pairing, scratch.edges
    for i in range(row.atoms):
        pairing[i].must_pair = scratch.notes[i].keep and atoms[i].double and scratch.spans[i].in_ring
        pairing[i].edge = pairing[i].partner = NOBODY
    for k in range(row.bonds - 1, -1, -1):
        first, second = np.int64(molecule.bond_atoms[k, 0]), np.int64(molecule.bond_atoms[k, 1])
        if molecule.bond_type[k] != BondType.AROMATIC and molecule.bond_type[k] != AT_WILDCARD:
            continue
        a, b = pairing[first].must_pair, pairing[second].must_pair
        if (a and (b or atoms[second].element == 0)) or (b and atoms[first].element == 0):
            link_edge(pairing, edges, 2 * k, first, second)
            link_edge(pairing, edges, 2 * k + 1, second, first)


@inlined
def link_edge(pairing, edges, link, begin, end):
    edges[link].atom = end
    edges[link].following = pairing[begin].edge
    pairing[begin].edge = link


@compiled
def find_partner(root, n_atoms, pairing, edges):
    """Pair one more atom by re-pairing others along an alternating path; whether there is such a path.

    It ends at an atom with no partner, or at an outer one that needs none.
    """
    for i in range(n_atoms):
        atom = pairing[i]
        atom.outer = False
        atom.reached_from = NOBODY
        atom.base = i
    pairing[root].outer = True
    pairing[0].queued = root  # the queue of outer atoms to go on from
    begin, end = np.int64(0), np.int64(1)
    while begin < end:
        i = np.int64(pairing[begin].queued)
        begin += 1
        if not pairing[i].must_pair:
            last = np.int64(pairing[i].partner)
            pairing[i].partner = NOBODY
            re_pair(pairing, last)
            return True
        link = pairing[i].edge
        while link >= 0:
            j = np.int64(edges[link].atom)
            link = edges[link].following
            mate = pairing[j].partner
            if pairing[i].base == pairing[j].base or pairing[i].partner == j:
                continue
            if pairing[j].outer:
                end = contract(pairing, n_atoms, i, j, end)
            elif pairing[j].reached_from == NOBODY:
                pairing[j].reached_from = i
                if mate == NOBODY:
                    re_pair(pairing, j)
                    return True
                pairing[mate].outer = True
                pairing[end].queued = mate
                end += 1
    return False


@inlined
def re_pair(pairing, j):
    """Pair atom j with the one it was reached from, whose partner pairs with the one it was, and so on."""
    while j != NOBODY:
        i = np.int64(pairing[j].reached_from)
        following = np.int64(pairing[i].partner)
        pair(pairing, i, j)
        j = following


@compiled
def contract(pairing, n_atoms, i, j, end):
    """Two outer atoms are neighbours: make all atoms of that odd cycle outer; the new end of the queue."""
    base = common_base(pairing, n_atoms, i, j)
    for k in range(n_atoms):
        pairing[k].in_blossom = False
    mark_way_to_base(pairing, i, j, base)
    mark_way_to_base(pairing, j, i, base)
    for k in range(n_atoms):
        if pairing[pairing[k].base].in_blossom:
            pairing[k].base = base
            if not pairing[k].outer:
                pairing[k].outer = True
                pairing[end].queued = k
                end += 1
    return end


@compiled
def common_base(pairing, n_atoms, i, j):
    """The base at which the ways from two outer atoms to the root meet."""
    for k in range(n_atoms):
        pairing[k].on_way = False
    while True:
        i = np.int64(pairing[i].base)
        pairing[i].on_way = True
        if pairing[i].partner == NOBODY:
            break
        i = np.int64(pairing[pairing[i].partner].reached_from)
    while not pairing[pairing[j].base].on_way:
        j = np.int64(pairing[pairing[pairing[j].base].partner].reached_from)
    return np.int64(pairing[j].base)


@compiled
def mark_way_to_base(pairing, i, before, base):
    while pairing[i].base != base:
        partner = np.int64(pairing[i].partner)
        pairing[pairing[i].base].in_blossom = True
        pairing[pairing[partner].base].in_blossom = True
        pairing[i].reached_from = before
        before = partner
        i = np.int64(pairing[partner].reached_from)


@compiled
def atom_to_blame(atoms, row, pairing):
    """The first nitrogen that a hydrogen would mend, else the first atom that could be left over."""
    found = np.int64(NOBODY)
    for i in range(row.atoms):
        if pairing[i].outer:
            if atoms[i].element == BARE_NITROGEN and atoms[i].marks == 0:
                return i
            if found == NOBODY:
                found = i
    return found
