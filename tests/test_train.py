"""Training: it learns, it resumes bit for bit, and it says what is wrong with the data."""

import bz2
import gzip
import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TOY_TRAINING
from rich.console import Console

from stkd_screen.cli.display import kinds_table, metrics_table
from stkd_screen.errors import StkdError, TrainingError
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.smiles.tokens import MAX_ATOMS, atom_types, random_positions
from stkd_screen.student import PRESETS
from stkd_screen.targets import Target
from stkd_screen.teach.checkpoint import write_checkpoint
from stkd_screen.teach.coverage import label_coverage
from stkd_screen.teach.distill import DistillConfig
from stkd_screen.teach.evaluate import evaluate_model, predict, predictions, split_metrics
from stkd_screen.teach.losses import task_loss
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.targets import HARTREE_IN_EV, TargetColumn
from stkd_screen.teach.train import StudentTrainer, TrainConfig, train
from stkd_screen.teach.trainer import Trainer
from stkd_screen.weights import load_weights


def measure(weights, data, split):
    def predicted(rows):
        return predict(weights.student, data.molecules, rows)

    answers = predictions(predicted, weights.targets, data, [split])
    return evaluate_model(answers, weights.targets, data, [split])[split]


def test_training_beats_the_mean_by_far(toy):
    weights = load_weights(toy.weights)
    data = read_labelled([toy.table], toy.columns)
    metrics = measure(weights, data, "test")
    assert metrics["toy.weight"]["r2"] > 0.8
    assert metrics["toy.polar"]["r2"] > 0.5
    assert metrics["other.rings"]["n"] < metrics["toy.weight"]["n"]


def test_stored_valid_metrics_are_those_of_the_stored_weights(toy):
    weights = load_weights(toy.weights)
    data = read_labelled([toy.table], toy.columns)
    measured = measure(weights, data, "valid")
    for name, stored in weights.metrics["valid"].items():
        assert measured[name] == pytest.approx(stored, rel=1e-5)


class Killed(Exception):
    pass


def kill_after(seconds_or_steps):
    """A report that stops the run at the first checkpoint from a given step on."""

    def report(progress):
        if progress.step >= seconds_or_steps:
            raise Killed

    return report


def stop_at(step, write):
    """A writer of checkpoints that dies after the one of that step."""

    def write_and_die(path, identity, state):
        write(path, identity, state)
        if state["counters"]["step"] == step:
            raise Killed

    return write_and_die


@pytest.mark.parametrize(
    ("random_orders", "change", "steps"),
    [(0.0, {}, 17), (0.5, {"dropout": 0.1}, 17), (0.0, {"surroundings": True}, 9)],
)
def test_a_killed_run_resumes_to_the_same_bits(toy, tmp_path, monkeypatch, random_orders, change, steps):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], **change))
    # Checkpoints in the middle of epochs, too.
    monkeypatch.setattr(
        Trainer, "evaluation_is_due", lambda self: self.step % 7 == 0 or self.step == 5 * steps
    )
    config = replace(TOY_TRAINING, epochs=5, random_orders=random_orders)
    data = read_labelled([toy.table], toy.columns)
    assert len(StudentTrainer(data, config).epoch_batches(0)) == steps
    unbroken = train(data, config, tmp_path / "unbroken")

    for step in (7, 35, 5 * steps):  # the last one, too
        with pytest.raises(Killed):
            train(data, config, tmp_path / "broken", kill_after(step))
    assert (tmp_path / "broken" / "checkpoint.pt").is_file()
    resumed = train(data, config, tmp_path / "broken")

    for name, tensor in unbroken.student.state_dict().items():
        assert torch.equal(tensor, resumed.student.state_dict()[name]), name
    assert unbroken.metrics == resumed.metrics
    assert not (tmp_path / "broken" / "checkpoint.pt").exists()


def test_random_orders_are_refused_where_tokens_have_no_positions(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], surroundings=True))
    data = read_labelled([toy.table], toy.columns)
    with pytest.raises(TrainingError, match="no positions"):
        train(data, replace(TOY_TRAINING, random_orders=0.5), tmp_path)


