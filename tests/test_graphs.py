"""The teacher's graphs: features against RDKit atom by atom, batches against slow shortest paths, files."""

import gzip
import json
import random
import struct
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA
from rdkit import Chem, rdBase
from rich.console import Console
from safetensors.torch import save_file

from stkd_screen.cli.training import read_training_set
from stkd_screen.errors import TrainingError
from stkd_screen.smiles import AROMATIC_FLAG, BondType, Molecules, pack_smiles, pretransform
from stkd_screen.teach import processes
from stkd_screen.teach.features import molecule_features, prepare_graphs
from stkd_screen.teach.graphs import ATOM_FEATURES, BOND_FEATURES, Graphs
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules, joined
from stkd_screen.teach.prepared import load_prepared, save_prepared
from stkd_screen.teach.splits import canonical_split
from stkd_screen.teach.structure import MAX_DISTANCE, PADDING, PATH_BONDS, UNREACHABLE, graph_batch
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.train import kekule_forms
from stkd_screen.teach.unlabelled import apart_from, excluded_keys, read_unlabelled

CHEMBL = SHARED_DATA / "smiles" / "chembl_47k.smi.gz"

MOLECULES = [
    "C",
    "[H]C([H])([H])O[H]",
    "[H][H]",
    "[H+]",
    "[Na+].[Cl-]",
    "CC(=O)[O-].C[NH3+]",
    "C[N+](C)(C)CC(=O)[O-]",
    "C[N+](=O)[O-]",
    "CN(=O)=O",
    "c1ccccc1",
    "C1=CC=CC=C1",
    "C1=CC2=C(C=C1)NC=C2",
    "CC(=O)Nc1ccc(O)cc1",
    "*CC*",
    "[Fe+3]",
    "[CH3]",
    "[O][O]",
    "C=CC=CC#N",
    "F/C=C/F",
    "N[C@@H](C)C(=O)O",
    "[13CH4]",
    "C1CC2CC1C2",
    "FS(F)(F)(F)(F)F",
    "c1ccccc1c1ccncc1",
    "[NH3]->[Cu]",
]


def read(smiles: Sequence[str], workers: int = 1) -> tuple[Molecules, Graphs, dict[int, str]]:
    molecules = pretransform(*pack_smiles(smiles))
    return molecules, *prepare_graphs(smiles, molecules, workers)


def labelled(
    smiles: Sequence[str], targets: np.ndarray, split: np.ndarray, columns: list[TargetColumn]
) -> LabelledMolecules:
    """A training set with graphs, as a table with these rows would give it."""
    molecules, graphs, failures = read(smiles)
    assert not failures and not molecules.error.any()
    files = [{"name": "test.csv", "sha256": "0" * 64, "rows": len(smiles), "split": "column split"}]
    return LabelledMolecules(
        molecules=molecules,
        targets=targets.astype(np.float32),
        split=split.astype(np.int8),
        files=files,
        left_out=[],
        columns=columns,
        graphs=graphs,
    )


def rows_of(molecules: Molecules, graphs: Graphs, row: int) -> tuple[np.ndarray, ...]:
    atoms = slice(*molecules.atom_offsets[row : row + 2])
    bonds = slice(*molecules.bond_offsets[row : row + 2])
    features = graphs.atom_features[atoms], graphs.bond_features[bonds], graphs.kekule_bonds[bonds]
    return *features, molecules.element[atoms] & (AROMATIC_FLAG - 1), molecules.bond_atoms[bonds]


def assert_equal_fields(ours, literal) -> None:
    for field in fields(ours):
        mine, theirs = getattr(ours, field.name), getattr(literal, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        assert mine.dtype == theirs.dtype, field.name


# Features


HYBRIDISATIONS = ["UNSPECIFIED", "S", "SP", "SP2", "SP3", "SP2D", "SP3D", "SP3D2", "OTHER"]


def literal_atom(atom: Chem.Atom, in_rings: set[int]) -> dict[str, int]:
    return {
        "element": atom.GetAtomicNum(),
        "degree": len(atom.GetNeighbors()),
        "charge": atom.GetFormalCharge() + 16,
        "hydrogens": atom.GetNumExplicitHs() + atom.GetNumImplicitHs(),
        "radical_electrons": atom.GetNumRadicalElectrons(),
        "hybridisation": HYBRIDISATIONS.index(str(atom.GetHybridization())),
        "aromatic": int(atom.GetIsAromatic()),
        "in_ring": int(atom.GetIdx() in in_rings),
    }


def literal_bond(bond: Chem.Bond, in_rings: set[int]) -> tuple[int, int, int]:
    types = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4, "AROMATIC": 5}
    return types.get(str(bond.GetBondType()), 6), int(bond.GetIsConjugated()), int(bond.GetIdx() in in_rings)


