"""One SMILES in, one graph out: a single pass over its bytes, compiled by numba.

Follows OpenSMILES (opensmiles.org, section 3) and accepts what RDKit accepts. No recursion and no
allocation: the caller hands in scratch memory as long as its longest row.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from typing import NamedTuple

import numpy as np

from stkd_screen.smiles.brackets import AROMATIC_BOND, is_digit, read_atom
from stkd_screen.smiles.elements import (
    AROMATIC_FLAG,
    BOND_SYMBOLS,
    NO_ATOM,
    ORGANIC,
    VALENCE_HALVES,
    BondSymbol,
)
from stkd_screen.smiles.errors import ParseError
from stkd_screen.smiles.jit import inlined

RING_NUMBERS = 100_000  # %(99999) is the largest RDKit reads

BOND = np.dtype([("first", np.int32), ("second", np.int32), ("symbol", np.int32)])  # first < second
RING = np.dtype(  # ring bonds in order of opening
    [
        ("atom", np.int32),  # that opened it
        ("symbol", np.int32),  # the bond symbol there
        ("byte", np.int32),  # of the opening number; of the closing one once closed
        ("bond", np.int32),  # its index once closed, -1 while open
    ]
)
BRANCH = np.dtype([("atom", np.int32), ("byte", np.int32)])  # open branches


class Row(NamedTuple):
    """How much one row holds; after an error only `error` and its `byte` mean something."""

    atoms: int
    bonds: int
    rings: int
    dots: int
    explicit_hydrogens: int
    error: int
    byte: int


@inlined
def failed(error, byte):
    return Row(0, 0, 0, 0, 0, np.int64(error), np.int64(byte))


@inlined
def read_row(data, start, end, atoms, bonds, rings, branches, ring_of_number, serial):
    """Read data[start:end] into atoms, bonds and rings; byte positions there count from `start`.

    Args:
        ring_of_number: (RING_NUMBERS,) int64, by ring number: serial + 1 + the ring bond it opened last.
        serial: at least the number of ring bonds the rows before opened, so the table needs no clearing.
    """
    if start == end:
        return failed(ParseError.EMPTY, 0)
    at = start
    n_atoms = n_bonds = n_rings = open_rings = depth = dots = explicit_hydrogens = 0
    previous = -1  # the atom the next one is bonded to; -1 at the start and after a dot
    symbol = np.int64(BondSymbol.IMPLICIT)  # the bond symbol read since then
    opened = False  # whether "(" has been read since then

    while at < end:
        first, byte = at, data[at]
        if ORGANIC[byte] != NO_ATOM or byte == ord("["):
            atom = atoms[n_atoms]
            at, error = read_atom(data, at, end, atom)
            if error != ParseError.OK:
                return failed(error, at - start)
            atom.start = first - start
            atom.parent = previous
            atom.bond = n_bonds
            explicit_hydrogens += atom.element == 1
            if previous >= 0:
                add_bond(atoms, bonds[n_bonds], previous, n_atoms, symbol)
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
            previous = np.int64(branches[depth].atom)
            at += 1
        elif is_digit(byte) or byte == ord("%"):
            if previous < 0 or opened:
                return failed(ParseError.ATOM_EXPECTED, first - start)
            number, at = read_ring_number(data, at, end)
            if number < 0:
                return failed(ParseError.RING_NUMBER, first - start)
            index = ring_of_number[number] - 1 - serial
            if index < 0:
                ring_of_number[number] = serial + 1 + n_rings
                open_ring(rings[n_rings], previous, symbol, first - start)
                n_rings += 1
                open_rings += 1
            else:
                ring_of_number[number] = 0
                ring = rings[index]
                if ring.atom == previous:
                    return failed(ParseError.RING_TO_ITSELF, first - start)
                close_ring(ring, atoms, bonds[n_bonds], previous, symbol, first - start)
                ring.bond = n_bonds
                n_bonds += 1
                open_rings -= 1
            symbol = np.int64(BondSymbol.IMPLICIT)
        elif byte == ord("(") or byte == ord("."):
            if previous < 0 or pending:
                return failed(ParseError.ATOM_EXPECTED, first - start)
            if byte == ord("("):
                branches[depth].atom = previous
                branches[depth].byte = first - start
                depth += 1
                opened = True
            else:
                previous = -1
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
    if open_rings > 0:
        for index in range(n_rings):
            if rings[index].bond < 0:
                return failed(ParseError.RING_UNCLOSED, rings[index].byte)
    return Row(n_atoms, n_bonds, n_rings, dots, explicit_hydrogens, np.int64(ParseError.OK), 0)


@inlined
def add_bond(atoms, bond, begin, end, symbol):
    """Write a bond from atom `begin` to `end`; an unwritten symbol takes its meaning from them."""
    if symbol == BondSymbol.IMPLICIT or symbol == BondSymbol.DIRECTION:
        both = atoms[begin].element & atoms[end].element & AROMATIC_FLAG
        symbol = np.int64(BondSymbol.AROMATIC if both else BondSymbol.SINGLE)
    elif symbol == BondSymbol.AROMATIC:
        atoms[begin].marks |= AROMATIC_BOND
        atoms[end].marks |= AROMATIC_BOND
    atoms[begin].halves += VALENCE_HALVES[symbol, 0]
    atoms[end].halves += VALENCE_HALVES[symbol, 1]
    bond.first = min(begin, end)
    bond.second = max(begin, end)
    bond.symbol = symbol


@inlined
def open_ring(ring, atom, symbol, byte):
    ring.atom = atom
    ring.symbol = symbol
    ring.byte = byte
    ring.bond = -1


@inlined
def close_ring(ring, atoms, bond, atom, symbol, byte):
    """Bond the ring's atom to `atom`; of two symbols the first that gives an order counts."""
    ring.byte = byte
    begin, end = atom, np.int64(ring.atom)
    if ring.symbol != BondSymbol.IMPLICIT and ring.symbol != BondSymbol.DIRECTION:
        begin, end, symbol = end, begin, np.int64(ring.symbol)
    add_bond(atoms, bond, begin, end, symbol)


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
    following = data[at] if at < end else 0
    if byte == ord("-") and following == ord(">"):
        return np.int64(BondSymbol.DATIVE_RIGHT), at + 1
    if byte == ord("<"):
        return np.int64(BondSymbol.DATIVE_LEFT if following == ord("-") else BondSymbol.IMPLICIT), at + 1
    if byte == ord("\\") and following == ord("\\"):  # one, escaped; RDKit reads it so too
        at += 1
    return symbol, at