def test_a_run_does_not_go_on_as_another_student(toy, tmp_path, monkeypatch):
    """A preset that has changed since gives weights of the same shapes."""
    tiny = replace(PRESETS["tiny"], surroundings=True)
    monkeypatch.setitem(PRESETS, "tiny", tiny)
    data = start_a_run(toy, tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", replace(tiny, late_environments=True))
    with pytest.raises(TrainingError, match=r"a run with other student\.late_environments;"):
        train(data, TOY_TRAINING, tmp_path)


def start_a_run(toy, folder, config=TOY_TRAINING, columns=None, data=None):
    columns = columns or toy.columns
    data = data or read_labelled([toy.table], columns)
    with pytest.raises(Killed):
        train(data, replace(config, epochs=2), folder, kill_after(1))
    return data


def test_a_checkpoint_of_other_options_is_refused(toy, tmp_path):
    data = start_a_run(toy, tmp_path)
    with pytest.raises(TrainingError, match="other learning_rate"):
        train(data, replace(TOY_TRAINING, learning_rate=1e-4), tmp_path)


def test_a_checkpoint_of_another_split_of_the_same_file_is_refused(toy, tmp_path):
    data = start_a_run(toy, tmp_path)
    exchanged = replace(data, split=np.choose(data.split, [2, 1, 0]).astype(data.split.dtype))
    with pytest.raises(TrainingError, match="other data"):
        train(exchanged, TOY_TRAINING, tmp_path)


def test_finished_weights_are_replaced_only_when_told(toy, tmp_path):
    config = replace(TOY_TRAINING, epochs=1)
    data = read_labelled([toy.table], toy.columns)
    train(data, config, tmp_path)
    with pytest.raises(TrainingError, match="holds finished weights.*--restart"):
        train(data, config, tmp_path)
    train(data, config, tmp_path, restart=True)


@pytest.mark.parametrize("kind", [TrainConfig, DistillConfig])
def test_a_preset_brings_its_recipe_and_options_go_before_it(kind):
    large = kind.of("large", batch_size=1024)
    assert (large.batch_size, large.learning_rate) == (1024, 3e-4)
    assert kind.of("paper").weight_decay == 1e-5
    assert kind.of("small") == kind(preset="small")


def test_a_folder_that_cannot_be_written_is_named_before_the_first_step(toy, tmp_path):
    (tmp_path / "file").write_text("")
    data = read_labelled([toy.table], toy.columns)
    with pytest.raises(TrainingError, match="cannot be written"):
        train(data, TOY_TRAINING, tmp_path / "file" / "weights")


def test_a_run_may_be_made_longer_when_it_goes_on(toy, tmp_path):
    data = start_a_run(toy, tmp_path)
    assert train(data, replace(TOY_TRAINING, epochs=3), tmp_path).training["epochs"] == 3


def test_a_run_may_be_made_shorter_when_it_goes_on(toy, tmp_path, monkeypatch):
    """Even if it was killed beyond its new end, before its first evaluation."""
    data, config = read_labelled([toy.table], toy.columns), replace(TOY_TRAINING, epochs=5)
    with monkeypatch.context() as patch:
        patch.setattr("stkd_screen.teach.loop.CHECKPOINT_SECONDS", -1)  # a checkpoint after each step
        patch.setattr(Trainer, "evaluation_is_due", lambda self: False)
        patch.setattr("stkd_screen.teach.loop.write_checkpoint", stop_at(20, write_checkpoint))
        with pytest.raises(Killed):
            train(data, config, tmp_path)
    weights = train(data, replace(config, epochs=1), tmp_path)
    assert weights.training["steps"] == 20 and weights.metrics["valid"]


@pytest.mark.parametrize("killed_at", [None, 50, 90])
def test_max_minutes_becomes_a_number_of_steps(toy, tmp_path, monkeypatch, killed_at):
    """The budget holds, also for a run that was killed before or after it was turned into steps."""
    clock = iter(np.arange(0, 10_000, 0.1))  # each look at the clock is a tenth of a second later
    monkeypatch.setattr("stkd_screen.teach.loop.time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(Trainer, "evaluation_is_due", lambda self: self.step in (50, 90, self.total_steps))
    data = read_labelled([toy.table], toy.columns)
    config = replace(TOY_TRAINING, epochs=100_000, max_minutes=0.5)
    if killed_at:
        with pytest.raises(Killed):
            train(data, config, tmp_path, kill_after(killed_at))
    seen = []
    train(data, config, tmp_path, seen.append)
    # Half a minute is 300 steps of a tenth of a second; a share of them is kept for evaluations.
    assert 260 <= seen[-1].step == seen[-1].total_steps <= 300
    assert max(progress.seconds_left for progress in seen) <= 30  # before the speed is measured, too


def test_the_card_holds_hash_errors_and_data(toy):
    card = (toy.weights / "README.md").read_text(encoding="utf-8")
    weights = load_weights(toy.weights)
    assert weights.sha256 in card
    for split in ("valid", "test"):
        mae = weights.metrics[split]["toy.weight"]["mae"]
        assert f"MAE {mae:.4f}" in card


def test_task_loss_by_hand():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 2.0]])
    target = torch.tensor([[0.0, float("nan")], [2.5, 0.5]])
    # Molecule 0: |1 - 0|; molecule 1: mean of 0.5 and 1.5.
    assert task_loss(prediction, target, []).item() == pytest.approx((1.0 + 1.0) / 2)


