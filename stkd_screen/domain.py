"""When not to trust a figure: what a molecule holds that no label of the level ever covered."""

from collections import Counter
from functools import lru_cache

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
    told: np.ndarray,
    largest_fragment: bool = False,
) -> tuple[pa.Array, Counter[str]]:
    """One warning a row, or null where there is no reason for one; and how many rows each reason has.

    Args:
        molecules: R packed molecules.
        labelled_types: sorted codes of the atom types (`atom_types`) of the labelled molecules.
        few_heavy_atoms: so many, or fewer, hardly any labelled molecule has.
        max_heavy_atoms: heavy atoms of the largest labelled molecule.
        told: (R,) bool, the rows that have a result to be warned of.
        largest_fragment: whether all but the largest fragment was dropped.

    Returns:
        (R,) string array, reasons in one row separated by "; "; reason without its details -> rows.
    """
    heavy = molecules.heavy_atoms()
    unknown, unknown_types = _unknown_types(molecules, labelled_types)
    facts = {
        "unknown": unknown,
        "few": heavy <= few_heavy_atoms,
        "larger": heavy > max_heavy_atoms,
        "net_charge": molecules.sums(molecules.charge),
        "ionic": molecules.ionic,
        "unpaired": molecules.unpaired,
        "fragments": molecules.fragments,
    }
    facts = {name: values * told for name, values in facts.items()}
    # A library has few kinds of molecules, so a text is made once for each and not for each row.
    code = np.zeros(len(molecules), np.int64)
    for values in facts.values():
        lowest, highest = int(values.min(initial=0)), int(values.max(initial=0))
        code = code * (highest - lowest + 1) + values - lowest
    _, examples, text_of_row, counts = np.unique(
        code, return_index=True, return_inverse=True, return_counts=True
    )

    texts: list[str | None] = []
    kinds: Counter[str] = Counter()
    for example, count in zip(examples, counts.tolist(), strict=True):
        fact = {name: int(values[example]) for name, values in facts.items()}
        reasons = {}  # kind -> its text
        if fact["unknown"]:
            kind = "atoms never seen with a label"
            reasons[kind] = f"{kind}: {unknown_types[fact['unknown']]}"
        if fact["few"]:
            kind = "smaller than nearly all labelled molecules"
            reasons[kind] = f"at most {few_heavy_atoms} heavy atoms, {kind}"
        if fact["larger"]:
            reasons[LARGER] = f"more than {max_heavy_atoms} heavy atoms, {LARGER}"
        if fact["net_charge"]:
            reasons["net charge"] = f"net charge {fact['net_charge']:+d}"
        elif fact["ionic"]:
            kind = "ions" if fact["fragments"] > 1 and not largest_fragment else "zwitterion"
            reasons[kind] = kind
        if fact["unpaired"]:
            reasons["unpaired electron"] = "unpaired electron"
        if fact["fragments"] > 1:
            of_them = "only the largest of " if largest_fragment else ""
            reasons["several fragments"] = f"{of_them}{fact['fragments']} fragments"
        texts.append("; ".join(reasons.values()) or None)
        kinds.update(dict.fromkeys(reasons, count))
    return pa.array(texts, pa.string()).take(pa.array(text_of_row)), kinds


def _unknown_types(molecules: Molecules, labelled_types: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Atom types without a label: of each row the place of its text, (R,), 0 for none; and the texts."""
    types = atom_types(molecules)
    atoms = np.flatnonzero(~np.isin(types, labelled_types))
    row_of_atom = np.searchsorted(molecules.atom_offsets, atoms, side="right") - 1
    of_row: dict[int, set[str]] = {}
    for row, code in zip(row_of_atom.tolist(), types[atoms].tolist(), strict=True):
        of_row.setdefault(row, set()).add(_atom_type_name(code))
    places: dict[str, int] = {"": 0}
    unknown = np.zeros(len(molecules), np.int64)
    for row, names in of_row.items():
        unknown[row] = places.setdefault(" ".join(sorted(names)), len(places))
    return unknown, [*places]


@lru_cache
def _atom_type_name(code: int) -> str:
    """An atom type as a bracket atom: [nH+]."""
    element, charge, hydrogens = code & 255, (code >> 8 & 31) - MAX_CHARGE, code >> 13
    symbol = ELEMENT_SYMBOLS[element & 127]
    symbol = symbol.lower() if element & 128 else symbol
    hydrogen_text = "" if not hydrogens else "H" if hydrogens == 1 else f"H{hydrogens}"
    charge_text = "" if not charge else "+-"[charge < 0] + (str(abs(charge)) if abs(charge) > 1 else "")
    return f"[{symbol}{hydrogen_text}{charge_text}]"
