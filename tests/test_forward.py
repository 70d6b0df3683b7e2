"""The forward pass: batches, threads and what they may not change."""

import threading
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


def test_who_looks_away_leaves_no_thread_behind():
    before = threading.active_count()
    results = in_threads(lambda item: item, np.arange(1000), 4)
    next(results)
    results.close()
    assert threading.active_count() == before
