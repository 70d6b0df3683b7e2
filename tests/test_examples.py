"""The example files hold what they say, and the library script writes distinct, valid molecules."""

import importlib.util
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TARGETS, TOY_TRAINING
from safetensors.torch import load_file

from stkd_screen.records import RecordReader
from stkd_screen.smiles.tokens import ENVIRONMENT_1
from stkd_screen.student import PRESETS
from stkd_screen.teach.prepared import load_prepared
from stkd_screen.teach.train import train
from stkd_screen.weights import load_weights

Chem = pytest.importorskip("rdkit.Chem")
EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPT = EXAMPLES / "enumerate_library.py"
VARIANTS = EXAMPLES / "variants.py"
REFIT = EXAMPLES / "refit_embedding.py"


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
    """Well-known molecules of at most 12 heavy atoms, and rows that are none."""
    smiles = [smiles for smiles, *_ in read(EXAMPLES / "molecules.smi")]
    small = [text for text in smiles if Chem.MolFromSmiles(text).GetNumAtoms() <= 12]
    path = tmp_path_factory.mktemp("variants") / "table.csv"
    path.write_text("\n".join(["smiles,y", *(f"{text},1" for text in small), "bad(,1", ",1", " ,1"]) + "\n")
    return path


def test_variants_are_new_distinct_small_and_of_the_same_chemistry(variants, table):
    molecules = variants.read_table(table, "smiles")
    known = {*molecules, "C1CCCC1"}
    made = list(variants.variants(molecules, known, per_molecule=20, seed=1))
    assert len(made) > 100 and len(set(made)) == len(made)
    assert not set(made) & {*molecules, "C1CCCC1"} and known >= set(made)
    assert "C1CCCC1" in variants.variants(molecules, set(molecules), per_molecule=20, seed=1)
    allowed = set().union(*(variants.neighbourhoods(Chem.MolFromSmiles(text)) for text in molecules))
    for smiles in made:
        molecule = Chem.MolFromSmiles(smiles)
        assert Chem.MolToSmiles(molecule) == smiles and "." not in smiles
        assert molecule.GetNumAtoms() <= 12
        assert variants.neighbourhoods(molecule) <= allowed
        assert not any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())


def test_each_kind_of_edit_makes_variants(variants):
    generator = random.Random(2)
    molecule = Chem.MolFromSmiles("CC1CCC1C=O")
    elements = Counter({6: 5, 7: 1, 8: 1})
    made = [variants.edited(molecule, elements, generator) for _ in range(3000)]
    kept = [m for m in made if m is not None]
    sizes = {(m.GetNumAtoms() - 7, m.GetNumBonds() - 7) for m in kept}
    assert {(0, 0), (1, 1), (-1, -1), (0, 1), (0, -1)} <= sizes  # changed, added, taken, closed, opened
    assert {(2, 2), (-2, -2), (0, 2), (0, -2), (1, 2)} <= sizes  # two edits
    smiles = set(map(Chem.MolToSmiles, kept))
    assert {"CC1=CCC1C=O", "NC1CCC1C=O", "CC1CCC1CO"} <= smiles
    for smallest in ("C", "[H][H]", "CC"):
        assert any(variants.edited(Chem.MolFromSmiles(smallest), elements, generator) for _ in range(200))


def test_the_variants_script_is_fixed_by_its_seed_and_repeats_none(variants, table, tmp_path):
    output = tmp_path / "variants.smi.gz"
    command = [sys.executable, VARIANTS, table, table, "--per-molecule", "5", "--seed", "3", "-o", output]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    made = [smiles for smiles, _, _ in read(output)]
    molecules = variants.read_table(table, "smiles")
    assert made == list(variants.variants(molecules, set(molecules), 5, 3)) and len(made) > 20
    assert printed == f"{table}: {len(made)} variants\n{table}: 0 variants\n"


@pytest.mark.parametrize("arguments", [["missing.csv"], ["table.csv", "--smiles-column", "structure"]])
def test_the_variants_script_says_what_it_cannot_read(table, tmp_path, arguments):
    command = [sys.executable, VARIANTS, *arguments, "-o", tmp_path / "out.smi"]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=table.parent)
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr
    assert not (tmp_path / "out.smi").exists()


def test_refitting_the_embedding_leaves_the_energies(tmp_path, toy, run_command, monkeypatch):
    beyond = {"surroundings": True, "fingerprint": 8, "late_environments": True}
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], **beyond))
    library = tmp_path / "library.smi"
    library.write_text(
        "".join(f"{'C' * (1 + k % 7)}OC{'N' * (k % 3)}{'CO' * (k // 7)}\n" for k in range(140))
    )
    given = [word for target in TARGETS for word in ("--target", target)]
    done = run_command("prepare", toy.table, *given, "--unlabelled", library, "-o", tmp_path / "toy.prepared")
    assert done.returncode == 0, done.stderr
    data = load_prepared(tmp_path / "toy.prepared")
    before = train(data, replace(TOY_TRAINING, epochs=2, half=True), tmp_path / "toy")
    command = [
        REFIT,
        tmp_path / "toy",
        tmp_path / "toy.prepared",
        "-o",
        tmp_path / "refitted",
        "--epochs",
        "8",
    ]
    printed = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout
    shares = [float(line.split()[-1]) for line in printed.splitlines()]
    assert len(shares) == 8 and shares[-1] < 0.8 * shares[0]
    after = load_weights(tmp_path / "refitted")
    for name, tensor in before.student.state_dict().items():
        if name == "table":
            assert torch.equal(tensor[:ENVIRONMENT_1], after.student.table[:ENVIRONMENT_1])
            assert not torch.equal(tensor, after.student.table)
        else:
            assert torch.equal(tensor, after.student.state_dict()[name]) != name.startswith("fingerprint."), (
                name
            )
    assert after.training["embedding"]["epochs"] == 8
    stored = load_file(tmp_path / "refitted" / "model.safetensors")
    assert stored["table"].dtype == stored["fingerprint.token.weight"].dtype == torch.float16

    early = [sys.executable, REFIT, toy.weights, tmp_path / "toy.prepared", "-o", tmp_path / "never"]
    refused = subprocess.run(early, capture_output=True, text=True)
    assert refused.returncode == 1 and "has no fingerprint head" in refused.stderr
