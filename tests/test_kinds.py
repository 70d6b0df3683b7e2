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
    "CC(C)(C)N([O])C",
]  # fmt: skip


def of(kind: str) -> list[str]:
    is_of_it = kinds_of(pretransform(*pack_smiles(SMILES)))[kind]
    return [smiles for smiles, yes in zip(SMILES, is_of_it, strict=True) if yes]


def test_kinds():
    assert of("with N") == [s for s in SMILES if "N" in s.replace("Na", "") or "n" in s]
    assert of("with P") == ["F[P-](F)(F)(F)(F)F"]
    assert of("of C and H alone") == ["C=CC=C", "[CH2]"]
    assert of("aromatic") == ["c1cc[nH]c1", "O=[N+]([O-])c1ccccc1", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"]
    assert of("triple bond") == ["CC#N"]
    assert of("N or O bound to N or O") == ["O=[N+]([O-])c1ccccc1", *SMILES[-2:]]
    assert of("charges that cancel") == ["O=[N+]([O-])c1ccccc1"]
    charged = [s for s in SMILES if "+" in s or "-" in s]
    assert of("ions and zwitterions") == [s for s in charged if "[N+]([O-])" not in s]
    assert of("unpaired electron") == ["CC(C)(C)N([O])C"]
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


def test_coverage_of_a_kind_is_that_of_its_molecules(measured):
    data, targets, predicted = measured
    half_widths = np.full_like(predicted, np.nan)
    half_widths[:, 0] = 0.7
    found = errors_by_kind(predicted, targets, data, ["train"], half_widths)["train"]["with N"]
    rows = data.rows("train")
    with_n = rows[kinds_of(data.molecules)["with N"][rows]]
    off = np.abs(predicted - data.targets)[with_n, 0]
    assert found[targets[0].full_name]["covered"] == pytest.approx((off <= 0.7).mean())
    assert "covered" not in found[targets[1].full_name]
    worst = furthest_off(predicted, targets, data, ["train"], 1, half_widths)["train"]
    assert worst[targets[0].full_name][0]["half_width"] == pytest.approx(0.7)
    assert "half_width" not in worst[targets[1].full_name][0]


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


def test_a_kind_of_few_molecules_has_only_the_measures_that_exist(measured):
    data, targets, predicted = measured
    found = errors_by_kind(predicted, targets, data, ["test"])["test"]
    alone = [m for metrics in found.values() for m in metrics.values() if m["n"] == 1]
    assert alone and all("mae" in m and "r2" not in m for m in alone)


@pytest.mark.parametrize("model", ["small", "slim-teacher"])
def test_shipped_models_by_kind(model, tmp_path, run_command):
    table = tmp_path / "few.csv"
    table.write_text("smiles,gap_ev\nCCO,7\nc1ccccc1,6\nCC#N,8\nC[NH3+],9\n")
    asked = ("--split", "train", "--by-kind", "--worst", "1", "--json")
    shown = run_command("evaluate", model, table, "--split-by", "random", *asked)
    assert shown.returncode == 0, shown.stderr
    kinds = json.loads(shown.stdout, parse_constant=pytest.fail)["kinds"]["train"]
    assert kinds["0 to 4 heavy atoms"]["pcqm.gap"]["n"] >= 1


def test_the_card_has_the_kinds_of_the_test_split(toy):
    weights = load_weights(toy.weights)
    measures = weights.kinds["with N"]["toy.weight"]
    card = (toy.weights / "README.md").read_text(encoding="utf-8")
    assert f"| with N | {measures['mae']:.4f} ({measures['n']:,}) |" in card


def test_command(toy, run_command):
    given = ("evaluate", toy.weights, toy.table, "--by-kind", "--worst", "2")
    shown = run_command(*given, "--split", "test")
    assert shown.returncode == 0 and "with N" in shown.stdout
    measured = json.loads(run_command(*given, "--json").stdout)
    assert set(measured["kinds"]) == set(measured["worst"]) == {"valid", "test"}
    refused = run_command("evaluate", toy.weights, "--writings", toy.table, "--by-kind")
    assert refused.returncode == 2 and "give tables" in refused.stderr
