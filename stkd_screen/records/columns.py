"""Which columns of a table hold the SMILES and the id."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stkd_screen.errors import InputError

# The usual names, the likeliest first.
SMILES_NAMES = ("smiles", "smile", "canonical_smiles", "isomeric_smiles", "smi", "structure")
ID_NAMES = (
    "id",
    "zinc_id",
    "chembl_id",
    "molecule_chembl_id",
    "compound_id",
    "molecule_id",
    "mol_id",
    "cid",
    "gdb_index",
    "idx",
    "idnumber",
    "catalog_id",
    "name",
    "title",
)
Column = str | int | None  # as asked for: a name, a 1-based number, or None for the usual names


@dataclass(frozen=True)
class ColumnChoice:
    """The columns asked for, and those that were chosen in each table."""

    smiles: Column
    id: Column
    chosen: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # by source: SMILES, id

    def pick(self, names: Sequence[str], source: str) -> tuple[int, int | None]:
        """As `pick_columns`, and remember the choice."""
        smiles, id = pick_columns(names, self.smiles, self.id, source)
        self.chosen[source] = names[smiles], None if id is None else names[id]
        return smiles, id


def pick_columns(names: Sequence[str], smiles: Column, id: Column, source: str) -> tuple[int, int | None]:
    """Indices of the SMILES column and of the id column (None: no id).

    Of several usual names the likeliest counts, wherever it stands; any name with "smiles" in it comes after
    the usual ones but before "structure", which may be a drawing or a number.

    Raises:
        InputError: there is no such column.
    """
    lower = [name.strip().lower() for name in names]
    if id is None:
        id_index = _first_of(ID_NAMES, lower)
    else:
        id_index = _asked_for(names, id, source, "--id-column")
    if smiles is not None:
        return _asked_for(names, smiles, source, "--smiles-column"), id_index
    *usual, structure = SMILES_NAMES
    smiles_index = _first_of([*usual, *(name for name in lower if "smiles" in name), structure], lower)
    if smiles_index is None:
        raise InputError(f"{source}: no SMILES column among {listed(names)}; name it with --smiles-column")
    return smiles_index, id_index


def looks_like_header(row: Sequence[str]) -> bool:
    """Whether any field of a first row is a usual column name, so that the row names columns."""
    fields = [field.strip().lower() for field in row]
    return any(field in SMILES_NAMES or field in ID_NAMES or "smiles" in field for field in fields)


def _first_of(wanted: Iterable[str], names: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _asked_for(names: Sequence[str], column: str | int, source: str, option: str) -> int:
    if isinstance(column, str) and column.isdecimal() and column not in names:
        column = int(column)
    if isinstance(column, int):
        if 1 <= column <= len(names):
            return column - 1
        raise InputError(f"{source}: no column {column}, there are {len(names)}; choose one with {option}")
    if column in names:
        return names.index(column)
    same = [i for i, name in enumerate(names) if name.strip().lower() == column.strip().lower()]
    if not same:
        raise InputError(f"{source}: no column {column!r} among {listed(names)}; choose one with {option}")
    return same[0]


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
