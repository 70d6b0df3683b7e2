"""Labelled molecules from CSV, TSV or Parquet tables: SMILES, targets in output units, splits."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from stkd_screen.errors import TrainingError
from stkd_screen.smiles import Molecules, describe_error, pretransform
from stkd_screen.weights import file_sha256

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
    files: list[dict]  # name, sha256, rows, used rows of each table
    left_out: list[str]  # why rows were left out, with a count and the first place of each reason

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.split == SPLITS.index(split))


def read_labelled(
    paths: Sequence[str | Path],
    columns: Sequence[TargetColumn],
    *,
    smiles_column: str | None = None,
    split_column: str = "split",
    seed: int = 0,
) -> LabelledMolecules:
    """Read tables and parse their molecules.

    A table may hold some of the target columns only; its molecules then lack the others. Rows are split by
    the split column (train, valid, test) or, where a table has none, 8:1:1 by a seeded hash of the SMILES,
    so that repeated rows stay on one side.

    Raises:
        TrainingError: a file or column is missing, no row is usable, or a split name is unknown.
    """
    tables = [_read_table(Path(path), columns, smiles_column, split_column, seed) for path in paths]
    smiles = pl.concat([table["smiles"] for table, _ in tables])
    targets = np.concatenate([values for _, values in tables])
    split = np.concatenate([table["split"].to_numpy() for table, _ in tables])
    places = [
        f"{path} row {i + 1}" for path, (t, _) in zip(paths, tables, strict=True) for i in range(len(t))
    ]

    molecules = parse_series(smiles)
    usable, left_out = _usable_rows(molecules, targets, smiles, places)
    if not len(usable):
        raise TrainingError(f"no usable row in {', '.join(map(str, paths))}: {'; '.join(left_out)}")
    return LabelledMolecules(
        molecules=parse_series(smiles[usable]),
        targets=targets[usable],
        split=split[usable],
        files=[
            {"name": Path(path).name, "sha256": file_sha256(Path(path)), "rows": len(table)}
            for path, (table, _) in zip(paths, tables, strict=True)
        ],
        left_out=left_out,
    )


def parse_series(smiles: pl.Series) -> Molecules:
    """Pre-transform a series of SMILES straight from its Arrow buffers."""
    _, offsets, data = smiles.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
    return pretransform(np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)[: len(smiles) + 1])


def _usable_rows(
    molecules: Molecules, targets: np.ndarray, smiles: pl.Series, places: list[str]
) -> tuple[np.ndarray, list[str]]:
    unreadable = molecules.error != 0
    unlabelled = ~unreadable & ~np.isfinite(targets).any(axis=1)
    left_out = []
    if unreadable.any():
        i = int(np.flatnonzero(unreadable)[0])
        reason = describe_error(molecules.error[i], molecules.error_column[i], smiles[i])
        left_out.append(f"{unreadable.sum()} rows not readable as SMILES, first {places[i]}: {reason}")
    if unlabelled.any():
        i = int(np.flatnonzero(unlabelled)[0])
        left_out.append(f"{unlabelled.sum()} rows without any target, first {places[i]}")
    return np.flatnonzero(~unreadable & ~unlabelled), left_out


def _read_table(
    path: Path, columns: Sequence[TargetColumn], smiles_column: str | None, split_column: str, seed: int
) -> tuple[pl.DataFrame, np.ndarray]:
    """One table as (frame of smiles and split, targets (R, len(columns)))."""
    frame = _open_table(path)
    smiles_column = smiles_column or next((c for c in frame.columns if c.lower() == "smiles"), "smiles")
    listing = ", ".join(frame.columns)
    if smiles_column not in frame.columns:
        raise TrainingError(f"{path}: no column {smiles_column!r} (columns: {listing}); set --smiles-column")
    if not any(column.column in frame.columns for column in columns):
        wanted = ", ".join(column.column for column in columns)
        raise TrainingError(f"{path}: none of the target columns {wanted} (columns: {listing}); see --target")

    targets = np.full((len(frame), len(columns)), np.nan, np.float32)
    for k, column in enumerate(columns):
        if column.column in frame.columns:
            try:
                values = frame[column.column].cast(pl.Float64).to_numpy()
            except pl.exceptions.InvalidOperationError as error:
                raise TrainingError(f"{path}: column {column.column!r} is not numeric: {error}") from error
            targets[:, k] = values * column.factor
    smiles = frame[smiles_column].cast(pl.String).fill_null("")
    split = _splits(frame, split_column, smiles, seed, path)
    return pl.DataFrame({"smiles": smiles, "split": split}), targets


def _open_table(path: Path) -> pl.DataFrame:
    try:
        if ".parquet" in path.suffixes:
            return pl.read_parquet(path)
        separator = "\t" if ".tsv" in path.suffixes else ","
        return pl.read_csv(path, separator=separator, infer_schema_length=None)
    except FileNotFoundError as error:
        raise TrainingError(f"no such file: {path}") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TrainingError(f"{path} cannot be read as a table: {error}") from error


def _splits(frame: pl.DataFrame, split_column: str, smiles: pl.Series, seed: int, path: Path) -> np.ndarray:
    if split_column in frame.columns:
        names = frame[split_column].cast(pl.String).str.to_lowercase()
        unknown = set(names.unique()) - set(SPLITS)
        if unknown:
            raise TrainingError(
                f"{path}: column {split_column!r} holds {sorted(map(str, unknown))}; "
                f"only {', '.join(SPLITS)} are known"
            )
        return names.replace_strict(
            {name: i for i, name in enumerate(SPLITS)}, return_dtype=pl.Int8
        ).to_numpy()
    tenth = np.array([zlib.crc32(f"{seed}:{text}".encode()) % 10 for text in smiles])
    return np.select([tenth == 8, tenth == 9], [1, 2], 0).astype(np.int8)
