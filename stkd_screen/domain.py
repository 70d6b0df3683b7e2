"""When not to trust a figure: what a molecule holds that no label of the level ever covered."""

from collections import Counter

import numpy as np
import pyarrow as pa

from stkd_screen.smiles import ELEMENT_SYMBOLS, Molecules
from stkd_screen.smiles.tokens import MAX_CHARGE, atom_types

LARGER = "larger than any labelled molecule"


def warnings_of(
    molecules: Molecules,
    labelled_types: np.ndarray,
    few_heavy_atoms: int,
    max_heavy_atoms: int,
    largest_fragment: bool = False,
) -> tuple[pa.Array, Counter[str]]:
    """One warning a row, or null where there is no reason for one; and how many rows each reason has.

    Args:
        molecules: R packed molecules.
        labelled_types: sorted codes of the atom types (`atom_types`) of the labelled molecules.
        few_heavy_atoms: so many, or fewer, hardly any labelled molecule has.
        max_heavy_atoms: heavy atoms of the largest labelled molecule.
        largest_fragment: whether all but the largest fragment was dropped.

    Returns:
        (R,) string array, reasons in one row separated by "; "; reason without its details -> rows.
    """
    counts = np.diff(molecules.atom_offsets)
    row_of_atom = np.repeat(np.arange(len(counts)), counts)
    heavy = molecules.heavy_atoms()
    net_charge = molecules.sums(molecules.charge)
    ionic, unpaired = molecules.ionic, molecules.unpaired
    types = atom_types(molecules)
    unknown_atoms = np.flatnonzero(~np.isin(types, labelled_types))
    unknown_types: dict[int, set[str]] = {}
    for atom in unknown_atoms:
        unknown_types.setdefault(int(row_of_atom[atom]), set()).add(_atom_type_name(int(types[atom])))

    fragments = "only the largest of {} fragments" if largest_fragment else "{} fragments"
    warnings: list[str | None] = [None] * len(counts)
    kinds: Counter[str] = Counter()
    suspect = (heavy <= few_heavy_atoms) | (heavy > max_heavy_atoms) | ionic | unpaired
    suspect |= molecules.fragments > 1
    suspect[list(unknown_types)] = True
    for row in np.flatnonzero(suspect & (counts > 0)).tolist():
        reasons = {}  # kind -> its text
        if row in unknown_types:
            kind = "atoms never seen with a label"
            reasons[kind] = f"{kind}: {' '.join(sorted(unknown_types[row]))}"
        if heavy[row] <= few_heavy_atoms:
            kind = "smaller than nearly all labelled molecules"
            reasons[kind] = f"at most {few_heavy_atoms} heavy atoms, {kind}"
        if heavy[row] > max_heavy_atoms:
            reasons[LARGER] = f"more than {max_heavy_atoms} heavy atoms, {LARGER}"
        if net_charge[row]:
            reasons["net charge"] = f"net charge {net_charge[row]:+d}"
        elif ionic[row]:
            kind = "ions" if molecules.fragments[row] > 1 and not largest_fragment else "zwitterion"
            reasons[kind] = kind
        if unpaired[row]:
            reasons["unpaired electron"] = "unpaired electron"
        if molecules.fragments[row] > 1:
            reasons["several fragments"] = fragments.format(molecules.fragments[row])
        warnings[row] = "; ".join(reasons.values())
        kinds.update(reasons.keys())
    return pa.array(warnings, pa.string()), kinds


def _atom_type_name(code: int) -> str:
    """An atom type as a bracket atom: [nH+]."""
    element, charge, hydrogens = code & 255, (code >> 8 & 31) - MAX_CHARGE, code >> 13
    symbol = ELEMENT_SYMBOLS[element & 127]
    symbol = symbol.lower() if element & 128 else symbol
    hydrogen_text = "" if not hydrogens else "H" if hydrogens == 1 else f"H{hydrogens}"
    charge_text = "" if not charge else "+-"[charge < 0] + (str(abs(charge)) if abs(charge) > 1 else "")
    return f"[{symbol}{hydrogen_text}{charge_text}]"
