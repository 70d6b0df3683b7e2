"""From packed molecules to token sequences (ST-KD, eq. 4-7).

A token is a bag of vocabulary entries whose embeddings are summed, so one table and one gather serve
them all. The paper's sequence is [V], n atom tokens, m bond tokens:

    [V]    virtual
    atom   element, charge, hydrogens, position of the atom              (eq. 5)
    bond   bond type, position of its first atom, of its second atom     (eq. 6)

The factored atom means that any legal atom has a token: there is no [UNK].

Beyond the paper, a student may be given [V] and n atom tokens alone, half as many, each with its surroundings
(see surroundings.py), and what lies between each two of them (see pairs.py):

    atom   element, charge, hydrogens, its shape, its environments of radius 1 and 2, the shape of each of
           its bonds; a student may add the environments after its layers

There are no positions, no types of bonds and no aromaticity in them: hydrogens, charges and unsaturation say
what the bonds are. So such a student gives one answer, however a molecule is written, but for a few odd rings
whose aromatic form does not say enough.
"""

import numpy as np

from stkd_screen.jit import cached, inlined, releasing_gil
from stkd_screen.smiles.brackets import MAX_CHARGE
from stkd_screen.smiles.elements import AROMATIC_FLAG
from stkd_screen.smiles.molecules import Molecules
from stkd_screen.smiles.pairs import find_pairs, pair_space
from stkd_screen.smiles.rows import MAX_ATOMS
from stkd_screen.smiles.surroundings import (
    ATOM_SHAPES,
    BOND_SHAPES,
    ENVIRONMENTS,
    find_surroundings,
    work_space,
)

MAX_HYDROGENS = 15  # more share one entry

# The one vocabulary, entry 0 being "nothing". Its layout is frozen in every weights file: a change
# needs a new VOCABULARY_VERSION.
VOCABULARY_VERSION = 3
NOTHING = 0
VIRTUAL = 1
ELEMENT = 2  # + atomic number, + 128 where aromatic
CHARGE = ELEMENT + 256  # + charge + MAX_CHARGE
HYDROGENS = CHARGE + 2 * MAX_CHARGE + 1  # + number of hydrogens
BOND = HYDROGENS + MAX_HYDROGENS + 1  # + bond type
POSITION = BOND + 8  # + position of the atom
VOCABULARY_SIZE = POSITION + MAX_ATOMS
ENTRIES_PER_TOKEN = 4

# The entries of surroundings follow, so that a student without them has a smaller table.
ATOM_SHAPE = VOCABULARY_SIZE
BOND_SHAPE = ATOM_SHAPE + ATOM_SHAPES
ENVIRONMENT_1 = BOND_SHAPE + BOND_SHAPES
ENVIRONMENT_2 = ENVIRONMENT_1 + ENVIRONMENTS[0]
VOCABULARY_SIZE_SURROUNDED = ENVIRONMENT_2 + ENVIRONMENTS[1]
SHAPED_BONDS = 6  # of an atom, at most; those of the lowest shapes
ENTRIES_PER_TOKEN_SURROUNDED = 6 + SHAPED_BONDS
ENVIRONMENT_ENTRIES = slice(4, 6)  # of a token, see `_fill_surrounded`


def token_counts(molecules: Molecules, *, surroundings: bool = False) -> np.ndarray:
    """Number of tokens of each row, 1 + n + m, or 1 + n with surroundings. (R,) int64.

    0 for a row that holds no molecule.
    """
    atoms = np.diff(molecules.atom_offsets)
    bonds = 0 if surroundings else np.diff(molecules.bond_offsets)
    return np.where(atoms > 0, 1 + atoms + bonds, 0)


