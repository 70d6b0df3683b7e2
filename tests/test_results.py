"""benchmarks/results.py and fine_tune.py: the paper's tables from trained models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stkd_screen.errors import StkdError
from stkd_screen.weights import find_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from fine_tune import command
from results import fine_tuned_pages, main, page


def test_the_figures_are_those_of_the_models():
    folders = [find_weights("slim-teacher"), find_weights("small")]
    text = page(folders)
    for folder, name in zip(folders, ("Graphormer (teacher)", "ST-KD small"), strict=True):
        metrics = json.loads((folder / "config.json").read_text())["metrics"]["test"]
        figures = " | ".join(f"{measures['mae']:.3f}" for measures in metrics.values())
        assert f"| {name} | {figures} |" in text
    assert "| ST-KD small | 2.8M | 24.0 more, from earlier weights |" in text
    assert "119,954 labelled molecules" in text


def test_a_teacher_that_is_not_shown_is_told_of():
    folders = [find_weights("slim-teacher"), find_weights("small")]
    taught = json.loads((folders[1] / "config.json").read_text())["training"]["teacher"]
    errors = ", ".join(f"{measures['mae']:.3f}" for measures in taught["metrics"]["test"].values())
    other = f"but another ({errors} eV on the test split)."
    sentence = f"The teacher of ST-KD small was not the one below, {other}"
    shown = json.loads((folders[0] / "config.json").read_text())["sha256"] == taught["sha256"]
    assert (sentence in page(folders)) != shown
    assert sentence in page(folders[1:])


def test_models_of_other_data_have_no_place_in_it(toy):
    with pytest.raises(StkdError, match="did not learn from the tables of"):
        page([find_weights("small"), toy.weights])


def test_the_page_is_that_of_the_shipped_models():
    text = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    shipped = [find_weights(name) for name in ("slim-teacher", "small", "medium")]
    for line in page(shipped).splitlines():
        if line.startswith(("| Graphormer", "| ST-KD")):
            assert line in text


def test_fine_tuning_goes_on_and_gives_its_table(toy, tmp_path):
    rows = toy.table.read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("heavy")
    pairs = [(row.split(",")[0], row.split(",")[column]) for row in rows[1:]]
    table = tmp_path / "freesolv.csv"
    table.write_text("\n".join(["smiles,freesolv", *map(",".join, pairs)]) + "\n", encoding="utf-8")
    script = Path(__file__).parents[1] / "benchmarks" / "fine_tune.py"
    given = (table, "-o", tmp_path / "out", "--models", "mlp-ecfp", "--seeds", "1")
    words = [sys.executable, script, *given]
    first = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "train_baseline.py mlp-ecfp" in first and "--dropout 0.1" in first
    again = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert again == ""
    measured = json.loads((tmp_path / "out/freesolv/mlp-ecfp-0/config.json").read_text())["metrics"]
    rmse = measured["test"]["freesolv.hydration"]["rmse"]
    assert f"| {rmse:.3f} |  |" in fine_tuned_pages(tmp_path / "out")


def run_of(folder, kind, targets, train=9):
    """A finished run whose MAE, in the units of the targets, is given by their names."""
    folder.mkdir(parents=True)
    config = {
        "kind": kind,
        "targets": [{"name": name, "level": "a", "unit": unit} for name, unit, _ in targets],
        "metrics": {"test": {f"a.{name}": {"mae": mae} for name, _, mae in targets}},
        "training": {"data": [{"split": "hash of the molecule"}], "molecules": {"train": train, "test": 1}},
    }
    (folder / "config.json").write_text(json.dumps(config))


def test_energies_of_table_2_are_in_hartree_and_those_of_table_9_in_ev(tmp_path):
    for seed, mae in enumerate((0.27211386, 0.54422772)):
        run_of(tmp_path / f"qm8/small-{seed}", "student", [("E1", "eV", mae), ("f1", "none", 0.03)])
    twelve = [("gap", "eV", 0.12), ("mu", "D", 0.4)]
    run_of(tmp_path / "qm9_12_targets/small-0", "student", twelve)
    path = tmp_path / "qm8" / "small-1" / "config.json"
    config = json.loads(path.read_text())
    config["training"]["start"] = "0123456789abcdef"
    path.write_text(json.dumps(config))
    text = fine_tuned_pages(tmp_path)
    assert text.count("Fine-tuned were the weights with SHA-256 `0123456789ab`.") == 1
    assert "| qm8 | MAE, mean of 12 targets, hartree or none | hash | 9 | 1 |  | 0.0225 ± 0.0035 |" in text
    assert "| gap | eV |  | 0.12 | 0.08795 |" in text and "| mu | D |  | 0.4 | 0.3548 |" in text


def test_pages_of_what_is_there(tmp_path):
    assert fine_tuned_pages(tmp_path) == ""
    run_of(tmp_path / "qm9_12_targets/mlp-ecfp-0", "baseline", [("mu", "D", 0.4)])
    text = fine_tuned_pages(tmp_path)
    assert "| mu | D | 0.4 |  | 0.3548 |" in text and "table 2" not in text
    run_of(tmp_path / "qm9_12_targets/small-0", "student", [("mu", "D", 0.3)], train=8)
    with pytest.raises(StkdError, match="qm9_12_targets: runs on different rows"):
        fine_tuned_pages(tmp_path)


def test_the_students_command():
    words = command("data/qm7.csv.gz", "small", 2, Path("out"))
    assert words[1:8] == ["-m", "stkd_screen", "train", "data/qm7.csv.gz", "--from", "small", "--fingerprint"]
    assert words[words.index("--seed") + 1] == "2" and words[words.index("--split-by") + 1] == "hash"


def test_the_figure_says_what_was_timed_where(tmp_path, monkeypatch):
    speed = {
        "figures": {"st-kd:small": {"ms": {"one_process": 0.9}}},
        "machine": {"threads": 2, "processor": "a processor", "device": "cpu"},
        "molecules": 4096,
        "library": "library.smi",
    }
    (tmp_path / "speed.json").write_text("a table\n" + json.dumps(speed) + "\n")
    page_file = tmp_path / "page.md"
    given = ["results.py", "slim-teacher", "small", "--speed", tmp_path / "speed.json", "-o", page_file]
    monkeypatch.setattr(sys, "argv", [*map(str, given)])
    main()
    text = page_file.read_text(encoding="utf-8")
    assert "![error against time of each model](page.png)" in text
    assert "on a processor, 2\nthreads; up to 4,096 molecules of `library.smi`" in text
    assert "Not timed: Graphormer (teacher)." in text
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
