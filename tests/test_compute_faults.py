"""A machine that fails: too little memory, no compiler, a GPU out of order, a model that gives NaN."""

import time
import warnings
from functools import partial
from threading import Lock

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from test_faults import documented

import stkd_screen.encoder as encoder_module
from stkd_screen import load
from stkd_screen.embed import embed
from stkd_screen.encoder import Encoder, choose_device
from stkd_screen.errors import StkdError, StkdWarning
from stkd_screen.output import NOT_FINITE, OutputOptions
from stkd_screen.records import RecordReader
from stkd_screen.weights import load_weights

SMILES = [f"{'C' * (k % 30 + 1)}{'ON'[k % 2]}" for k in range(600)]


@pytest.fixture
def encoder(toy):
    return load(toy.weights, device="cpu", precision="float32")


CUDA_IS_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def cramped(forward, most_tokens, asked, full=CUDA_IS_FULL):
    """A forward pass on a device that holds so many tokens."""

    def run(tokens, n_atoms, pairs):
        asked.append(tokens.shape[0] * tokens.shape[1])
        if asked[-1] > most_tokens:
            raise full
        return forward(tokens, n_atoms, pairs)

    return run


@pytest.mark.parametrize("most_tokens", [100, 300, 700])
def test_out_of_memory_halves_the_batches_and_goes_on(encoder, monkeypatch, most_tokens):
    whole = encoder.embed(SMILES, embedding_dtype="float32")
    asked = []
    monkeypatch.setattr(encoder.forward, "_run", cramped(encoder.forward._run, most_tokens, asked))
    with pytest.warns(StkdWarning) as told:
        assert_frame_equal(encoder.embed(SMILES, embedding_dtype="float32"), whole, abs_tol=1e-4)
    too_much = sum(tokens > most_tokens for tokens in asked)
    # Each halving tells once, and what was learned is kept. Batches begun before it may be too large as well.
    assert len(told) <= too_much and len(told) <= 6
    assert documented("GPU out of memory", f"warning: {told[-1].message}".replace("cpu is", "cuda:0 is"), 0)
    del asked[:]
    with warnings.catch_warnings():
        warnings.simplefilter("error", StkdWarning)
        encoder.embed(SMILES)
    assert max(asked) <= most_tokens


def test_a_batch_that_fits_alone_waits_for_the_others_and_is_not_halved(encoder, monkeypatch):
    """Threads whose batches do not fit beside each other."""
    whole = encoder.embed(SMILES, embedding_dtype="float32")
    forward, lock, taken, refused = encoder.forward._run, Lock(), [0], []

    def run(tokens, n_atoms, pairs):
        size = tokens.shape[0] * tokens.shape[1]
        with lock:
            if taken[0] + size > 400:
                refused.append(size)
                raise CUDA_IS_FULL
            taken[0] += size
        try:
            time.sleep(0.002)
            return forward(tokens, n_atoms, pairs)
        finally:
            with lock:
                taken[0] -= size

    monkeypatch.setattr(encoder.forward, "_run", run)
    monkeypatch.setattr(encoder.forward, "_threads", 4)
    monkeypatch.setattr(encoder.forward, "batch_tokens", 400)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StkdWarning)
        assert_frame_equal(encoder.embed(SMILES, embedding_dtype="float32"), whole, abs_tol=1e-4)
    assert len(refused) > 3 and encoder.forward.batch_tokens == 400


def test_out_of_memory_on_a_cpu_halves_the_batches_too(encoder, monkeypatch):
    with pytest.raises(RuntimeError) as told:  # in torch's own words
        torch.empty(2**60)
    for full in (told.value, MemoryError()):
        with monkeypatch.context() as patch:
            patch.setattr(encoder.forward, "batch_tokens", 1024)
            patch.setattr(encoder.forward, "_run", cramped(encoder.forward._run, 300, [], full))
            with pytest.warns(StkdWarning):
                assert encoder.embed(SMILES)["error"].null_count() == len(SMILES)


