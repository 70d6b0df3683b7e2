"""Which molecules are learned from, chosen by and tested on."""

import os
import zipfile
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
import torch
from conftest import SHARED_DATA
from rdkit import Chem
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from stkd_screen.errors import TrainingError
from stkd_screen.teach import keys, processes
from stkd_screen.teach.labelled import SPLITS
from stkd_screen.teach.splits import (
    canonical_split,
    dictionary_split,
    random_split,
    scaffold_split,
    split_notes,
)
from stkd_screen.teach.tables import read_labelled

needs_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no labelled tables at {SHARED_DATA}")

RINGS = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccoc1", "c1ccsc1", "C1CCNC1", "c1ccc2ccccc2c1"]
LIBRARY = [f"{'C' * k}{ring}" for k in range(9) for ring in RINGS[: 7 - k % 4]] + ["CCO", "CCCO", "CCCCO"]


def test_the_hash_sees_the_molecule_and_nothing_else():
    writings = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "OC(=O)C(C)N", "[H]OC(=O)C(N)C"]
    assert set(canonical_split(writings)) == {SPLITS.index("test")}
    # The first digits of sha256("stkd" + canonical SMILES): 1343b3c9, 02e6eac3; 1d349065; 5dae7bf4, fd9d4f27.
    assert canonical_split(["CCC", "NCC", "OCC", "CCCC", "O"]).tolist() == [2, 2, 1, 0, 0]


def test_unreadable_molecules_are_split_by_their_text():
    odd = ["C1CC", "not a molecule", "C1CC"]
    assert canonical_split(odd)[0] == canonical_split(odd)[2]
    assert keys.molecule_keys(odd) == odd


@needs_data
@pytest.mark.parametrize("rows", [1000, pytest.param(200_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "table",
    ["qm9/qm9_homo_lumo_gap.csv.gz", "pcqm/pcqm_level_gap.csv.gz", "pcqm/pubchem_homo_lumo_gap.csv.gz"],
)
def test_the_hash_gives_the_split_columns_of_the_shared_tables(table, rows):
    frame = pl.read_csv(SHARED_DATA / table, infer_schema_length=None)
    frame = frame.sample(min(rows, len(frame)), seed=1)
    assert [SPLITS[side] for side in canonical_split(frame["smiles"].to_list())] == frame["split"].to_list()


def test_a_random_split_is_seeded_and_8_1_1_of_the_different_molecules():
    smiles = [f"{'C' * k}O" for k in range(1, 101)] + [f"O{'C' * k}" for k in range(1, 101)]
    sides = random_split(smiles, seed=3)
    assert (sides[:100] == sides[100:]).all()
    assert np.bincount(sides).tolist() == [160, 20, 20]
    assert (sides == random_split(smiles, seed=3)).all() and (sides != random_split(smiles, seed=4)).any()


def test_a_scaffold_is_on_one_side_and_the_largest_are_for_training():
    sides = scaffold_split(LIBRARY)
    of_scaffold = defaultdict(set)
    for smiles, side in zip(LIBRARY, sides, strict=True):
        of_scaffold[MurckoScaffoldSmiles(smiles)].add(SPLITS[side])
    assert all(len(side) == 1 for side in of_scaffold.values())
    assert of_scaffold["c1ccccc1"] == {"train"} and set(sides) == {0, 1, 2}
    assert sides.tolist() == deepchem_scaffold_split(LIBRARY)


def deepchem_scaffold_split(smiles):
    """Sides as ScaffoldSplitter of DeepChem 2.8 describes them: scaffold sets into three lists of indices."""
    sets = {}
    for i, text in enumerate(smiles):
        sets.setdefault(MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(text)), []).append(i)
    ordered = sorted(sets.values(), key=lambda rows: (len(rows), rows[0]), reverse=True)
    lists = [], [], []
    for rows in ordered:
        if len(lists[0]) + len(rows) <= 0.8 * len(smiles):
            lists[0].extend(rows)
        elif len(lists[0]) + len(lists[1]) + len(rows) <= (0.8 + 0.1) * len(smiles):
            lists[1].extend(rows)
        else:
            lists[2].extend(rows)
    return [next(side for side in range(3) if i in lists[side]) for i in range(len(smiles))]


def test_worker_processes_give_the_same_keys(monkeypatch):
    alone = keys.molecule_keys(LIBRARY)
    monkeypatch.setattr(processes, "CHUNK", 20)
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    assert keys.molecule_keys(LIBRARY) == alone


@pytest.mark.parametrize("way", ["column", "hash", "random", "scaffold"])
def test_each_way_of_splitting_is_named(tmp_path, way):
    names = [SPLITS[i % 3] for i in range(len(LIBRARY))]
    pl.DataFrame({"smiles": LIBRARY, "gap_ev": 5.0, "split": names}).write_csv(tmp_path / "t.csv")
    data = read_labelled([tmp_path / "t.csv"], split=way)
    assert way in data.files[0]["split"]
    expected = {
        "column": [i % 3 for i in range(len(LIBRARY))],
        "hash": canonical_split(LIBRARY).tolist(),
        "random": random_split(LIBRARY, 0).tolist(),
        "scaffold": scaffold_split(LIBRARY).tolist(),
    }
    assert data.split.tolist() == expected[way]


def test_random_and_scaffold_splits_are_of_all_tables_together(tmp_path):
    for name in ("a.csv", "b.csv"):
        pl.DataFrame({"smiles": LIBRARY, "gap_ev": 5.0}).write_csv(tmp_path / name)
    for way in ("random", "scaffold"):
        split = read_labelled([tmp_path / "a.csv", tmp_path / "b.csv"], split=way).split
        assert (split[: len(LIBRARY)] == split[len(LIBRARY) :]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "stratified"}, "--split-by takes column, hash, random, scaffold"),
        ({"split": "column"}, r"no column 'split' \(columns: smiles, gap_ev\)"),
        ({"split": "hash", "split_column": "fold"}, "--split-column fold and --split-by hash"),
    ],
)
def test_wrong_ways_of_splitting(tmp_path, options, message):
    (tmp_path / "t.csv").write_text("smiles,gap_ev\nC,5\n")
    with pytest.raises(TrainingError, match=message):
        read_labelled([tmp_path / "t.csv"], **options)


