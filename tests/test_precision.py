"""The number format of the matrix products: who chooses it, and what depends on it."""

import itertools
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TARGETS, TOY_TRAINING
from students import int8_case

from stkd_screen import load, precision
from stkd_screen.errors import StkdError
from stkd_screen.precision import choose_precision, int8_products_are_exact
from stkd_screen.speed.measure import MATMUL_SIDE
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.train import StudentTrainer, train
from stkd_screen.weights import load_weights

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C1CC", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_auto_is_what_is_fast(bfloat16, vnni, exact, monkeypatch):
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(precision, "int8_products_are_exact", lambda: exact)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    of_training = "bfloat16" if bfloat16 else "float32"
    of_a_student = "int8" if vnni and exact and not bfloat16 else of_training
    assert choose_precision("auto", CPU) == of_training
    assert choose_precision("auto", CPU, int8=True) == load("small", "cpu").precision == of_a_student
    assert choose_precision("auto", CUDA) == choose_precision("auto", CUDA, int8=True) == "bfloat16"


def test_what_is_asked_for_is_taken():
    for device, int8 in itertools.product((CPU, CUDA), (True, False)):
        assert choose_precision("float32", device, int8=int8) == "float32"
        assert choose_precision("bfloat16", device, int8=int8) == "bfloat16"
        offered = "float32, bfloat16 or int8" if int8 and device == CPU else "float32 or bfloat16"
        with pytest.raises(StkdError, match=f"unknown precision 'half'; give auto, {offered}$"):
            choose_precision("half", device, int8=int8)


def test_int8_is_for_students_on_a_cpu(toy, run_command):
    with pytest.raises(StkdError, match="int8 is there for a student's forward pass on a CPU alone"):
        choose_precision("int8", CUDA, int8=True)
    with pytest.raises(StkdError, match="int8 is there"):
        load("small", "cpu", precision="int8", compile=True)
    train = ("train", toy.table, "--target", TARGETS[0], "-o", toy.table.parent / "never")
    refused = run_command(*train, "--precision", "int8", "--device", "cpu")
    assert refused.returncode == 1 and "int8 is there" in refused.stderr
    refused = run_command("evaluate", "slim-teacher", toy.table, "--precision", "int8", "--device", "cpu")
    assert refused.returncode == 1 and "int8 is there" in refused.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86")
def test_int8_is_refused_where_sums_would_overflow(tmp_path):
    command = [sys.executable, "-m", "stkd_screen", "embed", "-", "-o", tmp_path / "out.parquet"]
    command += ["--precision", "int8", "--device", "cpu"]
    old = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    refused = subprocess.run(command, env=old, input="CCO", text=True, capture_output=True)
    assert refused.returncode == 1 and "no instructions for int8" in refused.stderr


@pytest.mark.parametrize("name", ["bfloat16", int8_case("int8")])
def test_predictions_of_the_shipped_weights_move_by_less_than_a_tenth_of_their_errors(name):
    exact, rounded = (load("small", "cpu", precision=each).embed(SMILES) for each in ("float32", name))
    assert exact["error"].equals(rounded["error"])
    for column, mae in (("homo_ev", 0.064), ("lumo_ev", 0.069), ("gap_ev", 0.087)):
        moved = (exact[column] - rounded[column]).abs()
        assert 0 < moved.mean() < 0.1 * mae
    vectors = [np.stack(frame["embedding"].drop_nulls().to_numpy()) for frame in (exact, rounded)]
    one, other = (each.astype(np.float32) for each in vectors)
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.998


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


def test_the_commands_hand_it_on(toy, run_command, tmp_path, monkeypatch):
    monkeypatch.setitem(MATMUL_SIDE, "cpu", 64)  # minutes in bfloat16 where a processor lacks it
    library = tmp_path / "library.smi"
    library.write_text("\n".join(SMILES))
    errors = {}
    for name in ("float32", "bfloat16", *["int8"] * int8_products_are_exact()):
        given = ("--precision", name, "--device", "cpu")
        bench = ("bench", "--library", library, "--model", toy.weights, "--molecules", 5, "--repeats", 1)
        assert json.loads(run_command(*bench, "--json", *given).stdout)["dtype"] == name
        measured = json.loads(run_command("evaluate", toy.weights, toy.table, "--json", *given).stdout)
        errors[name] = measured["test"]["toy.weight"]["mae"]
        if name == "int8":
            continue
        train = ("train", toy.table, "--preset", "tiny", "--epochs", 1, "-o", tmp_path / name)
        for target in TARGETS:
            train += ("--target", target)
        assert run_command(*train, *given).returncode == 0
        assert load_weights(tmp_path / name).training["options"]["precision"] == name
    for name in errors.keys() - {"float32"}:
        assert 0 < abs(errors["float32"] - errors[name]) < 0.05 * errors["float32"]


def test_training_finds_out_what_auto_is(toy):
    data = read_labelled([toy.table], toy.columns)
    trainer = StudentTrainer(data, replace(TOY_TRAINING, precision="auto"))
    assert trainer.config.precision == choose_precision("auto", CPU)
    with pytest.raises(StkdError, match="unknown precision 'half'"):
        StudentTrainer(data, replace(TOY_TRAINING, precision="half"))