def test_out_of_memory_at_one_molecule_is_an_error(encoder, monkeypatch):
    monkeypatch.setattr(encoder.forward, "_run", cramped(encoder.forward._run, 10, []))
    with pytest.raises(StkdError) as fault:
        encoder.embed(["C" * 20])
    assert documented(
        "GPU out of memory at a single molecule", f"error: {fault.value}".replace("cpu is", "cuda:0 is"), 1
    )


def test_no_compiler_is_told_once_and_the_student_runs_as_it_is(toy, encoder, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    compiled = Encoder(load_weights(toy.weights), "cpu", compile=True, precision="float32")
    with pytest.warns(StkdWarning) as told:
        assert_frame_equal(compiled.embed(SMILES[:9]), encoder.embed(SMILES[:9]), abs_tol=1e-4)
    assert len(told) == 1 and documented("no compiler for torch.compile", f"warning: {told[0].message}", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StkdWarning)
        compiled.embed(SMILES[:9])


def test_several_threads_that_lack_a_compiler_are_told_once(toy, encoder, monkeypatch):
    def lacking(*_):
        raise FileNotFoundError("gcc")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=lacking))
    compiled = Encoder(load_weights(toy.weights), "cpu", compile=True, precision="float32", batch_tokens=100)
    monkeypatch.setattr(compiled.forward, "_threads", 4)
    with pytest.warns(StkdWarning) as told:
        assert_frame_equal(compiled.embed(SMILES[:90]), encoder.embed(SMILES[:90]), abs_tol=1e-4)
    assert len(told) == 1


