"""One SMILES in, one graph out: a single pass over its bytes, compiled by numba.

Follows OpenSMILES (opensmiles.org, section 3) and accepts what RDKit accepts. No recursion and no
allocation: the caller hands in scratch memory as long as its longest row.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from typing import NamedTuple

import numpy as np

from stkd_screen.jit import index, inlined
from stkd_screen.smiles.brackets import COLON, NONE, SEVERAL, is_digit, read_atom
from stkd_screen.smiles.elements import (
    AROMATIC_BOND,
    AROMATIC_FLAG,
    BOND_SYMBOLS,
    BONDING,
    NO_ATOM,
    ORGANIC,
    BondSymbol,
    BondType,
)
from stkd_screen.smiles.errors import ParseError

RING_NUMBERS = 100_000  # %(99999) is the largest RDKit reads

RING = np.dtype([("atom", np.int32), ("symbol", np.int32), ("byte", np.int32)])  # at each opening number
RING_BOND = np.dtype(  # in order of closing
    [
        ("first", np.int32),  # the earlier atom
        ("second", np.int32),
        ("kind", np.int32),  # BondType
        ("byte", np.int32),  # of the closing number
    ]
)
BRANCH = np.dtype([("atom", np.int32), ("byte", np.int32)])  # open branches
CLOSED = -1  # RING.byte of a ring bond that is closed


class Row(NamedTuple):
    """How much one row holds; after an error only `error` and its `byte` mean something."""

    atoms: int
    bonds: int
    ring_bonds: int
    dots: int
    explicit_hydrogens: int
    doubtful: int  # whether two atoms may be bonded twice
    error: int
    byte: int


@inlined
def failed(error, byte):
    return Row(0, 0, 0, 0, 0, 0, np.int64(error), np.int64(byte))


@inlined
def with_counts(row, atoms, bonds):
    return Row(
        atoms, bonds, row.ring_bonds, row.dots, row.explicit_hydrogens, row.doubtful, row.error, row.byte
    )


@inlined
def read_row(data, start, end, scratch, ring_of_number, serial, bonds, first_bond):
    """Read data[start:end] into `scratch` (rows.py) and write its bonds; byte positions count from `start`.

    Args:
        bonds: the arrays (bond_atoms, bond_type) of Molecules, the first flat, written from `first_bond` on.
        ring_of_number: (RING_NUMBERS,) int64, by ring number: serial + 1 + the ring bond it opened last.
        serial: at least the number of ring bonds the rows before opened, so the table needs no clearing.
    """
    if start == end:
        return failed(ParseError.EMPTY, 0)
    atoms, ring_bonds, rings, branches = scratch.atoms, scratch.ring_bonds, scratch.rings, scratch.branches
    at = start
    n_bonds = first_bond
    n_atoms = n_rings = n_closed = depth = dots = explicit_hydrogens = doubtful = np.int64(0)
    previous = np.int64(-1)  # the atom the next one is bonded to; -1 at the start and after a dot
    symbol = np.int64(BondSymbol.IMPLICIT)  # the bond symbol read since then
    opened = False  # whether "(" has been read since then

    while at < end:
        first, byte = at, data[index(at)]
        if ORGANIC[byte] != NO_ATOM or byte == ord("["):
            atom = atoms[index(n_atoms)]
            at, error = read_atom(data, at, end, atom)
            if error != ParseError.OK:
                return failed(error, at - start)
            atom.start = first - start
            atom.parent = previous
            atom.closed_to = NONE
            atom.kind = 0
            explicit_hydrogens += atom.element == 1
            if previous >= 0:
                atom.kind = add_bond(atoms[index(previous)], atom, symbol)
                write_bond(bonds, n_bonds, previous, n_atoms, atom.kind)
                n_bonds += 1
            previous = n_atoms
            n_atoms += 1
            symbol = np.int64(BondSymbol.IMPLICIT)
            opened = False
            continue

        pending = opened or symbol != BondSymbol.IMPLICIT
        if byte == ord(")"):
            if depth == 0:
                return failed(ParseError.BRANCH_UNOPENED, first - start)
            if opened and symbol == BondSymbol.IMPLICIT:
                return failed(ParseError.BRANCH_EMPTY, first - start)
            if previous < 0 or pending:
                return failed(ParseError.ATOM_EXPECTED, first - start)
            depth -= 1
            previous = np.int64(branches[index(depth)].atom)
            at += 1
        elif is_digit(byte) or byte == ord("%"):
            if previous < 0 or opened:
                return failed(ParseError.ATOM_EXPECTED, first - start)
            number, at = read_ring_number(data, at, end)
            if number < 0:
                return failed(ParseError.RING_NUMBER, first - start)
            opened_by = ring_of_number[index(number)] - 1 - serial
            if opened_by < 0:
                ring_of_number[index(number)] = serial + 1 + n_rings
                open_ring(rings[index(n_rings)], previous, symbol, first - start)
                n_rings += 1
            else:
                ring_of_number[index(number)] = 0
                if rings[index(opened_by)].atom == previous:
                    return failed(ParseError.RING_TO_ITSELF, first - start)
                bond = ring_bonds[index(n_closed)]
                doubtful |= close_ring(rings[index(opened_by)], bond, atoms, previous, symbol)
                bond.byte = first - start
                write_bond(bonds, n_bonds, bond.first, bond.second, bond.kind)
                n_closed += 1
                n_bonds += 1
            symbol = np.int64(BondSymbol.IMPLICIT)
        elif byte == ord("(") or byte == ord("."):
            if previous < 0 or pending:
                return failed(ParseError.ATOM_EXPECTED, first - start)
            if byte == ord("("):
                branches[index(depth)].atom = previous
                branches[index(depth)].byte = first - start
                depth += 1
                opened = True
            else:
                previous = np.int64(-1)
                dots += 1
            at += 1
        else:
            read, at = read_bond_symbol(data, at, end)
            if read == BondSymbol.IMPLICIT:
                printable = ord(" ") <= byte <= ord("~")
                return failed(ParseError.CHARACTER if printable else ParseError.NOT_ASCII, first - start)
            if previous < 0 or symbol != BondSymbol.IMPLICIT:
                return failed(ParseError.ATOM_EXPECTED, first - start)
            symbol = read

    if previous < 0 or opened or symbol != BondSymbol.IMPLICIT:
        return failed(ParseError.ATOM_EXPECTED, end - start)
    if depth > 0:
        return failed(ParseError.BRANCH_UNCLOSED, branches[0].byte)
    if n_closed < n_rings:
        for k in range(n_rings):
            if rings[k].byte != CLOSED:
                return failed(ParseError.RING_UNCLOSED, rings[k].byte)
    n_bonds -= first_bond
    return Row(n_atoms, n_bonds, n_closed, dots, explicit_hydrogens, doubtful, np.int64(ParseError.OK), 0)


@inlined
def add_bond(begin, end, symbol):
    """Count a bond at both its atoms; its BondType. An unwritten one takes its meaning from them."""
    if symbol == BondSymbol.IMPLICIT or symbol == BondSymbol.DIRECTION:
        aromatic = np.int64((begin.element & end.element) // AROMATIC_FLAG)
        begin.bonding += 2 + aromatic * (AROMATIC_BOND + 1)
        end.bonding += 2 + aromatic * (AROMATIC_BOND + 1)
        return np.int64(BondType.SINGLE + aromatic * (BondType.AROMATIC - BondType.SINGLE))
    if symbol == BondSymbol.AROMATIC:
        begin.marks |= COLON
        end.marks |= COLON
    begin.bonding += BONDING[symbol, 0]
    end.bonding += BONDING[symbol, 1]
    return min(symbol, np.int64(BondType.OTHER))


@inlined
def write_bond(bonds, k, first, second, kind):
    bond_atoms, bond_type = bonds
    bond_atoms[index(2 * k)] = first
    bond_atoms[index(2 * k + 1)] = second
    bond_type[index(k)] = kind


@inlined
def open_ring(ring, atom, symbol, byte):
    ring.atom = atom
    ring.symbol = symbol
    ring.byte = byte


@inlined
def close_ring(ring, bond, atoms, closing, symbol):
    """Bond the ring's atom to `closing`; whether the two may be bonded already.

    Of two symbols the first that gives an order counts.
    """
    opening = np.int64(ring.atom)
    opener, closer = atoms[index(opening)], atoms[index(closing)]
    if ring.symbol == BondSymbol.IMPLICIT or ring.symbol == BondSymbol.DIRECTION:
        bond.kind = add_bond(closer, opener, symbol)
    else:
        bond.kind = add_bond(opener, closer, np.int64(ring.symbol))
    bond.first = min(opening, closing)
    bond.second = max(opening, closing)
    ring.byte = CLOSED
    before = closer.closed_to
    closer.closed_to = opening if before == NONE else SEVERAL
    # An atom may also close the ring that a later one opened: C(CC1)1.
    return opening > closing or closer.parent == opening or before in (opening, SEVERAL)


@inlined
def read_ring_number(data, at, end):
    """(number, next byte) for 0-9, %10-%99 and %(n) with up to five digits; -1 where malformed."""
    if data[at] != ord("%"):
        return np.int64(data[at]) - ord("0"), at + 1
    at += 1
    if at < end and data[at] == ord("("):
        first = at + 1
        number, at = np.int64(0), first
        while at < end and at < first + 5 and is_digit(data[at]):
            number = number * 10 + data[at] - ord("0")
            at += 1
        closed = first < at < end and data[at] == ord(")")
        return (number if closed else -1), at + 1
    if at + 1 < end and is_digit(data[at]) and data[at] != ord("0") and is_digit(data[at + 1]):
        return np.int64(data[at] - ord("0")) * 10 + data[at + 1] - ord("0"), at + 2
    return -1, at


@inlined
def read_bond_symbol(data, at, end):
    """(BondSymbol, next byte); IMPLICIT where none stands."""
    byte = data[at]
    symbol = np.int64(BOND_SYMBOLS[byte])
    at += 1
    following = data[index(at)] if at < end else 0
    if byte == ord("-") and following == ord(">"):
        return np.int64(BondSymbol.DATIVE_RIGHT), at + 1
    if byte == ord("<"):
        return np.int64(BondSymbol.DATIVE_LEFT if following == ord("-") else BondSymbol.IMPLICIT), at + 1
    if byte == ord("\\") and following == ord("\\"):  # one, escaped; RDKit reads it so too
        at += 1
    return symbol, at
