"""The paper's baselines: they learn, they resume bit for bit, and batch-mates do not change a prediction."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TARGETS, toy_table
from torch import nn

from stkd_screen.errors import TrainingError
from stkd_screen.student import PRESETS
from stkd_screen.teach.checkpoint import read_checkpoint, write_checkpoint
from stkd_screen.teach.loop import run
from stkd_screen.teach.prepared import load_prepared, save_prepared
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.targets import TargetColumn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import baselines
import train_baseline
from baselines import GRAPH_PRESETS, MLP_PRESETS, FingerprintMLP, GraphNetwork, SmilesTransformer
from train_baseline import FROM_GRAPHS, FROM_SMILES, MODELS, configuration, smiles_of, trainer_of

COLUMNS = [TargetColumn.parse(text) for text in TARGETS]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("baselines") / "toy.csv"
    toy_table().write_csv(path)
    return path


@pytest.fixture(scope="module")
def data(table):
    return read_labelled([table], COLUMNS, graphs=True)


def make_trainer(model, data, table, **options):
    if model in FROM_GRAPHS:
        pytest.importorskip("torch_geometric")
    given = {"epochs": 30, "batch_size": 64, "learning_rate": 5e-3, "warmup_steps": 5, "ema": 0.9, "seed": 1}
    config = configuration(model, "tiny", **(given | options))
    return trainer_of(data, config, smiles_of(data, [table], COLUMNS) if model in FROM_SMILES else None)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_falls_and_batch_mates_do_not_change_a_prediction(model, data, table):
    trainer = make_trainer(model, data, table, lkm_gamma=0.02, random_writings=1)
    losses = []
    for _, batch in zip(range(40), trainer.remaining_batches(), strict=False):
        losses.append(trainer.loss_terms(batch.tensors)["task"].item())
        trainer.train_step(batch)
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])
    assert trainer.losses["lkm"] > 0

    network = trainer.averaged.module.eval()
    rows = data.rows("valid")
    together = trainer.predict(network, rows)
    assert together.shape == (len(rows), len(COLUMNS))
    alone = np.concatenate([trainer.predict(network, rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("model", ["st-base", "mlp-ecfp", "gin-vn"])
def test_training_goes_on_from_a_checkpoint_with_the_same_bits(model, data, table, tmp_path):
    options = {"dropout": 0.1, "random_writings": 1}
    unbroken = make_trainer(model, data, table, **options)
    for _, batch in zip(range(8), unbroken.remaining_batches(), strict=False):
        unbroken.train_step(batch)
        if unbroken.step == 5:  # in the middle of an epoch
            unbroken.evaluate()
            write_checkpoint(tmp_path / "checkpoint.pt", unbroken.identity(), unbroken.state())

    resumed = make_trainer(model, data, table, **options)
    state = read_checkpoint(tmp_path / "checkpoint.pt", resumed.identity(), resumed.device)
    resumed.load_state(state)
    for _, batch in zip(range(3), resumed.remaining_batches(), strict=False):
        resumed.train_step(batch)
    for ours, theirs in ((unbroken.model, resumed.model), (unbroken.averaged, resumed.averaged)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_a_run_leaves_weights_figures_and_curves(data, table, tmp_path):
    trainer = make_trainer("mlp-ecfp", data, table, epochs=2)
    run(trainer, tmp_path, lambda progress: None)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"] == "mlp-ecfp"
    assert config["parameters"] == sum(parameter.numel() for parameter in trainer.model.parameters())
    assert set(config["metrics"]) == {"train", "valid", "test"}
    assert config["metrics"]["valid"] == trainer.best_metrics
    assert (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "curves.csv").is_file()


def count(network: nn.Module) -> float:
    """Millions of parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


@pytest.mark.parametrize(
    ("kind", "virtual_node", "millions"),
    [("gcn", False, 2.0), ("gin", False, 3.8), ("gcn", True, 4.9), ("gin", True, 6.7)],
)
def test_graph_networks_are_as_large_as_in_the_paper(kind, virtual_node, millions):
    pytest.importorskip("torch_geometric")
    with torch.device("meta"):
        network = GraphNetwork(kind, GRAPH_PRESETS["paper"], virtual_node, targets=1)
    assert round(count(network), 1) == millions


