"""Implicit hydrogens and over-valent atoms of a molecule, with the forms RDKit's clean-up would mend."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.smiles.brackets import AROMATIC_BOND, GIVEN_HYDROGENS
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


@inlined
def assign_hydrogens(atoms, bonds, row, notes, organic):
    """Fill in the implicit hydrogens; index of the first over-valent atom, or -1.

    Args:
        organic: the table of `organic_table`, which answers for all but bracket atoms.
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
