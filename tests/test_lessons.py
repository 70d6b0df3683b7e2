"""What a teacher says of a molecule, asked once and kept, is what it says when it is asked in a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_distill import data, teacher, teacher_folder, unlabelled  # noqa: F401

from stkd_screen.teach.distill import DistillConfig, Distiller
from stkd_screen.teach.graphormer import Graphormer
from stkd_screen.teach.labelled import joined
from stkd_screen.teach.lessons import Lessons, lessons_bytes

CONFIG = DistillConfig(
    preset="tiny", batch_size=16, initial_stage=0.0, random_orders=0.5, kekule=0.5, unlabelled_share=0.4
)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.5, 0.0), (0.5, 2.0)])
def test_losses_are_those_of_a_teacher_asked_in_each_step(data, unlabelled, teacher, alpha, beta):  # noqa: F811
    """However the molecules are written, and for all sizes of a batch."""
    config = replace(CONFIG, alpha=alpha, beta=beta)
    once, always = (
        Distiller(joined(data, unlabelled), teacher, replace(config, teacher_memory=memory))
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
    for weights in lesson.attention:
        assert weights.shape == (3, teacher.model.config.heads, tokens.max(), tokens.max())
        for one, n in zip(weights, tokens, strict=True):
            torch.testing.assert_close(one[:, :n, :n].sum(-1), torch.ones(len(one), n), rtol=0, atol=2e-3)
            assert not one[:, n:].any() and not one[:, :, n:].any()


def test_the_memory_is_foretold(data, teacher):  # noqa: F811
    rows = data.rows("train")
    for layers, with_attention in (([], False), ([0, 2], False), ([0, 1, 2], True)):
        lessons = Lessons(teacher, data, rows, layers, with_attention)
        held = sum(array.nbytes for array in (lessons.prediction, lessons.states, lessons.attention))
        assert held == lessons_bytes(teacher, data, rows, len(layers), with_attention)


def test_what_does_not_fit_is_not_kept(data, teacher, monkeypatch):  # noqa: F811
    rows = data.rows("train")
    needed = lessons_bytes(teacher, data, rows, 1, with_attention=True) / 1e9  # one layer is compared
    assert Distiller(data, teacher, replace(CONFIG, teacher_memory=1.001 * needed)).lessons is not None
    asked = []
    forward = Graphormer.forward
    monkeypatch.setattr(
        Graphormer, "forward", lambda self, *batch: asked.append(batch) or forward(self, *batch)
    )
    trainer = Distiller(data, teacher, replace(CONFIG, teacher_memory=0.999 * needed))
    assert trainer.lessons is None
    trainer.begin_epoch(0)
    asked.clear()
    trainer.loss_terms(trainer.prepare(trainer.epoch_batches(0)[0]))
    assert len(asked) == 1