def test_task_loss_has_no_gradient_for_missing_targets():
    prediction = torch.zeros(2, 2, requires_grad=True)
    task_loss(prediction, torch.tensor([[1.0, float("nan")], [float("nan"), 1.0]]), []).backward()
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


def test_repeated_rows_stay_on_one_side_of_the_split(tmp_path):
    frame = pl.DataFrame({"smiles": [f"{'C' * k}O" for k in range(1, 200)] * 2}).with_columns(y=1.0)
    frame.write_csv(tmp_path / "t.csv")
    split = read_labelled([tmp_path / "t.csv"], [TargetColumn.parse("a.y=y:eV")]).split
    assert (split[:199] == split[199:]).all() and set(split) == {0, 1, 2}


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        ("smiles,y\nC,1\n", "a.z=z:eV", "none of the target columns z"),
        ("molecule,y\nC,1\n", "a.y=y:eV", "--smiles-column"),
        ("smiles,y\n", "a.y=y:eV", "no usable row.*there are no rows"),
        ("", "a.y=y:eV", "is empty"),
        ("smiles,y\nC1C,1\n", "a.y=y:eV", "no usable row.*unclosed ring bond 1"),
        ("smiles,y\nC,high\n", "a.y=y:eV", "column 'y': 1 of 1 rows hold no number, the first row 1: 'high'"),
        ("smiles,y\nC,1\nCC,>5\nCC,n/a\n", "a.y=y:eV", "2 of 3 rows hold no number, the first row 2: '>5'"),
        ("smiles,y,split\nC,1,training\n", "a.y=y:eV", r"holds \['training'\]"),
        ("smiles,y\nC,1\n", "y:eV", "not of the form LEVEL.NAME=COLUMN:UNIT"),
    ],
)
def test_bad_tables_get_fact_place_and_fix(tmp_path, rows, target, message):
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(StkdError, match=message):
        read_labelled([tmp_path / "t.csv"], [TargetColumn.parse(target)])


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [b"1", b"2"]])
def test_a_column_that_cannot_hold_numbers_is_named(tmp_path, values):
    pl.DataFrame({"smiles": ["C", "CC"], "y": values}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(TrainingError, match=r"column 'y' holds (List|Binary).*, no numbers"):
        read_labelled([tmp_path / "t.parquet"], [TargetColumn.parse("a.y=y:eV")])


def test_a_table_written_in_kekule_form_covers_aromatic_atoms_that_the_start_can_read(tmp_path):
    (tmp_path / "t.csv").write_text("smiles,y\nC1=CC=CC=C1O,1\nCC(C)C=O,2\n")
    columns = [TargetColumn.parse("a.y=y:eV")]
    data = read_labelled([tmp_path / "t.csv"], columns, graphs=True)
    readable = atom_types(pretransform(*pack_smiles(["c1ccccc1", "c1cc[nH]c1"])))
    rows, targets = np.arange(2), [Target("y", "a", "eV", 0.0, 1.0)]
    written = set(atom_types(data.molecules).tolist())
    carbon_h = set(atom_types(pretransform(*pack_smiles(["c1ccccc1"]))).tolist())
    assert set(label_coverage(data, rows, targets).atom_types["a"].tolist()) == written
    assert set(label_coverage(data, rows, targets, readable).atom_types["a"].tolist()) == written | carbon_h
    aliphatic = label_coverage(data, rows[1:], targets, readable)
    assert not carbon_h & set(aliphatic.atom_types["a"].tolist()), "its CH is no aromatic one"


def test_a_constant_target_is_refused(toy, tmp_path):
    frame = pl.read_csv(toy.table).with_columns(heavy=pl.lit(1.0))
    frame.write_csv(tmp_path / "t.csv")
    columns = [TargetColumn.parse("toy.weight=heavy:eV")]
    with pytest.raises(TrainingError, match="at least two different"):
        train(read_labelled([tmp_path / "t.csv"], columns), TOY_TRAINING, tmp_path / "w")


def test_a_split_column_that_is_named_must_exist(toy):
    with pytest.raises(TrainingError, match="no column 'fold'.*--split-column"):
        read_labelled([toy.table], toy.columns, split_column="fold")


@pytest.mark.parametrize(
    ("targets", "message"),
    [(["a.y=y:eV", "a.y=z:eV"], "target a.y is named twice"), (["a.id=y:none"], "'id' is a column of every")],
)
def test_targets_that_would_overwrite_each_other_are_refused(tmp_path, targets, message):
    with pytest.raises(TrainingError, match=message):
        read_labelled([tmp_path / "t.csv"], [TargetColumn.parse(text) for text in targets])


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.bz2", "t.tsv", "t.parquet"])
def test_tables_of_every_kind_read_alike(toy, tmp_path, name):
    frame, path = pl.read_csv(toy.table), tmp_path / name
    if name.endswith("parquet"):
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
        path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(text))
    read = read_labelled([path], toy.columns)
    assert read.fingerprint() == read_labelled([toy.table], toy.columns).fingerprint()


