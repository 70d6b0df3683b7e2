"""The commands as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from rdkit import Chem

from stkd_screen import __version__, load
from stkd_screen.cli.display import Terminal, TrainingDisplay
from stkd_screen.cli.interrupts import Interrupted


@pytest.fixture
def stkd_screen(monkeypatch, run_command):
    """Run a command in this process, in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    return run_command


def test_version(stkd_screen):
    assert stkd_screen("--version").stdout == f"stkd-screen {__version__}\n"


@pytest.mark.parametrize("command", ["embed", "distill"])
def test_help_is_whole_in_a_narrow_terminal(stkd_screen, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    shown = stkd_screen(command, "--help").stdout
    assert "…" not in shown
    longest = {"embed": "--largest-fragment", "distill": "--unlabelled-molecules"}[command]
    assert longest in shown


def test_the_list_of_commands_is_whole_in_a_narrow_terminal(stkd_screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = stkd_screen("--help").stdout
    assert "prepare" in shown and "..." not in shown.partition("Commands:")[2]


def test_embed_prints_a_summary_and_exits_0_with_bad_rows(stkd_screen, toy, tmp_path):
    (tmp_path / "in.smi").write_text("CCO ethanol\nC1CC ring\nC(C)(C)(C)(C)C five\n")
    result = stkd_screen("embed", tmp_path / "in.smi", "-o", tmp_path / "out.parquet", "--model", toy.weights)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    for text in ("records", "unclosed ring bond", "too many bonds", "out.parquet", "molecules/s"):
        assert text in result.stderr
    assert pl.read_parquet(tmp_path / "out.parquet")["id"].to_list() == ["ethanol", "ring", "five"]


def test_of_no_molecule_at_all_the_usual_reasons_are_told(stkd_screen, toy, tmp_path):
    (tmp_path / "in.smi").write_text("ethanol,CCO\npropanol,CCCO\n")
    given = ("-o", tmp_path / "out.parquet", "--model", toy.weights, "--overwrite")
    told = stkd_screen("embed", tmp_path / "in.smi", *given)
    assert told.returncode == 0 and "is the SMILES the first word of each line?" in told.stderr
    (tmp_path / "in.smi").write_text("ethanol,CCO\nCCO\n")
    assert "is the SMILES the first" not in stkd_screen("embed", tmp_path / "in.smi", *given).stderr


def test_an_input_without_a_name_is_no_folder(stkd_screen, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.smi").write_text("CCO\n")
    refused = stkd_screen("embed", "", "-o", "out.parquet", "--model", toy.weights)
    assert refused.returncode == 1 and "an input without a name" in refused.stderr


@pytest.mark.parametrize("option", ["--learning-rate", "--max-minutes"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_rate_or_a_time_that_is_none_is_refused(stkd_screen, toy, tmp_path, option, value):
    refused = stkd_screen("train", toy.table, "-o", tmp_path / "new", option, value)
    assert refused.returncode == 2 and "must be above 0" in refused.stderr


def test_an_interrupted_training_says_that_it_can_go_on(capsys):
    with pytest.raises(Interrupted), TrainingDisplay(Terminal(stderr=True)):
        raise Interrupted(2)
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_another_level_is_offered_where_most_molecules_are_too_large(stkd_screen, tmp_path):
    drug = "CN1CCN(CC1)c1ccc2nc(-c3ccc(Oc4ccccc4)cc3)c(C(N)=O)n2c1"
    for level, smiles, offered in (("qm9", drug, True), ("pcqm", drug * 3, False), ("qm9", "C", False)):
        (tmp_path / "in.smi").write_text(f"{smiles}\n{smiles}\n", encoding="utf-8")
        given = ("embed", tmp_path / "in.smi", "-o", tmp_path / "out.parquet", "--level", level)
        told = stkd_screen(*given, "--overwrite").stderr
        assert "2 with a warning" in told
        assert ("the model also has --level pcqm, with larger ones" in told) == offered


def test_an_input_without_records_is_not_called_complete_already(stkd_screen, toy, tmp_path):
    (tmp_path / "in.smi").write_text("\n# nothing\n")
    command = ["embed", tmp_path / "in.smi", "-o", tmp_path / "out.parquet", "--model", toy.weights]
    for _ in range(2):
        result = stkd_screen(*command)
        assert "no record in the input" in result.stderr and "complete already" not in result.stderr


def test_embed_reads_standard_input_and_prints_json(toy, tmp_path):
    command = [sys.executable, "-m", "stkd_screen", "embed", "-", "--json"]
    result = subprocess.run(
        [*command, "-o", tmp_path / "o.parquet", "--model", toy.weights],
        input="CCO a\nC1C b\n",
        capture_output=True,
        text=True,
    )
    summary = json.loads(result.stdout)
    assert (summary["records"], summary["good"], summary["bad"]) == (2, 1, {"unclosed ring bond": 1})
    assert result.stderr == ""


def test_an_output_without_a_name_is_refused(stkd_screen, toy, tmp_path):
    (tmp_path / "in.smi").write_text("CC ethane\n")
    refused = stkd_screen("embed", tmp_path / "in.smi", "-o", "", "--model", toy.weights)
    assert refused.returncode == 1 and "an output without a name" in refused.stderr


def test_strict_names_file_line_and_column(stkd_screen, toy, tmp_path):
    (tmp_path / "in.smi").write_text("CCO a\n\nC1CC b\n")
    result = stkd_screen(
        "embed", tmp_path / "in.smi", "-o", tmp_path / "o.parquet", "--model", toy.weights, "--strict"
    )
    assert result.returncode == 1
    assert "in.smi line 3: unclosed ring bond 1 at column 2" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.smi"], "nothing.smi"),
        (["in.smi", "--model", "no-such"], "no weights at 'no-such'"),
        (["in.smi", "--level", "b3lyp"], "no level 'b3lyp'"),
        (["in.smi", "--device", "abacus"], "unknown device 'abacus'"),
        (["in.csv"], "--smiles-column"),
    ],
)
def test_wrong_turns_are_errors_without_a_traceback(
    stkd_screen, toy, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.smi").write_text("CCO\n")
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    if "--model" not in arguments:
        arguments = [*arguments, "--model", toy.weights]
    result = stkd_screen("embed", *arguments, "-o", "out.parquet")
    assert result.returncode == 1 and result.stderr.startswith("error: ")
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_train_then_evaluate(stkd_screen, toy, tmp_path):
    target = ["--target", "toy.weight=heavy:eV"]
    options = ["--preset", "tiny", "--epochs", "2", "--batch-size", "32", "--seed", "3"]
    trained = stkd_screen("train", toy.table, "-o", tmp_path / "w", *target, *options)
    assert trained.returncode == 0, trained.stderr
    assert "valid toy.weight MAE" in trained.stderr and "molecules/s" in trained.stderr
    measured = stkd_screen("evaluate", tmp_path / "w", toy.table, "--json")
    metrics = json.loads(measured.stdout)
    assert set(metrics) == {"train", "valid", "test"} and metrics["test"]["toy.weight"]["n"] > 5
    table = stkd_screen("evaluate", tmp_path / "w", toy.table, *target, "--split", "test")
    trained_on = json.loads((tmp_path / "w" / "config.json").read_text())["training"]["molecules"]
    assert {split: m["toy.weight"]["n"] for split, m in metrics.items()} == trained_on
    assert "MAE" in table.stdout and "toy.weight" in table.stdout


def test_evaluate_measures_the_spread_over_writings(stkd_screen, toy, tmp_path):
    """No spread where all writings are one; and of a molecule it is that of its writings, one by one."""
    (tmp_path / "in.smi").write_text("C methane\nC1CC ring\n")
    only = stkd_screen("evaluate", toy.weights, "--writings", tmp_path / "in.smi", "--json")
    assert only.returncode == 0, only.stderr
    for measures in json.loads(only.stdout)["writings"].values():
        assert measures == {"random": 0.0, "random_95": 0.0, "kekule": 0.0, "n": 1}
    toluene = "Cc1ccccc1"
    (tmp_path / "in.smi").write_text(f"{toluene}\n")
    result = stkd_screen("evaluate", toy.weights, toy.table, "--writings", tmp_path / "in.smi", "--json")
    measured = json.loads(result.stdout)
    assert {"train", "valid", "test", "writings"} == set(measured)
    random = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(toluene), 5, randomSeed=1)
    frame = load(toy.weights, precision="float32").embed([toluene, "CC1=CC=CC=C1", *random])
    values = frame["weight_ev"].to_numpy()
    spread = measured["writings"]["toy.weight"]
    assert spread["random"] == pytest.approx(values[2:].std(), rel=1e-3) and spread["random"] > 0
    assert spread["kekule"] == pytest.approx(abs(values[1] - values[0]), rel=1e-3) and spread["kekule"] > 0
    table = stkd_screen("evaluate", toy.weights, "--writings", tmp_path / "in.smi").stdout
    assert "Kekulé" in table and f"{spread['kekule']:.4f}" in table


def test_evaluate_wants_something_to_measure(stkd_screen, toy, tmp_path):
    nothing = stkd_screen("evaluate", toy.weights)
    assert nothing.returncode == 2 and "a library with --writings" in nothing.stderr
    (tmp_path / "in.smi").write_text("C1CC ring\n")
    none = stkd_screen("evaluate", toy.weights, "--writings", tmp_path / "in.smi")
    assert none.returncode == 1 and "no molecule that RDKit and the student read" in none.stderr
    teacher = stkd_screen("evaluate", "slim-teacher", "--writings", tmp_path / "in.smi")
    assert teacher.returncode == 1 and "teacher" in teacher.stderr


def test_verify_exits_1_where_something_fails(stkd_screen, toy, tmp_path):
    (tmp_path / "in.smi").write_text("CCO ethanol\nC1CC ring\n")
    output = tmp_path / "out"
    done = stkd_screen("embed", tmp_path / "in.smi", "-o", f"{output}/", "--model", toy.weights)
    assert done.returncode == 0, done.stderr
    sound = stkd_screen("verify", output)
    assert sound.returncode == 0 and sound.stderr.count("holds") == 6
    again = stkd_screen("embed", tmp_path / "in.smi", "-o", output, "--model", toy.weights, "--json")
    assert json.loads(again.stdout)["resumed"] == 2 and again.returncode == 0
    (tmp_path / "in.smi").write_text("CCO ethanol\nC1CC ting\n")
    fails = stkd_screen("verify", output, "--json")
    about = json.loads(fails.stdout)
    assert fails.returncode == 1 and not about["holds"]
    assert [check["name"] for check in about["checks"] if check["holds"] is False] == ["input"]
    assert stkd_screen("verify", tmp_path / "gone").returncode == 1


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("given", ["", "CCO a\nCCN b\nCC ha"], ids=["nothing", "some"])
def test_an_input_that_does_not_come_is_not_waited_for(toy, tmp_path, stkd_screen, given, end):
    output = tmp_path / "out.parquet"
    process = subprocess.Popen(
        [sys.executable, "-m", "stkd_screen", "embed", "-", "--model", toy.weights, "-o", output],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stderr
    process.stdin.write(given)
    process.stdin.flush()
    while not list(tmp_path.glob("*.partial/.lock")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(end)
    assert process.wait(60) == 128 + end
    error = process.stderr.read()
    assert "Fatal" not in error and not list(tmp_path.glob("*.partial"))
    if not given:
        assert "stopped before the end: no row is written" in error and not output.exists()
        return
    assert f"stopped before the end: the 2 rows before it are in {output}" in error
    assert pl.read_parquet(output)["id"].to_list() == ["a", "b"]
    assert "2 rows, not of the whole input: stopped before the end" in stkd_screen("verify", output).stderr


def test_a_bad_record_is_told_of_though_the_pipe_goes_on(toy, tmp_path):
    command = [sys.executable, "-m", "stkd_screen", "embed", "-", "--strict", "--model", toy.weights]
    process = subprocess.Popen(
        [*command, "-o", tmp_path / "out.parquet"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stderr
    process.stdin.write("CCO a\nC1CC b\n")
    process.stdin.flush()
    assert process.wait(60) == 1
    assert "<stdin> line 2: unclosed ring bond" in process.stderr.read()


@pytest.mark.parametrize("stop", ["strict", "interrupt"])
def test_a_run_that_stops_in_the_middle_ends_cleanly(toy, tmp_path, stop):
    """Not by an abort of the process while a thread still computes."""
    lines = [f"{'C' * (i % 40 + 1)} m{i}" for i in range(30_000)]
    lines[9_000] = "C1CC ring"
    (tmp_path / "in.smi").write_text("\n".join(lines))
    command = [sys.executable, "-m", "stkd_screen", "embed", tmp_path / "in.smi", "--model", toy.weights]
    if stop == "strict":
        command.append("--strict")
    process = subprocess.Popen(
        [*command, "-o", tmp_path / "out.parquet"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "400"},
    )
    if stop == "interrupt":
        while not list(tmp_path.glob("*.partial/rows")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == {"strict": 1, "interrupt": 130}[stop], error
    assert "Traceback" not in error and not (tmp_path / "out.parquet").exists()
    assert (f"{tmp_path / 'out.parquet.partial'}, unfinished" in error) == (stop == "interrupt")
    command = [argument for argument in command if argument != "--strict"]
    subprocess.run([*command, "-o", tmp_path / "out.parquet", "--json"], check=True)
    assert pl.read_parquet(tmp_path / "out.parquet")["id"].to_list()[8_999:9_002] == [
        "m8999",
        "ring",
        "m9001",
    ]
    assert [path.name for path in tmp_path.iterdir() if "parquet" in path.name] == ["out.parquet"]