def compare_with_rdkit(smiles: Sequence[str], workers: int = 1) -> int:
    """Every feature of every molecule that both read; how many those are."""
    molecules, graphs, failures = read(smiles, workers)
    compared = 0
    for row, text in enumerate(smiles):
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(text)
        if molecule is None or molecules.error[row]:
            assert row in failures, text
            continue
        assert row not in failures, (text, failures[row])
        atoms, bonds, _, elements, pairs = rows_of(molecules, graphs, row)
        rings = molecule.GetRingInfo()
        atoms_in_rings, bonds_in_rings = (
            {member for ring in of for member in ring} for of in (rings.AtomRings(), rings.BondRings())
        )
        literal = [literal_atom(atom, atoms_in_rings) for atom in molecule.GetAtoms()]
        assert [dict(zip(ATOM_FEATURES, atom, strict=True)) for atom in atoms.tolist()] == literal, text
        assert elements.tolist() == [atom["element"] for atom in literal], text
        assert len(bonds) == molecule.GetNumBonds(), text
        for (u, v), code in zip(pairs.tolist(), bonds.tolist(), strict=True):
            decoded = code % 7, code // 7 % 2, code // 14
            bond = molecule.GetBondBetweenAtoms(u, v)
            assert decoded == literal_bond(bond, bonds_in_rings), (text, u, v)
        compared += 1
    return compared


def test_features_are_rdkits_atom_by_atom_and_bond_by_bond():
    assert compare_with_rdkit(MOLECULES) == len(MOLECULES)


def test_explicit_hydrogens_are_folded_into_their_neighbours():
    molecules, graphs, _ = read(["[H]C([H])([H])O[H]", "CO", "[H][H]"])
    columns = [[*ATOM_FEATURES].index(name) for name in ("element", "hydrogens", "degree")]
    assert rows_of(molecules, graphs, 0)[0][:, columns].tolist() == [[6, 3, 1], [8, 1, 1]]
    assert rows_of(molecules, graphs, 1)[0][:, columns].tolist() == [[6, 3, 1], [8, 1, 1]]
    assert rows_of(molecules, graphs, 2)[0][:, columns].tolist() == [[1, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize("smiles", ["[2H]C([2H])([2H])O", "[H]/N=C(/C)O", "[H]/C=C/F", "F/C=C/[H]"])
def test_hydrogens_with_isotope_or_direction_are_folded_as_the_student_folds_them(smiles):
    """Isotopes and direction marks are read and ignored; the teacher must not keep those atoms alone."""
    molecules, graphs, failures = read([smiles])
    assert not failures
    atoms, *_, elements, _ = rows_of(molecules, graphs, 0)
    assert atoms[:, 0].tolist() == elements.tolist()
    hydrogens = molecules.hydrogens.tolist()
    assert atoms[:, [*ATOM_FEATURES].index("hydrogens")].tolist() == hydrogens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("c1ccccc1C", "C1=CC=CC=C1C"),
        ("c1ccc2[nH]ccc2c1", "C1=CC=C2NC=CC2=C1"),
        ("CN(=O)=O", "C[N+]([O-])=O"),
        ("F/C=C/F", "FC=CF"),
    ],
)
def test_features_do_not_depend_on_how_the_molecule_is_written(one, other):
    molecules, graphs, _ = read([one, other])
    (atoms_a, bonds_a, *_, pairs_a), (atoms_b, bonds_b, *_, pairs_b) = (
        rows_of(molecules, graphs, row) for row in (0, 1)
    )
    # The oxygens of the nitro group change places: compare as multisets.
    assert sorted(map(tuple, atoms_a.tolist())) == sorted(map(tuple, atoms_b.tolist()))
    assert sorted(bonds_a.tolist()) == sorted(bonds_b.tolist())
    assert {tuple(p) for p in pairs_a.tolist()} == {tuple(p) for p in pairs_b.tolist()}


def test_bonds_stand_in_the_order_of_the_student():
    """Ring bonds come where they are closed, not sorted."""
    molecules, graphs, _ = read(["C1=CCC#CC1CC1CC1"])
    _, bonds, kekule, _, pairs = rows_of(molecules, graphs, 0)
    assert pairs.tolist() != sorted(pairs.tolist())
    order = {(0, 1): 2, (3, 4): 3}
    assert [bond % 7 for bond in bonds.tolist()] == [order.get(tuple(pair), 1) for pair in pairs.tolist()]
    assert kekule.tolist() == [order.get(tuple(pair), 1) for pair in pairs.tolist()]


def test_codes_stay_within_their_tables():
    _, graphs, _ = read([*MOLECULES, "[O-15]", "[Ts+15]", "[CH2]", "[Og]", "C$C", "F[I](F)(F)(F)(F)(F)F"])
    assert (graphs.atom_features.max(axis=0) < [*ATOM_FEATURES.values()]).all()
    assert graphs.bond_features.max() < BOND_FEATURES


