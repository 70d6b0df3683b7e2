"""Implicit hydrogens and over-valent atoms of a molecule, with the forms that RDKit's clean-up mends."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import compiled, inlined
from stkd_screen.smiles.brackets import COLON, GIVEN_HYDROGENS, aromatic_bonds, halves
from stkd_screen.smiles.elements import AROMATIC_FLAG, NO_ATOM, BondType
from stkd_screen.smiles.valence import (
    BEYOND_TABLE,
    METAL,
    NEEDS_DOUBLE,
    OVER_VALENT,
    VALENCE_COUNT,
    VALENCES,
    aromatic_hydrogens,
    explicit_valence,
    implicit_hydrogens,
    organic_entry,
)

NITROGEN, NITROGEN_WITH_OXYGEN, HALOGEN, DONE = 1, 2, 3, 4  # NOTES.form


@inlined
def atomic_number(atom):
    return np.int64(atom.element & (AROMATIC_FLAG - 1))


@inlined
def is_aromatic(atom):
    return (atom.element & AROMATIC_FLAG) != 0 or (atom.marks & COLON) != 0


@compiled
def valence_in_use(atom, charge):
    return explicit_valence(atomic_number(atom), charge, is_aromatic(atom), halves(atom))


@inlined
def hydrogens_of(atom, organic):
    """Hydrogens of an atom, or OVER_VALENT, and whether it needs a double bond.

    Args:
        organic: the table of `organic_table`, which answers for all but bracket atoms.
    """
    if atom.marks != 0 or atom.bonding & BEYOND_TABLE:
        return ask_model(atom, np.int64(atom.charge))
    entry = np.int64(organic[organic_entry(atom.element, atom.bonding)])
    return (OVER_VALENT if entry == NO_ATOM else entry & (NEEDS_DOUBLE - 1)), entry >= NEEDS_DOUBLE


@compiled
def assign_after_clean_up(atoms, row, molecule, notes):
    """Mend a molecule with an over-valent atom; index of the first such atom that remains, or -1."""
    clean_up(atoms, row, molecule, notes)
    for i in range(row.atoms):
        count, atoms[i].double = ask_model(atoms[i], np.int64(molecule.charge[i]))
        if count == OVER_VALENT:
            return i
        molecule.hydrogens[i] = count
    return -1


@compiled
def ask_model(atom, charge):
    """What the full valence model says: hydrogens or OVER_VALENT, whether the atom needs a double bond."""
    z, given = atomic_number(atom), (atom.marks & GIVEN_HYDROGENS) != 0
    if is_aromatic(atom):
        return aromatic_hydrogens(
            z, charge, halves(atom), aromatic_bonds(atom), np.int64(atom.hydrogens), given
        )
    implied = implicit_hydrogens(z, charge, np.bool_(False), halves(atom), given)
    return (np.int64(atom.hydrogens) if given and implied != OVER_VALENT else implied), False


@compiled
def clean_up(atoms, row, molecule, notes):
    """Rewrite an over-valent molecule as RDKit does, so that a nitro group is the same in both its forms.

    Three forms (RDKit, Code/GraphMol/MolOps.cpp: cleanUp, cleanUpOrganometallics): five-valent N with =O
    or #N becomes N+ with O- or N-, as in CN(=O)=O and CN=N#N; Cl, Br or I that is over-valent among oxygens
    only, with 3, 5 or 7 bonds, gives each =O a charge; a non-metal with too many bonds turns a single bond to
    a metal into a dative one, which here only the valence sum is told: of several metals RDKit chooses by
    canonical rank. Iodine of 3 or 5 bonds, which RDKit rewrites too, is left: the rows that have it and
    nothing over-valent do not come here.
    """
    for i in range(row.atoms):
        z = atomic_number(atoms[i])
        notes[i].form = 0
        if molecule.charge[i] == 0 and (z == 7 or z == 17 or z == 35 or z == 53):
            valence = valence_in_use(atoms[i], np.int64(0))
            if z == 7 and valence == 5:
                notes[i].form = NITROGEN
            elif z != 7 and (valence == 7 or (z != 53 and (valence == 3 or valence == 5))):
                notes[i].form = HALOGEN

    for step in range(3):
        for k in range(row.bonds):
            first, second = molecule.bond_atoms[k, 0], molecule.bond_atoms[k, 1]
            clean_bond(atoms, notes, molecule, k, first, second, step)
            clean_bond(atoms, notes, molecule, k, second, first, step)


@compiled
def clean_bond(atoms, notes, molecule, k, i, j, step):
    """What clean-up makes of bond k from atom i to j: nitrogen and oxygen, then the rest, then metals."""
    form, other, kind = notes[i].form, atomic_number(atoms[j]), molecule.bond_type[k]
    charge = molecule.charge
    if step == 0:
        if form == HALOGEN and other != 8:
            notes[i].form = 0
        elif form == NITROGEN and kind == BondType.DOUBLE and other == 8 and charge[j] == 0:
            notes[i].form = NITROGEN_WITH_OXYGEN
            charge[i], charge[j] = 1, -1
            lower(atoms, molecule, k, i, j)
    elif step == 1:
        nitrogen = form in (NITROGEN, NITROGEN_WITH_OXYGEN)
        if nitrogen and kind == BondType.TRIPLE and other == 7 and charge[j] == 0:
            notes[i].form = DONE
            charge[i], charge[j] = 1, -1
            lower(atoms, molecule, k, i, j)
        elif form == HALOGEN and kind == BondType.DOUBLE:
            charge[i] += 1
            charge[j] = -1
            lower(atoms, molecule, k, i, j)
    elif (
        form != DONE
        and kind == BondType.SINGLE
        and METAL[other]
        and is_hypervalent(atoms[i], np.int64(charge[i]))
    ):
        notes[i].form = DONE  # one bond at most
        atoms[i].bonding -= 2


@inlined
def lower(atoms, molecule, k, i, j):
    """Make a triple bond a double one, a double one single; `bonding` counts in halves."""
    molecule.bond_type[k] -= 1
    atoms[i].bonding -= 2
    atoms[j].bonding -= 2


@compiled
def is_hypervalent(atom, charge):
    """Whether a non-metal has more bonds than it can have, and may give one of them as a dative bond."""
    z = atomic_number(atom)
    if METAL[z] or z == 1 or z == 2 or z == 9 or z == 10 or z - charge <= 0:
        return False
    effective = min(z - charge, 118)
    highest = VALENCES[effective, VALENCE_COUNT[effective] - 1]
    return highest > 0 and valence_in_use(atom, charge) > highest
