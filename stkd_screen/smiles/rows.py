"""All rows: each is read, passed over and written behind the rows before it."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from typing import NamedTuple

import numpy as np

from stkd_screen.jit import compiled, index, inlined, releasing_gil
from stkd_screen.smiles.brackets import ATOM
from stkd_screen.smiles.errors import ParseError
from stkd_screen.smiles.grammar import BRANCH, RING, RING_BOND, RING_NUMBERS, failed, read_row
from stkd_screen.smiles.graph import (
    NOTES,
    Molecule,
    drop_atoms,
    duplicate_ring_bond,
    find_components,
    fold_plain_hydrogens,
    keep_largest,
    written_from,
)
from stkd_screen.smiles.hydrogens import assign_after_clean_up, hydrogens_of
from stkd_screen.smiles.kekule import (
    SPAN,
    aromatic_rings_cover,
    check_aromatic,
    is_crossing,
    pair_otherwise,
    pair_with_parent,
)
from stkd_screen.smiles.matching import EDGE, PAIRING
from stkd_screen.smiles.valence import OVER_VALENT, organic_table

MAX_ATOMS = 256  # rows of the table of positions, and part of the vocabulary's layout (tokens.py)
MAX_BYTES = 1_000_000  # of one SMILES, so that scratch memory has a bound


class Scratch(NamedTuple):
    """Memory for one row, as long as the longest has bytes."""

    atoms: np.ndarray
    ring_bonds: np.ndarray
    rings: np.ndarray
    branches: np.ndarray
    notes: np.ndarray
    spans: np.ndarray
    pairing: np.ndarray
    edges: np.ndarray  # two a bond


class Options(NamedTuple):
    """Those of `pretransform`."""

    fold_hydrogens: bool
    largest_fragment: bool
    single_between_rings: bool


def read_rows(data, offsets, longest, out, options):
    """Fill `out`, the arrays of Molecules in their order; see `pretransform` for the rest.

    Args:
        longest: bytes of the longest row; the scratch memory for it is allocated here, once.
    """
    size = min(longest, MAX_BYTES)
    kinds = (ATOM, RING_BOND, RING, BRANCH, NOTES, SPAN, PAIRING)
    scratch = Scratch(*(np.empty(size, kind) for kind in kinds), np.empty(2 * size, EDGE))
    ring_of_number = np.zeros(RING_NUMBERS, np.int64)
    _read_rows(data, offsets, scratch, ring_of_number, organic_table(), out, options)


@releasing_gil
def _read_rows(data, offsets, scratch, ring_of_number, organic, out, options):
    atom_offsets, bond_offsets = out[:2]
    fragments, error, error_column = out[8:]
    written = Molecule(*out[2:8])
    bonds = written.bond_atoms.reshape(-1), written.bond_type
    n_atoms = n_bonds = np.int64(0)
    for i in range(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        if end - start > MAX_BYTES:
            row, components = failed(ParseError.TOO_LONG, MAX_BYTES), 0
        else:
            # The bytes before this row are a bound on the ring bonds they opened.
            row = read_row(data, start, end, scratch, ring_of_number, start, bonds, n_bonds)
            row, components = _finish_row(row, scratch, written, n_atoms, n_bonds, organic, options)
        if row.error == ParseError.OK:
            fragments[i] = components
            n_atoms += row.atoms
            n_bonds += row.bonds
        else:
            error[i] = row.error
            error_column[i] = row.byte + 1
        atom_offsets[i + 1] = n_atoms
        bond_offsets[i + 1] = n_bonds


@inlined
def _finish_row(row, scratch, written, first_atom, first_bond, organic, options):
    """Write the atoms of a row as read: (Row as it remains, number of components written)."""
    atoms, ring_bonds = scratch.atoms, scratch.ring_bonds
    if row.doubtful:
        byte = duplicate_ring_bond(ring_bonds, row, atoms, scratch.notes)
        if byte >= 0:
            row = failed(ParseError.RING_DUPLICATE, byte)
    if row.error != ParseError.OK:
        return row, 0
    sound, left, crossing = _write_atoms(atoms, row, written, first_atom, organic)
    rare = row.dots + row.explicit_hydrogens > 0 or row.atoms > MAX_ATOMS
    if left > 0 and not rare:
        left = pair_otherwise(atoms, ring_bonds, row, left)
    twisted = left > 0 or (crossing and (rare or not aromatic_rings_cover(atoms, ring_bonds, row)))
    if sound and not twisted and not rare:
        return row, 1
    molecule = written_from(written, first_atom, first_bond)
    return _finish_rare_row(row, scratch, molecule, sound, twisted, options)


@inlined
def _write_atoms(atoms, row, written, first_atom, organic):
    """Returns what is left to look at: (no atom over-valent, atoms not paired, rings that cross)."""
    sound, left, crossing = True, np.int64(0), False
    for i in range(row.atoms):
        atom = atoms[i]
        count, atom.double = hydrogens_of(atom, organic)
        sound &= count != OVER_VALENT
        left += pair_with_parent(atoms, atom)
        crossing |= is_crossing(atom)
        k = index(first_atom + i)
        written.element[k] = atom.element
        written.charge[k] = atom.charge
        written.hydrogens[k] = count
        written.chirality[k] = atom.chirality
    return sound, left, crossing


@compiled
def _finish_rare_row(row, scratch, molecule, sound, twisted, options):
    """The passes that few rows need; returns as `_finish_row`."""
    atoms, notes = scratch.atoms, scratch.notes
    if not sound:
        bad = assign_after_clean_up(atoms, row, molecule, notes)
        if bad >= 0:
            return failed(ParseError.VALENCE, atoms[bad].start), 0

    components = find_components(molecule, row, notes) if row.dots > 0 else 1
    one_of_several = options.largest_fragment and components > 1
    fold = options.fold_hydrogens and row.explicit_hydrogens > 0
    if row.atoms > MAX_ATOMS and not one_of_several and not fold:
        return failed(ParseError.TOO_MANY_ATOMS, atoms[MAX_ATOMS].start), 0
    for i in range(row.atoms):
        notes[i].keep = True
    if one_of_several:
        keep_largest(molecule, row, notes)
    if fold:
        bad = fold_plain_hydrogens(atoms, molecule, row, notes)
        if bad >= 0:
            return failed(ParseError.HYDROGENS, atoms[bad].start), 0
    kept = 0
    for i in range(row.atoms):
        kept += notes[i].keep
        if kept > MAX_ATOMS:
            return failed(ParseError.TOO_MANY_ATOMS, atoms[i].start), 0
    if twisted or not sound:
        error, bad = check_aromatic(row, scratch, molecule, options.single_between_rings)
        if error != ParseError.OK:
            return failed(error, atoms[bad].start), 0
    return (drop_atoms(molecule, row, notes) if kept < row.atoms else row), components
