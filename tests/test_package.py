"""What is installed is what was tested: the wheel holds the weights and a library."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stkd_screen.weights import shipped_names

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_the_shipped_weights_with_their_cards(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert shipped_names()
    for model in shipped_names():
        for file in ("model.safetensors", "config.json", "README.md"):
            assert f"stkd_screen/_weights/{model}/{file}" in names
    assert "stkd_screen/_examples/library.smi.gz" in names  # for `bench` and `distill` without arguments
