"""The valence model: how many hydrogens an atom carries, and how many bonds are too many.

The rules are RDKit's (2024.09 and later), so that both programs see the same molecule: a charged atom
has the valences of the element with as many electrons (Z - charge), aromatic bonds count 1.5, and an
aromatic atom may exceed an allowed valence by up to 1.5 (a pyrrole N written with three aromatic bonds).
OpenSMILES 3.1.5 defines the same counts for the organic subset.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from functools import cache

import numpy as np

from stkd_screen.jit import compiled, index, inlined
from stkd_screen.smiles.elements import AROMATIC_BOND, AROMATIC_FLAG, ELEMENT_SYMBOLS, NO_ATOM, ORGANIC

ANY = -1  # as the last entry: any higher valence is allowed too

# Allowed valences, lowest first; elements not named take any number of bonds and no implicit hydrogens.
# Source: RDKit 2026.09 periodic table (Code/GraphMol/atomic_data.cpp); a test holds the two together.
_VALENCES = {
    (0,): "He Ne Ar Kr Rn",
    (1,): "H F Cl Br Cs Fr",
    (1, ANY): "Li Na K Rb",
    (2,): "Be O",
    (2, ANY): "Mg Ca Sr Ba Ra",
    (3,): "B N Al Ga In",
    (4,): "C Si Ge",
    (2, 4): "Sn Pb",
    (3, 5): "P As Sb Bi",
    (2, 4, 6): "S Se Te Po",
    (1, 3, 5): "I At",
    (0, 2, 4, 6): "Xe",
}

VALENCES = np.full((len(ELEMENT_SYMBOLS), 4), ANY, dtype=np.int32)
VALENCE_COUNT = np.ones(len(ELEMENT_SYMBOLS), dtype=np.int32)
for _valences, _symbols in _VALENCES.items():
    for _symbol in _symbols.split():
        _z = ELEMENT_SYMBOLS.index(_symbol)
        VALENCES[_z, : len(_valences)] = _valences
        VALENCE_COUNT[_z] = len(_valences)

# What RDKit's "M" query matches: every element but these. Only bonds to a metal may turn dative.
METAL = np.ones(len(ELEMENT_SYMBOLS), dtype=np.bool_)
METAL[[0, 1, 2, *range(5, 11), *range(14, 19), *range(33, 37), 52, 53, 54, 85, 86]] = False

# The elements with fewer outer electrons than carbon: an electron more lets them bond once more.
LEFT_OF_CARBON = np.zeros(len(ELEMENT_SYMBOLS), dtype=np.bool_)
LEFT_OF_CARBON[[3, 4, 5, 11, 12, 13, 19, 20, 31, 37, 38, 49, 55, 56, 87, 88]] = True

OVER_VALENT = -1

ORGANIC_CODES = np.unique(np.append(ORGANIC[ORGANIC != NO_ATOM], np.array([17, 35], dtype=np.uint8)))


@compiled
def effective_element(z, charge):
    """The element whose valences apply: the one with the atom's electron count, where Z has any."""
    if VALENCES[z, 0] == ANY:
        return z
    return min(max(z - charge, 0), 118)


@compiled
def explicit_valence(z, charge, aromatic, halves):
    """Valence in use, rounded up from half bonds, once an aromatic atom has given back its excess."""
    effective = effective_element(z, charge)
    default = VALENCES[effective, 0]
    if aromatic and default >= 0 and halves > 2 * default:
        nearest = default
        for k in range(VALENCE_COUNT[effective]):
            if VALENCES[effective, k] >= 0 and 2 * VALENCES[effective, k] <= halves:
                nearest = VALENCES[effective, k]
        if halves - 2 * nearest <= 3:
            halves = 2 * nearest
    return (halves + 1) // 2


