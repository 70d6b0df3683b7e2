"""What is learned: columns of a table, their units, and whether the numbers look like their unit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stkd_screen.errors import TrainingError
from stkd_screen.targets import CLASS_UNIT

HARTREE_IN_EV = 27.211386245988  # CODATA 2018
EV_PER_UNIT = {"eV": 1.0, "hartree": HARTREE_IN_EV}

# Where the median size of orbital energies of a set of molecules lies, in eV. Wide enough for any level of
# theory and narrow enough that the same numbers taken for another unit fall outside.
PLAUSIBLE_EV = {"homo": (2.0, 20.0), "lumo": (0.1, 5.0), "gap": (1.0, 15.0)}


@dataclass(frozen=True)
class TargetColumn:
    """A column to learn. Energies given in hartree or eV are learned and reported in eV."""

    name: str
    level: str
    column: str
    unit: str  # as in the file; "class" for 0 and 1, "none" for a plain number

    @classmethod
    def parse(cls, text: str) -> "TargetColumn":
        """Read `LEVEL.NAME=COLUMN:UNIT`, for example `qm9.gap=gap_hartree:hartree`.

        Raises:
            TrainingError: the text is not of that form.
        """
        target, equals, column = text.partition("=")
        level, dot, name = target.partition(".")
        column, colon, unit = column.rpartition(":")
        if not (equals and dot and colon and level and name and column and unit):
            raise TrainingError(
                f"--target {text!r} is not of the form LEVEL.NAME=COLUMN:UNIT, "
                "for example qm9.gap=gap_hartree:hartree or pcqm.gap=gap_ev:eV"
            )
        return cls(name=name, level=level, column=column, unit=unit)

    @property
    def full_name(self) -> str:
        return f"{self.level}.{self.name}"

    @property
    def known_unit(self) -> str:
        """The unit as this program writes it, whatever its case; a unit it does not know as it is."""
        known = {unit.lower(): unit for unit in (*EV_PER_UNIT, CLASS_UNIT)}
        return known.get(self.unit.lower(), self.unit)

    @property
    def factor(self) -> float:
        return EV_PER_UNIT.get(self.known_unit, 1.0)

    @property
    def output_unit(self) -> str:
        return "eV" if self.known_unit in EV_PER_UNIT else self.known_unit

    @property
    def is_class(self) -> bool:
        return self.known_unit == CLASS_UNIT


def check_names(columns: Sequence[TargetColumn]) -> None:
    """Refuse targets that would overwrite each other or a column of the output.

    Raises:
        TrainingError: they would.
    """
    repeated = [name for name, n in Counter(column.full_name for column in columns).items() if n > 1]
    if repeated:
        raise TrainingError(f"target {repeated[0]} is named twice; give each --target a name of its own")
    reserved = {"row", "id", "smiles", "domain", "embedding", "error", "warning"}
    taken = sorted(reserved & {column.name for column in columns})
    if taken:
        raise TrainingError(f"{taken[0]!r} is a column of every output; give the target another name")
    errors = [column.name for column in columns if column.name.endswith("_err")]
    if errors:
        raise TrainingError(
            f"{errors[0]!r} would be taken for the expected error of another target; give it another name"
        )


def joint_targets(columns: Sequence[TargetColumn]) -> list[TargetColumn]:
    """The different targets of several tables, in order, each as the first table with it has it.

    Raises:
        TrainingError: a target has different units.
    """
    targets: dict[str, TargetColumn] = {}
    for column in columns:
        first = targets.setdefault(column.full_name, column)
        if first.output_unit != column.output_unit:
            raise TrainingError(
                f"target {column.full_name} is in {first.output_unit} in column {first.column!r} and in "
                f"{column.output_unit} in column {column.column!r}; say what to take with --target"
            )
    return [*targets.values()]


def unit_note(column: TargetColumn, values: np.ndarray) -> str | None:
    """What is odd about the unit of orbital energies, and what mends it; None where nothing is.

    Args:
        column: the target; only homo, lumo and gap in eV or hartree are looked at.
        values: (R,) as in the file, NaN where missing.
    """
    known = np.abs(values[np.isfinite(values)])
    if column.name.lower() not in PLAUSIBLE_EV or column.output_unit != "eV" or not len(known):
        return None
    low, high = PLAUSIBLE_EV[column.name.lower()]
    median = float(np.median(known))
    if low <= median * column.factor <= high:
        return None
    fact = f"{column.full_name}: median size {median:.3g} {column.known_unit}"
    for unit, ev in EV_PER_UNIT.items():
        if low <= median * ev <= high:
            return f"{fact} looks like {unit}: write {column.column}:{unit} in --target"
    return f"{fact} is not between {low:g} and {high:g} eV: check the unit of column {column.column!r}"