def test_failing_molecules_are_reported_with_row_and_reason():
    smiles = ["CCO", "C1CC", "n1cccc1", "C" * 257, "CC", "[O-1000]"]
    molecules, graphs, failures = read(smiles)
    assert sorted(failures) == [1, 2, 3, 5]
    assert failures[1] == failures[2] == "not accepted by RDKit"
    assert len(graphs.atom_features) == molecules.atom_offsets[-1]
    of_failed = rows_of(molecules, graphs, 2)
    assert not of_failed[0].any() and not of_failed[1].any()
    assert rows_of(molecules, graphs, 4)[0][:, 0].tolist() == [6, 6]


def test_an_empty_smiles_is_a_failure():
    assert 1 in read(["CC", "", "C"])[2]


def test_one_process_and_two_give_the_same(monkeypatch):
    monkeypatch.setattr(processes, "CHUNK", 4)  # several tasks
    smiles = [*MOLECULES, "C1CC", "C" * 257]
    molecules, one, failures = read(smiles, workers=1)
    _, two, failures_of_two = read(smiles, workers=2)
    assert_equal_fields(two, one)
    assert failures == failures_of_two and sorted(failures) == [len(MOLECULES), len(MOLECULES) + 1]
    for row in (0, 5, 12, len(MOLECULES) - 1):  # of the right rows, too
        atoms, pairs, bonds, kekule, bits = molecule_features(smiles[row])
        np.testing.assert_array_equal(rows_of(molecules, two, row)[0], atoms)
        order = np.lexsort(rows_of(molecules, two, row)[4].T[::-1])
        np.testing.assert_array_equal(rows_of(molecules, two, row)[4][order], pairs)
        np.testing.assert_array_equal(rows_of(molecules, two, row)[1][order], bonds)
        np.testing.assert_array_equal(rows_of(molecules, two, row)[2][order], kekule)
        np.testing.assert_array_equal(two.set_bits(np.array([row]))[0], bits)


def chembl() -> list[str]:
    if not CHEMBL.is_file():
        pytest.skip(f"no {CHEMBL}")
    with gzip.open(CHEMBL, "rt", encoding="latin-1") as lines:
        return [line.split()[0] for line in lines if line.strip()]


def test_a_sample_of_chembl_agrees():
    assert compare_with_rdkit(chembl()[::94][:500]) >= 495


@pytest.mark.slow
def test_all_of_chembl_agrees():
    smiles = chembl()
    compared = compare_with_rdkit(smiles)
    print(f"{compared:,} of {len(smiles):,} molecules of chembl_47k agree atom by atom and bond by bond")
    assert compared > 47_400


# Kekulé forms


def rebuilt(molecules: Molecules, row: int) -> str:
    """Canonical SMILES of what the student sees: elements, charges, hydrogens and bonds, nothing else."""
    types = {1: "SINGLE", 2: "DOUBLE", 3: "TRIPLE", 4: "QUADRUPLE", 5: "AROMATIC", 6: "DATIVE"}
    atoms = range(*molecules.atom_offsets[row : row + 2])
    molecule = Chem.RWMol()
    for i in atoms:
        atom = Chem.Atom(int(molecules.element[i]) & (AROMATIC_FLAG - 1))
        atom.SetIsAromatic(bool(molecules.element[i] & AROMATIC_FLAG))
        atom.SetFormalCharge(int(molecules.charge[i]))
        atom.SetNumExplicitHs(int(molecules.hydrogens[i]))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    for k in range(*molecules.bond_offsets[row : row + 2]):
        u, v = molecules.bond_atoms[k].tolist()
        molecule.AddBond(u, v, getattr(Chem.BondType, types[int(molecules.bond_type[k])]))
    with rdBase.BlockLogs():
        Chem.SanitizeMol(molecule)
    return Chem.MolToSmiles(molecule, isomericSmiles=False)


@pytest.mark.parametrize(
    "smiles",
    [
        "c1ccccc1",
        "c1ccc2[nH]ccc2c1",
        "O=c1[nH]c(=O)c2[nH]cnc2[nH]1",
        "c1ccccc1c1ccncc1",
        "C1=CC=CC=C1O",
        "C[n+]1ccccc1.[Cl-]",
        "c1ccsc1[N+](=O)[O-]",
        "c1ccccc1N(=O)=O",
        "c1ccccc1N=N#N",
    ],
)
def test_a_kekule_form_is_the_same_molecule_without_aromatic_marks(smiles):
    molecules, graphs, _ = read([smiles, smiles])
    written = kekule_forms(molecules, graphs.kekule_bonds, np.array([True, False]))
    assert rebuilt(written, 1) == rebuilt(molecules, 1) == Chem.CanonSmiles(smiles)
    chosen_atoms = slice(*molecules.atom_offsets[:2])
    chosen_bonds = slice(*molecules.bond_offsets[:2])
    assert (written.element[chosen_atoms] < AROMATIC_FLAG).all()
    assert (written.bond_type[chosen_bonds] != BondType.AROMATIC).all()
    assert rebuilt(written, 0) == Chem.CanonSmiles(smiles)
    # What is not chosen stays as written.
    np.testing.assert_array_equal(
        written.element[chosen_atoms.stop :], molecules.element[chosen_atoms.stop :]
    )
    np.testing.assert_array_equal(
        written.bond_type[chosen_bonds.stop :], molecules.bond_type[chosen_bonds.stop :]
    )


