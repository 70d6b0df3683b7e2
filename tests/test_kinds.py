"""evaluate --by-kind and --worst: where a model errs."""

import json

import numpy as np
import pytest
from rdkit import Chem

from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.teach.evaluate import number_measures
from stkd_screen.teach.kinds import errors_by_kind, furthest_off, kinds_of, written
from stkd_screen.teach.tables import read_labelled
from stkd_screen.weights import load_weights

SMILES = [
    "CCO",
    "c1cc[nH]c1",
    "C[N+](C)(C)CC(=O)[O-]",
    "[Na+].[Cl-]",
    "CC#N",
    "O=[N+]([O-])c1ccccc1",
    "C=CC=C",
    "F[P-](F)(F)(F)(F)F",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "[CH2]",
    "*C",
    "CC(C)(C)OOC(C)(C)C",
]  # fmt: skip


def of(kind: str) -> list[str]:
    is_of_it = kinds_of(pretransform(*pack_smiles(SMILES)))[kind]
    return [smiles for smiles, yes in zip(SMILES, is_of_it, strict=True) if yes]


def test_kinds():
    assert of("with N") == [s for s in SMILES if "N" in s.replace("Na", "") or "n" in s]
    assert of("with P") == ["F[P-](F)(F)(F)(F)F"]
    assert of("of C and H alone") == ["C=CC=C", "[CH2]", "*C"]
    assert of("aromatic") == ["c1cc[nH]c1", "O=[N+]([O-])c1ccccc1", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"]
    assert of("triple bond") == ["CC#N"]
    assert of("N or O bound to N or O") == ["O=[N+]([O-])c1ccccc1", "CC(C)(C)OOC(C)(C)C"]
    assert of("charged atoms") == [s for s in SMILES if "+" in s or "-" in s]
    assert of("several fragments") == ["[Na+].[Cl-]"]


def test_each_molecule_has_one_size():
    kinds = kinds_of(pretransform(*pack_smiles([*SMILES, "C" * 60, "C" * 200])))
    sizes = np.array([is_of_it for kind, is_of_it in kinds.items() if kind.endswith("heavy atoms")])
    assert (sizes.sum(axis=0) == 1).all()
    assert of("9 heavy atoms") == ["O=[N+]([O-])c1ccccc1"]
    assert of("10 to 14 heavy atoms") == ["Cn1cnc2c1c(=O)n(C)c(=O)n2C", "CC(C)(C)OOC(C)(C)C"]
    assert kinds["60 or more heavy atoms"][-2:].all()


@pytest.mark.parametrize("smiles", SMILES)
def test_a_molecule_is_written_as_it_was_read(smiles):
    assert written(pretransform(*pack_smiles([smiles])), 0) == Chem.CanonSmiles(smiles)


@pytest.fixture(scope="module")
def measured(toy):
    data, targets = read_labelled([toy.table], toy.columns), load_weights(toy.weights).targets
    rng = np.random.default_rng(0)
    predicted = data.targets + rng.normal(size=data.targets.shape).astype(np.float32)
    return data, targets, predicted


def test_errors_by_kind_are_those_of_their_molecules(measured):
    data, targets, predicted = measured
    found = errors_by_kind(predicted, targets, data, ["train"])["train"]
    rows = data.rows("train")
    with_n = rows[kinds_of(data.molecules)["with N"][rows]]
    assert 0 < len(with_n) < len(rows)
    measures = found["with N"][targets[0].full_name]
    values = [array[with_n, 0].astype(np.float64) for array in (data.targets, predicted)]
    assert measures == {**number_measures(*values), "n": len(with_n)}
    sizes = [metrics for kind, metrics in found.items() if kind.endswith("heavy atoms")]
    assert sum(metrics[targets[0].full_name]["n"] for metrics in sizes) == len(rows)


def test_the_furthest_off_come_first(measured):
    data, targets, predicted = measured
    found = furthest_off(predicted, targets, data, ["valid"], 3)["valid"]
    rows = data.rows("valid")
    for k, target in enumerate(targets):
        off = np.abs(predicted[rows, k] - data.targets[rows, k])
        expected = np.sort(off[np.isfinite(off)])[::-1][:3]
        assert [one["off"] for one in found[target.full_name]] == pytest.approx(expected)
    worst = found[targets[0].full_name][0]
    assert worst["off"] == pytest.approx(abs(worst["predicted"] - worst["label"]), abs=1e-5)
    assert Chem.MolFromSmiles(worst["smiles"]) is not None


def test_command(toy, run_command):
    given = ("evaluate", toy.weights, toy.table, "--by-kind", "--worst", "2")
    shown = run_command(*given, "--split", "test")
    assert shown.returncode == 0 and "MAE, test" in shown.stdout and "with N" in shown.stdout
    measured = json.loads(run_command(*given, "--json").stdout)
    assert set(measured["kinds"]) == set(measured["worst"]) == {"valid", "test"}
    refused = run_command("evaluate", toy.weights, "--writings", toy.table, "--by-kind")
    assert refused.returncode == 2 and "give tables" in refused.stderr