def test_another_split_than_that_of_the_training_is_noted(tmp_path):
    (tmp_path / "t.csv").write_text("smiles,gap_ev\nC,5\n")
    trained = read_labelled([tmp_path / "t.csv"], split="scaffold").files
    now = read_labelled([tmp_path / "t.csv"]).files
    assert split_notes(trained, trained) == [] and split_notes(now, []) == []
    (note,) = split_notes(now, trained)
    assert "t.csv is split by hash of the molecule here" in note and "--split-by" in note


# OGB's split dictionary


@pytest.fixture
def pcqm(tmp_path, monkeypatch):
    """PCQM4Mv2 as its archive unpacks: a table without test labels, and a dictionary in the folder above."""
    monkeypatch.setenv("STKD_SCREEN_DATA", str(tmp_path))
    raw = tmp_path / "pcqm4m-v2" / "raw"
    raw.mkdir(parents=True)
    gaps = [3.0, 4.0, 5.0, None, 6.0, None]
    frame = pl.DataFrame(
        {"idx": range(6), "smiles": ["C", "CC", "CCC", "CO", "CN", "CF"], "homolumogap": gaps}
    )
    frame.write_csv(raw / "data.csv.gz", compression="gzip")
    indices = {"train": [0, 2], "valid": [1, 4], "test-dev": [3], "test-challenge": [5]}
    torch.save({name: np.array(rows) for name, rows in indices.items()}, raw.parent / "split_dict.pt")
    return raw.parent


def as_numpy_1_wrote_it(path):
    """The same file with the name that NumPy 1 gave the function which rebuilds an array."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


@pytest.mark.parametrize("numpy_1", [False, True])
def test_ogb_split_dictionaries_are_used(pcqm, numpy_1):
    if numpy_1:
        as_numpy_1_wrote_it(pcqm / "split_dict.pt")
    data = read_labelled(["pcqm4m-v2"])
    assert data.targets[:, 0].tolist() == [3.0, 4.0, 5.0, 6.0]
    assert [SPLITS[side] for side in data.split] == ["train", "valid", "train", "valid"]
    assert data.files[0]["split"] == "split_dict.pt"
    assert data.left_out == [f"2 rows without any target, first {pcqm / 'raw' / 'data.csv.gz'} row 4"]
    assert read_labelled(["pcqm4m-v2"], split="hash").files[0]["split"] == "hash of the molecule"


def test_a_split_dictionary_counts_by_idx_and_may_lie_beside_the_table(pcqm):
    (pcqm / "split_dict.pt").rename(pcqm / "raw" / "split_dict.pt")
    table = pcqm / "raw" / "data.csv.gz"
    frame = pl.read_csv(table).reverse()
    frame.write_csv(table, compression="gzip")
    assert [SPLITS[side] for side in read_labelled([table]).split] == ["valid", "train", "valid", "train"]


def test_a_split_dictionary_of_another_table_is_refused(pcqm):
    with pytest.raises(
        TrainingError, match="lacks 2 rows of the table, first that with index 6.*get both anew"
    ):
        dictionary_split(pcqm / "split_dict.pt", np.array([0, 6, 7]))


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made-by-the-pickle",)


@pytest.mark.parametrize("content", [{"train": Hostile()}, [1, 2], {"train": ["C"]}, {"left": np.arange(3)}])
def test_nothing_but_index_arrays_is_unpickled(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "split_dict.pt")
    with pytest.raises(
        TrainingError, match=r"is no dictionary of index arrays|only train, valid, test are known"
    ):
        dictionary_split(tmp_path / "split_dict.pt", np.arange(3))
    assert not (tmp_path / "made-by-the-pickle").exists()