# Batches


def with_numbered_bonds(smiles: Sequence[str]) -> tuple[Molecules, Graphs]:
    """Molecules whose bond features are the numbers of the bonds, so that a path can be followed."""
    molecules = pretransform(*pack_smiles(smiles))
    assert not molecules.error.any()
    counts = np.diff(molecules.bond_offsets)
    numbers = np.concatenate([np.arange(m) for m in counts]).astype(np.uint8)
    atoms = np.random.default_rng(0).integers(1, 200, (molecules.atom_offsets[-1], len(ATOM_FEATURES)))
    return molecules, Graphs(
        atoms.astype(np.uint8), numbers, np.zeros_like(numbers), *no_fingerprints(smiles)
    )


def no_fingerprints(molecules: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(molecules) + 1, np.int64), np.empty(0, np.uint16)


def floyd_warshall(n: int, bonds: list[list[int]]) -> np.ndarray:
    distance = np.full((n, n), np.inf)
    np.fill_diagonal(distance, 0)
    for u, v in bonds:
        distance[u, v] = distance[v, u] = 1
    for k in range(n):
        distance = np.minimum(distance, distance[:, k, None] + distance[k])
    return distance


def check_paths(bonds: list[list[int]], steps: np.ndarray, path: np.ndarray) -> None:
    """Follow the bonds of each path from its first atom on: each step must come one nearer to the last."""
    n = len(steps)
    for i in range(n):
        for j in range(n):
            codes = path[i, j].tolist()
            length = 0 if np.isinf(steps[i, j]) else min(int(steps[i, j]), PATH_BONDS)
            assert all(codes[:length]) and not any(codes[length:])
            at = i
            for done, code in enumerate(codes[:length], 1):
                ends = bonds[code - 1]
                assert at in ends
                at = ends[1] if at == ends[0] else ends[0]
                assert steps[at, j] == steps[i, j] - done
            if steps[i, j] <= PATH_BONDS:
                assert at == j


MIXED = [
    "C",
    "CC(C)(C)C1CC1",
    "[Na+].[Cl-].O",
    "C12C3C4C1C5C2C3C45",
    "CCCCCCCCCCCC",
    "c1ccc2cc3ccccc3cc2c1.CCO",
    "C1CC2CC1C2",
]


@pytest.mark.parametrize("rows", [range(len(MIXED)), [4, 0, 3, 3, 2], [0], [2, 0]])
def test_batches_equal_floyd_warshall(rows):
    molecules, graphs = with_numbered_bonds(MIXED)
    batch = graph_batch(molecules, graphs, np.array(rows))
    sizes = np.diff(molecules.atom_offsets)[list(rows)]
    N = sizes.max()
    assert batch.n_atoms.tolist() == sizes.tolist()
    assert batch.distance.shape == (len(rows), N, N) and batch.path.shape == (len(rows), N, N, PATH_BONDS)
    for b, row in enumerate(rows):
        n = sizes[b]
        atoms = slice(*molecules.atom_offsets[row : row + 2])
        bonds = molecules.bond_atoms[slice(*molecules.bond_offsets[row : row + 2])].tolist()
        steps = floyd_warshall(n, bonds)
        expected = np.full((N, N), PADDING)
        expected[:n, :n] = np.where(np.isinf(steps), UNREACHABLE, np.minimum(steps, MAX_DISTANCE))
        np.testing.assert_array_equal(batch.distance[b].numpy(), expected)
        features = np.zeros((N, len(ATOM_FEATURES)))
        features[:n] = graphs.atom_features[atoms]
        np.testing.assert_array_equal(batch.atom_features[b].numpy(), features)
        path = batch.path[b].numpy()
        assert not path[n:].any() and not path[:, n:].any()
        check_paths(bonds, steps, path[:n, :n])


def test_distances_are_rdkits():
    smiles = [text for text in MOLECULES if text != "CN(=O)=O"]
    molecules, graphs, _ = read(smiles)
    batch = graph_batch(molecules, graphs, np.arange(len(smiles)))
    for b, text in enumerate(smiles):
        matrix = Chem.GetDistanceMatrix(Chem.MolFromSmiles(text))
        n = len(matrix)
        expected = np.where(matrix > 1000, UNREACHABLE, np.minimum(matrix, MAX_DISTANCE))
        np.testing.assert_array_equal(batch.distance[b, :n, :n].numpy(), expected, err_msg=text)