@compiled
def implicit_hydrogens(z, charge, aromatic, halves, bracket):
    """Hydrogens the valence model adds, or OVER_VALENT.

    Args:
        halves: twice the sum of the bond orders, bracket hydrogens included.
        bracket: the atom's hydrogens are given, so the answer is 0 unless it is over-valent.
    """
    if z == 0:
        return 0
    valence = explicit_valence(z, charge, aromatic, halves)
    effective = effective_element(z, charge)
    default = VALENCES[effective, 0]
    highest = VALENCES[effective, VALENCE_COUNT[effective] - 1]
    own_highest = VALENCES[z, VALENCE_COUNT[z] - 1]
    listed = effective
    # Anions of P, S, As and Se keep their own higher valences (SF5-), less one for each charge.
    if (effective > 16 and (z == 15 or z == 16)) or (effective > 34 and (z == 33 or z == 34)):
        listed = z
        highest = own_highest
        valence -= charge
    if z == 1 and charge == -1:
        highest = 2  # RDKit's bridging hydride
    if highest >= 0 and own_highest >= 0 and valence > highest:
        return OVER_VALENT
    if bracket or effective == 0 or default == ANY:
        return 0
    if aromatic and valence <= default:
        return default - valence
    for k in range(VALENCE_COUNT[listed]):
        allowed = VALENCES[listed, k]
        if valence == allowed or (valence < allowed and not aromatic):
            return allowed - valence
    return OVER_VALENT if aromatic or (highest != ANY and own_highest > 0) else 0


@compiled
def aromatic_hydrogens(z, charge, halves, aromatic_bonds, given, bracket):
    """Hydrogens of an aromatic atom, or OVER_VALENT, and whether one of its aromatic bonds has to be double.

    Counted as RDKit does: with 1.5 for an aromatic bond, and again once it is single or double.

    Args:
        halves: twice the sum of the bond orders, bracket hydrogens included.
        given: the bracket hydrogens.
    """
    aromatic, not_aromatic = np.bool_(True), np.bool_(False)
    implied = implicit_hydrogens(z, charge, aromatic, halves, bracket)
    if implied == OVER_VALENT:
        return OVER_VALENT, False
    bonds = (halves - aromatic_bonds) // 2  # each aromatic one as a single bond
    reached = highest_reached(z, charge, explicit_valence(z, charge, aromatic, halves) + implied)
    missing = reached - bonds - implied
    double = missing == 1 or (bracket and missing == 2)
    bonds += double
    if charge == 0 and given == 1 and (z == 7 or z == 15):  # [nH] and [pH] are counted as if unbracketed
        bonds -= 1
        bracket = np.bool_(False)
    implied = implicit_hydrogens(z, charge, not_aromatic, 2 * bonds, bracket)
    return (given if bracket and implied != OVER_VALENT else implied), double


@compiled
def highest_reached(z, charge, valence):
    """The allowed valence that an aromatic atom's has reached; none for an element that takes any number.

    RDKit's rule (Code/GraphMol/Kekulize.cpp, markDbondCands): the element's own valences, shifted by its
    charge.
    """
    if z == 0 or VALENCES[z, 0] == ANY:
        return 0
    shift = -charge if LEFT_OF_CARBON[z] or (z == 6 and charge > 0) else charge
    k = 0
    while valence > VALENCES[z, k] + shift and k + 1 < VALENCE_COUNT[z] and VALENCES[z, k + 1] > 0:
        k += 1
    return VALENCES[z, k] + shift


NEEDS_DOUBLE = 64  # added to the hydrogens in the table of `organic_table`


BEYOND_TABLE = ~(3 * AROMATIC_BOND + 31)  # bits that ATOM.bonding must not have: 32 halves, 4 aromatic bonds


@inlined
def organic_entry(code, bonding):
    """Index of an element code and an ATOM.bonding in the table of `organic_table`."""
    return index(np.int64(code) << 7 | bonding & 31 | bonding >> 27)


@cache
def organic_table() -> np.ndarray:
    """What unbracketed atoms carry, by `organic_entry` from element code and ATOM.bonding.

    The implicit hydrogens, + NEEDS_DOUBLE where one of the aromatic bonds has to be a double bond, or
    NO_ATOM where there are too many bonds.
    """
    table = np.full(256 << 7, NO_ATOM, dtype=np.uint8)
    _fill_organic_table(table)
    return table


@compiled
def _fill_organic_table(table):
    none, bracket = np.int64(0), np.bool_(False)
    for code in ORGANIC_CODES:
        z, aromatic = np.int64(code & (AROMATIC_FLAG - 1)), code >= AROMATIC_FLAG
        for halves in range(32):
            for bonds in range(4):
                if aromatic:
                    count, double = aromatic_hydrogens(z, none, halves, bonds, none, bracket)
                else:
                    count, double = implicit_hydrogens(z, none, aromatic, halves, bracket), False
                if count != OVER_VALENT:
                    entry = organic_entry(code, halves + bonds * AROMATIC_BOND)
                    table[entry] = count + NEEDS_DOUBLE * double
