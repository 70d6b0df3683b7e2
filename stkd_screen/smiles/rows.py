"""All rows: each is read, passed over and appended to the output arrays."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.smiles.brackets import ATOM
from stkd_screen.smiles.elements import BondType
from stkd_screen.smiles.errors import ParseError
from stkd_screen.smiles.grammar import BOND, BRANCH, RING, RING_NUMBERS, Row, failed, read_row
from stkd_screen.smiles.graph import (
    NOTES,
    drop_atoms,
    duplicate_ring_bond,
    find_components,
    fold_plain_hydrogens,
    free_biaryl_bonds,
    keep_largest,
)
from stkd_screen.smiles.hydrogens import assign_hydrogens
from stkd_screen.smiles.jit import inlined, releasing_gil
from stkd_screen.smiles.valence import organic_table

MAX_ATOMS = 256  # rows of the student's position table, and part of the vocabulary's layout (tokens.py)
MAX_BYTES = 1_000_000  # of one SMILES, so that scratch memory has a bound


def read_rows(data, offsets, longest, out, fold, largest, single_between_rings):
    """Fill `out`, the arrays of Molecules in their order; see `pretransform` for the rest.

    Args:
        longest: bytes of the longest row; the scratch memory for it is allocated here, once.
    """
    scratch = tuple(np.empty(min(longest, MAX_BYTES), kind) for kind in (ATOM, BOND, RING, BRANCH, NOTES))
    ring_of_number = np.zeros(RING_NUMBERS, np.int64)
    passes = (fold, largest, single_between_rings)
    _read_rows(data, offsets, scratch, ring_of_number, organic_table(), out, passes)


@releasing_gil
def _read_rows(data, offsets, scratch, ring_of_number, organic, out, passes):
    """Read every row into scratch memory, then append what remains of it to the output arrays."""
    atoms, bonds, rings, branches, notes = scratch
    (atom_offsets, bond_offsets, element, charge, hydrogens, chirality, bond_atoms, bond_type) = out[:8]
    fragments, error, error_column = out[8:]
    n_atoms = n_bonds = 0
    for i in range(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        if end - start > MAX_BYTES:
            row = failed(ParseError.TOO_LONG, MAX_BYTES)
        else:
            # The bytes before this row are a bound on the ring bonds they opened.
            row = read_row(data, start, end, atoms, bonds, rings, branches, ring_of_number, start)
        components = 0
        if row.error == ParseError.OK:
            row, components = _finish_row(atoms, bonds, row, rings, notes, organic, passes)
        if row.error == ParseError.OK:
            fragments[i] = components
            for k in range(row.atoms):
                element[n_atoms + k] = atoms[k].element
                charge[n_atoms + k] = atoms[k].charge
                hydrogens[n_atoms + k] = atoms[k].hydrogens
                chirality[n_atoms + k] = atoms[k].chirality
            for k in range(row.bonds):
                bond_atoms[n_bonds + k, 0] = bonds[k].first
                bond_atoms[n_bonds + k, 1] = bonds[k].second
                bond_type[n_bonds + k] = min(bonds[k].symbol, np.int32(BondType.OTHER))
            n_atoms += row.atoms
            n_bonds += row.bonds
        else:
            error[i] = row.error
            error_column[i] = row.byte + 1
        atom_offsets[i + 1] = n_atoms
        bond_offsets[i + 1] = n_bonds


@inlined
def _finish_row(atoms, bonds, row, rings, notes, organic, passes):
    """The passes over a row as read: (Row as it remains, number of components written)."""
    fold, largest, single_between_rings = passes
    if row.rings > 0:
        byte = duplicate_ring_bond(bonds, row, rings, atoms, notes)
        if byte >= 0:
            return failed(ParseError.RING_DUPLICATE, byte), 0
    bad = assign_hydrogens(atoms, bonds, row, notes, organic)
    if bad >= 0:
        return failed(ParseError.VALENCE, atoms[bad].start), 0
    if single_between_rings:
        free_biaryl_bonds(atoms, bonds, row, rings, notes)

    components = 1 if row.dots == 0 else find_components(bonds, row, notes)
    n_atoms, n_bonds = row.atoms, row.bonds
    if (fold and row.explicit_hydrogens > 0) or (largest and components > 1):
        for i in range(row.atoms):
            notes[i].keep = 1
        if largest and components > 1:
            keep_largest(atoms, row, notes)
        if fold:
            bad = fold_plain_hydrogens(atoms, bonds, row, notes)
            if bad >= 0:
                return failed(ParseError.HYDROGENS, atoms[bad].start), 0
        n_atoms, n_bonds = drop_atoms(atoms, bonds, row, notes)
    if n_atoms > MAX_ATOMS:
        return failed(ParseError.TOO_MANY_ATOMS, atoms[MAX_ATOMS].start), 0
    return Row(n_atoms, n_bonds, row.rings, row.dots, row.explicit_hydrogens, row.error, row.byte), components