def test_distances_of_chains_of_1_to_256_atoms_in_mixed_batches():
    sizes = np.random.default_rng(0).permutation(np.arange(1, 257))
    molecules, graphs = with_numbered_bonds(["C" * int(n) for n in sizes])
    assert np.diff(molecules.atom_offsets).tolist() == sizes.tolist()
    i, j = np.indices((256, 256))
    chain = np.minimum(abs(i - j), MAX_DISTANCE)
    # The k-th bond from i towards j of a chain: number i + k - 1 going up, i - k going down.
    k = np.arange(1, PATH_BONDS + 1)
    up, down = i[..., None] + k, i[..., None] - k + 1
    path = np.where((j > i)[..., None], up, down) * (k <= abs(i - j)[..., None])
    for rows in np.split(np.arange(256), 64):
        batch = graph_batch(molecules, graphs, rows)
        N = sizes[rows].max()
        for b, n in enumerate(sizes[rows]):
            expected = np.full((N, N), PADDING)
            expected[:n, :n] = chain[:n, :n]
            np.testing.assert_array_equal(batch.distance[b].numpy(), expected)
            ours = batch.path[b].numpy()
            np.testing.assert_array_equal(ours[:n, :n], path[:n, :n])
            assert not ours[n:].any() and not ours[:, n:].any()


def test_the_largest_molecule_with_rings_equals_floyd_warshall():
    # A ladder of ten rings with a long tail, and fragments, so that bond numbers stay below 256.
    text = "c1ccc(cc1)" * 10 + "C" * 100 + ".C" * 10 + "." + "C" * 86
    molecules, graphs = with_numbered_bonds([text.partition(".")[0], "C", text])
    n = int(np.diff(molecules.atom_offsets)[2])
    assert n == 256 and np.diff(molecules.bond_offsets)[2] < 256
    batch = graph_batch(molecules, graphs, np.array([1, 2]))
    bonds = molecules.bond_atoms[slice(*molecules.bond_offsets[2:4])].tolist()
    steps = floyd_warshall(n, bonds)
    expected = np.where(np.isinf(steps), UNREACHABLE, np.minimum(steps, MAX_DISTANCE))
    assert {MAX_DISTANCE, UNREACHABLE} <= set(expected.ravel())
    np.testing.assert_array_equal(batch.distance[1].numpy(), expected)
    check_paths(bonds, steps, batch.path[1].numpy())


# Sets of molecules


def test_graphs_of_rows_are_those_of_the_molecules_alone():
    molecules, graphs, _ = read(MOLECULES)
    for rows in ([0], [3, 4, 12], [len(MOLECULES) - 1], range(len(MOLECULES)), []):
        chosen = graphs.of_rows(molecules, np.array(rows, int))
        alone = read([MOLECULES[row] for row in rows])[1] if len(rows) else None
        if alone is None:
            assert len(chosen.atom_features) == len(chosen.bond_features) == len(chosen.kekule_bonds) == 0
        else:
            assert_equal_fields(chosen, alone)


COLUMNS = [TargetColumn.parse("toy.weight=heavy:eV"), TargetColumn.parse("other.rings=rings:class")]


def training_set(smiles: Sequence[str], seed: int = 0) -> LabelledMolecules:
    generator = np.random.default_rng(seed)
    targets = generator.normal(size=(len(smiles), 2))
    targets[generator.random(len(smiles)) < 0.3, 1] = np.nan
    return labelled(smiles, targets, generator.integers(0, 3, len(smiles)), COLUMNS)


def test_joined_sets_are_the_molecules_read_together():
    parts = [MOLECULES[:3], MOLECULES[3:4], MOLECULES[4:]]
    sets = [replace(training_set(part, seed), left_out=[f"reason {seed}"]) for seed, part in enumerate(parts)]
    whole = joined(*sets)
    molecules, graphs, _ = read(MOLECULES)
    assert_equal_fields(whole.molecules, molecules)
    assert_equal_fields(whole.graphs, graphs)
    np.testing.assert_array_equal(whole.targets, np.concatenate([part.targets for part in sets]))
    np.testing.assert_array_equal(whole.split, np.concatenate([part.split for part in sets]))
    assert whole.left_out == ["reason 0", "reason 1", "reason 2"]
    assert len(whole.files) == 3 and whole.columns == COLUMNS
    assert joined(sets[0]) is sets[0]
    assert joined(sets[0], replace(sets[1], graphs=None)).graphs is None


