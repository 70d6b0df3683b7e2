"""A tiny teacher, really trained, and tiny students distilled from it: what they learn, how runs go on."""

import csv
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_graphs import labelled

from stkd_screen.cli.training import preset_of
from stkd_screen.errors import TrainingError, WeightsError
from stkd_screen.student import PRESETS
from stkd_screen.targets import in_units
from stkd_screen.teach import loop
from stkd_screen.teach.distill import DistillConfig, Distiller, distill
from stkd_screen.teach.evaluate import predict
from stkd_screen.teach.graphormer import PRESETS as TEACHER_PRESETS
from stkd_screen.teach.labelled import LabelledMolecules, joined
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.teach import TeachConfig, TeacherTrainer, teach
from stkd_screen.teach.teacher import Teacher, load_teacher
from stkd_screen.teach.teacher import predict as predict_as_teacher
from stkd_screen.teach.train import TrainConfig, starting_student, train
from stkd_screen.teach.trainer import Trainer
from stkd_screen.weights import Weights, load_weights

WEIGHT = TargetColumn.parse("toy.weight=heavy:eV")
POLAR = TargetColumn.parse("toy.polar=hetero:eV")
RING = TargetColumn.parse("toy.ring=ring:class")
ENDS = ("C", "N", "O", "F", "C=O")


def smiles_of(sizes: range) -> list[str]:
    """Chains, rings and aromatics, so that Kekulé forms matter."""
    chains = [f"{a}{'C' * k}{b}" for k in sizes for a in ("N", "O") for b in ENDS]
    rings = [f"C1{'C' * k}C1{b}" for k in sizes for b in ENDS]
    aromatics = [f"c1ccccc1{'C' * (k - 1)}{b}" for k in sizes for b in ENDS]
    return chains + rings + aromatics


def value_of(smiles: str, column: TargetColumn) -> float:
    return {
        "weight": float(sum(c.isalpha() for c in smiles)),
        "polar": float(sum(c in "NOF" for c in smiles)),
        "ring": float("1" in smiles),
    }[column.name]


def table(smiles: list[str], columns: list[TargetColumn], known: bool = True) -> LabelledMolecules:
    targets = np.array(
        [[value_of(text, column) if known else math.nan for column in columns] for text in smiles]
    )
    split = np.array([(0, 0, 1, 0, 0, 2, 0)[k % 7] for k in range(len(smiles))])
    return labelled(smiles, targets, split, columns)


@pytest.fixture(scope="module")
def data() -> LabelledMolecules:
    return table(smiles_of(range(1, 5)), [WEIGHT, POLAR])


@pytest.fixture(scope="module")
def unlabelled() -> LabelledMolecules:
    return table([f"S{text}" for text in smiles_of(range(2, 5)) if text[0] in "NO"], [WEIGHT, POLAR], False)


TEACHING = TeachConfig(
    preset="tiny", epochs=18, batch_size=16, learning_rate=8e-3, warmup_steps=10, ema=0.9, seed=1
)
DISTILLING = DistillConfig(
    preset="tiny", epochs=12, batch_size=16, learning_rate=4e-3, warmup_steps=10, ema=0.9, seed=2
)


