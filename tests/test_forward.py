"""The forward pass: batches, threads and what they may not change."""

import threading
import time
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from stkd_screen.forward import ForwardPass, in_threads
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.student import PRESETS, Student

SMILES = [f"{'C' * (k % 23 + 1)}{'ON'[k % 2]}{'c1ccccc1' * (k % 5 == 0)}" for k in range(400)]


@pytest.fixture
def threads():
    """A function that sets torch's threads; they are as before when the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def results(batch_tokens: int) -> np.ndarray:
    torch.manual_seed(0)
    student = Student(PRESETS["small"]).eval()
    molecules = pretransform(*pack_smiles(SMILES))
    prediction = np.full((len(SMILES), student.config.targets), np.nan, np.float32)
    for rows, _, standardised in ForwardPass(student, batch_tokens).batches(molecules):
        prediction[rows] = standardised
    assert np.isfinite(prediction).all()
    return prediction


def test_the_number_of_threads_changes_no_bit(threads):
    seen = []
    for count in (1, 2, 5):
        threads(count)
        seen.append(results(300))
        assert torch.get_num_threads() == count
    assert all(np.array_equal(one, other) for one, other in pairwise(seen))


def test_the_size_of_the_batches_changes_nothing_to_speak_of(threads):
    threads(2)
    few, many = results(100), results(4000)
    assert np.abs(few - many).max() < 1e-5  # of a standard deviation of the target


def test_threads_keep_the_order_and_compute_with_one_thread_each(threads):
    threads(3)
    seen = [*in_threads(lambda item: (int(item), torch.get_num_threads()), np.arange(50), 3)]
    assert seen == [(i, 1) for i in range(50)]


def test_a_fault_in_a_thread_comes_out_in_its_place():
    def work(item):
        if item == 7:
            raise ValueError("seven")
        return int(item)

    seen = []
    with pytest.raises(ValueError, match="seven"):
        for result in in_threads(work, np.arange(50), 2):
            seen.append(result)
    assert seen == [*range(7)]


def test_a_fault_of_the_items_comes_after_what_was_begun():
    def items():
        yield from range(5)
        raise ValueError("no more")

    seen = []
    with pytest.raises(ValueError, match="no more"):
        for result in in_threads(lambda item: item + 1, items(), 2):
            seen.append(result)
    assert seen == [1, 2, 3, 4, 5]


def test_no_result_waits_for_items_that_do_not_come():
    more = threading.Event()

    def items():
        yield 1
        more.wait(60)
        yield 2

    results = in_threads(lambda item: item + 1, items(), 2)
    assert next(results) == 2 and not more.is_set()
    more.set()
    assert list(results) == [3]


def test_windows_are_as_each_alone_and_the_next_is_begun_before_the_last_is_done(threads):
    threads(2)
    student = Student(PRESETS["small"]).eval()
    forward = ForwardPass(student, 500)
    asked: list[int] = []

    def windows():
        for k in range(4):
            asked.append(k)
            yield pretransform(*pack_smiles(["C1CC"] if k == 1 else SMILES[100 * k : 100 * k + 100]))
        raise ValueError("the input is damaged")

    seen = 0
    with pytest.raises(ValueError, match="damaged"):
        for k, (molecules, results) in enumerate(forward.windows(windows())):
            assert len(asked) > k + 1 or k == 3
            for ours, alone in zip(results, forward.batches(molecules), strict=True):
                assert all(np.array_equal(one, other) for one, other in zip(ours, alone, strict=True))
            seen += len(results)
    assert asked == [0, 1, 2, 3] and seen > 30


def test_several_threads_share_a_compiled_student(monkeypatch):
    """As on a GPU; here without a compiler behind it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    student, molecules = Student(PRESETS["small"]).eval(), pretransform(*pack_smiles(SMILES))
    forward, compiled = ForwardPass(student, 300), ForwardPass(student, 300, compile=True)
    run, at_work, most_at_work = compiled._run, [0], [0]

    def counted(*tensors):
        at_work[0] += 1
        most_at_work[0] = max(*most_at_work, *at_work)
        time.sleep(0.001)
        results = run(*tensors)
        at_work[0] -= 1
        return results

    compiled._run, compiled._threads = counted, 4
    for ours, theirs in zip(compiled.batches(molecules), forward.batches(molecules), strict=True):
        assert np.array_equal(ours[0], theirs[0])
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)
    assert compiled._compiled and most_at_work == [1]


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_a_compiled_student_is_one_graph_for_all_lengths(monkeypatch, preset):
    """Over a mixed library nothing is compiled anew, nor left to PyTorch's own operators."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    forward = ForwardPass(Student(PRESETS[preset]).eval(), 300, compile=True)
    first = [f"{'C' * k}{end}" for k in range(60) for end in ("O", "C(=O)O", "c1ccccc1", "C1CC1")]
    list(forward.batches(pretransform(*pack_smiles(first))))
    others = pretransform(*pack_smiles([*first[::-1], "CC.CC", "C1CC", "c1ccc2ccccc2c1", "C" * 90]))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert sum(len(rows) for rows, *_ in forward.batches(others)) == len(others) - 1
    assert forward._compiled


def test_who_looks_away_leaves_no_thread_behind():
    before = threading.active_count()
    results = in_threads(lambda item: item, np.arange(1000), 4)
    next(results)
    results.close()
    assert threading.active_count() == before
