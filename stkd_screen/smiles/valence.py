"""The valence model: how many hydrogens an atom carries, and how many bonds are too many.

The rules are RDKit's (2024.09 and later), so that both programs see the same molecule: a charged atom
has the valences of the element with as many electrons (Z - charge), aromatic bonds count 1.5, and an
aromatic atom may exceed an allowed valence by up to 1.5 (a pyrrole N written with three aromatic bonds).
OpenSMILES 3.1.5 defines the same counts for the organic subset.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.smiles.elements import AROMATIC_FLAG, ELEMENT_SYMBOLS, NO_ATOM, ORGANIC
from stkd_screen.smiles.jit import compiled

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


def organic_table() -> np.ndarray:
    """Hydrogens of unbracketed atoms: table[element code, twice the bond-order sum] (NO_ATOM: too many)."""
    table = np.full((256, 32), NO_ATOM, dtype=np.uint8)
    _fill_organic_table(table)
    return table


@compiled
def _fill_organic_table(table):
    for code in ORGANIC_CODES:
        z = np.int64(code & (AROMATIC_FLAG - 1))
        for halves in range(32):
            count = implicit_hydrogens(z, np.int64(0), code >= AROMATIC_FLAG, np.int64(halves), False)
            if count != OVER_VALENT:
                table[code, halves] = count
    return table
