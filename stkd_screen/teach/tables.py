"""Labelled molecules from CSV, TSV or Parquet tables: SMILES, targets in output units, splits."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from stkd_screen.encoder import smiles_buffers
from stkd_screen.errors import TrainingError
from stkd_screen.files import file_sha256
from stkd_screen.records import open_text
from stkd_screen.records.columns import pick_columns
from stkd_screen.records.delimited import delimiter_of
from stkd_screen.smiles import Molecules, describe_error, pretransform
from stkd_screen.teach.datasets import Layout, find_table, known_layout
from stkd_screen.teach.features import prepare_graphs
from stkd_screen.teach.graphs import Graphs
from stkd_screen.teach.keys import molecule_keys
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules
from stkd_screen.teach.splits import (
    WAYS,
    canonical_split,
    dictionary_split,
    find_dictionary,
    named_split,
    random_split,
    scaffold_split,
)
from stkd_screen.teach.targets import TargetColumn, check_names, joint_targets, unit_note


@dataclass(frozen=True)
class Table:
    """A table as it was read, R rows, and what is known about its columns."""

    path: Path
    frame: pl.DataFrame
    layout: Layout | None
    columns: list[TargetColumn]  # to take from it

    def lacks(self, what: str) -> TrainingError:
        return TrainingError(f"{self.path}: {what} (columns: {', '.join(self.frame.columns)})")


def read_labelled(
    data: Sequence[str | Path],
    columns: Sequence[TargetColumn] = (),
    *,
    preferred: Sequence[TargetColumn] = (),
    smiles_column: str | None = None,
    split_column: str | None = None,
    split: str | None = None,
    split_seed: int = 0,
    graphs: bool = False,
    exclude: Set[str] = frozenset(),
) -> LabelledMolecules:
    """Read tables and parse their molecules.

    Args:
        data: paths of tables, or names of data sets (`datasets.NAMED`).
        columns: what to take. A table may hold some of them only; its molecules lack the others. Without any,
            each table gives the targets of its layout (`datasets.LAYOUTS`).
        preferred: without `columns`, those that come before the layout in a table that holds any of them.
        smiles_column: name, or number from 1; by default the one of the layout, or one of the usual names.
        split_column: holds train, valid, test; `split` by default.
        split: column, hash, random or scaffold (see `splits`). By default the split column or OGB's split
            dictionary where a table has one, else hash. Random and scaffold splits are of all tables
            together, so that nothing is on two sides.
        split_seed: of the random split.
        graphs: with the graphs that a teacher reads; molecules that have none are left out.
        exclude: keys (`molecule_keys`) of molecules to leave out, those of a benchmark for example.

    Raises:
        StkdError: a file or column is missing or empty, values or units do not fit, two targets would be one,
            no row is usable, or a split is unknown.
    """
    check_names(columns)
    tables = [_open_table(find_table(name), columns, preferred) for name in data]
    targets = list(columns) or joint_targets([column for table in tables for column in table.columns])
    smiles = [_smiles(table, smiles_column) for table in tables]
    values, notes = zip(*(_values(table, targets) for table in tables), strict=True)
    sides, ways = _split(tables, smiles, split, split_column, split_seed)
    starts = np.cumsum([0] + [len(table.frame) for table in tables])

    def place(i: int) -> str:
        k = int(np.searchsorted(starts, i, side="right")) - 1
        return f"{tables[k].path} row {i - starts[k] + 1}"

    all_smiles, all_values = pl.concat(smiles), np.concatenate(values)
    molecules = parse_series(all_smiles)
    usable, left_out = _usable_rows(molecules, all_values, all_smiles, place)
    in_test = sides[usable] == SPLITS.index("test")  # nothing is learned from it, so it stays whole
    learned, excluded = without_excluded(all_smiles, usable[~in_test], exclude)
    usable = np.union1d(learned, usable[in_test])
    left_out += excluded
    of_usable = None
    if graphs:
        usable, molecules, of_usable, without = with_graphs(all_smiles, usable, place)
        left_out += without
    elif left_out:
        molecules = parse_series(all_smiles[usable])
    if not len(usable):
        why = "; ".join(left_out) or "there are no rows"
        raise TrainingError(f"no usable row in {', '.join(map(str, data))}: {why}")
    return LabelledMolecules(
        molecules=molecules,
        targets=all_values[usable],
        split=sides[usable],
        columns=targets,
        files=[_about(table, way) for table, way in zip(tables, ways, strict=True)],
        left_out=left_out,
        notes=[note for of_table in notes for note in of_table],
        graphs=of_usable,
    )


def without_excluded(smiles: pl.Series, rows: np.ndarray, exclude: Set[str]) -> tuple[np.ndarray, list[str]]:
    """The rows among some whose molecules are not to be excluded, and a word on the others."""
    if not exclude:
        return rows, []
    kept = np.array([key not in exclude for key in molecule_keys(smiles[rows].to_list())], bool)
    reason = [] if kept.all() else [f"{(~kept).sum():,} rows with a molecule to be excluded"]
    return rows[kept], reason


def with_graphs(
    smiles: pl.Series, rows: np.ndarray, place: Callable[[int], str]
) -> tuple[np.ndarray, Molecules, Graphs, list[str]]:
    """The rows among some that have a graph, their molecules and graphs, and why the others have none."""
    chosen = smiles[rows]
    molecules = parse_series(chosen)
    graphs, failures = prepare_graphs(chosen.to_list(), molecules)
    if not failures:
        return rows, molecules, graphs, []
    usable = np.setdiff1d(np.arange(len(rows)), [*failures])
    first = {reason: row for row, reason in reversed(failures.items())}
    left_out = [
        f"{count:,} rows {reason}, first {place(int(rows[first[reason]]))}: {chosen[first[reason]]!r}"
        for reason, count in Counter(failures.values()).items()
    ]
    return rows[usable], parse_series(chosen[usable]), graphs.of_rows(molecules, usable), left_out


def parse_series(smiles: pl.Series) -> Molecules:
    """Pre-transform a series of SMILES straight from its Arrow buffers."""
    return pretransform(*smiles_buffers(smiles.to_arrow(compat_level=pl.CompatLevel.oldest())))


# Reading a table


def _open_table(path: Path, columns: Sequence[TargetColumn], preferred: Sequence[TargetColumn]) -> Table:
    frame = _read_frame(path)
    layout = known_layout(frame.columns)
    held = [column for column in columns or preferred if column.column in frame.columns]
    if not held and layout and not columns:
        held = [*layout.targets]
    table = Table(path, frame, layout, held)
    if not held:
        wanted = [column.column for column in columns or preferred]
        what = f"none of the target columns {', '.join(wanted)}" if wanted else "no layout that is known"
        raise TrainingError(f"{table.lacks(what)}; say what to take with --target LEVEL.NAME=COLUMN:UNIT")
    return table


def _read_frame(path: Path) -> pl.DataFrame:
    try:
        if ".parquet" in path.suffixes:
            return pl.read_parquet(path)
        with open_text(path) as stream:
            text = io.BytesIO(stream.read())
        header = text.readline().decode("utf-8", "replace")
        text.seek(0)
        separator = delimiter_of(header, "\t" if ".tsv" in path.suffixes else ",")
        return pl.read_csv(text, separator=separator, infer_schema_length=None)
    except pl.exceptions.NoDataError as error:
        raise TrainingError(f"{path} is empty; a table needs a header line and rows") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        if "found more fields" in str(error):
            raise TrainingError(
                f"{path}{_first_long_row(text, separator)}: more fields than the header has; put fields that "
                "have a separator in them in quotes"
            ) from error
        reason = str(error).partition("\n")[0]  # what follows are hints about options of the library
        raise TrainingError(f"{path} cannot be read as a table: {reason}") from error


def _first_long_row(text: io.BytesIO, separator: str) -> str:
    text.seek(0)
    lines = io.TextIOWrapper(text, "utf-8", errors="replace", newline="")
    reader = csv.reader(lines, delimiter=separator)
    width = len(next(reader))
    return next((f" line {reader.line_num}" for fields in reader if len(fields) > width), "")


def _smiles(table: Table, column: str | None) -> pl.Series:
    if column is None and table.layout:
        column = table.layout.smiles
    index, _ = pick_columns(table.frame.columns, column, None, str(table.path))
    # As in every input, what follows the SMILES after white space is no part of it.
    words = table.frame.to_series(index).cast(pl.String).fill_null("").str.strip_chars()
    return words.str.extract(r"^(\S*)").fill_null("").alias("smiles")


def _values(table: Table, targets: Sequence[TargetColumn]) -> tuple[np.ndarray, list[str]]:
    """(R, targets) float32 in output units, NaN where missing, and what looks odd about them."""
    place = {target.full_name: k for k, target in enumerate(targets)}
    values = np.full((len(table.frame), len(targets)), np.nan, np.float32)
    notes = []
    for column in table.columns:
        given = _numbers(table, column)
        values[:, place[column.full_name]] = given * column.factor
        note = unit_note(column, given)
        if note:
            notes.append(f"{table.path}: {note}")
    return values, notes


def _numbers(table: Table, column: TargetColumn) -> np.ndarray:
    """(R,) float64 as in the file, NaN where missing."""
    where = f"{table.path}: column {column.column!r}"
    given = table.frame[column.column]
    if given.dtype.is_nested() or given.dtype.is_temporal() or given.dtype == pl.Binary:
        raise TrainingError(f"{where} holds {given.dtype}, no numbers; name another one in --target")
    if given.dtype == pl.String:
        given = given.replace("", None)  # as spreadsheets write what is empty, in quotes
    numbers = given.cast(pl.Float64, strict=False)
    if len(bad := (given.is_not_null() & numbers.is_null()).arg_true()):
        raise TrainingError(
            f"{where}: {len(bad):,} of {len(given):,} rows hold no number, the first row {bad[0] + 1}: "
            f"{given[bad[0]]!r}; write a decimal point and nothing else, and leave empty what is not known"
        )
    values = numbers.to_numpy()
    known = np.isfinite(values)
    if len(values) and not known.any():
        raise TrainingError(f"{where} holds no number; name another one in --target {column.full_name}=...")
    wrong = np.flatnonzero(known & ~np.isin(values, (0, 1)))
    if column.is_class and len(wrong):
        raise TrainingError(
            f"{where} row {wrong[0] + 1} holds {values[wrong[0]]:g}; a class is 0, 1, or empty where not "
            "known: mend the table, or give another unit than class in --target"
        )
    return values


# Rows


def _split(
    tables: list[Table], smiles: list[pl.Series], way: str | None, column: str | None, seed: int
) -> tuple[np.ndarray, list[str]]:
    """(rows of all tables,) int8 index into SPLITS, and how it was come by in each table."""
    if way not in (None, *WAYS):
        raise TrainingError(f"no way {way!r} to split; --split-by takes {', '.join(WAYS)}")
    if column and way not in (None, "column"):
        raise TrainingError(f"--split-column {column} and --split-by {way} say different things; give one")
    if way in ("random", "scaffold"):
        rows = pl.concat(smiles).to_list()
        sides = random_split(rows, seed) if way == "random" else scaffold_split(rows)
        how = f"random 8:1:1 with seed {seed}" if way == "random" else "scaffold 8:1:1"
        return sides, [f"{how} of {len(rows):,} rows"] * len(tables)
    parts = [_split_table(table, s, way, column) for table, s in zip(tables, smiles, strict=True)]
    return np.concatenate([sides for sides, _ in parts]), [how for _, how in parts]


def _split_table(
    table: Table, smiles: pl.Series, way: str | None, column: str | None
) -> tuple[np.ndarray, str]:
    name = column or "split"
    index = table.layout.index if table.layout else None
    dictionary = find_dictionary(table.path) if index else None
    if way != "hash" and name in table.frame.columns:
        return named_split(table.frame[name].to_list(), f"{table.path}: column {name!r}"), f"column {name}"
    if way != "hash" and not column and index and dictionary:
        return dictionary_split(dictionary, table.frame[index].to_numpy()), dictionary.name
    if way == "column" or column:
        raise TrainingError(f"{table.lacks(f'no column {name!r}')}; see --split-column and --split-by")
    return canonical_split(smiles.to_list()), "hash of the molecule"


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


def _about(table: Table, way: str) -> dict:
    about = {
        "name": table.path.name,
        "sha256": file_sha256(table.path),
        "rows": len(table.frame),
        "split": way,
    }
    return about | ({"citation": table.layout.citation} if table.layout else {})
