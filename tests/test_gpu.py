"""What only a CUDA device can show: make gpu."""

import numpy as np
import pytest
import torch

from stkd_screen import load
from stkd_screen.speed.measure import measure

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SMILES = [f"{'C' * k}{end}" for k in range(1, 60) for end in ("O", "N", "C(=O)O", "c1ccccc1", "C1CC1")]


@pytest.fixture(params=["toy", "small"])
def model(request, toy):
    """Weights with positions, and such as read pairs of atoms, with a column that they predict."""
    return (toy.weights, "weight_ev") if request.param == "toy" else ("small", "gap_ev")


@pytest.mark.parametrize("compile", [False, True])
def test_cuda_agrees_with_cpu(model, compile):
    weights, column = model
    cpu = load(weights, device="cpu", precision="float32").embed(SMILES)
    cuda = load(weights, device="cuda", compile=compile).embed(SMILES)
    difference = np.abs(cpu[column].to_numpy() - cuda[column].to_numpy())
    assert difference.max() < 0.02 * cpu[column].std()  # bfloat16 holds three digits
    assert cpu["error"].equals(cuda["error"])


def test_no_graph_is_compiled_anew_over_a_mixed_library(model):
    encoder = load(model[0], device="cuda", compile=True)
    encoder.embed(SMILES)
    with torch._dynamo.config.patch(error_on_recompile=True):
        encoder.embed([*SMILES[::-1], "CC.CC", "C1CC", "c1ccc2ccccc2c1"])


def test_bench_measures_a_gpu(toy, tmp_path):
    (tmp_path / "library.smi").write_text("\n".join(SMILES))
    speed = measure([tmp_path / "library.smi"], toy.weights, "cuda", molecules=5 * len(SMILES), repeats=2)
    assert (speed.device, speed.dtype) == ("cuda", "bfloat16")
    assert speed.machine["gpu"] == torch.cuda.get_device_name()
    assert speed.peak_gpu_memory_mb > 0 and speed.startup_seconds["first_forward"] > 0
    assert all(stage.seconds > 0 for stage in speed.stages.values())
    assert 0 < speed.matmul_share < 1
