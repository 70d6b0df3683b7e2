"""Labelled molecules from CSV, TSV or Parquet tables: SMILES, targets in output units, splits."""

import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from stkd_screen.encoder import smiles_buffers
from stkd_screen.errors import TrainingError
from stkd_screen.records import open_text
from stkd_screen.records.columns import pick_columns
from stkd_screen.smiles import Molecules, describe_error, pretransform
from stkd_screen.smiles.tokens import atom_types
from stkd_screen.weights import Target, file_sha256

HARTREE_IN_EV = 27.211386245988  # CODATA 2018
EV_PER_UNIT = {"ev": 1.0, "hartree": HARTREE_IN_EV}
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class TargetColumn:
    """A column to learn. Energies given in hartree or eV are learned and reported in eV."""

    name: str
    level: str
    column: str
    unit: str  # as in the file

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
    def factor(self) -> float:
        return EV_PER_UNIT.get(self.unit.lower(), 1.0)

    @property
    def output_unit(self) -> str:
        return "eV" if self.unit.lower() in EV_PER_UNIT else self.unit


@dataclass(frozen=True)
class LabelledMolecules:
    """R usable rows of one or more tables."""

    molecules: Molecules
    targets: np.ndarray  # (R, targets) float32 in output units, NaN where a molecule lacks a target
    split: np.ndarray  # (R,) index into SPLITS
    files: list[dict]  # name, sha256, rows and the way of splitting of each table
    left_out: list[str]  # why rows were left out, with a count and the first place of each reason

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def fingerprint(self) -> str:
        """SHA-256 of everything a run learns from: molecules, targets and split."""
        digest = hashlib.sha256()
        m = self.molecules
        parts = (m.atom_offsets, m.element, m.charge, m.hydrogens, m.bond_atoms, m.bond_type)
        for array in (*parts, self.targets, self.split):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def read_labelled(
    paths: Sequence[str | Path],
    columns: Sequence[TargetColumn],
    *,
    smiles_column: str | None = None,
    split_column: str | None = None,
) -> LabelledMolecules:
    """Read tables and parse their molecules.

    A table may hold some of the target columns only; its molecules then lack the others. Rows are split by
    the split column (train, valid, test), `split` unless named, or, where a table has no such column, 8:1:1
    by a hash of the SMILES: the same for every reader, and repeated rows stay on one side.

    Raises:
        StkdError: a file or column is missing, two targets would be one, no row is usable, or a split name
            is unknown.
    """
    _check_targets(columns)
    tables = [_read_table(Path(path), columns, smiles_column, split_column) for path in paths]
    smiles = pl.concat([table["smiles"] for table, _, _ in tables])
    targets = np.concatenate([values for _, values, _ in tables])
    split = np.concatenate([table["split"].to_numpy() for table, _, _ in tables])
    starts = np.cumsum([0] + [len(table) for table, _, _ in tables])

    def place(i: int) -> str:
        table = int(np.searchsorted(starts, i, side="right")) - 1
        return f"{paths[table]} row {i - starts[table] + 1}"

    molecules = parse_series(smiles)
    usable, left_out = _usable_rows(molecules, targets, smiles, place)
    if not len(usable):
        reasons = "; ".join(left_out) or "there are no rows"
        raise TrainingError(f"no usable row in {', '.join(map(str, paths))}: {reasons}")
    return LabelledMolecules(
        molecules=parse_series(smiles[usable]) if left_out else molecules,
        targets=targets[usable],
        split=split[usable],
        files=[
            {"name": Path(path).name, "sha256": file_sha256(Path(path)), "rows": len(table), "split": how}
            for path, (table, _, how) in zip(paths, tables, strict=True)
        ],
        left_out=left_out,
    )


def parse_series(smiles: pl.Series) -> Molecules:
    """Pre-transform a series of SMILES straight from its Arrow buffers."""
    return pretransform(*smiles_buffers(smiles.to_arrow(compat_level=pl.CompatLevel.oldest())))


def _check_targets(columns: Sequence[TargetColumn]) -> None:
    repeated = [key for key, n in Counter((c.level, c.name) for c in columns).items() if n > 1]
    if repeated:
        raise TrainingError(
            f"target {'.'.join(repeated[0])} is named twice; give each --target a name of its own"
        )
    reserved = {"row", "id", "smiles", "embedding", "error", "warning"}
    taken = sorted(reserved & {column.name for column in columns})
    if taken:
        raise TrainingError(f"{taken[0]!r} is a column of every output; give the target another name")


