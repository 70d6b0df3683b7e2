"""Which molecules are ions or radicals, as far as their bonds, charges and hydrogens say."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

import numpy as np

from stkd_screen.jit import inlined, releasing_gil
from stkd_screen.smiles.elements import AROMATIC_FLAG, BondType
from stkd_screen.smiles.valence import METAL

# By atomic number; 0 for metals and the wildcard.
OUTER_ELECTRONS = np.zeros(AROMATIC_FLAG, np.int64)
for _first in (5, 13, 31, 49):  # B, Al, Ga and In, to the halogens
    OUTER_ELECTRONS[_first : _first + 5] = range(3, 8)
OUTER_ELECTRONS[1] = 1
METALS = np.zeros(AROMATIC_FLAG, np.bool_)
METALS[: len(METAL)] = METAL & (OUTER_ELECTRONS[: len(METAL)] == 0)
_CARBON = 6

ATOM_ELECTRONS = np.dtype(
    [
        ("neighbours", np.int32),
        ("odd_bonds", np.int32),  # of an odd order: each takes one electron, or three
        ("balanced", np.bool_),  # next to a charge of the other sign
        ("unknown", np.bool_),  # how many electrons its bonds take
    ]
)


@releasing_gil
def find_electrons(
    atom_offsets, bond_offsets, element, charge, hydrogens, bond_atoms, bond_type, atoms, ionic, unpaired
):  # fmt: skip
    """Fill `Molecules.ionic` and `Molecules.unpaired`.

    Args:
        atom_offsets, ..., bond_type: of `Molecules`.
        atoms: (N,) zeros, work space.
        ionic, unpaired: (R,) bool.
    """
    for row in range(len(ionic)):
        first, last = atom_offsets[row], atom_offsets[row + 1]
        for k in range(bond_offsets[row], bond_offsets[row + 1]):
            i, j = first + bond_atoms[k, 0], first + bond_atoms[k, 1]
            one, other = atoms[i], atoms[j]
            one.neighbours += 1
            other.neighbours += 1
            if bond_type[k] == BondType.SINGLE or bond_type[k] == BondType.TRIPLE:
                one.odd_bonds += 1
                other.odd_bonds += 1
            if np.int64(charge[i]) * charge[j] < 0:
                one.balanced = other.balanced = True
            to_metal = METALS[_number(element[i])] or METALS[_number(element[j])]
            if to_metal or bond_type[k] > BondType.QUADRUPLE:
                one.unknown = other.unknown = True
        total, is_ionic, is_unpaired = 0, False, False
        for i in range(first, last):
            atom, electrons = atoms[i], OUTER_ELECTRONS[_number(element[i])]
            total += charge[i]
            is_ionic |= charge[i] != 0 and not atom.balanced
            if electrons > 0 and not atom.unknown:
                is_unpaired |= (electrons - charge[i] - atom.odd_bonds - hydrogens[i]) & 1 == 1
            if element[i] == _CARBON + AROMATIC_FLAG and charge[i] == 0:
                is_unpaired |= atom.neighbours + hydrogens[i] == 2
        ionic[row] = is_ionic or total != 0
        unpaired[row] = is_unpaired


@inlined
def _number(element):
    return element & (AROMATIC_FLAG - 1)