def test_an_error_of_the_model_itself_is_not_taken_for_one_of_the_compiler(encoder, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(encoder.forward, "_run", broken)
    with pytest.raises(ZeroDivisionError):
        encoder.embed(["C"])


def test_a_gpu_that_fails_in_the_middle(encoder, monkeypatch):
    def fail(*_):
        raise torch.AcceleratorError(
            "CUDA error: unspecified launch failure\nCUDA kernel errors might be ..."
        )

    monkeypatch.setattr(encoder.forward, "_run", fail)
    with pytest.raises(StkdError) as fault:
        encoder.embed(["C"])
    assert documented(
        "the GPU fails in the middle", f"error: {fault.value}".replace("cpu failed", "cuda:0 failed"), 1
    )


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one CUDA device, which computes what `result` says: an error to raise, or None."""

    def pretend(result=None, devices=1):
        def ones(*_, **__):
            if result:
                raise result
            return np.ones(1)

        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        monkeypatch.setattr(torch, "ones", ones)

    return pretend


def test_auto_takes_a_gpu_that_works(gpu):
    gpu()
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")


def test_a_gpu_that_does_not_start(gpu):
    gpu(torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nmore"))
    with pytest.warns(StkdWarning) as told:
        assert choose_device("auto") == torch.device("cpu")
    assert documented("a GPU that does not start, `--device auto`", f"warning: {told[0].message}", 0)
    with pytest.raises(StkdError) as fault:
        choose_device("cuda")
    assert documented("a GPU that does not start, `--device cuda`", f"error: {fault.value}", 1)


def test_a_driver_that_is_too_old_is_told(monkeypatch):
    def is_available():
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
            "Please update your GPU driver",
            stacklevel=2,
        )
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(
        StkdError, match="driver on your system is too old .found version 11040..; give cpu or auto"
    ):
        choose_device("cuda")


def test_a_pytorch_without_cuda_on_a_machine_with_a_gpu(gpu, monkeypatch):
    gpu(devices=0)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(encoder_module.os.path, "exists", lambda path: path == "/dev/nvidiactl")
    with pytest.warns(StkdWarning) as told:
        assert choose_device("auto") == torch.device("cpu")
    assert documented("a PyTorch without CUDA", f"warning: {told[0].message}", 0)


@pytest.mark.parametrize("hidden", [True, False])
def test_auto_is_silent_where_there_is_no_gpu_or_it_is_hidden(gpu, monkeypatch, hidden):
    gpu(devices=0)
    monkeypatch.setattr(encoder_module.os.path, "exists", lambda path: hidden)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error", StkdWarning)
        assert choose_device("auto") == torch.device("cpu")


def test_a_device_number_that_is_not_there(gpu):
    gpu(devices=2)
    with pytest.raises(
        StkdError, match="'cuda:2' is not usable .there are 2 CUDA devices, counted from 0.; give cpu"
    ):
        choose_device("cuda:2")


def not_a_number(forward, of):
    """A forward pass that gives NaN for molecules of these numbers of atoms."""

    def run(tokens, n_atoms, pairs):
        states, prediction = forward(tokens, n_atoms, pairs)
        prediction[torch.isin(n_atoms, torch.tensor(of))] = torch.nan
        return states, prediction

    return run


def test_nan_is_an_error_row_and_counted(encoder, tmp_path, monkeypatch):
    (tmp_path / "x.smi").write_text("C\nCC\nCCC\nCC\n")
    monkeypatch.setattr(encoder.forward, "_run", not_a_number(encoder.forward._run, [2]))
    options = OutputOptions().checked(encoder.weights)
    summary = embed(RecordReader([tmp_path / "x.smi"]), encoder, tmp_path / "out.parquet", options)
    assert summary.bad == {NOT_FINITE: 2}
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame["error"].to_list() == [None, NOT_FINITE, None, NOT_FINITE]
    assert frame["embedding"].null_count() == frame["weight_ev"].null_count() == 2
    assert documented("the model gives NaN for a molecule", "", 0)


@pytest.mark.parametrize(
    ("value", "dtype"), [(torch.nan, "float32"), (1e6, "float16"), (-torch.inf, "float32")]
)
def test_an_embedding_that_is_not_finite_as_written_is_an_error_row(encoder, monkeypatch, value, dtype):
    """Also where only float16 cannot hold it; nobody sees an embedding that is not written."""
    forward = encoder.forward._run

    def run(tokens, n_atoms, pairs):
        states, prediction = forward(tokens, n_atoms, pairs)
        states[n_atoms == 2, 0] = value
        return states, prediction

    monkeypatch.setattr(encoder.forward, "_run", run)
    frame = encoder.embed(["C", "CC", "CCC"], embedding_dtype=dtype)
    assert frame["error"].to_list() == [None, NOT_FINITE, None]
    assert frame["embedding"].null_count() == frame["weight_ev"].null_count() == 1
    assert not encoder.embed(["C", "CC", "CCC"], embedding=False)["error"].count()


def test_a_model_that_gives_only_nan_stops_the_run(encoder, tmp_path, monkeypatch):
    (tmp_path / "x.smi").write_text("C\n" * 3000)
    monkeypatch.setattr(encoder.forward, "_run", not_a_number(encoder.forward._run, [1]))
    options = OutputOptions().checked(encoder.weights)
    with pytest.raises(StkdError) as fault:
        embed(RecordReader([tmp_path / "x.smi"]), encoder, tmp_path / "out.parquet", options)
    assert documented("the model gives only NaN", f"error: {fault.value}".replace("on cpu", "on cuda:0"), 1)


def test_a_device_that_begins_to_give_only_nan_stops_the_run(encoder, monkeypatch):
    encoder.embed(["C"])
    monkeypatch.setattr(encoder.forward, "_run", not_a_number(encoder.forward._run, [1]))
    assert encoder.embed(["C"] * 10)["error"].to_list() == [NOT_FINITE] * 10
    with pytest.raises(StkdError, match=r"no finite value for any of 1,000 molecules; try --device cpu"):
        encoder.embed(["C"] * 1000)
