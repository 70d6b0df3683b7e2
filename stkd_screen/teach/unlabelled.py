"""Molecules without labels, of which a teacher is the only source: any library that `embed` reads."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from stkd_screen.errors import TrainingError
from stkd_screen.files import file_sha256
from stkd_screen.records import RecordReader
from stkd_screen.teach.keys import molecule_keys
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules
from stkd_screen.teach.splits import canonical_split
from stkd_screen.teach.tables import parse_series, with_graphs, without_excluded
from stkd_screen.teach.targets import TargetColumn


def read_unlabelled(
    inputs: Sequence[str | Path],
    columns: Sequence[TargetColumn],
    most: int,
    seed: int = 0,
    exclude: Set[str] = frozenset(),
) -> LabelledMolecules:
    """A random choice of the molecules of a library, with graphs and without labels.

    Molecules are split by a hash (`canonical_split`), as tables may be; see `apart_from` for others.

    Args:
        inputs: files, folders or `-`.
        columns: the targets that the molecules lack.
        most: molecules to choose where there are more.
        seed: of the choice.
        exclude: keys (`molecule_keys`) of molecules to leave out.

    Raises:
        StkdError: an input cannot be read, or no molecule is usable.
    """
    reader = RecordReader([*inputs])
    smiles, read = choose(reader, most, seed)
    rows, excluded = without_excluded(smiles, np.arange(len(smiles)), exclude)
    usable, molecules, graphs, left_out = with_graphs(smiles, rows, lambda row: f"molecule {row + 1}")
    if not len(usable):
        raise TrainingError(f"no usable molecule among the {read.total():,} records of {reader.files[0]} ...")
    return LabelledMolecules(
        molecules=molecules,
        targets=np.full((len(usable), len(columns)), np.nan, np.float32),
        split=canonical_split(smiles[usable].to_list()),
        files=[
            {
                "name": Path(source).name,
                "sha256": file_sha256(Path(source)) if Path(source).is_file() else "",
                "rows": records,
                "split": "hash of the molecule",
            }
            for source, records in read.items()
        ],
        left_out=excluded + left_out,
        columns=[*columns],
        graphs=graphs,
    )


def apart_from(library: LabelledMolecules, labelled: LabelledMolecules) -> LabelledMolecules:
    """A library of which no molecule of the valid or test split of some tables is learned from.

    However the tables are split: such molecules go to the test split of the library.
    """
    codes, known = (part.needed_graphs().molecule_codes(part.molecules) for part in (library, labelled))
    train, test = SPLITS.index("train"), SPLITS.index("test")
    held_out = (library.split == train) & np.isin(codes, known[labelled.split != train])
    if not held_out.any():
        return library
    reason = f"{held_out.sum():,} unlabelled molecules that the tables have in their valid or test split"
    split = np.where(held_out, test, library.split).astype(library.split.dtype)
    return replace(library, split=split, left_out=[*library.left_out, reason])


def excluded_keys(inputs: Sequence[str | Path]) -> set[str]:
    """Keys of all molecules of some libraries, none of which is to be learned from.

    Raises:
        TrainingError: there are no records, or most are no SMILES, so that nothing would be excluded.
    """
    if not inputs:
        return set()
    texts = [text for batch in RecordReader([*inputs]) for text in batch.smiles.to_pylist()]
    if not texts:
        raise TrainingError(f"--exclude {inputs[0]}: no record in it; leave it out, or give another file")
    smiles = pl.Series(texts, dtype=pl.String)
    unreadable = int((parse_series(smiles).error != 0).sum())
    if 2 * unreadable > len(smiles):
        raise TrainingError(
            f"--exclude {inputs[0]}: {unreadable:,} of {len(smiles):,} records are no SMILES; in a .smi "
            "file the SMILES come first"
        )
    return set(molecule_keys(smiles.to_list()))


def choose(reader: RecordReader, most: int, seed: int) -> tuple[pl.Series, Counter[str]]:
    """At most that many SMILES, each record as likely as any other, in input order; records read by file.

    Every record draws a number, and the ones with the smallest numbers stay: what is kept never grows.
    """
    generator = np.random.default_rng(seed)
    kept, draws = pl.Series("smiles", [], pl.String), np.empty(0)
    read: Counter[str] = Counter()
    for batch in reader:
        kept = pl.concat([kept, pl.Series("smiles", pl.from_arrow(batch.smiles), pl.String)])
        draws = np.concatenate([draws, generator.random(len(batch))])
        read[batch.source] += len(batch)
        if len(draws) > most:
            smallest = np.sort(np.argpartition(draws, most - 1)[:most])
            kept, draws = kept[smallest], draws[smallest]
    return kept, read
