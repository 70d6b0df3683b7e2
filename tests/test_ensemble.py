"""Several models teach one student: what it learns where a label is missing is their average."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_distill import (  # noqa: F401
    DISTILLING,
    RING,
    WEIGHT,
    data,
    distilled_folder,
    smiles_of,
    table,
    teacher,
    teacher_folder,
    unlabelled,
)

from stkd_screen.errors import TrainingError
from stkd_screen.targets import in_units
from stkd_screen.teach.coverage import Coverage
from stkd_screen.teach.distill import Distiller, distill
from stkd_screen.teach.ensemble import Ensemble
from stkd_screen.teach.evaluate import predict as predict_as_student
from stkd_screen.teach.labelled import joined
from stkd_screen.teach.teacher import load_model
from stkd_screen.teach.teacher import predict as predict_as_teacher
from stkd_screen.teach.train import TrainConfig, train
from stkd_screen.weights import load_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ring_folder(tmp_path_factory):
    """A student of a number that the others know, too, and of a class that they do not."""
    folder = tmp_path_factory.mktemp("models") / "ring-student"
    train(table(smiles_of(range(1, 4)), [WEIGHT, RING]), TrainConfig(preset="tiny", epochs=1), folder)
    return folder


def test_soft_targets_are_the_average_of_all_models(data, unlabelled, teacher, distilled_folder, ring_folder):  # noqa: F811
    """A teacher of (weight, polar), a student of the same, and one of (weight, ring); data of all three."""
    both = joined(data, unlabelled)
    columns = [*both.columns, RING]
    targets = np.column_stack([both.targets, np.full(len(both.targets), np.float32(math.nan))])
    both = replace(both, columns=columns, targets=targets)
    rings = table(smiles_of(range(1, 4)), columns)
    everything = joined(both, rings)
    further = [load_model(folder, CPU) for folder in (distilled_folder, ring_folder)]
    trainer = Distiller(everything, teacher, replace(DISTILLING, alpha=0.0, beta=0.0), further)
    trainer.get_ready(lambda note: None)

    batch = max(trainer.epoch_batches(0), key=lambda rows: np.isin(rows, trainer.unlabelled).sum())
    rows = batch[np.isin(batch, trainer.unlabelled)]  # all of one length
    assert len(rows) > 5
    target, others, lesson = trainer.prepare(rows)[-3:]
    assert not torch.isfinite(target).any()
    soft = trainer.soft_targets(target, lesson.prediction, others).numpy()

    molecules = everything.molecules
    by_teacher = in_units(
        predict_as_teacher(teacher.model, molecules, everything.needed_graphs(), rows), teacher.targets
    )
    students = [load_weights(folder) for folder in (distilled_folder, ring_folder)]
    by_student, by_ring = (
        in_units(predict_as_student(weights.student, molecules, rows), weights.targets)
        for weights in students
    )
    weight, polar, ring = trainer.targets
    expected = np.column_stack(
        [
            ((by_teacher[:, 0] + by_student[:, 0] + by_ring[:, 0]) / 3 - weight.mean) / weight.std,
            ((by_teacher[:, 1] + by_student[:, 1]) / 2 - polar.mean) / polar.std,
            by_ring[:, 1],  # a probability
        ]
    )
    np.testing.assert_allclose(soft, expected, rtol=0, atol=2e-4)
    assert np.abs(by_teacher[:, 0] - by_ring[:, 0]).max() > 0.1  # or an average would show nothing
    assert ring.is_class

    target, others, lesson = trainer.prepare(batch)[-3:]
    assert torch.isfinite(target).any()
    soft = trainer.soft_targets(target, lesson.prediction, others)
    assert not torch.isfinite(soft[torch.isfinite(target)]).any()  # a label is not averaged with anything


def test_a_model_that_knows_none_of_the_targets_is_refused(data, teacher, ring_folder):  # noqa: F811
    model = load_model(ring_folder, CPU)
    other = replace(model, targets=[replace(target, level="other") for target in model.targets])
    in_another_unit = replace(model, targets=[replace(target, unit="D") for target in model.targets])
    for wrong, message in ((other, "nothing in common"), (in_another_unit, "predicts D; mend the unit")):
        with pytest.raises(TrainingError, match=f"teacher 'ring-student' .*{message}"):
            Distiller(data, teacher, DISTILLING, [wrong])


def test_a_prediction_that_is_not_finite_is_none(data):  # noqa: F811
    ensemble = Ensemble([], data, data.rows("train"), [], CPU)
    ensemble.count = torch.tensor([1.0, 0.0])
    one, total = torch.tensor([[math.inf, 2.0], [3.0, math.nan]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    mean = ensemble.mean_with(one, total)
    assert mean[0].tolist() == [5.0, 2.0] and mean[1, 0] == 2.0 and mean[1, 1].isnan()


def test_what_a_model_was_labelled_with_counts_at_its_levels(data, unlabelled, teacher, ring_folder):  # noqa: F811
    model = load_model(ring_folder, CPU)
    of_level = Coverage({"toy": np.array([1 << 20]), "other": np.array([1 << 21])}, {"toy": 99, "other": 100})
    further = [replace(model, coverage=of_level)]
    known = Distiller(joined(data, unlabelled), teacher, DISTILLING, further).known_coverage()
    assert any(1 << 20 in coverage.atom_types["toy"] for coverage in known)
    assert not any("other" in coverage.atom_types for coverage in known)


def test_the_run_tells_its_teachers(data, unlabelled, teacher, distilled_folder, ring_folder, tmp_path):  # noqa: F811
    """In its configuration and its card; and a checkpoint of other ones is refused."""
    both, config = joined(data, unlabelled), replace(DISTILLING, epochs=1)
    further = [load_model(distilled_folder, CPU)]
    notes = []

    def interrupted(progress) -> None:
        notes.append(progress.note)
        if progress.step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(both, teacher, config, tmp_path, interrupted, further=further)
    assert f"{distilled_folder.name} is asked once of" in "\n".join(filter(None, notes))
    for others in ([], [load_model(ring_folder, CPU)]):
        with pytest.raises(TrainingError, match="of a run with other teacher; .*--restart"):
            distill(both, teacher, config, tmp_path, further=others)
    student = distill(both, teacher, config, tmp_path, further=further)
    assert student.training["further_teachers"] == [
        {"name": distilled_folder.name, "sha256": load_weights(distilled_folder).sha256}
    ]
    card = (tmp_path / "README.md").read_text()
    for name, sha256 in ((teacher.name, teacher.sha256), (distilled_folder.name, further[0].sha256)):
        assert f"Teacher: `{name}`, SHA-256 `{sha256}`." in card


def test_the_command_takes_several_teachers(run_command, toy, teacher_folder, distilled_folder, tmp_path):  # noqa: F811
    table_of = toy.table
    done = run_command(
        "distill", table_of, "--teacher", teacher_folder, "--teacher", distilled_folder, "--preset", "tiny",
        "--epochs", "1", "-o", tmp_path / "mine", "--target", "toy.weight=heavy:eV",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert [model["name"] for model in config["training"]["further_teachers"]] == [distilled_folder.name]
    refused = run_command("distill", table_of, "--teacher", distilled_folder, "-o", tmp_path / "other")
    assert refused.returncode == 1 and "teacher" in refused.stderr