def test_a_prepared_file_gives_back_what_was_saved(tmp_path):
    data = replace(training_set(MOLECULES), left_out=["1 row unreadable"], notes=["odd unit"])
    path = tmp_path / "new folder" / "set.prepared"
    save_prepared(data, path)
    loaded = load_prepared(path)
    assert_equal_fields(loaded.molecules, data.molecules)
    assert_equal_fields(loaded.graphs, data.graphs)
    np.testing.assert_array_equal(loaded.targets, data.targets)
    np.testing.assert_array_equal(loaded.split, data.split)
    assert loaded.targets.dtype == np.float32 and loaded.split.dtype == np.int8
    assert (loaded.files, loaded.left_out, loaded.notes, loaded.columns) == (
        data.files,
        data.left_out,
        data.notes,
        data.columns,
    )
    assert loaded.fingerprint() == data.fingerprint()
    assert [file.name for file in path.parent.iterdir()] == ["set.prepared"]


def test_a_set_without_graphs_is_prepared_without(tmp_path):
    data = replace(training_set(MOLECULES), graphs=None)
    save_prepared(data, tmp_path / "set.prepared")
    loaded = load_prepared(tmp_path / "set.prepared")
    assert loaded.graphs is None
    with pytest.raises(TrainingError, match="graphs=True"):
        loaded.needed_graphs()


