"""Training: it learns, it resumes bit for bit, and it says what is wrong with the data."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TOY_TRAINING

from stkd_screen.errors import TrainingError
from stkd_screen.smiles.tokens import MAX_ATOMS, random_positions
from stkd_screen.teach.evaluate import evaluate_weights
from stkd_screen.teach.tables import HARTREE_IN_EV, TargetColumn, read_labelled
from stkd_screen.teach.train import _Run, masked_l1, train
from stkd_screen.weights import load_weights


def test_training_beats_the_mean_by_far(toy):
    weights = load_weights(toy.weights)
    data = read_labelled([toy.table], toy.columns)
    metrics = evaluate_weights(weights, data, toy.columns, ["test"], torch.device("cpu"))["test"]
    assert metrics["toy.weight"]["r2"] > 0.8
    assert metrics["toy.polar"]["r2"] > 0.5
    assert metrics["other.rings"]["n"] < metrics["toy.weight"]["n"]


def test_stored_valid_metrics_are_those_of_the_stored_weights(toy):
    weights = load_weights(toy.weights)
    data = read_labelled([toy.table], toy.columns)
    measured = evaluate_weights(weights, data, toy.columns, ["valid"], torch.device("cpu"))["valid"]
    for name, stored in weights.metrics["valid"].items():
        assert measured[name] == pytest.approx(stored, rel=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("random_orders", [0.0, 0.5])
def test_a_killed_run_resumes_to_the_same_bits(toy, tmp_path, random_orders):
    config = replace(TOY_TRAINING, epochs=6, random_orders=random_orders)
    data = read_labelled([toy.table], toy.columns)
    unbroken = train(data, toy.columns, config, tmp_path / "unbroken")

    def kill_in_the_middle(progress):
        if progress.valid is not None and progress.epoch >= 3:
            raise Killed

    with pytest.raises(Killed):
        train(data, toy.columns, config, tmp_path / "broken", kill_in_the_middle)
    assert (tmp_path / "broken" / "checkpoint.pt").is_file()
    resumed = train(data, toy.columns, config, tmp_path / "broken")

    for name, tensor in unbroken.student.state_dict().items():
        assert torch.equal(tensor, resumed.student.state_dict()[name]), name
    assert unbroken.metrics == resumed.metrics
    assert not (tmp_path / "broken" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_run_is_refused(toy, tmp_path):
    data = read_labelled([toy.table], toy.columns)
    run = _Run(data, toy.columns, TOY_TRAINING, tmp_path)
    run.save(tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="other learning_rate"):
        train(data, toy.columns, replace(TOY_TRAINING, learning_rate=1e-4), tmp_path)


def test_a_run_may_be_made_longer_when_it_goes_on(toy, tmp_path):
    data = read_labelled([toy.table], toy.columns)
    run = _Run(data, toy.columns, replace(TOY_TRAINING, epochs=1), tmp_path)
    run.save(tmp_path / "checkpoint.pt")
    weights = train(data, toy.columns, replace(TOY_TRAINING, epochs=2), tmp_path)
    assert weights.training["epochs"] == 2


def test_max_minutes_becomes_a_number_of_steps(toy, tmp_path):
    data = read_labelled([toy.table], toy.columns)
    config = replace(TOY_TRAINING, epochs=100_000, max_minutes=0.02, batch_size=8)
    seen = []
    train(data, toy.columns, config, tmp_path, seen.append)
    assert seen[-1].step == seen[-1].total_steps < 100_000 * 10


def test_masked_l1_by_hand():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 2.0]])
    target = torch.tensor([[0.0, float("nan")], [2.5, 0.5]])
    # Molecule 0: |1 - 0|; molecule 1: mean of 0.5 and 1.5; over a nominal batch of 4.
    assert masked_l1(prediction, target, 4).item() == pytest.approx((1.0 + 1.0) / 4)


def test_masked_l1_has_no_gradient_for_missing_targets():
    prediction = torch.zeros(2, 2, requires_grad=True)
    masked_l1(prediction, torch.tensor([[1.0, float("nan")], [float("nan"), 1.0]]), 2).backward()
    assert prediction.grad.tolist() == [[-0.5, 0.0], [0.0, -0.5]]


def test_random_positions_keep_order_or_shuffle_or_spread():
    offsets = np.array([0, 10, 30, 286])
    assert random_positions(offsets, 0.0, 0.0, 1).tolist() == [*range(10), *range(20), *range(256)]
    shuffled = random_positions(offsets, 1.0, 0.0, 1)
    assert sorted(shuffled[:10]) == list(range(10)) and shuffled[:10].tolist() != list(range(10))
    spread = random_positions(offsets, 0.0, 1.0, 1)
    for first, last in pairwise(offsets):
        assert (np.diff(spread[first:last]) > 0).all() and spread[first:last].max() < MAX_ATOMS


def test_spread_positions_train_the_whole_table_evenly():
    offsets = np.arange(0, 9 * 20_001, 9)
    counts = np.bincount(random_positions(offsets, 0.0, 1.0, 5), minlength=MAX_ATOMS)
    expected = 20_000 * 9 / MAX_ATOMS
    assert (abs(counts - expected) < 6 * expected**0.5).all()


def test_hartree_become_ev(tmp_path):
    pl.DataFrame({"smiles": ["C", "CC", "CCC"], "g": [0.5, 0.4, None]}).write_csv(tmp_path / "t.csv")
    data = read_labelled([tmp_path / "t.csv"], [TargetColumn.parse("qm9.gap=g:hartree")])
    np.testing.assert_allclose(data.targets[:, 0], [0.5 * HARTREE_IN_EV, 0.4 * HARTREE_IN_EV], rtol=1e-6)
    assert data.left_out == [f"1 rows without any target, first {tmp_path / 't.csv'} row 3"]


def test_repeated_rows_stay_on_one_side_of_a_random_split(tmp_path):
    frame = pl.DataFrame({"smiles": [f"{'C' * k}O" for k in range(1, 200)] * 2}).with_columns(y=1.0)
    frame.write_csv(tmp_path / "t.csv")
    split = read_labelled([tmp_path / "t.csv"], [TargetColumn.parse("a.y=y:eV")]).split
    assert (split[:199] == split[199:]).all() and set(split) == {0, 1, 2}


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        ("smiles,y\nC,1\n", "a.z=z:eV", "none of the target columns z"),
        ("smi,y\nC,1\n", "a.y=y:eV", "no column 'smiles'.*--smiles-column"),
        ("smiles,y\nC1C,1\n", "a.y=y:eV", "no usable row.*unclosed ring bond 1"),
        ("smiles,y\nC,high\n", "a.y=y:eV", "column 'y' is not numeric"),
        ("smiles,y,split\nC,1,training\n", "a.y=y:eV", r"holds \['training'\]"),
        ("smiles,y\nC,1\n", "y:eV", "not of the form LEVEL.NAME=COLUMN:UNIT"),
    ],
)
def test_bad_tables_get_fact_place_and_fix(tmp_path, rows, target, message):
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(TrainingError, match=message):
        read_labelled([tmp_path / "t.csv"], [TargetColumn.parse(target)])


def test_a_constant_target_is_refused(toy, tmp_path):
    frame = pl.read_csv(toy.table).with_columns(heavy=pl.lit(1.0))
    frame.write_csv(tmp_path / "t.csv")
    columns = [TargetColumn.parse("toy.weight=heavy:eV")]
    with pytest.raises(TrainingError, match="at least two different"):
        train(read_labelled([tmp_path / "t.csv"], columns), columns, TOY_TRAINING, tmp_path / "w")