def test_mlp_and_st_base_are_about_as_large_as_in_the_paper():
    with torch.device("meta"):
        mlp = FingerprintMLP(MLP_PRESETS["paper"], targets=1)
        st_base = SmilesTransformer(replace(PRESETS["paper"], targets=1), vocabulary=100)
    assert count(mlp) == pytest.approx(15.8, rel=0.02)
    assert count(st_base) == pytest.approx(19.1, rel=0.01)


def test_gcn_and_gin_layers_do_what_their_formulas_say(data):
    pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    graphs = baselines.pack_graphs(data.molecules, data.graphs, np.array([5, 100, 7]))
    x = torch.randn(len(graphs.atoms), 8)
    gcn, gin = baselines.GCNLayer(8).eval(), baselines.GINLayer(8).eval()
    y, d = gcn.linear(x), 1 + torch.tensor([(graphs.edges[0] == i).sum() for i in range(len(x))])
    by_gcn, gathered = (y + gcn.root).relu() / d[:, None], x.clone()
    for (j, i), bond in zip(graphs.edges.T.tolist(), graphs.bonds.int(), strict=True):
        by_gcn[i] += (y[j] + gcn.bond(bond)).relu() / (d[i] * d[j]).sqrt()
        gathered[i] += (x[j] + gin.bond(bond)).relu()
    assert torch.allclose(gcn(x, graphs), by_gcn, atol=1e-6)
    assert torch.allclose(gin(x, graphs), gin.convolution.nn(gathered), atol=1e-6)


def test_packed_graphs_are_those_of_the_rows(data):
    rows = np.array([60, 3])
    graphs = baselines.pack_graphs(data.molecules, data.graphs, rows)
    atoms = np.diff(data.molecules.atom_offsets)[rows]
    assert graphs.molecule.tolist() == [0] * atoms[0] + [1] * atoms[1]
    first = data.molecules.atom_offsets[3]
    expected = data.graphs.atom_features[first : first + atoms[1]]
    np.testing.assert_array_equal(graphs.atoms[atoms[0] :], expected)
    both = {(int(i), int(j)) for i, j in graphs.edges.T}
    assert both == {(j, i) for i, j in both}
    bonds = data.molecules.bond_atoms[slice(*data.molecules.bond_offsets[3:5])] + atoms[0]
    assert {(i, j) for i, j in both if atoms[0] <= i < j} == {tuple(pair) for pair in bonds.tolist()}


def test_smiles_are_cut_into_their_tokens():
    tokens = ["C", "[C@@H]", "(", "Br", ")", "c", "%12", "/", "C", "=", "%(103)", "Cl", ".", "[Na+]", "1"]
    assert baselines.smiles_tokens("".join(tokens)) == tokens


def test_each_row_gets_the_smiles_it_was_read_from(tmp_path):
    path = tmp_path / "dirty.csv"
    frame = [
        "smiles,y,split",
        "CCO,1,train",
        "no,2,train",
        "OCC,3,valid",
        "C[C@H](N)O,,test",
        "C[C@@H](N)O,4,test",
    ]
    path.write_text("\n".join(frame) + "\n")
    columns = [TargetColumn.parse("toy.y=y:none")]
    read = read_labelled([path], columns, graphs=True)
    assert smiles_of(read, [path], columns) == ["CCO", "OCC", "C[C@@H](N)O"]


def test_graph_baselines_take_a_prepared_file_and_the_others_say_what_they_need(data, table, tmp_path):
    path = tmp_path / "toy.prepared"
    save_prepared(data, path)
    with pytest.raises(TrainingError, match="holds none: give the tables"):
        train_baseline.needs_smiles("st-base", [str(path)])
    assert not train_baseline.needs_smiles("gin", [str(path)])
    prepared = make_trainer("gin", load_prepared(path), table)
    assert prepared.identity() == make_trainer("gin", data, table).identity()


@pytest.mark.parametrize(("model", "preset"), [("gat", "small"), ("mlp-ecfp", "huge")])
def test_unknown_names_are_answered_with_the_known_ones(model, preset, data, table):
    with pytest.raises(TrainingError, match="mlp-ecfp, gcn|paper, small"):
        trainer_of(data, configuration(model, preset), smiles_of(data, [table], COLUMNS))
