"""The passes over a molecule once it is read: ring bonds, valence, folding, fragments.

All are linear in the size of the row (components: nearly so), and the ones that few molecules need are
entered only for those. ``notes`` holds one record an atom of what the passes find out.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.smiles.brackets import AROMATIC_BOND, GIVEN_HYDROGENS, MAX_HYDROGENS
from stkd_screen.smiles.elements import AROMATIC_FLAG, NO_ATOM, BondSymbol
from stkd_screen.smiles.jit import compiled, inlined
from stkd_screen.smiles.valence import (
    METAL,
    OVER_VALENT,
    VALENCE_COUNT,
    VALENCES,
    explicit_valence,
    implicit_hydrogens,
)

NITROGEN, NITROGEN_WITH_OXYGEN, HALOGEN, DONE = 1, 2, 3, 4  # NOTES.form

NOTES = np.dtype(
    [
        ("keep", np.int32),  # 0 where the atom is left out of the result
        ("chain", np.int32),  # ring bonds that begin here, linked by ``following`` (indexed by ring bond)
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


@compiled
def duplicate_ring_bond(bonds, row, rings, atoms, notes):
    """Byte of the first ring number that joins two bonded atoms again, or a byte past the row.

    Ring bonds are chained by their first atom, and along a chain each marks its second atom.
    """
    none = np.int64(1) << 40
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
    return -1 if found == none else found


@inlined
def atomic_number(atom):
    return np.int64(atom.element & (AROMATIC_FLAG - 1))


@inlined
def is_aromatic(atom):
    return (atom.element & AROMATIC_FLAG) != 0 or (atom.marks & AROMATIC_BOND) != 0


@compiled
def count_hydrogens(atom, charge):
    """What the full valence model says of one atom: implicit hydrogens or OVER_VALENT."""
    given = (atom.marks & GIVEN_HYDROGENS) != 0
    return implicit_hydrogens(atomic_number(atom), charge, is_aromatic(atom), np.int64(atom.halves), given)


@compiled
def valence_in_use(atom, charge):
    return explicit_valence(atomic_number(atom), charge, is_aromatic(atom), np.int64(atom.halves))


@compiled
def assign_hydrogens(atoms, bonds, row, notes, organic):
    """Fill in the implicit hydrogens; index of the first over-valent atom, or -1.

    organic: the table of ``organic_table``, which answers for all but bracket atoms.
    """
    sound = True
    for i in range(row.atoms):
        atom = atoms[i]
        if atom.marks == 0:
            count = organic[atom.element, min(atom.halves, 31)]
            atom.hydrogens = count
            sound &= count != NO_ATOM
        else:
            count = count_hydrogens(atom, np.int64(atom.charge))
            if not atom.marks & GIVEN_HYDROGENS:
                atom.hydrogens = max(count, 0)
            sound &= count != OVER_VALENT
    if sound:
        return -1

    clean_up(atoms, bonds, row, notes)
    for i in range(row.atoms):
        atom = atoms[i]
        count = count_hydrogens(atom, np.int64(notes[i].charge))
        if count == OVER_VALENT:
            return i
        if not atom.marks & GIVEN_HYDROGENS:
            atom.hydrogens = count
    return -1


@compiled
def clean_up(atoms, bonds, row, notes):
    """Count bonds and charges as RDKit does once its clean-up has rewritten an over-valent molecule.

    Three forms (RDKit, Code/GraphMol/MolOps.cpp: cleanUp, cleanUpOrganometallics): five-valent N with =O
    or #N becomes N+ with O- or N-, as in CN(=O)=O and CN=N#N; Cl, Br or I of valence 3, 5 or 7 among
    oxygens only gives each =O a charge; a non-metal with too many bonds turns a single bond to a metal
    into a dative one. Only the valence sums and NOTES.charge change: the molecule stays as written.
    """
    for i in range(row.atoms):
        z, charge = atomic_number(atoms[i]), np.int64(atoms[i].charge)
        notes[i].charge = charge
        notes[i].form = 0
        if charge == 0 and (z == 7 or z == 17 or z == 35 or z == 53):
            valence = valence_in_use(atoms[i], charge)
            if z == 7 and valence == 5:
                notes[i].form = NITROGEN
            elif z != 7 and (valence == 3 or valence == 5 or valence == 7):
                notes[i].form = HALOGEN

    for step in range(3):
        for k in range(row.bonds):
            clean_bond(atoms, notes, bonds[k].first, bonds[k].second, bonds[k].symbol, step)
            clean_bond(atoms, notes, bonds[k].second, bonds[k].first, bonds[k].symbol, step)


@compiled
def clean_bond(atoms, notes, i, j, symbol, step):
    """What clean-up makes of the bond from atom i to j: nitrogen and oxygen, then the rest, then metals."""
    form, other = notes[i].form, atomic_number(atoms[j])
    if step == 0:
        if form == HALOGEN and other != 8:
            notes[i].form = 0
        elif form == NITROGEN and symbol == BondSymbol.DOUBLE and other == 8 and notes[j].charge == 0:
            notes[i].form = NITROGEN_WITH_OXYGEN
            notes[i].charge, notes[j].charge = 1, -1
            atoms[i].halves -= 2
            atoms[j].halves -= 2
    elif step == 1:
        nitrogen = form in (NITROGEN, NITROGEN_WITH_OXYGEN)
        if nitrogen and symbol == BondSymbol.TRIPLE and other == 7 and notes[j].charge == 0:
            notes[i].form = DONE
            notes[i].charge, notes[j].charge = 1, -1
            atoms[i].halves -= 2
            atoms[j].halves -= 2
        elif form == HALOGEN and symbol == BondSymbol.DOUBLE:
            notes[i].charge += 1
            notes[j].charge = -1
            atoms[i].halves -= 2
            atoms[j].halves -= 2
    elif form != DONE and symbol == BondSymbol.SINGLE and METAL[other] and is_hypervalent(atoms[i], notes[i]):
        notes[i].form = DONE  # one bond at most
        atoms[i].halves -= 2


@compiled
def is_hypervalent(atom, note):
    """Whether a non-metal has more bonds than it can have, and may give one of them as a dative bond."""
    z, charge = atomic_number(atom), np.int64(note.charge)
    if METAL[z] or z == 1 or z == 2 or z == 9 or z == 10 or z - charge <= 0:
        return False
    effective = min(z - charge, 118)
    highest = VALENCES[effective, VALENCE_COUNT[effective] - 1]
    return highest > 0 and valence_in_use(atom, charge) > highest


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
    """Number of connected components; notes their first atom as each atom's ``root``."""
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
