"""The speed benchmark times what it says: every model predicts every molecule, and all figures are there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import toy_table

from stkd_screen.errors import StkdError
from stkd_screen.teach.features import prepare_graphs
from stkd_screen.teach.structure import graph_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from contenders import contender, read_graphs, read_molecules
from speed import ratio, spread, usable_molecules

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMILES = ["CCO", "c1ccccc1C(=O)[O-].[Na+]", "C[C@H](N)C(=O)O", "C", *toy_table()["smiles"][:26]]
MODELS = ["st-kd:tiny", "st-kd:small", "st-base:tiny", "graphormer:tiny", "mlp-ecfp:tiny", "morgan"]
GRAPH_MODELS = ["gin:tiny", "gcn-vn:tiny", "gin-vn:tiny"]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("speed") / "library.smi"
    path.write_text("\n".join(["no molecule", *SMILES]) + "\n")
    return path


def run_of(library: Path, *models: str) -> tuple[dict, list[str]]:
    """The JSON of a run and the lines of its table."""
    command = [sys.executable, str(BENCHMARKS / "speed.py"), str(library), "--device", "cpu", "--markdown"]
    options = ["--models", *models, "--seconds", "0.01", "--repeats", "1", "--threads", "2"]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command + options, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    return json.loads(last), table


def test_a_run_has_all_figures_of_all_models(library):
    result, table = run_of(library, *MODELS)
    assert result["molecules"] == len(SMILES)
    assert result["machine"]["threads"] == 2
    assert list(result["figures"]) == MODELS
    for name, figures in result["figures"].items():
        assert figures["molecules"] == len(SMILES)  # that each was predicted, the script sees to
        ms = figures["ms"]
        if name != "morgan":
            assert 0 < ms["ready"] < min(ms["one_process"], ms["all_cores"])
        assert any(line.startswith(f"| {name} ") for line in table)


@pytest.mark.slow
def test_embed_is_timed_with_few_and_with_all_molecules(library):
    result, _ = run_of(library, "embed")
    assert list(result["figures"]) == ["embed"]
    assert set(result["figures"]["embed"]["seconds"]) == {"4", "30"}


@pytest.mark.parametrize("name", [*MODELS[:-1], *GRAPH_MODELS])
def test_every_molecule_gets_its_prediction_whoever_builds_the_inputs(name):
    if name in GRAPH_MODELS:
        pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    model = contender(name, SMILES, torch.device("cpu"))
    rows = np.concatenate(list(model.batches(model.read(SMILES), len(SMILES))))
    assert sorted(rows) == list(range(len(SMILES)))
    together = model.forward(model.build(SMILES))
    alone = torch.cat([model.forward(model.build([SMILES[row]])) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std(0).min() > 0


def test_graphs_are_those_the_teacher_sees():
    molecules, ours = read_molecules(SMILES), read_graphs(SMILES)
    graphs, failures = prepare_graphs(SMILES, molecules)
    assert not failures
    rows = np.arange(len(SMILES))
    expected, found = graph_batch(molecules, graphs, rows), graph_batch(ours, ours, rows)
    assert torch.equal(found.atom_features, expected.atom_features)
    assert torch.equal(found.distance, expected.distance)


def test_molecules_are_those_that_can_be_read_and_samples_have_their_sizes(library):
    smiles = usable_molecules(library, 1000)
    assert smiles == SMILES
    assert usable_molecules(library, 5) == SMILES[:5]
    assert spread(SMILES, 1000) == SMILES
    few = spread(SMILES, 10)
    assert len(set(few)) == 10
    assert {min(map(len, few)), max(map(len, few))} == {min(map(len, SMILES)), max(map(len, SMILES))}


def test_models_are_compared_with_the_student_and_programs_with_embed():
    figures = {
        "st-kd:paper": {"ms": {"one_process": 2.0, "all_cores": 1.0}},
        "gin-vn:paper": {"ms": {"one_process": 5.0, "all_cores": 4.0}},
        "embed": {"ms": {"all_cores": 1.5}, "seconds": {}},
        "chemprop": {"ms": {"all_cores": 6.0}, "seconds": {}},
        "too few molecules": {"ms": {}, "seconds": {}},
    }
    assert [ratio(name, figures) for name in figures] == [1.0, 2.5, 1.0, 4.0, None]


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(StkdError, match=r"no model 'gin-vn:huge'.*graphormer:slim-teacher.*st-kd:paper"):
        contender("gin-vn:huge", SMILES, torch.device("cpu"))