@pytest.fixture(scope="module", autouse=True)
def rare_evaluations():
    """An evaluation, with its checkpoint and its folder, takes as long as many steps of these models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Trainer, "evaluation_is_due", lambda self: self.step % 24 == 0 or self.step >= self.total_steps
        )
        yield


@pytest.fixture(autouse=True)
def no_curves(teacher_folder, distilled_folder, monkeypatch):
    """Only the models above are drawn: a drawing takes a second."""
    monkeypatch.setattr(loop, "write_curves", lambda folder, history: None)


@pytest.fixture(scope="module")
def teacher_folder(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy-teacher"
    teach(data, TEACHING, folder)
    return folder


@pytest.fixture(scope="module")
def teacher(teacher_folder) -> Teacher:
    return load_teacher(teacher_folder)


@pytest.fixture(scope="module")
def distilled_folder(data, unlabelled, teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy-student"
    distill(joined(data, unlabelled), teacher, DISTILLING, folder)
    return folder


def states(model: Teacher | Weights) -> dict[str, torch.Tensor]:
    return (model.model if isinstance(model, Teacher) else model.student).state_dict()


def assert_bit_equal(one: Teacher | Weights, other: Teacher | Weights) -> None:
    assert states(one).keys() == states(other).keys()
    for name, tensor in states(one).items():
        assert torch.equal(tensor, states(other)[name]), name
    assert one.metrics == other.metrics and one.sha256 == other.sha256


def measured_mae(weights: Weights, data: LabelledMolecules, split: str) -> dict[str, float]:
    """Of the targets that weights and data share, in units."""
    rows = data.rows(split)
    predicted = in_units(predict(weights.student, data.molecules, rows), weights.targets)
    of_data = {column.full_name: k for k, column in enumerate(data.columns)}
    return {
        target.full_name: float(
            np.abs(predicted[:, k] - data.targets[rows, of_data[target.full_name]]).mean()
        )
        for k, target in enumerate(weights.targets)
        if target.full_name in of_data
    }


# They learn


def test_the_teacher_learns(teacher, data):
    assert teacher.metrics["test"]["toy.weight"]["r2"] > 0.6
    assert teacher.metrics["test"]["toy.polar"]["r2"] > 0.7
    assert teacher.metrics["valid"]["toy.weight"]["n"] == 12
    assert teacher.columns == [WEIGHT, POLAR]
    largest = int(data.molecules.heavy_atoms()[data.rows("train")].max())
    assert teacher.coverage.max_heavy_atoms == {"toy": largest}


def test_the_student_learns(distilled_folder, data):
    weights = load_weights(distilled_folder)
    assert weights.metrics["test"]["toy.weight"]["r2"] > 0.5
    assert weights.metrics["test"]["toy.polar"]["r2"] > 0.5
    # Judged by labels alone: the unlabelled molecules do not count.
    assert weights.metrics["test"]["toy.weight"]["n"] == len(data.rows("test"))
    for name, mae in measured_mae(weights, data, "test").items():
        assert mae == pytest.approx(weights.metrics["test"][name]["mae"], rel=1e-5)


def test_every_term_of_the_loss_goes_down(distilled_folder):
    with open(distilled_folder / "curves.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for term in ("feature", "attention", "task", "soft"):
        losses = [float(line[f"loss {term}"]) for line in lines if line[f"loss {term}"]]
        assert 0 < losses[-1] < 0.8 * max(losses), term


def test_the_students_weights_hold_what_it_came_from(distilled_folder, data, unlabelled, teacher):
    weights = load_weights(distilled_folder)
    training = weights.training
    assert training["teacher"]["sha256"] == teacher.sha256
    assert training["teacher"]["metrics"] == teacher.metrics
    assert training["layer_pairs"] == [[2, 1]]
    assert "judge" not in training
    sides = training["molecules"]
    assert sides["train"] == len(data.rows("train")) + len(unlabelled.rows("train"))
    # The projections of the losses are no part of the student.
    assert {name.split(".")[0] for name in states(weights)} == {"table", "layers", "norm", "readout"}
    card = (distilled_folder / "README.md").read_text(encoding="utf-8")
    assert f"Teacher: `toy-teacher`, SHA-256 `{teacher.sha256}`." in card
    assert weights.sha256 in card and "for want of labels" not in card


def test_curves_are_written(teacher_folder, distilled_folder):
    for folder, terms in (
        (teacher_folder, ["task"]),
        (distilled_folder, ["task", "soft", "feature", "attention"]),
    ):
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        with open(folder / "curves.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        steps = [int(line["step"]) for line in lines]
        assert steps[0] == 0 and all(a < b for a, b in pairwise(steps)) and len(steps) > 5
        for name in ["learning_rate", "toy.weight mae", "toy.polar r2", *(f"loss {term}" for term in terms)]:
            assert all(math.isfinite(float(line[name])) for line in lines[1:]), name
        assert float(lines[-1]["toy.weight mae"]) < float(lines[0]["toy.weight mae"])
        assert not (folder / "checkpoint.pt").exists()


def test_the_teacher_stays_as_it_was(teacher_folder, teacher, distilled_folder):
    assert distilled_folder.is_dir()
    for name, tensor in states(load_teacher(teacher_folder)).items():
        assert torch.equal(tensor, states(teacher)[name]), name
    assert not teacher.model.training


# Killed and resumed


class Killed(Exception):
    pass


def kill_at(step):
    def report(progress):
        if progress.step >= step:
            raise Killed

    return report


def kill_in_step(monkeypatch, step: int) -> None:
    """As a power cut would: between checkpoints, with batches prepared ahead."""
    original = Trainer.train_step

    def train_step(self, batch):
        if self.step == step:
            raise Killed
        original(self, batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)


def run_broken(run, folder: Path, monkeypatch, total: int):
    """Killed after a checkpoint in the middle of an epoch, between two, and before the first."""
    for step in (2, 12):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_in_step(patch, step)
            run(folder)
    with pytest.raises(Killed):
        run(folder, kill_at(total - 4))
    assert (folder / "checkpoint.pt").is_file()
    return run(folder)


@pytest.fixture
def frequent_checkpoints(monkeypatch):
    """Evaluations, and so checkpoints, in the middle of epochs."""
    monkeypatch.setattr(
        Trainer, "evaluation_is_due", lambda self: self.step % 5 == 0 or self.step >= self.total_steps
    )
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], dropout=0.1))
    monkeypatch.setitem(TEACHER_PRESETS, "tiny", replace(TEACHER_PRESETS["tiny"], dropout=0.1))


def test_a_killed_teacher_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, frequent_checkpoints):
    config = replace(TEACHING, epochs=2, lkm_gamma=0.02)

    def run(folder, report=lambda progress: None):
        return teach(data, config, folder, report)

    unbroken = run(tmp_path / "unbroken")
    assert unbroken.training["steps"] >= 16
    resumed = run_broken(run, tmp_path / "broken", monkeypatch, unbroken.training["steps"])
    assert_bit_equal(unbroken, resumed)
    # Another seed does not: the comparison can fail.
    other = teach(data, replace(config, seed=5, epochs=1), tmp_path / "other")
    assert any(not torch.equal(tensor, states(other)[name]) for name, tensor in states(unbroken).items())


def test_a_killed_distillation_goes_on_to_the_same_bits(
    data, unlabelled, teacher, tmp_path, monkeypatch, frequent_checkpoints
):
    both = joined(data, unlabelled)
    config = replace(
        DISTILLING,
        epochs=2,
        random_orders=0.5,
        kekule=0.5,
        unlabelled_share=0.25,
        initial_stage=0.3,
        lkm_gamma=0.02,
    )

    def run(folder, report=lambda progress: None):
        return distill(both, teacher, config, folder, report)

    unbroken = run(tmp_path / "unbroken")
    assert unbroken.training["steps"] >= 16
    resumed = run_broken(run, tmp_path / "broken", monkeypatch, unbroken.training["steps"])
    assert_bit_equal(unbroken, resumed)


def test_epochs_differ_in_orders_forms_and_unlabelled_molecules(data, unlabelled, teacher):
    """What the test above resumes is really there."""
    config = replace(DISTILLING, random_orders=0.5, kekule=0.5, unlabelled_share=0.25)
    trainer = Distiller(joined(data, unlabelled), teacher, config)
    trainer.get_ready(lambda note: None)
    assert len(trainer.labelled) == len(data.rows("train"))
    wanted = round(len(trainer.labelled) * 0.25 / 0.75)
    assert 0 < wanted < len(trainer.unlabelled)
    chosen = []
    for epoch in (0, 1, 0):
        rows = np.concatenate(trainer.epoch_batches(epoch))
        assert sorted(rows[rows < len(data.split)]) == data.rows("train").tolist()
        chosen.append(sorted(rows[rows >= len(data.split)]))
        assert len(chosen[-1]) == wanted and set(chosen[-1]) <= set(trainer.unlabelled)
    assert chosen[0] == chosen[2] != chosen[1]
    batches = [[batch.tolist() for batch in trainer.epoch_batches(epoch)] for epoch in (0, 1, 0)]
    assert batches[0] == batches[2] != batches[1]
    aromatic = np.array([len(data.split) - 2])  # c1ccccc1CCCF
    assert data.split[aromatic] == 0  # train
    texts = set()
    for epoch in range(8):
        trainer.begin_epoch(epoch)
        texts.add(trainer.prepare(aromatic)[0].numpy().tobytes())
        trainer.begin_epoch(0)
        first = trainer.prepare(aromatic)[0]
    assert len(texts) > 4
    trainer.begin_epoch(0)
    assert torch.equal(trainer.prepare(aromatic)[0], first)


def start_distilling(data, teacher, folder, **options) -> None:
    with pytest.raises(Killed):
        distill(data, teacher, replace(DISTILLING, epochs=2, **options), folder, kill_at(1))


def test_a_checkpoint_of_another_teacher_is_refused(data, teacher, tmp_path):
    start_distilling(data, teacher, tmp_path)
    with pytest.raises(TrainingError, match="of a run with other teacher; .*--restart"):
        distill(data, replace(teacher, sha256="f" * 64), replace(DISTILLING, epochs=2), tmp_path)


def test_a_checkpoint_of_other_options_data_or_kind_is_refused(data, unlabelled, teacher, tmp_path):
    start_distilling(data, teacher, tmp_path)
    for change in ({"beta": 3.0}, {"layer_pairs": ((1, 1),)}, {"kekule": 0.5}):
        with pytest.raises(TrainingError, match=f"other {next(iter(change))};"):
            distill(data, teacher, replace(DISTILLING, epochs=2, **change), tmp_path)
    with pytest.raises(TrainingError, match="other data;"):
        distill(joined(data, unlabelled), teacher, replace(DISTILLING, epochs=2), tmp_path)
    with pytest.raises(TrainingError, match="kind"):
        teach(data, TEACHING, tmp_path)


def test_a_run_may_be_thrown_away(data, teacher, tmp_path):
    start_distilling(data, teacher, tmp_path)
    config = replace(DISTILLING, epochs=1, beta=3.0)
    assert distill(data, teacher, config, tmp_path, restart=True).training["options"]["beta"] == 3.0


# What does not fit


def test_a_student_is_no_teacher_and_a_teacher_no_student(teacher_folder, distilled_folder):
    with pytest.raises(WeightsError, match="holds a student; a teacher is needed") as caught:
        load_teacher(distilled_folder)
    assert str(distilled_folder) in str(caught.value)
    with pytest.raises(WeightsError, match="holds a teacher; a student is needed") as caught:
        load_weights(teacher_folder)
    assert str(teacher_folder) in str(caught.value)


def test_a_teacher_without_common_targets_is_refused(data, teacher, tmp_path):
    other = [replace(WEIGHT, level="other"), replace(POLAR, name="other")]
    with pytest.raises(TrainingError, match="toy-teacher"):
        distill(replace(data, columns=other), teacher, replace(DISTILLING, epochs=1), tmp_path)


def test_a_teacher_of_other_units_is_refused(data, teacher, tmp_path):
    in_debye = [WEIGHT, replace(POLAR, unit="debye")]
    with pytest.raises(TrainingError, match=r"toy\.polar.*debye.*'toy-teacher'.*eV; mend the unit"):
        distill(replace(data, columns=in_debye), teacher, DISTILLING, tmp_path)


def test_data_without_graphs_are_refused(data, teacher, tmp_path):
    with pytest.raises(TrainingError, match="graphs"):
        distill(replace(data, graphs=None), teacher, DISTILLING, tmp_path)
    with pytest.raises(TrainingError, match="graphs"):
        teach(replace(data, graphs=None), TEACHING, tmp_path)


def test_layer_pairs_that_do_not_fit_are_refused(data, teacher, tmp_path):
    with pytest.raises(TrainingError, match=r"layer pair 3:1.*'toy-teacher' has layers 0 to 2"):
        distill(data, teacher, replace(DISTILLING, layer_pairs=((3, 1),)), tmp_path)


def test_labels_in_the_training_split_alone_are_refused(data, unlabelled, teacher, tmp_path):
    """Nothing to choose the best weights by: said before the first step, not after the last."""
    of_training = data.split == 0
    targets = np.where(of_training[:, None], data.targets, np.nan).astype(np.float32)
    with pytest.raises(TrainingError, match="valid"):
        distill(
            joined(replace(data, targets=targets), unlabelled),
            teacher,
            replace(DISTILLING, epochs=1),
            tmp_path,
        )


# Without labels


def test_distilling_without_labels_is_judged_by_the_teacher(unlabelled, teacher, tmp_path, distilled_folder):
    weights = distill(unlabelled, teacher, DISTILLING, tmp_path / "student")
    assert weights.training["judge"] == "toy-teacher"
    card = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    assert "Against the predictions of the teacher toy-teacher, for want of labels" in card
    test = weights.metrics["test"]["toy.weight"]
    assert test["n"] == len(unlabelled.rows("test"))
    before = weights.training["before"]["toy.weight"]["mae"]
    assert weights.metrics["valid"]["toy.weight"]["mae"] < 0.7 * before
    # The scale and the domain are the teacher's.
    assert weights.targets == teacher.targets
    assert weights.max_heavy_atoms == teacher.coverage.max_heavy_atoms
    np.testing.assert_array_equal(weights.atom_types["toy"], teacher.coverage.atom_types["toy"])
    # The judge's word: the same error against predictions made here.
    everything = np.arange(len(unlabelled.split))
    says = predict_as_teacher(teacher.model, unlabelled.molecules, unlabelled.graphs, everything)
    judged = replace(unlabelled, targets=in_units(says, teacher.targets))
    assert measured_mae(weights, judged, "test")["toy.weight"] == pytest.approx(test["mae"], rel=1e-4)


def test_unlabelled_molecules_of_valid_and_test_are_not_learned(data, unlabelled, teacher):
    trainer = Distiller(joined(data, unlabelled), teacher, replace(DISTILLING, unlabelled_share=1.0))
    rows = np.concatenate(trainer.epoch_batches(0))
    assert sorted(rows) == np.flatnonzero(np.concatenate([data.split, unlabelled.split]) == 0).tolist()


# Fine-tuning


def test_fine_tuning_keeps_known_targets_and_adds_a_class(data, distilled_folder, tmp_path):
    columns = [RING, WEIGHT, POLAR]
    smiles = smiles_of(range(1, 5))
    more = table(smiles, columns)
    # Other labels, as of another table: the scale must stay that of the start.
    targets = more.targets.copy()
    targets[:, 1] = targets[:, 1] * 3 + 1
    more = replace(more, targets=targets)
    start = load_weights(distilled_folder)
    config = TrainConfig(
        start=str(distilled_folder), epochs=8, batch_size=16, learning_rate=3e-3, warmup_steps=5, ema=0.9
    )
    weights = train(more, config, tmp_path / "tuned")
    before = weights.training["before"]
    expected = measured_mae(start, more, "valid")
    assert set(expected) == {"toy.weight", "toy.polar"}
    for name, mae in expected.items():
        assert before[name]["mae"] == pytest.approx(mae, rel=1e-5)
    assert [target.full_name for target in weights.targets] == ["toy.ring", "toy.weight", "toy.polar"]
    assert weights.targets[1:] == start.targets
    assert (weights.targets[0].mean, weights.targets[0].std) == (0.0, 1.0)
    ring = weights.metrics["test"]["toy.ring"]
    assert ring["auc"] > 0.9 and ring["log_loss"] < math.log(2) and "mae" not in ring
    assert weights.metrics["test"]["toy.weight"]["mae"] < before["toy.weight"]["mae"] / 2
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "| toy.ring | test | class |" in card and f"AUC {ring['auc']:.4f}" in card


def test_a_target_of_another_unit_starts_anew(distilled_folder):
    start = load_weights(distilled_folder)
    for unit, kept in (("eV", True), ("debye", False)):
        student = starting_student(TrainConfig(), [replace(WEIGHT, unit=unit)], start)
        of_start = [target.full_name for target in start.targets].index("toy.weight")
        same = torch.equal(student.readout[2].weight[0], start.student.readout[2].weight[of_start])
        assert same == kept


def test_a_teacher_may_go_on_from_another_and_learn_more_targets(data, teacher, teacher_folder, tmp_path):
    more = table(smiles_of(range(1, 5)), [RING, POLAR, WEIGHT])
    config = TeachConfig(
        preset="slim", start=str(teacher_folder), epochs=1, batch_size=16, learning_rate=1e-6
    )
    taught = teach(more, config, tmp_path)
    assert taught.model.config == replace(teacher.model.config, targets=3)
    assert [taught.targets[2], taught.targets[1]] == teacher.targets
    for name, measures in teacher.metrics["valid"].items():
        assert taught.training["before"][name] == pytest.approx(measures, rel=1e-5)
    types = teacher.coverage.atom_types["toy"]
    assert np.isin(types, taught.coverage.atom_types["toy"]).all()


def test_a_run_that_only_harms_its_start_ends_where_it_began(data, teacher_folder, teacher, tmp_path):
    config = TeachConfig(preset="tiny", start=str(teacher_folder), epochs=2, batch_size=16, learning_rate=0.1)
    notes = []
    worse = teach(data, config, tmp_path, lambda progress: notes.append(progress.note))
    for name, tensor in states(teacher).items():
        torch.testing.assert_close(states(worse)[name], tensor)
    assert worse.metrics["valid"] == worse.training["before"]
    assert "kept as it was; a lower --learning-rate may help" in notes[-1]


def test_the_start_is_in_the_card_and_no_other_may_take_its_place(data, teacher_folder, teacher, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(teacher_folder, start)
    config = TeachConfig(preset="tiny", start=str(start), epochs=1, batch_size=16, learning_rate=1e-4)
    before = TeacherTrainer(data, config).identity()
    teach(data, config, tmp_path / "more")
    card = (tmp_path / "more" / "README.md").read_text(encoding="utf-8")
    assert f"Went on from weights with SHA-256 `{teacher.sha256}`" in card
    shutil.rmtree(start)
    shutil.copytree(tmp_path / "more", start)
    assert TeacherTrainer(data, config).identity() != before


def test_the_options_of_a_run_that_goes_on_are_those_of_its_start(teacher_folder, distilled_folder):
    assert preset_of(None, None, "slim") == "slim"
    assert preset_of(None, str(teacher_folder), "slim") == "tiny"
    assert preset_of("base", str(teacher_folder), "slim") == "base"
    assert preset_of(None, str(distilled_folder), "small", grow="large") == "large"


def test_distilling_may_go_on_from_weights(data, teacher, distilled_folder, tmp_path):
    config = replace(DISTILLING, epochs=1, learning_rate=1e-6, start=str(distilled_folder))
    weights = distill(data, teacher, config, tmp_path)
    start = load_weights(distilled_folder)
    for name, measures in start.metrics["valid"].items():
        assert weights.training["before"][name] == pytest.approx(measures, rel=1e-5)
        assert weights.metrics["valid"][name]["mae"] == pytest.approx(measures["mae"], rel=0.01)
    assert weights.student.config == start.student.config


@pytest.mark.slow
def test_a_class_is_taught_softly(data, tmp_path):
    """A teacher of a class: its probability is the label of molecules that lack theirs."""
    smiles = smiles_of(range(1, 3))
    whole = table(smiles, [RING])
    teacher = teach(whole, replace(TEACHING, epochs=10), tmp_path / "teacher")
    assert teacher.metrics["test"]["toy.ring"]["auc"] > 0.95
    without = replace(whole, targets=np.full_like(whole.targets, np.nan))
    weights = distill(without, teacher, replace(DISTILLING, epochs=10), tmp_path / "student")
    # Judged by the probabilities of the teacher, cut at one half.
    assert weights.metrics["test"]["toy.ring"]["auc"] > 0.9
    rows = whole.rows("test")
    probability = in_units(predict(weights.student, whole.molecules, rows), weights.targets)[:, 0]
    ring = whole.targets[rows, 0] == 1
    assert probability[ring].min() > probability[~ring].max()


@pytest.mark.slow
def test_distill_without_arguments_comes_nearer_to_its_teacher(run_command, tmp_path, monkeypatch):
    """Half a minute of what a newcomer does: the shipped library, student and teacher."""
    monkeypatch.chdir(tmp_path)
    result = run_command("distill", "--max-minutes", "0.5")
    assert result.returncode == 0, result.stderr
    assert "the teacher is asked" in result.stderr
    weights = load_weights("distilled")
    before, after = weights.training["before"], weights.metrics["valid"]
    assert weights.training["judge"] == "slim-teacher" and after.keys() == before.keys()
    for name, measures in after.items():
        assert measures["mae"] < before[name]["mae"], name
        assert name in result.stderr and f"{measures['mae']:.4f}" in result.stderr


def test_a_full_disk_at_the_end_of_a_training_is_said_and_the_run_goes_on(data, tmp_path, monkeypatch):
    config = TrainConfig(preset="tiny", epochs=1, batch_size=32)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_curves", full)
        with pytest.raises(TrainingError, match=r"cannot be written: .*No space left.* goes on"):
            train(data, config, tmp_path / "w")
    assert train(data, config, tmp_path / "w").training["epochs"] == 1


def test_molecules_without_labels_are_not_predicted_to_be_measured(data, unlabelled, teacher, monkeypatch):
    trainer = Distiller(joined(data, unlabelled), teacher, DISTILLING)
    asked, predict_rows = [], trainer.predict
    monkeypatch.setattr(
        trainer, "predict", lambda model, rows: (asked.append(rows), predict_rows(model, rows))[1]
    )
    trainer.evaluate()
    assert len(trainer.data.rows("valid")) > len(data.rows("valid")) > 0
    assert asked[0].tolist() == data.rows("valid").tolist()