def test_a_table_from_a_spreadsheet_is_split_at_semicolons(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffname;SMILES;y\nA;CC;1.5\nB;CCO;2\n", encoding="utf-8")
    data = read_labelled([tmp_path / "t.csv"], [TargetColumn.parse("a.y=y:eV")])
    assert data.targets[:, 0].tolist() == [1.5, 2.0]


def test_the_smiles_column_may_be_named_by_number(tmp_path):
    pl.DataFrame({"y": [1.0, 2.0], "molecule": ["CC", "CCO"]}).write_csv(tmp_path / "t.csv")
    data = read_labelled([tmp_path / "t.csv"], [TargetColumn.parse("a.y=y:eV")], smiles_column="2")
    assert np.diff(data.molecules.atom_offsets).tolist() == [2, 3]


def test_what_follows_the_smiles_is_no_part_of_it(tmp_path):
    pl.DataFrame({"smiles": [" CC |$;$|", "CCO "], "y": [1.0, 2.0]}).write_csv(tmp_path / "t.csv")
    data = read_labelled([tmp_path / "t.csv"], [TargetColumn.parse("a.y=y:eV")])
    assert np.diff(data.molecules.atom_offsets).tolist() == [2, 3]


def test_r2_of_labels_that_do_not_differ_is_not_shown():
    target = Target("y", "my", "eV", 0.0, 1.0)
    one = {"test": split_metrics(np.array([[0.5]]), np.array([[0.4]]), [target])}
    assert np.isnan(one["test"]["my.y"]["r2"]) and one["test"]["my.y"]["mae"] == pytest.approx(0.1)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(metrics_table(one, [target]))
    assert "0.1000" in console.export_text() and "nan" not in console.export_text()


def test_kinds_fit_a_terminal_of_80_columns():
    target = Target("gap", "pcqm", "eV", 0.0, 1.0)
    kind = "charges that cancel between neighbours"
    measures = {"mae": 0.2, "rmse": 0.3, "r2": 0.9, "covered": 0.875, "n": 20_137}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(kinds_table({kind: {"pcqm.gap": measures}}, [target], "test"))
    words = console.export_text().split()
    assert words[:2] == ["target", "of"] and "molecules" in words
    assert {*kind.split(), "pcqm.gap", "0.2000", "87.5%", "20,137"} <= set(words), "nothing is cut off"


def test_what_is_empty_may_be_in_quotes(tmp_path):
    (tmp_path / "x.csv").write_text('"name";"smiles";"y, in eV"\n"a";"CC";"1.5"\n"b";"CCC";""\n"c";"CCCC";\n')
    data = read_labelled([tmp_path / "x.csv"], [TargetColumn.parse("a.y=y, in eV:eV")])
    assert data.targets[:, 0].tolist() == [1.5]


def test_a_row_with_too_many_fields_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("smiles,y,note\nCC,1,\nCCC,2,low,cheap\n")
    with pytest.raises(TrainingError, match=r"x\.csv line 3: more fields than the header has"):
        read_labelled([tmp_path / "x.csv"], [TargetColumn.parse("a.y=y:eV")])