def lay_out(
    molecules: Molecules,
    rows: np.ndarray,
    positions: np.ndarray | None = None,
    *,
    surroundings: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token batch of rows that all have the same token count T.

    Args:
        molecules: packed molecules, N atoms in all.
        rows: (B,) the rows to lay out.
        positions: (N,) position of each atom in its molecule; by default the order of writing. Not looked at
            with surroundings.
        surroundings: atom tokens alone, with their surroundings.

    Returns:
        tokens (B, T, 4) int16 vocabulary entries, (B, T, 12) with surroundings; n_atoms (B,) int32; and the
        codes of pairs of tokens (B, T, T) uint8, (0, 0, 0) without surroundings.
    """
    packed = (
        molecules.atom_offsets,
        molecules.bond_offsets,
        molecules.element,
        molecules.charge,
        molecules.hydrogens,
        molecules.bond_atoms,
        molecules.bond_type,
    )
    first = rows[0]
    n = int(molecules.atom_offsets[first + 1] - molecules.atom_offsets[first])
    if surroundings:
        tokens = np.zeros((len(rows), 1 + n, ENTRIES_PER_TOKEN_SURROUNDED), np.int16)
        pairs = np.empty((len(rows), 1 + n, 1 + n), np.uint8)
        most_bonds = int((molecules.bond_offsets[rows + 1] - molecules.bond_offsets[rows]).max())
        work = *work_space(n, most_bonds), pair_space(n)
        _fill_surrounded(*packed, rows, tokens, pairs, *work)
        return tokens, np.full(len(rows), n, np.int32), pairs
    m = int(molecules.bond_offsets[first + 1] - molecules.bond_offsets[first])
    tokens = np.zeros((len(rows), 1 + n + m, ENTRIES_PER_TOKEN), np.int16)
    n_atoms = np.empty(len(rows), np.int32)
    _fill(*packed, np.empty(0, np.int16) if positions is None else positions, rows, tokens, n_atoms)
    return tokens, n_atoms, np.empty((0, 0, 0), np.uint8)


@inlined
def _fill_atom(token, element, charge, hydrogens):  # type: ignore[no-untyped-def]
    token[0] = ELEMENT + element
    token[1] = CHARGE + MAX_CHARGE + charge
    token[2] = HYDROGENS + min(hydrogens, MAX_HYDROGENS)


@cached(nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    atom_offsets, bond_offsets, element, charge, hydrogens, bond_atoms, bond_type, positions, rows,
    tokens, n_atoms,
):  # fmt: skip
    for b in range(len(rows)):
        first_atom, last_atom = atom_offsets[rows[b]], atom_offsets[rows[b] + 1]
        first_bond, last_bond = bond_offsets[rows[b]], bond_offsets[rows[b] + 1]
        n = last_atom - first_atom
        n_atoms[b] = n
        tokens[b, 0, 0] = VIRTUAL
        for i in range(n):
            a = first_atom + i
            token = tokens[b, 1 + i]
            _fill_atom(token, element[a], charge[a], hydrogens[a])
            token[3] = POSITION + (positions[a] if len(positions) else i)
        for k in range(last_bond - first_bond):
            bond = first_bond + k
            token = tokens[b, 1 + n + k]
            token[0] = BOND + bond_type[bond]
            token[1] = tokens[b, 1 + bond_atoms[bond, 0], 3]  # the position of the atom
            token[2] = tokens[b, 1 + bond_atoms[bond, 1], 3]


@releasing_gil
def _fill_surrounded(  # type: ignore[no-untyped-def]
    atom_offsets, bond_offsets, element, charge, hydrogens, bond_atoms, bond_type, rows, tokens, pairs,
    atoms, bonds, ends, masks,
):  # fmt: skip
    for b in range(len(rows)):
        first, last = atom_offsets[rows[b]], atom_offsets[rows[b] + 1]
        first_bond, last_bond = bond_offsets[rows[b]], bond_offsets[rows[b] + 1]
        find_surroundings(
            element[first:last],
            charge[first:last],
            hydrogens[first:last],
            bond_atoms[first_bond:last_bond],
            bond_type[first_bond:last_bond],
            atoms,
            bonds,
            ends,
        )
        tokens[b, 0, 0] = VIRTUAL
        for i in range(last - first):
            a = first + i
            token = tokens[b, 1 + i]
            _fill_atom(token, element[a] & (AROMATIC_FLAG - 1), charge[a], hydrogens[a])
            token[3] = ATOM_SHAPE + atoms[i].shape
            token[4] = ENVIRONMENT_1 + np.int64(atoms[i].hash_1 % np.uint64(ENVIRONMENTS[0]))
            token[5] = ENVIRONMENT_2 + np.int64(atoms[i].hash_2 % np.uint64(ENVIRONMENTS[1]))
            entry = 6
            for shape in range(BOND_SHAPES):  # in this order, so that the order of writing is not seen
                for place in range(atoms[i].first, atoms[i + 1].first):
                    if bonds[ends[place].bond].shape == shape and entry < len(token):
                        token[entry] = BOND_SHAPE + shape
                        entry += 1
        find_pairs(last - first, atoms, bonds, ends, masks, pairs[b])


@cached(nogil=True)
def random_positions(atom_offsets: np.ndarray, share: float, spread_share: float, seed: int) -> np.ndarray:
    """Positions that stand for other orders of writing the same atoms. (N,) int16.

    A share of the molecules gets its atoms in random order; the others keep theirs. In a `spread_share`
    of the molecules the positions are a random increasing subset of the whole table, so that rows beyond
    the longest training molecule are trained too. The sequence itself need not be permuted: attention
    does not see the order of tokens, only the positions they carry.
    """
    np.random.seed(seed)
    positions = np.empty(atom_offsets[-1], np.int16)
    for row in range(len(atom_offsets) - 1):
        first, last = atom_offsets[row], atom_offsets[row + 1]
        n = last - first
        spread = np.random.random() < spread_share
        table_row = 0
        for i in range(n):
            if spread:
                # Selection sampling (Knuth, TAOCP 3.4.2 S): each increasing subset is equally likely.
                while np.random.random() * (MAX_ATOMS - table_row) >= n - i:
                    table_row += 1
            positions[first + i] = table_row
            table_row += 1
        if np.random.random() < share:
            np.random.shuffle(positions[first:last])
    return positions


def atom_types(molecules: Molecules) -> np.ndarray:
    """One integer an atom for its (element and aromaticity, charge, hydrogens). (N,) int32."""
    return (
        molecules.element.astype(np.int32)
        | (molecules.charge.astype(np.int32) + MAX_CHARGE) << 8
        | np.minimum(molecules.hydrogens, MAX_HYDROGENS).astype(np.int32) << 13
    )
