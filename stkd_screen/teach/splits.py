"""Which molecules are learned from, chosen by and tested on: by a hash, at random, by scaffold, as given."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stkd_screen.errors import TrainingError
from stkd_screen.teach.keys import molecule_keys, scaffold_keys
from stkd_screen.teach.labelled import SPLITS

WAYS = ("column", "hash", "random", "scaffold")
TRAIN, VALID, TEST = range(len(SPLITS))


def canonical_split(smiles: Sequence[str]) -> np.ndarray:
    """By a hash of the molecule: 10% test, 5% valid.

    The side of a molecule depends on the molecule alone, not on its table, its row or the way its SMILES is
    written: so a molecule, stereo aside (the student does not see it), is on one side in every table, with
    labels and without, and what was learned from one table can be tested on another.

    Returns:
        (R,) int8 index into SPLITS.
    """
    digests = [hashlib.sha256(f"stkd{key}".encode()).hexdigest() for key in molecule_keys(smiles)]
    share = np.array([int(digest[:8], 16) for digest in digests]) / 2**32
    return np.select([share < 0.10, share < 0.15], [TEST, VALID], TRAIN).astype(np.int8)


def random_split(smiles: Sequence[str], seed: int) -> np.ndarray:
    """(R,) int8 index into SPLITS: the different molecules, stereo aside, shuffled and cut 8:1:1."""
    keys = molecule_keys(smiles)
    different = sorted(set(keys))
    cuts = [0, int(0.8 * len(different)), int(0.9 * len(different)), len(different)]
    sides = np.repeat(np.array([TRAIN, VALID, TEST], np.int8), np.diff(cuts))
    side_of = dict(zip(different, np.random.default_rng(seed).permutation(sides), strict=True))
    return np.array([side_of[key] for key in keys], np.int8)


def scaffold_split(smiles: Sequence[str]) -> np.ndarray:
    """By Bemis-Murcko scaffold, 8:1:1, the largest to train; no scaffold is on two sides.

    From the scaffold with most rows down, all rows of a scaffold go to the first of train, valid and test
    with room for them; of scaffolds with as many rows, the one that comes later in the table goes first.
    Molecules without a ring share a scaffold. Row for row as DeepChem's ScaffoldSplitter.

    Returns:
        (R,) int8 index into SPLITS.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(scaffold_keys(smiles)):
        groups[key].append(row)
    sides = np.full(len(smiles), TEST, np.int8)
    in_train = in_valid = 0
    for rows in sorted(groups.values(), key=lambda rows: (len(rows), rows[0]), reverse=True):
        if in_train + len(rows) <= 0.8 * len(smiles):
            sides[rows] = TRAIN
            in_train += len(rows)
        elif in_train + in_valid + len(rows) <= 0.9 * len(smiles):
            sides[rows] = VALID
            in_valid += len(rows)
    return sides


def named_split(names: Sequence[object], place: str) -> np.ndarray:
    """(R,) int8 index into SPLITS from the names of splits, in any case.

    Raises:
        TrainingError: other names, or none.
    """
    lower = [str(name).lower() for name in names]
    unknown = sorted(set(lower) - set(SPLITS))
    if unknown:
        raise TrainingError(
            f"{place} holds {unknown[:5]}; only {', '.join(SPLITS)} are known: mend it, or choose another "
            "--split-by"
        )
    return np.array([SPLITS.index(name) for name in lower], np.int8)


def find_dictionary(table: Path) -> Path | None:
    """OGB's split dictionary, beside a table or in the folder above, where its archive has it."""
    places = (table.parent / "split_dict.pt", table.parent.parent / "split_dict.pt")
    return next((path for path in places if path.is_file()), None)


def dictionary_split(path: Path, index: np.ndarray) -> np.ndarray:
    """By a dictionary of index arrays that torch.save wrote, as OGB's split_dict.pt is.

    Args:
        path: the dictionary: train, valid, and test or test-dev and test-challenge.
        index: (R,) int64, the number of each row of the table as the arrays count them.

    Returns:
        (R,) int8 index into SPLITS.

    Raises:
        TrainingError: it is something else (nothing in it is run), or lacks rows of the table.
    """
    sides = np.full(index.max(initial=0) + 1, -1, np.int8)
    for name, rows in _index_arrays(path).items():
        sides[rows[rows < len(sides)]] = SPLITS.index(name.partition("-")[0])
    missing = index[sides[index] < 0]
    if len(missing):
        raise TrainingError(
            f"{path} lacks {len(missing)} rows of the table, first that with index {missing[0]}: the two do "
            "not belong together; get both anew, or choose another --split-by"
        )
    return sides[index]


def split_notes(files: Sequence[dict], learned_from: Sequence[dict]) -> list[str]:
    """Notes on tables that are split otherwise now than when weights learned from them.

    Args:
        files: `LabelledMolecules.files` now.
        learned_from: the same as the weights have stored it.
    """
    then = {file["sha256"]: file["split"] for file in learned_from}
    return [
        f"{file['name']} is split by {file['split']} here; the weights learned from it split by "
        f"{then[file['sha256']]}: valid and test hold molecules they have learned; see --split-by"
        for file in files
        if then.get(file["sha256"], file["split"]) != file["split"]
    ]


def _index_arrays(path: Path) -> dict[str, np.ndarray]:
    reconstruct = np.empty(0).__reduce__()[0]
    parts_of_arrays: list[Any] = [
        (reconstruct, "numpy.core.multiarray._reconstruct"),  # as NumPy 1 calls it
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.int64)),
    ]
    try:
        with torch.serialization.safe_globals(parts_of_arrays):
            read = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {str(name): np.asarray(rows, np.int64) for name, rows in read.items()}
        known = all(name.partition("-")[0] in SPLITS for name in arrays)
    except Exception as error:  # an unpickler raises anything on a file that is something else
        raise TrainingError(f"{path} is no dictionary of index arrays; get it anew") from error
    if not known:
        raise TrainingError(f"{path} holds {', '.join(arrays)}; only {', '.join(SPLITS)} are known")
    return arrays
