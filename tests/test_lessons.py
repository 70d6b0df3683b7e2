"""What a teacher says of a molecule, asked once and kept, is what it says when it is asked in a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_distill import data, teacher, teacher_folder, unlabelled  # noqa: F401

from stkd_screen.errors import TrainingError
from stkd_screen.student import Learned
from stkd_screen.teach.distill import DistillConfig, Distiller, distill
from stkd_screen.teach.graphormer import Graphormer
from stkd_screen.teach.labelled import joined
from stkd_screen.teach.lessons import Lessons, lessons_bytes
from stkd_screen.teach.structure import graph_batch

CONFIG = DistillConfig(
    preset="tiny", batch_size=16, initial_stage=0.0, random_orders=0.5, kekule=0.5, unlabelled_share=0.4
)


def ready(trainer: Distiller) -> Distiller:
    trainer.get_ready(lambda note: None)
    return trainer


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.5, 0.0), (0.5, 2.0)])
def test_losses_are_those_of_a_teacher_asked_in_each_step(data, unlabelled, teacher, alpha, beta):  # noqa: F811
    """However the molecules are written, and for all sizes of a batch."""
    config = replace(CONFIG, alpha=alpha, beta=beta)
    once, always = (
        ready(Distiller(joined(data, unlabelled), teacher, replace(config, teacher_memory=memory)))
        for memory in (2.0, 0.0)
    )
    assert once.lessons is not None and always.lessons is None
    always.model.load_state_dict(once.model.state_dict())
    once.begin_epoch(3)
    always.begin_epoch(3)
    seen = set()
    for rows in once.epoch_batches(3):
        terms, same = (trainer.loss_terms(trainer.prepare(rows)) for trainer in (once, always))
        assert {"task", "soft"} <= terms.keys() == same.keys()
        for name, term in terms.items():
            torch.testing.assert_close(term, same[name], rtol=2e-3, atol=1e-5)
            seen |= {name} if term > 1e-3 else set()
    wanted = {"task", "soft"} | ({"feature"} if alpha else set()) | ({"attention"} if beta else set())
    assert wanted <= seen


def test_a_batch_of_several_sizes_is_padded_with_zeros(data, teacher):  # noqa: F811
    rows = data.rows("train")[[0, 30, 7]]
    lessons = Lessons(teacher, data, data.rows("train"), [1, 2], with_attention=True)
    tokens = np.diff(data.molecules.atom_offsets)[rows] + 1
    assert len(set(tokens)) > 1
    lesson = lessons.batch(rows)
    for weights in map(torch.Tensor.float, lesson.attention):
        assert weights.shape == (3, teacher.model.config.heads, tokens.max(), tokens.max())
        for one, n in zip(weights, tokens, strict=True):
            torch.testing.assert_close(one[:, :n, :n].sum(-1), torch.ones(len(one), n), rtol=0, atol=2e-3)
            assert not one[:, n:].any() and not one[:, :, n:].any()


def test_the_memory_is_foretold(data, teacher):  # noqa: F811
    rows = data.rows("train")
    for layers, with_attention in (([], False), ([0, 2], False), ([0, 1, 2], True)):
        lessons = Lessons(teacher, data, rows, layers, with_attention)
        held = sum(array.nbytes for array in (lessons.prediction, lessons.states, lessons.attention))
        assert held == lessons_bytes(teacher, data, rows, layers, with_attention)


def test_what_does_not_fit_is_not_kept(data, teacher, monkeypatch):  # noqa: F811
    rows = data.rows("train")
    needed = lessons_bytes(teacher, data, rows, [2], with_attention=True) / 1e9  # one layer is compared
    notes: list[str] = []
    fitting = Distiller(data, teacher, replace(CONFIG, teacher_memory=1.001 * needed))
    fitting.get_ready(notes.append)
    assert fitting.lessons is not None and notes == [f"the teacher is asked once of {len(rows)} molecules"]
    asked = []
    forward = Graphormer.forward
    monkeypatch.setattr(
        Graphormer, "forward", lambda self, *batch: asked.append(batch) or forward(self, *batch)
    )
    trainer = Distiller(data, teacher, replace(CONFIG, teacher_memory=0.999 * needed))
    trainer.get_ready(notes.append)
    assert trainer.lessons is None and "over --teacher-memory" in notes[-1]
    trainer.begin_epoch(0)
    asked.clear()
    trainer.loss_terms(trainer.prepare(trainer.epoch_batches(0)[0]))
    assert len(asked) == 1


def test_how_long_the_teacher_takes_is_seen_by_few_sizes(data, teacher, monkeypatch):  # noqa: F811
    """256 molecules of all sizes, five of each, once made it seem to take eighty times as long."""
    monkeypatch.setattr("stkd_screen.teach.distill.PROBE", 12)
    monkeypatch.setattr("stkd_screen.teach.distill.PROBE_BLOCK", 4)
    rows, atoms = data.rows("train"), np.diff(data.molecules.atom_offsets)
    distiller = Distiller(data, teacher, CONFIG)
    assert all(len(distiller.probe(rows[:count])) for count in range(1, 30))
    probe = distiller.probe(rows)
    assert 4 <= len(probe) <= len(rows) / 10 + 4 and set(probe) <= set(rows)
    sizes = atoms[probe].reshape(-1, 4)
    assert (sizes[:, -1] - sizes[:, 0] <= 1).all() and abs(sizes.mean() - np.median(atoms[rows])) <= 1


@pytest.mark.parametrize(("share", "once"), [(0.3, True), (0.4, False)])
def test_a_slow_teacher_does_not_eat_up_the_time(data, teacher, monkeypatch, share, once):  # noqa: F811
    """Nor does a run that goes on change its mind: what it is taught would differ in its last bits."""
    now, seconds_a_molecule = 0.0, 0.4

    compiling = 1000.0  # seconds, once: no molecule's fault

    class Slow(Lessons):
        def __init__(self, teacher, data, rows, *arguments, **options):
            nonlocal now, compiling
            now, compiling = now + compiling + seconds_a_molecule * len(rows), 0.0
            super().__init__(teacher, data, rows, *arguments, **options)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("stkd_screen.teach.distill.Lessons", Slow)
    minutes = seconds_a_molecule * len(data.rows("train")) / 60 / share
    notes: list[str] = []
    trainer = Distiller(data, teacher, replace(CONFIG, max_minutes=minutes))
    trainer.get_ready(notes.append)
    assert (trainer.lessons is not None) == once
    assert ("asked once" in notes[-1]) == once and ("would take" in notes[-1]) == (not once)
    seconds_a_molecule = 4.0 if once else 0.04  # the machine is another now
    again = Distiller(data, teacher, replace(CONFIG, max_minutes=minutes))
    again.load_state(trainer.state())
    again.get_ready(notes.append)
    assert (again.lessons is not None) == once


def test_a_refused_run_does_not_ask_its_teacher(data, teacher, tmp_path, monkeypatch):  # noqa: F811
    distill(data, teacher, replace(CONFIG, epochs=1), tmp_path / "student")
    monkeypatch.setattr("stkd_screen.teach.distill.Lessons", None)
    with pytest.raises(TrainingError, match="holds finished weights"):
        distill(data, teacher, replace(CONFIG, epochs=1), tmp_path / "student")


def test_raw_states_are_equation_8_to_the_letter(data, teacher):  # noqa: F811
    """As the states leave the layers of the teacher; the preset of the paper has them."""
    assert DistillConfig.of("paper").raw_states and not DistillConfig.of("small").raw_states
    for memory in (2.0, 0.0):
        config = replace(CONFIG, raw_states=True, teacher_memory=memory, alpha=1.0)
        trainer = ready(Distiller(data, teacher, config))
        trainer.begin_epoch(0)
        rows = trainer.epoch_batches(0)[0]
        batch = trainer.prepare(rows)
        term = trainer.loss_terms(batch)["feature"]
        ((p, q),) = trainer.pairs
        learned = Learned()
        trainer.model.student(*batch[:3], learned)
        graphs = graph_batch(data.molecules, data.needed_graphs(), rows)
        x_0, h_0 = teacher.model(graphs).states[p], learned.states[q]
        literal = ((h_0 @ trainer.model.features[0] - x_0) ** 2).mean()
        torch.testing.assert_close(term, literal, rtol=1e-5, atol=0)
