"""Atoms: the organic subset and everything between brackets (OpenSMILES 3.1, 3.6)."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import compiled, index, inlined
from stkd_screen.smiles.elements import BRACKET_ONE, BRACKET_TWO, HALVES, NO_ATOM, ORGANIC
from stkd_screen.smiles.errors import ParseError

MAX_CHARGE = 15  # part of the vocabulary's layout (tokens.py)
MAX_HYDROGENS = 255

# ATOM.marks
GIVEN_HYDROGENS = 1  # a bracket atom: none are implied
COLON = 2  # has an aromatic bond written ":", whatever its own symbol says

# ATOM.closed_to
NONE = -1
SEVERAL = -2

# One record an atom keeps together what is read together.
ATOM = np.dtype(
    [
        ("element", np.uint8),  # atomic number, + 128 where aromatic
        ("charge", np.int8),
        ("hydrogens", np.uint8),  # those in brackets
        ("chirality", np.uint8),  # 0 none, 1 @, 2 @@, 3 another class
        ("marks", np.uint8),
        ("kind", np.uint8),  # BondType of the bond to its parent, 0 where there is none
        ("double", np.uint8),  # whether one of its aromatic bonds has to be a double bond
        ("lonely", np.uint8),  # whether that bond is yet to be found
        ("in_ring", np.uint8),  # with its parent
        ("bonding", np.int64),  # sum of BONDING and of twice the hydrogens in brackets
        ("start", np.int32),  # byte of the row where it begins, for error columns
        ("parent", np.int32),  # the atom it is chained to, -1 where a component begins
        ("closed_to", np.int32),  # the other atom of the ring bond closed here; NONE or SEVERAL
    ],
    align=True,
)


@inlined
def halves(atom):
    """Twice the valence in use."""
    return atom.bonding & HALVES


@inlined
def aromatic_bonds(atom):
    return atom.bonding >> 32


@inlined
def is_digit(byte):
    return ord("0") <= byte <= ord("9")


@inlined
def read_atom(data, at, end, atom):
    """Fill in the record of the atom at `at`: (next byte, OK), or (the byte in error, ParseError)."""
    byte = data[index(at)]
    if byte == ord("["):
        return read_bracket(data, at, end, atom)
    element = ORGANIC[byte]
    at += 1
    if at < end:
        if byte == ord("C") and data[index(at)] == ord("l"):
            element = np.uint8(17)
            at += 1
        elif byte == ord("B") and data[index(at)] == ord("r"):
            element = np.uint8(35)
            at += 1
    atom.element = element
    atom.charge = 0
    atom.hydrogens = 0
    atom.chirality = 0
    atom.marks = 0
    atom.bonding = 0
    return at, ParseError.OK


@compiled
def read_bracket(data, at, end, atom):
    """The same for "[" isotope? symbol chirality? hydrogens? charge? class? "]".

    Isotope and class are read over.
    """
    first = at
    number, at = read_number(data, at + 1, end)
    if number == TOO_LARGE:
        return at, ParseError.NUMBER
    if at == end:
        return first, ParseError.BRACKET_UNCLOSED
    element = NO_ATOM
    if at + 1 < end and data[at] < 128 and data[at + 1] < 128:
        element = BRACKET_TWO[data[at], data[at + 1]]
    if element != NO_ATOM:
        at += 2
    else:
        element = BRACKET_ONE[data[at]]
        if element == NO_ATOM:
            return at, ParseError.ELEMENT
        at += 1
    atom.element = element

    chirality = 0
    if at < end and data[at] == ord("@") and element != 1:
        chirality, at = read_chirality(data, at, end)
        if chirality < 0:
            return at, ParseError.CHIRALITY
    atom.chirality = chirality

    hydrogens = 0
    if at < end and data[at] == ord("H"):
        letter = at
        hydrogens, at = read_number(data, at + 1, end)
        if hydrogens == NO_NUMBER:
            hydrogens = 1
        elif hydrogens == TOO_LARGE or hydrogens > MAX_HYDROGENS:
            return letter, ParseError.HYDROGENS
    atom.hydrogens = hydrogens
    atom.bonding = 2 * hydrogens

    charge, sign = 0, at
    if at < end and (data[at] == ord("+") or data[at] == ord("-")):
        charge, at = read_charge(data, at, end)
        if charge > MAX_CHARGE or charge < -MAX_CHARGE:
            return sign, ParseError.CHARGE
    atom.charge = charge

    if at < end and data[at] == ord(":"):
        number, at = read_number(data, at + 1, end)
        if number == TOO_LARGE:
            return at, ParseError.NUMBER
        if number == NO_NUMBER and at < end:
            return at, ParseError.BRACKET_CHARACTER
    if at == end:
        return first, ParseError.BRACKET_UNCLOSED
    if data[at] != ord("]"):
        return at, ParseError.BRACKET_CHARACTER
    atom.marks = GIVEN_HYDROGENS
    return at + 1, ParseError.OK


NO_NUMBER = -1
TOO_LARGE = -2


@compiled
def read_number(data, at, end):
    """(value, next byte): NO_NUMBER where none stands, TOO_LARGE past 31 bits; no leading zeros (RDKit)."""
    if at == end or not is_digit(data[at]):
        return NO_NUMBER, at
    value = np.int64(data[at]) - ord("0")
    at += 1
    while value > 0 and at < end and is_digit(data[at]):
        if value >= 214_748_364:
            return TOO_LARGE, at
        value = value * 10 + data[at] - ord("0")
        at += 1
    return value, at


@compiled
def read_charge(data, at, end):
    """(charge, next byte) for +, ++, +n and the same with "-"; out of range where n is too large."""
    sign = data[at]
    at += 1
    if at < end and data[at] == sign:
        number = 2
        at += 1
    else:
        number, at = read_number(data, at, end)
        if number == NO_NUMBER:
            number = 1
        elif number == TOO_LARGE:
            number = MAX_CHARGE + 1
    return number if sign == ord("+") else -number, at


@compiled
def read_chirality(data, at, end):
    """(mark as in ATOM.chirality, next byte) from an "@" on; (-1, the "@") for an unknown number."""
    first = at
    at += 1
    if at < end and data[at] == ord("@"):
        return 2, at + 1
    if at + 1 >= end:
        return 1, at
    a, b = data[at], data[at + 1]
    tetrahedral = a == ord("T") and b == ord("H")
    if tetrahedral or (a == ord("A") and b == ord("L")):
        arrangements = 2
    elif a == ord("S") and b == ord("P"):
        arrangements = 3
    elif a == ord("T") and b == ord("B"):
        arrangements = 20
    elif a == ord("O") and b == ord("H"):
        arrangements = 30
    else:
        return 1, at
    number, at = read_number(data, at + 2, end)
    if number == 0 or number == TOO_LARGE or number > arrangements:
        return -1, first
    return (max(number, 1) if tetrahedral else 3), at
