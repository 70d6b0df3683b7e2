"""train --from --grow: a larger student that starts with the answers of a smaller one."""

from dataclasses import replace

import pytest
import torch
from students import student_of

from stkd_screen.errors import TrainingError
from stkd_screen.smiles.pairs import PAIRS
from stkd_screen.student import PRESETS, Student
from stkd_screen.teach.evaluate import valid_loss
from stkd_screen.teach.grow import grown
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.train import TrainConfig, train
from stkd_screen.weights import load_weights

TINY = PRESETS["tiny"]
BEYOND = replace(TINY, surroundings=True, fingerprint=24)
WIDE = replace(TINY, width=128, heads=4, feed_forward=192, dropout=0.1)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setitem(PRESETS, "wide", WIDE)


def batch(student: Student) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, len(student.table), (5, 12, student.entries), generator=generator)
    pairs = torch.randint(PAIRS, (5, 12, 12), generator=generator, dtype=torch.uint8)
    return tokens, torch.tensor([11, 8, 5, 11, 1]), pairs


@pytest.mark.parametrize(
    "config",
    [TINY, BEYOND, replace(BEYOND, late_environments=True), replace(TINY, standard_layers=2)],
    ids=["tokens", "surroundings", "late environments", "more layers"],
)
def test_the_answers_stay(config, monkeypatch):
    monkeypatch.setitem(PRESETS, "wide", replace(config, **{k: getattr(WIDE, k) for k in SIZES}))
    small = student_of(config)
    large = grown(small, "wide").eval()
    assert large.config == replace(config, **{k: getattr(WIDE, k) for k in SIZES})
    torch.testing.assert_close(large(*batch(small))[1], small(*batch(small))[1], rtol=1e-4, atol=1e-4)
    ours, theirs = (student(*batch(small))[0] for student in (large, small))
    if config.fingerprint:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    else:  # the state of [V], once for each copy
        torch.testing.assert_close(ours, theirs.repeat(1, WIDE.width // TINY.width), rtol=1e-4, atol=1e-4)


SIZES = ("width", "heads", "feed_forward", "dropout")


def test_copies_go_ways_of_their_own():
    large = grown(student_of(TINY), "wide")
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    large(*batch(large))[1].square().sum().backward()
    optimizer.step()
    for name, parameter in large.named_parameters():
        if name.endswith("norm.weight"):
            first, second = parameter.detach().view(-1, TINY.width)[:2]
            assert not torch.allclose(first, second, rtol=1e-4, atol=0), name


def test_shipped_weights_grow_to_the_size_of_the_paper():
    small = load_weights("small").student.eval()
    large = grown(small, "large").eval()
    of_small = ("targets", "fingerprint", "late_environments")
    assert large.config == replace(PRESETS["large"], **{k: getattr(small.config, k) for k in of_small})
    for ours, theirs in zip(large(*batch(small)), small(*batch(small)), strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 48, "heads": 3}, "width: 32 cannot grow to the 48"),
        ({"heads": 16}, "width of a head: 16 cannot grow to the 8"),
        ({"biased_layers": 2}, "biased layers: 1 cannot grow to the 2"),
        ({"surroundings": True}, "surroundings: False cannot grow to the True"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, monkeypatch):
    monkeypatch.setitem(PRESETS, "wide", replace(WIDE, **change))
    with pytest.raises(TrainingError, match=message):
        grown(student_of(TINY), "wide")


@pytest.mark.parametrize("options", [{"preset": "huge"}, {"grow": "huge"}])
def test_a_preset_that_does_not_exist_is_refused(options):
    with pytest.raises(TrainingError, match="no preset 'huge'; presets: paper"):
        TrainConfig(start="small", **options)


def test_training_goes_on_from_grown_weights(toy, tmp_path):
    data = read_labelled([toy.table], toy.columns)
    start = load_weights(toy.weights)
    config = TrainConfig(
        start=str(toy.weights), grow="wide", epochs=4, batch_size=32, learning_rate=2e-4, dropout=0.0
    )
    weights = train(data, config, tmp_path)
    assert weights.student.config.width == WIDE.width
    for name, measures in start.metrics["valid"].items():
        assert weights.training["before"][name]["mae"] == pytest.approx(measures["mae"], rel=1e-3)
    before, after = (valid_loss(each.metrics["valid"], each.targets) for each in (start, weights))
    assert after < before


def test_nothing_to_grow_is_refused(toy, tmp_path, run_command):
    refused = run_command("train", toy.table, "-o", tmp_path / "mine", "--grow", "large")
    assert refused.returncode == 1 and "name them with --from" in refused.stderr
