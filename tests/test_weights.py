"""Weights folders: strict, hashed, never unpickled."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import TOY_TRAINING
from safetensors.torch import load_file, save_file

from stkd_screen.errors import WeightsError
from stkd_screen.files import file_sha256
from stkd_screen.targets import in_units
from stkd_screen.teach.evaluate import predict, split_metrics
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.train import train
from stkd_screen.weights import find_weights, load_weights, save_weights, shipped_names


@pytest.fixture
def copy(toy, tmp_path):
    shutil.copytree(toy.weights, tmp_path / "copy")
    return tmp_path / "copy"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saved_weights_load_to_the_same_model(toy, tmp_path):
    weights = load_weights(toy.weights)
    save_weights(weights, tmp_path / "again")
    again = load_weights(tmp_path / "again")
    assert again.sha256 == weights.sha256
    assert again.targets == weights.targets and again.levels == ["toy", "other"]
    assert {level: codes.tolist() for level, codes in again.atom_types.items()} == {
        level: codes.tolist() for level, codes in weights.atom_types.items()
    }
    for name, tensor in weights.student.state_dict().items():
        assert torch.equal(tensor, again.student.state_dict()[name])


def test_half_weights_are_half_as_large_and_what_their_card_says(toy, tmp_path):
    data = read_labelled([toy.table], toy.columns)
    half = train(data, replace(TOY_TRAINING, half=True), tmp_path / "half")
    whole = load_weights(toy.weights)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    names = [name for name, _ in whole.student.named_parameters()]
    assert {stored[name].dtype for name in names} == {torch.float16}
    for name in names:
        assert torch.equal(half.student.get_parameter(name), whole.student.get_parameter(name).half().float())
    for split, measures in half.metrics.items():
        rows = data.rows(split)
        predicted = in_units(predict(half.student, data.molecules, rows), half.targets)
        for target, found in split_metrics(predicted, data.targets[rows], half.targets).items():
            assert found == pytest.approx(measures[target], rel=1e-6)


def test_what_float16_cannot_hold_is_not_stored_as_infinity(toy, tmp_path):
    weights = load_weights(toy.weights)
    with torch.no_grad():
        weights.student.readout[0].weight[0, 0] = 7e4
    with pytest.raises(WeightsError, match=r"readout\.0\.weight has values that float16 cannot hold"):
        save_weights(weights, tmp_path / "half", half=True)


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(WeightsError, match="no weights at 'no-such-model'.*shipped models: "):
        load_weights("no-such-model")


def test_an_altered_file_is_refused(copy):
    file = copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256.*altered or cut short"):
        load_weights(copy)


def test_a_missing_file_is_named(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing"):
        load_weights(copy)


def test_tensors_that_do_not_fit_are_named(copy):
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors["norm.weight"]
    save_file(tensors, file)
    edit_config(copy, sha256=file_sha256(file))
    with pytest.raises(WeightsError, match=r"(?s)does not fit.*norm\.weight"):
        load_weights(copy)


@pytest.mark.parametrize("key", ["format", "vocabulary"])
def test_other_versions_are_refused(copy, key):
    edit_config(copy, **{key: 999})
    with pytest.raises(WeightsError, match=f"{key} version is 999"):
        load_weights(copy)


def test_a_broken_config_is_named(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        load_weights(copy)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_weights_are_whole_and_documented(name):
    weights = load_weights(name)
    assert weights.metrics["valid"] and weights.training["data"]
    card = (find_weights(name) / "README.md").read_text(encoding="utf-8")
    assert weights.sha256[:12] in card
