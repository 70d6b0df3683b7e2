"""The example files hold what they say, and the library script writes distinct, valid molecules."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from stkd_screen.records import RecordReader

Chem = pytest.importorskip("rdkit.Chem")
EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPT = EXAMPLES / "enumerate_library.py"
VARIANTS = EXAMPLES / "variants.py"


def imported(script):
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def library():
    return imported(SCRIPT)


def read(path):
    return [
        (smiles, id, int(line))
        for batch in RecordReader([path])
        for smiles, id, line in zip(batch.smiles.to_pylist(), batch.id.to_pylist(), batch.lines, strict=True)
    ]


def test_molecules_are_valid_named_and_distinct():
    records = read(EXAMPLES / "molecules.smi")
    assert len(records) == 454  # the README says so
    names = [name for _, name, _ in records]
    assert all(names)
    assert len(set(names)) == len(names)
    canonical = {Chem.CanonSmiles(smiles) for smiles, _, _ in records}
    assert len(canonical) == len(records)


def test_broken_has_a_record_a_line():
    records = read(EXAMPLES / "broken.smi")
    assert [line for *_, line in records] == [2, 3, 4, 5, 6, 7, 8, *range(10, 17)]
    valid = {line for smiles, _, line in records if Chem.MolFromSmiles(smiles) is not None}
    assert valid == {2, 10, 11, 12, 13, 16}
    assert [name for _, name, line in records if line in (10, 12)] == [None, "alanine with a CXSMILES tail"]


def test_arms_hold_one_ring_at_most(library):
    # No fused bicycle in an arm: what makes every molecule of the library distinct.
    for arm in library.arms():
        assert [letter for letter in arm if letter.isdigit()] in ([], ["3", "3"])


def test_library_is_distinct_valid_and_of_the_size_told(library):
    found = list(library.molecules(1000, seed=1))
    molecules = [Chem.MolFromSmiles(smiles) for smiles in found]
    assert None not in molecules
    assert len({Chem.MolToSmiles(molecule) for molecule in molecules}) == len(found)
    assert all(15 <= molecule.GetNumAtoms() <= 36 for molecule in molecules)
    elements = {atom.GetSymbol() for molecule in molecules for atom in molecule.GetAtoms()}
    assert elements == {"C", "N", "O", "S", "F", "Cl", "Br"}


def test_small_library_is_walked_through_without_repeat(library, monkeypatch):
    monkeypatch.setattr(library, "cores", lambda: [("c1cc", "cc", "c1")])
    monkeypatch.setattr(library, "arms", lambda: ["C", "N", "O", "F"])
    assert len(set(library.molecules(16, seed=5))) == 16
    with pytest.raises(ValueError, match="16 possible"):
        next(library.molecules(17, seed=5))


def test_script_writes_a_file_that_reads_back(library, tmp_path):
    output = tmp_path / "library.smi.gz"
    subprocess.run([sys.executable, SCRIPT, "--count", "50", "--seed", "3", "-o", output], check=True)
    records = read(output)
    assert [smiles for smiles, _, _ in records] == list(library.molecules(50, seed=3))  # a seed fixes it
    assert [id for _, id, _ in records] == [f"L{i:07d}" for i in range(1, 51)]


@pytest.fixture(scope="module")
def variants():
    return imported(VARIANTS)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Well-known molecules of at most 12 heavy atoms, and a row that is none."""
    smiles = [smiles for smiles, *_ in read(EXAMPLES / "molecules.smi")]
    small = [text for text in smiles if Chem.MolFromSmiles(text).GetNumAtoms() <= 12]
    path = tmp_path_factory.mktemp("variants") / "table.csv"
    path.write_text("\n".join(["smiles", *small, "bad("]) + "\n")
    return path


def test_variants_are_new_distinct_small_and_of_the_same_chemistry(variants, table):
    made = list(variants.variants(table, "smiles", per_molecule=20, seed=1))
    originals = [Chem.MolFromSmiles(text) for text in table.read_text().split()[1:-1]]
    assert len(made) > 100 and len(set(made)) == len(made)
    assert not set(made) & {Chem.MolToSmiles(m, isomericSmiles=False) for m in originals}
    allowed = set().union(*map(variants.neighbourhoods, originals))
    for smiles in made:
        molecule = Chem.MolFromSmiles(smiles)
        assert Chem.MolToSmiles(molecule) == smiles and "." not in smiles
        assert molecule.GetNumAtoms() <= 12
        assert variants.neighbourhoods(molecule) <= allowed
        assert not any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())


def test_each_kind_of_edit_makes_variants(variants):
    generator = random.Random(2)
    kinds = {}
    for _ in range(3000):
        molecule = Chem.RWMol(Chem.MolFromSmiles("CC1CCC1C=O"))
        variants.edit(molecule, [6, 7, 8], generator)
        if (made := variants.sanitised(molecule)) is not None:
            kinds.setdefault((made.GetNumAtoms(), made.GetNumBonds(), Chem.MolToSmiles(made)), 0)
    sizes = {size[:2] for size in kinds}
    assert sizes == {(7, 7), (8, 8), (6, 6), (7, 8), (7, 6)}  # changed, added, taken, closed, opened
    assert any("N" in smiles for *_, smiles in kinds) and any("C=C" in smiles for *_, smiles in kinds)


def test_the_variants_script_is_fixed_by_its_seed(variants, table, tmp_path):
    output = tmp_path / "variants.smi.gz"
    command = [sys.executable, VARIANTS, table, "--per-molecule", "5", "--seed", "3", "-o", output]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    made = [smiles for smiles, _, _ in read(output)]
    assert made == list(variants.variants(table, "smiles", 5, 3)) and len(made) > 20
    assert printed == f"{table}: {len(made)} variants\n"
