"""Element symbols and bond symbols, and the byte tables the grammar looks them up in."""

from enum import IntEnum

import numpy as np

# Index = atomic number; 0 is the wildcard.
_SYMBOLS = """
    * H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
    Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb
    Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf
    Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
ELEMENT_SYMBOLS = tuple(_SYMBOLS.split())

AROMATIC_FLAG = 128  # added to the atomic number of an aromatic atom
NO_ATOM = 255  # table entry of bytes that begin no atom


class BondType(IntEnum):
    """Bond types as stored in `Molecules.bond_type`; OTHER holds dative bonds and `~`."""

    SINGLE = 1
    DOUBLE = 2
    TRIPLE = 3
    QUADRUPLE = 4
    AROMATIC = 5
    OTHER = 6


class BondSymbol(IntEnum):
    """What stands between two atoms while reading; 1 to 6 agree with `BondType`."""

    IMPLICIT = 0
    SINGLE = 1
    DOUBLE = 2
    TRIPLE = 3
    QUADRUPLE = 4
    AROMATIC = 5
    ANY = 6
    DATIVE_RIGHT = 7
    DATIVE_LEFT = 8
    DIRECTION = 9


# What a bond adds to ATOM.bonding of the atom before and the atom after it: twice its order in the low
# half (an aromatic bond counts 1.5, a dative bond only where it points to), and in the high half 1 for
# an aromatic bond.
HALVES = (1 << 32) - 1  # mask of the low half
AROMATIC_BOND = 1 << 32
BONDING = np.array(
    [(2, 2), (2, 2), (4, 4), (6, 6), (8, 8), (3, 3), (0, 0), (0, 2), (2, 0), (2, 2)], dtype=np.int64
)
BONDING[BondSymbol.AROMATIC] += AROMATIC_BOND


def _byte_table(entries: dict[str, int], empty: int) -> np.ndarray:
    table = np.full(256, empty, dtype=np.uint8)
    for character, value in entries.items():
        table[ord(character)] = value
    return table


def _codes(symbols: str) -> dict[str, int]:
    """Symbol -> atomic number, plus AROMATIC_FLAG where it is written in lower case."""
    return {
        symbol: ELEMENT_SYMBOLS.index(symbol.capitalize()) + AROMATIC_FLAG * symbol.islower()
        for symbol in symbols.split()
    }


# OpenSMILES 3.1.5, the organic subset ("Cl" and "Br" are told apart in the grammar).
ORGANIC = _byte_table(_codes("* B C N O P S F I b c n o p s"), NO_ATOM)

# OpenSMILES 3.1.1 and 3.5, symbols within brackets; [si] and [te] as RDKit reads them.
_BRACKET = _codes(" ".join(ELEMENT_SYMBOLS) + " b c n o p s si as se te")
BRACKET_ONE = _byte_table({symbol: code for symbol, code in _BRACKET.items() if len(symbol) == 1}, NO_ATOM)
BRACKET_TWO = np.full((128, 128), NO_ATOM, dtype=np.uint8)
for _symbol, _code in _BRACKET.items():
    if len(_symbol) == 2:
        BRACKET_TWO[ord(_symbol[0]), ord(_symbol[1])] = _code

# OpenSMILES 3.2, bonds by their first byte ("->" and "<-" are told apart in the grammar).
BOND_SYMBOLS = _byte_table(
    {
        "-": BondSymbol.SINGLE,
        "=": BondSymbol.DOUBLE,
        "#": BondSymbol.TRIPLE,
        "$": BondSymbol.QUADRUPLE,
        ":": BondSymbol.AROMATIC,
        "~": BondSymbol.ANY,
        "<": BondSymbol.DATIVE_LEFT,
        "/": BondSymbol.DIRECTION,
        "\\": BondSymbol.DIRECTION,
    },
    BondSymbol.IMPLICIT,
)
