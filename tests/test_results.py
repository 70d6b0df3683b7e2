"""benchmarks/results.py: the paper's table 1 from trained models."""

import json
import sys
from pathlib import Path

import pytest

from stkd_screen.errors import StkdError
from stkd_screen.weights import find_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from results import page


def test_the_figures_are_those_of_the_models():
    folders = [find_weights("slim-teacher"), find_weights("small")]
    text = page(folders)
    for folder, name in zip(folders, ("Graphormer (teacher)", "ST-KD (student)"), strict=True):
        metrics = json.loads((folder / "config.json").read_text())["metrics"]["test"]
        figures = " | ".join(f"{measures['mae']:.3f}" for measures in metrics.values())
        assert f"| {name} | {figures} |" in text
    assert "| ST-KD (student) | 2.9M | 9.0 more, from earlier weights |" in text
    assert "119,954 labelled molecules" in text


def test_models_of_other_data_have_no_place_in_it(toy):
    with pytest.raises(StkdError, match="did not learn from the tables of"):
        page([find_weights("small"), toy.weights])


def test_the_page_is_that_of_the_shipped_models():
    text = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    for line in page([find_weights("slim-teacher"), find_weights("small")]).splitlines():
        if line.startswith(("| Graphormer", "| ST-KD")):
            assert line in text
