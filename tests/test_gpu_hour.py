"""The script for an hour on a GPU: tiny settings, on a CPU, without the libraries it does not need."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from stkd_screen.teach.prepared import save_prepared
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.teacher import load_teacher
from stkd_screen.weights import load_weights

SCRIPT = Path(__file__).parents[1] / "examples" / "gpu_hour.py"

# Runs the script where importing polars, RDKit or FAISS fails, as on a machine that lacks them.
RUN_WITHOUT = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("polars", "rdkit", "faiss"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_it_leaves_teacher_students_and_figures(toy, tmp_path):
    save_prepared(read_labelled([toy.table], toy.columns, graphs=True), tmp_path / "toy.prepared")
    command = [sys.executable, "-c", RUN_WITHOUT, str(SCRIPT), str(tmp_path / "toy.prepared")]
    command += ["-o", str(tmp_path / "out"), "--minutes", "0.1", "--teacher-preset", "tiny"]
    command += ["--students", "tiny", "--batch-size", "16", "--device", "cpu"]

    def figures_of_a_run():
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return json.loads((tmp_path / "out" / "figures.json").read_text())

    figures = figures_of_a_run()
    assert figures["teacher"] == load_teacher(tmp_path / "out" / "teacher").metrics
    assert figures["tiny"] == load_weights(tmp_path / "out" / "tiny").metrics
    assert figures["tiny"]["test"]["toy.weight"]["r2"] > 0
    # Stopped after the teacher and started again: the same teacher, and a student of it.
    teacher = load_teacher(tmp_path / "out" / "teacher").sha256
    shutil.rmtree(tmp_path / "out" / "tiny")
    command += ["--losses", "all"]
    assert figures_of_a_run()["teacher"] == figures["teacher"]
    student = load_weights(tmp_path / "out" / "tiny")
    assert student.training["teacher"]["sha256"] == teacher
    assert student.training["options"]["beta"] > 0
    # Nothing left to do.
    assert figures_of_a_run()["tiny"] == student.metrics
    assert load_weights(tmp_path / "out" / "tiny").sha256 == student.sha256
    # What is trained already is taken.
    before = (tmp_path / "out").rename(tmp_path / "before")
    command += ["--teacher", str(before / "teacher"), "--start", str(before / "tiny")]
    assert figures_of_a_run()["teacher"] == figures["teacher"]
    again = load_weights(tmp_path / "out" / "tiny").training
    assert (again["teacher"]["sha256"], again["start"]) == (teacher, student.sha256)
    assert not (tmp_path / "out" / "teacher").exists()