def _usable_rows(
    molecules: Molecules, targets: np.ndarray, smiles: pl.Series, place: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    unreadable = molecules.error != 0
    unlabelled = ~unreadable & ~np.isfinite(targets).any(axis=1)
    left_out = []
    if unreadable.any():
        i = int(np.flatnonzero(unreadable)[0])
        reason = describe_error(molecules.error[i], molecules.error_column[i], smiles[i])
        left_out.append(f"{unreadable.sum()} rows not readable as SMILES, first {place(i)}: {reason}")
    if unlabelled.any():
        i = int(np.flatnonzero(unlabelled)[0])
        left_out.append(f"{unlabelled.sum()} rows without any target, first {place(i)}")
    return np.flatnonzero(~unreadable & ~unlabelled), left_out


def _read_table(
    path: Path, columns: Sequence[TargetColumn], smiles_column: str | None, split_column: str | None
) -> tuple[pl.DataFrame, np.ndarray, str]:
    """One table as (frame of smiles and split, targets (R, len(columns)), how it is split)."""
    frame = _open_table(path)
    smiles_index, _ = pick_columns(frame.columns, smiles_column, None, str(path))
    listing = ", ".join(frame.columns)
    if not any(column.column in frame.columns for column in columns):
        wanted = ", ".join(column.column for column in columns)
        raise TrainingError(f"{path}: none of the target columns {wanted} (columns: {listing}); see --target")

    targets = np.full((len(frame), len(columns)), np.nan, np.float32)
    for k, column in enumerate(columns):
        if column.column in frame.columns:
            try:
                values = frame[column.column].cast(pl.Float64).to_numpy()
            except pl.exceptions.InvalidOperationError as error:
                reason = str(error).partition("\n")[0]
                raise TrainingError(
                    f"{path}: column {column.column!r} is not numeric ({reason}); write a decimal point"
                ) from error
            targets[:, k] = values * column.factor
    # As in every input, what follows the SMILES after white space is no part of it.
    words = frame.to_series(smiles_index).cast(pl.String).fill_null("").str.strip_chars()
    smiles = words.str.extract(r"^(\S*)").fill_null("")
    if split_column is not None and split_column not in frame.columns:
        raise TrainingError(f"{path}: no column {split_column!r} (columns: {listing}); see --split-column")
    split, how = _splits(frame, split_column or "split", smiles, path)
    return pl.DataFrame({"smiles": smiles, "split": split}), targets, how


def _open_table(path: Path) -> pl.DataFrame:
    try:
        if ".parquet" in path.suffixes:
            return pl.read_parquet(path)
        with open_text(path) as stream:
            text = io.BytesIO(stream.read())
        return pl.read_csv(text, separator=_separator(text, path), infer_schema_length=None)
    except FileNotFoundError as error:
        raise TrainingError(f"no such file: {path}") from error
    except pl.exceptions.NoDataError as error:
        raise TrainingError(f"{path} is empty; a table needs a header line and rows") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]  # what follows are hints about options of the library
        raise TrainingError(f"{path} cannot be read as a table: {reason}") from error


def _separator(text: io.BytesIO, path: Path) -> str:
    """Comma, or tab in a .tsv; what a spreadsheet writes instead where the header has none of those."""
    usual = "\t" if ".tsv" in path.suffixes else ","
    header = text.readline().decode("utf-8", "replace")
    text.seek(0)
    return usual if usual in header else next((other for other in "\t;" if other in header), usual)


def _splits(frame: pl.DataFrame, column: str, smiles: pl.Series, path: Path) -> tuple[np.ndarray, str]:
    """(R,) index into SPLITS, and how it was come by."""
    if column in frame.columns:
        names = frame[column].cast(pl.String).str.to_lowercase()
        unknown = set(names.unique()) - set(SPLITS)
        if unknown:
            raise TrainingError(
                f"{path}: column {column!r} holds {sorted(map(str, unknown))}; "
                f"only {', '.join(SPLITS)} are known"
            )
        index = names.replace_strict({name: i for i, name in enumerate(SPLITS)}, return_dtype=pl.Int8)
        return index.to_numpy(), f"column {column}"
    tenth = np.array([zlib.crc32(text.encode()) % 10 for text in smiles])
    return np.select([tenth == 8, tenth == 9], [1, 2], 0).astype(np.int8), "8:1:1 by a hash of the SMILES"


def standardisation(values: np.ndarray, columns: Sequence[TargetColumn]) -> list[Target]:
    """Mean and standard deviation of each target over the molecules that have it.

    Args:
        values: (R, targets) of the training molecules, NaN where missing.
        columns: the targets.

    Raises:
        TrainingError: a target has fewer than two different values.
    """
    targets = []
    for k, column in enumerate(columns):
        known = values[np.isfinite(values[:, k]), k].astype(np.float64)
        if len(known) < 2 or known.std() == 0:
            raise TrainingError(
                f"target {column.level}.{column.name} (column {column.column!r}): {len(known)} training "
                "values, and they must be at least two different ones"
            )
        targets.append(Target(column.name, column.level, column.output_unit, known.mean(), known.std()))
    return targets


def label_coverage(
    data: LabelledMolecules, rows: np.ndarray, targets: list[Target]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """What the labels of each level cover among some rows: atom types, and the most heavy atoms."""
    types, heavy = atom_types(data.molecules), data.molecules.heavy_atoms()
    atoms = np.diff(data.molecules.atom_offsets)
    row_of_atom = np.repeat(np.arange(len(atoms)), atoms)
    in_rows = np.zeros(len(atoms), bool)
    in_rows[rows] = True
    covered, largest = {}, {}
    for level in dict.fromkeys(target.level for target in targets):
        of_level = [k for k, target in enumerate(targets) if target.level == level]
        labelled = in_rows & np.isfinite(data.targets[:, of_level]).any(axis=1)
        covered[level] = np.unique(types[labelled[row_of_atom]])
        largest[level] = int(heavy[labelled].max())
    return covered, largest
