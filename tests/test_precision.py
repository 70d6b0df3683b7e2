"""The number format of the matrix products: who chooses it, and what depends on it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TOY_TRAINING

from stkd_screen import load, precision
from stkd_screen.errors import StkdError
from stkd_screen.precision import choose_precision
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.train import train
from stkd_screen.weights import load_weights

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C1CC", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_that_is_faster(fast, monkeypatch):
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: fast)
    assert choose_precision("auto", CPU) == ("bfloat16" if fast else "float32")
    assert choose_precision("auto", CUDA) == "bfloat16"
    assert load("small", "cpu").precision == ("bfloat16" if fast else "float32")


def test_what_is_asked_for_is_taken():
    for device in (CPU, CUDA):
        assert choose_precision("float32", device) == "float32"
        assert choose_precision("bfloat16", device) == "bfloat16"
    with pytest.raises(StkdError, match="unknown precision 'half'; give auto, float32 or bfloat16"):
        choose_precision("half", CPU)


def test_bfloat16_moves_predictions_of_the_shipped_weights_by_less_than_a_tenth_of_their_errors():
    exact, rounded = (load("small", "cpu", precision=name).embed(SMILES) for name in ("float32", "bfloat16"))
    assert exact["error"].equals(rounded["error"])
    for column, mae in (("homo_ev", 0.085), ("lumo_ev", 0.090), ("gap_ev", 0.114)):
        moved = (exact[column] - rounded[column]).abs()
        assert 0 < moved.max() < 0.1 * mae
    one, other = (np.stack(frame["embedding"].drop_nulls().to_numpy()) for frame in (exact, rounded))
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.999


def test_a_run_does_not_go_on_in_another_precision(toy, run_command, tmp_path):
    library, output = tmp_path / "library.smi", tmp_path / "out"
    library.write_text("\n".join(SMILES))

    def embed(*options):
        return run_command("embed", library, "-o", f"{output}/", "--model", toy.weights, *options)

    assert embed("--precision", "float32").returncode == 0
    refused = embed("--precision", "bfloat16")
    assert refused.returncode == 1 and "precision float32 -> bfloat16" in refused.stderr
    assert embed("--precision", "bfloat16", "--overwrite").returncode == 0
    assert len(pl.read_parquet(f"{output}/*.parquet")) == len(SMILES)


def test_training_in_bfloat16_learns_as_well_and_keeps_float32_weights(toy, tmp_path):
    data = read_labelled([toy.table], toy.columns)
    rounded = train(data, replace(TOY_TRAINING, precision="bfloat16"), tmp_path / "weights")
    exact = load_weights(toy.weights)
    for name, parameter in rounded.student.named_parameters():
        assert parameter.dtype == torch.float32
        assert name == "pair_bias" or not torch.equal(parameter, exact.student.get_parameter(name))
    for target, measures in exact.metrics["valid"].items():
        assert rounded.metrics["valid"][target]["mae"] < 1.3 * measures["mae"]
    assert rounded.training["options"]["precision"] == "bfloat16"