def test_a_fingerprint_tells_sets_apart():
    data = training_set(MOLECULES)
    other_bonds = data.graphs.bond_features.copy()
    other_bonds[0] += 1
    others = [
        replace(data, targets=data.targets + 1),
        replace(data, split=(data.split + 1) % 3),
        replace(data, graphs=replace(data.graphs, bond_features=other_bonds)),
        training_set(MOLECULES[:-1]),
    ]
    prints = {data.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(prints) == 5 and data.fingerprint() == training_set(MOLECULES).fingerprint()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc/self/maps")
def test_prepared_arrays_lie_in_the_mapped_file(tmp_path):
    path = (tmp_path / "set.prepared").resolve()
    save_prepared(training_set(MOLECULES * 20), path)
    loaded = load_prepared(path)
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            mapped.append([int(end, 16) for end in line.split()[0].split("-")])
    arrays = [loaded.targets, loaded.split, *vars(loaded.molecules).values(), *vars(loaded.graphs).values()]
    for array in arrays:
        first = array.__array_interface__["data"][0]
        assert any(start <= first and first + array.nbytes <= end for start, end in mapped)


def damaged(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[20:40] = b"\0" * 20  # within the header
    path.write_bytes(content)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def of_another_version(path: Path) -> Path:
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["stkd_screen"])
    header["__metadata__"]["stkd_screen"] = json.dumps(about | {"format": 999})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def other_tensors(path: Path) -> Path:
    save_file({"x": torch.zeros(3)}, path)
    return path


def a_table(path: Path) -> Path:
    path.write_text("smiles,gap\nC,1.0\n")
    return path


def nothing(path: Path) -> Path:
    path.unlink()
    return path


def a_folder(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


@pytest.mark.parametrize(
    "harm", [damaged, cut, of_another_version, other_tensors, a_table, nothing, a_folder]
)
def test_an_unreadable_prepared_file_is_named_with_a_fix(tmp_path, harm):
    path = tmp_path / "set.prepared"
    save_prepared(training_set(MOLECULES[:5]), path)
    with pytest.raises(TrainingError) as caught:
        load_prepared(harm(path))
    message = str(caught.value)
    assert str(path) in message
    assert "; " in message, f"no fix in: {message}"


def test_a_prepared_file_must_be_named_so(tmp_path):
    with pytest.raises(TrainingError, match=r"set\.csv.*call it set\.prepared"):
        save_prepared(training_set(MOLECULES[:5]), tmp_path / "set.csv")
    assert not [*tmp_path.iterdir()]


def test_a_prepared_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "set.prepared"
    with pytest.raises(TrainingError, match="cannot be written.*choose another -o") as caught:
        save_prepared(training_set(MOLECULES[:5]), path)
    assert str(path) in str(caught.value)


# Molecules without labels


def numbered_chain(number: int) -> str:
    """A chain of seven atoms whose elements are the digits of a number."""
    digits = (number // 4**k % 4 for k in range(7))
    return "".join("CNOS"[digit] for digit in digits)


def numbers(data: LabelledMolecules) -> list[int]:
    digit = {6: 0, 7: 1, 8: 2, 16: 3}
    chains = data.molecules.element.reshape(-1, 7)
    return [sum(digit[z] * 4**k for k, z in enumerate(chain)) for chain in chains.tolist()]


@pytest.fixture(scope="module")
def chains(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("library") / "chains.smi.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{numbered_chain(k)} id{k}\n" for k in range(4**7))
    return path


def test_unlabelled_molecules_are_a_reproducible_random_choice(chains):
    first, again, other = (read_unlabelled([chains], COLUMNS, 400, seed) for seed in (1, 1, 2))
    assert len(first.split) == 400
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    for data in (first, other):
        chosen = numbers(data)
        assert len(set(chosen)) == 400 and chosen == sorted(chosen)
        # Uniform over the 16,384 lines, that is over several batches of the reader.
        assert abs(np.mean(chosen) / 4**7 - 0.5) < 5 * (1 / 12 / 400) ** 0.5
        assert np.histogram(chosen, 4, (0, 4**7))[0].min() > 60
    assert len(set(numbers(first)) & set(numbers(other))) < 40
    assert first.targets.shape == (400, 2) and np.isnan(first.targets).all()
    assert first.columns == COLUMNS and first.files[0]["rows"] == 4**7
    assert_equal_fields(first.graphs, read([numbered_chain(k) for k in numbers(first)])[1])


def test_all_unlabelled_molecules_are_taken_where_there_are_few(tmp_path):
    (tmp_path / "a.smi").write_text("".join(f"{text} x\n" for text in MOLECULES))
    (tmp_path / "b.csv").write_text("id,smiles\n1,CCO\n2,CCN\n")
    data = read_unlabelled([tmp_path], COLUMNS, 1000)
    molecules, graphs, _ = read([*MOLECULES, "CCO", "CCN"])
    assert_equal_fields(data.molecules, molecules)
    assert_equal_fields(data.graphs, graphs)
    assert [(file["name"], file["rows"]) for file in data.files] == [("a.smi", len(MOLECULES)), ("b.csv", 2)]
    assert data.left_out == []


def test_a_molecule_of_the_test_split_is_on_no_other_side_of_a_library(tmp_path):
    """Whatever the table, however it is written, with stereo or without."""
    smiles = [f"{a}{'C' * k}{b}" for k in range(1, 12) for a in ("O", "N", "F") for b in ("C=O", "C#N", "S")]
    smiles += ["C[C@H](N)C(=O)O", "F/C=C/Cl", "c1ccccc1C", "C[C@H](F)Cl"]
    random.seed(0)
    others = [Chem.MolToSmiles(Chem.MolFromSmiles(text), doRandom=True) for text in smiles]
    others[-4:] = ["C[C@@H](N)C(=O)O", "FC=CCl", "CC1=CC=CC=C1", "CC(F)Cl"]
    assert sum(a != b for a, b in zip(smiles, others, strict=True)) > 60
    (tmp_path / "library.smi").write_text("\n".join(others) + "\n")
    sides = canonical_split(smiles)
    assert (sides == SPLITS.index("test")).sum() >= 5
    data = read_unlabelled([tmp_path / "library.smi"], COLUMNS, 1000)
    np.testing.assert_array_equal(data.split, sides)


def test_broken_lines_of_a_library_are_listed(tmp_path):
    lines = ["CCO", "C1CC", "n1cccc1", "CCN", "C" * 257, "c1cccc1", "CCC"]
    (tmp_path / "library.smi").write_text("\n".join(lines) + "\n")
    data = read_unlabelled([tmp_path / "library.smi"], COLUMNS, 1000)
    assert_equal_fields(data.molecules, read(["CCO", "CCN", "CCC"])[0])
    assert len(data.targets) == len(data.split) == 3
    assert sum(int(reason.split()[0]) for reason in data.left_out) == 4
    assert any("C1CC" in reason for reason in data.left_out)


def test_an_oversize_molecule_of_a_library_is_listed_for_its_size(tmp_path):
    (tmp_path / "library.smi").write_text(f"CCO\n{'C' * 257}\n")
    data = read_unlabelled([tmp_path / "library.smi"], COLUMNS, 1000)
    assert len(data.split) == 1
    assert len(data.left_out) == 1 and "256" in data.left_out[0]


def test_an_empty_record_of_a_library_is_listed(tmp_path):
    (tmp_path / "library.csv").write_text("id,smiles\n1,CCO\n2,\n3,CCN\n")
    data = read_unlabelled([tmp_path / "library.csv"], COLUMNS, 1000)
    assert np.diff(data.molecules.atom_offsets).tolist() == [3, 3]
    assert len(data.left_out) == 1


def test_a_library_without_a_usable_molecule_is_refused(tmp_path):
    (tmp_path / "library.smi").write_text("C1CC\nC(\n")
    with pytest.raises(TrainingError, match=r"no usable molecule among the 2 records of .*library\.smi"):
        read_unlabelled([tmp_path / "library.smi"], COLUMNS, 1000)


def test_excluded_molecules_are_nowhere_in_what_is_learned_from(tmp_path):
    """However they are written, and with stereo or without."""
    (tmp_path / "library.smi").write_text("OCC a\nCCN b\nC[C@H](N)O c\nCCC d\n")
    (tmp_path / "benchmark.smi").write_text("CCO\nCC(O)N\n")
    (tmp_path / "table.csv").write_text("smiles,heavy,rings\nC(C)O,3,0\nCCCC,4,0\nC1CC1,3,1\n")
    excluded = excluded_keys([tmp_path / "benchmark.smi"])
    library = read_unlabelled([tmp_path / "library.smi"], COLUMNS, 1000, exclude=excluded)
    assert len(library.molecules) == 2 and "2 rows with a molecule to be excluded" in library.left_out
    table = read_labelled([tmp_path / "table.csv"], COLUMNS, exclude=excluded)
    assert len(table.molecules) == 2 and "1 rows with a molecule to be excluded" in table.left_out
    assert excluded_keys([]) == set()


def test_a_list_to_exclude_that_is_no_smiles_is_refused(tmp_path):
    """Else nothing would be excluded, and nobody would know."""
    (tmp_path / "sets.smi").write_text("ZINC1 CCO\nZINC2 CCN\n")
    with pytest.raises(TrainingError, match="2 of 2 records are no SMILES"):
        excluded_keys([tmp_path / "sets.smi"])
    (tmp_path / "empty.smi").write_text("")
    with pytest.raises(TrainingError, match="empty.smi: no record in it"):
        excluded_keys([tmp_path / "empty.smi"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("target", ["toy.weight=heavy:eV"]), ("smiles_column", "structure"), ("split_column", "part"),
        ("split_by", "random"), ("split_seed", 3), ("exclude", {"CCO"}),
    ],
)  # fmt: skip
def test_what_a_prepared_file_has_settled_is_no_option_any_more(option, value):
    none = {
        "target": None, "smiles_column": None, "split_column": None, "split_by": None, "split_seed": 0,
        "exclude": set(),
    }  # fmt: skip
    given = f"--{option.replace('_', '-')}"
    with pytest.raises(TrainingError, match=f"is prepared.*give {given} to stkd-screen prepare"):
        read_training_set(Console(), ["x.prepared"], **none | {option: value})


# Molecules that are the same


def test_codes_are_the_same_however_a_molecule_is_written():
    writings = [
        ("OCC", "CCO", "C(C)O"),
        ("c1ccccc1C(=O)[O-]", "C1=CC=CC=C1C([O-])=O", "[O-]C(=O)C1=CC=CC=C1"),
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "NC(C)C(O)=O"),
        ("C/C=C/C", "CC=CC", "C/C=C\\C"),
        ("C1CC2CCC1C2", "C1C2CCC1CC2", "C12CCC(CC1)C2"),
        ("CC", "[CH3][CH3]", "[13CH3]C"),
    ]
    smiles = [text for same in writings for text in same]
    molecules, graphs, _ = read(smiles)
    codes = graphs.molecule_codes(molecules).reshape(len(writings), 3)
    assert (codes == codes[:, :1]).all() and len(np.unique(codes)) == len(writings)


def test_codes_tell_real_molecules_apart():
    """As RDKit's canonical SMILES without stereo do."""
    library = Path(__file__).parent.parent / "examples" / "library.smi.gz"
    smiles = [line.split()[0] for line in gzip.decompress(library.read_bytes()).decode().splitlines()[:1500]]
    rewritten = [Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(text), 1, 7)[0] for text in smiles]
    molecules, graphs, _ = read(smiles + rewritten)
    codes = graphs.molecule_codes(molecules)
    assert np.array_equal(codes[:1500], codes[1500:])
    assert len(np.unique(codes)) == len({Chem.CanonSmiles(text, useChiral=0) for text in smiles}) == 1500


@pytest.mark.parametrize("side", ["valid", "test"])
def test_a_library_brings_no_molecule_of_a_held_out_split(side, tmp_path):
    """However the table was split: here by its order, the library by a hash."""
    texts = [f"{'C' * k}{end}" for k in range(1, 12) for end in ("O", "N", "F", "Cl", "C(=O)O", "c1ccccc1")]
    split = np.array([("train", side)[k % 2] for k in range(len(texts))])
    targets = np.arange(len(texts), dtype=float)[:, None]
    table = labelled(texts, targets, np.array([SPLITS.index(name) for name in split]), COLUMNS[:1])
    rewritten = [Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(text), 1, 3)[0] for text in texts]
    (tmp_path / "library.smi").write_text("\n".join([*rewritten, "CCS"]) + "\n")
    library = read_unlabelled([tmp_path / "library.smi"], COLUMNS[:1], 1000)
    apart = apart_from(library, table)
    learned = {rewritten[k] for k in apart.rows("train") if k < len(texts)}
    assert learned and learned <= {text for text, s in zip(rewritten, split, strict=True) if s == "train"}
    moved = np.flatnonzero(library.split != apart.split)
    assert len(moved) and (apart.split[moved] == 2).all()
    assert apart.left_out == [
        f"{len(moved)} unlabelled molecules that the tables have in their valid or test split"
    ]
    assert apart_from(apart, table) is apart
