"""Hostile files and names: nothing is run, read or written that should not be, and nothing is sent."""

import csv
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from test_search import toy_index  # noqa: F401

from stkd_screen.cli.text import printable
from stkd_screen.errors import SearchError, TrainingError, WeightsError
from stkd_screen.search.depict import MOST_ATOMS, depict
from stkd_screen.search.home import index_folder
from stkd_screen.search.index import Index
from stkd_screen.search.output import write_hits
from stkd_screen.search.where import check_condition, rows_where
from stkd_screen.teach.checkpoint import read_checkpoint
from stkd_screen.teach.teacher import load_teacher
from stkd_screen.weights import file_sha256, find_weights, load_weights

# ---- conditions


@pytest.mark.parametrize(
    "condition",
    [
        "id in (select id from read_csv('{secret}'))",
        "id IN (\nSELECT id FROM read_csv('{secret}'))",
        "/*'*/ id in (select id from read_csv('{secret}')) /*'*/",
        "id = 'a' --'\n or id in (select id from read_csv('{secret}')) --'",
        "id in (table t)",
        "id in (values ('a'))",
        "exists(select 1)",
        "read_csv('{secret}') is null",
        "scan_parquet('{secret}') is null",
        "\"read_csv\"('{secret}') is null",
        "`id` = 'a'",
        "id = $$a$$",
        "id = E'a'",
        "id = N'a'",
        "id = X'00'",
        "id = :id",
        "id = ?",
        "id = @id",
        "id = 'a'; drop table t",
        "id = 'a' \\ or true",
        "self.id = 'a'",
        "columns('.*') is null",
        "row_number() over (order by id) > 1",
        "current_setting('home') is null",
        "id = 'a' union select 1",
        "id in unnest(array['a'])",
    ],
)
def test_a_condition_can_use_columns_and_known_words_only(toy_index, tmp_path, monkeypatch, condition):  # noqa: F811
    (tmp_path / "secret.csv").write_text("id\na\n")
    monkeypatch.setattr(pl, "sql_expr", lambda _: pytest.fail("it came to Polars"))
    with pytest.raises(SearchError, match=r"is no part of a condition|no column"):
        rows_where(toy_index.index.store, condition.format(secret=tmp_path / "secret.csv"))


@pytest.mark.parametrize(
    "condition",
    [
        "id = 'select * from read_csv(''x'') -- /* '",
        "weight_ev between 3.5 and 1e1 or id like 'm%' and not warned",
        "lower(smiles) ilike '%o' and length(smiles) >= 2 and abs(-weight_ev) > .5",
        '"id" is not null and weight_ev::int % 2 = 1',
        "case when warned then weight_ev > 3 else id in ('m1', 'm2') end",
        "regexp_like(smiles, '^C+$') or smiles ~ 'N$' or strpos(smiles, 'O') > 1",
        "coalesce(rings, 0) < avg(weight_ev) + 2 * stddev(weight_ev)",
    ],
)
def test_usual_conditions_work(toy_index, condition):  # noqa: F811
    assert len(rows_where(toy_index.index.store, condition)) == len(toy_index.index)
    check_condition(toy_index.index.store, condition)


# ---- weights, checkpoints, indexes


@pytest.fixture
def weights(toy, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((toy.weights / name).read_bytes())
    return folder


class Payload:
    def __reduce__(self):
        return os.mkdir, ("/tmp/stkd-screen-was-unpickled",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_weights_are_never_unpickled(weights, write):
    file = weights / "model.safetensors"
    write(Payload(), file)
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | {"sha256": file_sha256(file)}))
    with pytest.raises(WeightsError, match="no safetensors file"):
        load_weights(weights)
    assert not Path("/tmp/stkd-screen-was-unpickled").exists()


def test_a_checkpoint_runs_nothing(tmp_path):
    torch.save({"identity": {}, "state": Payload()}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="is no checkpoint, or a damaged one; --restart"):
        read_checkpoint(tmp_path / "checkpoint.pt", {}, torch.device("cpu"))
    assert not Path("/tmp/stkd-screen-was-unpickled").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"graphormer": {"width": 10**9}},
        {"graphormer": {"hook": "os.system"}},
        {"graphormer": "import os"},
        {"targets": [{"name": "homo"}]},
    ],
)
def test_a_hostile_teacher_is_an_error(tmp_path, change):
    shipped = find_weights("slim-teacher")
    config = json.loads((shipped / "config.json").read_text())
    if isinstance(change.get("graphormer"), dict):
        change = {"graphormer": config["graphormer"] | change["graphormer"]}
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "model.safetensors").write_bytes((shipped / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"describes no teacher|does not fit"):
        load_teacher(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ([], "describes no model"),
        ({"student": {"width": 10**9, "heads": 1, "feed_forward": 10**9}}, "describes no student"),
        ({"student": {"width": 32, "heads": 0, "feed_forward": 64}}, "describes no student"),
        (
            {"student": {"width": 32, "heads": 2, "feed_forward": 64, "hook": "os.system"}},
            "describes no student",
        ),
        ({"student": "import os"}, "describes no student"),
        ({"targets": [{"name": "homo"}]}, "describes no student"),
        ({"sha256": 7}, "altered or cut short"),
    ],
)
def test_a_hostile_configuration_is_an_error(weights, change, reason):
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | change if change else change))
    with pytest.raises(WeightsError, match=reason):
        load_weights(weights)


def test_tensors_of_another_shape_take_no_memory_of_that_size(weights):
    file = weights / "model.safetensors"
    save_file({"table": torch.zeros(1, 1)}, file)
    config = json.loads((weights / "config.json").read_text())
    student = config["student"] | {"width": 2**20, "feed_forward": 2**24}  # 10^14 bytes
    (weights / "config.json").write_text(
        json.dumps(config | {"sha256": file_sha256(file), "student": student})
    )
    with pytest.raises(WeightsError, match="does not fit"):
        load_weights(weights)


@pytest.mark.parametrize("name", ["..", "a/..", "", ".", "/"])
def test_an_index_has_a_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STKD_SCREEN_HOME", str(tmp_path))
    with pytest.raises(SearchError, match="no name for an index"):
        index_folder(name)


@pytest.fixture
def hostile_index(toy_index, tmp_path):  # noqa: F811
    """A copy of the index whose manifest can be changed."""
    folder = tmp_path / "index"
    folder.mkdir()
    for file in toy_index.index.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())

    def change(**values):
        content = json.loads((folder / "manifest.json").read_text())
        for key, value in values.items():
            content[key] = content[key] | value
        (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    return change


def test_an_index_names_its_own_files_only(hostile_index):
    folder = hostile_index(files={"../../secret": {"bytes": 1, "sha256": ""}})
    with pytest.raises(SearchError, match=r"names '\.\./\.\./secret', which is no file of an index"):
        Index(folder)


def test_an_index_does_not_say_which_folder_to_load(hostile_index, run, toy):
    folder = hostile_index(origin={"model": str(toy.weights)})
    result = run("search", "CCO", "--index", folder)
    assert "which is no name of a model; give the folder of that model with --model" in result.stderr


# ---- what is written


FORMULAS = ["=1+1", "@SUM(A1)", "+1-1", "-2+3+cmd|' /C calc'!A0", "\t=1", "＝1+1"]
HARMLESS = ["-1", "+1.5e3", "m1", "C=O", "1-2", ""]


def test_csv_has_no_formula_unless_asked_for(tmp_path):
    texts = FORMULAS + HARMLESS
    hits = pl.DataFrame({"id": texts, "gap_ev": [-1.5] * len(texts)})
    write_hits(hits, tmp_path / "safe.csv")
    with open(tmp_path / "safe.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["'" + text for text in FORMULAS] + HARMLESS
    assert {row["gap_ev"] for row in rows} == {"-1.5"}
    write_hits(hits, tmp_path / "raw.csv", raw_csv=True)
    assert pl.read_csv(tmp_path / "raw.csv", schema={"id": pl.String, "gap_ev": pl.Float64}).equals(
        hits.with_columns(pl.col("id").replace("", ""))
    )
    for suffix, read in ((".parquet", pl.read_parquet), (".json", pl.read_json)):
        write_hits(hits, tmp_path / f"hits{suffix}")
        assert read(tmp_path / f"hits{suffix}")["id"].to_list() == texts


@pytest.fixture
def run(monkeypatch, run_command, toy_index, tmp_path):  # noqa: F811
    monkeypatch.setenv("STKD_SCREEN_HOME", str(toy_index.home))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return run_command


def test_the_command_writes_safe_csv_and_raw_csv(run, toy):
    Path("q.smi").write_text("CCO =HYPERLINK(1)\n")
    for option, id in (([], "'=HYPERLINK(1)"), (["--raw-csv", "--overwrite"], "=HYPERLINK(1)")):
        printed = run("search", "q.smi", "-k", 1, "-o", "hits.csv", "--model", toy.weights, *option)
        assert pl.read_csv("hits.csv")["query_id"].to_list() == [id], printed.stderr


def test_texts_give_the_terminal_no_orders(run, toy):
    evil = "\x1b]0;owned\x07\x1b[2J[red]:smile:[/nothing]"
    Path("q.smi").write_text(f"CCO {evil}\nC\x1b[2JC b\n")
    Path("t.csv").write_text(f"smiles {evil},id\nC,a\n,b\n")
    for command in (
        ["search", "q.smi", "-k", 1],
        ["search", f"CCO {evil}", "-k", 1],
        ["embed", "t.csv", "-o", "out.parquet"],
        ["embed", "t.csv", "-o", "strict.parquet", "--strict"],
        ["embed", f"no{evil}.smi", "-o", "none.parquet"],
    ):
        printed = run(*command, "--model", toy.weights)
        text = printed.stdout + printed.stderr
        assert "\x1b" not in text and "\x07" not in text and "Traceback" not in text
        assert "\\x1b[2J[red]:smile:[/nothing]" in text.replace("\\\\", "\\")


def test_texts_give_the_terminal_no_orders_in_training(run, toy):
    """Names of files, columns and targets."""
    evil = "\x1b]0;owned\x07\x1b[2J[bold]:smile:[nothing]$^$"
    frame = pl.read_csv(toy.table).rename({"heavy": f"heavy{evil}"})
    smiles = pl.concat([frame["smiles"][:-1], pl.Series([f"C1C{evil}"])])  # one to leave out
    frame.with_columns(smiles.alias("smiles")).write_csv(table := f"t{evil}.csv")
    Path(f"u{evil}.smi").write_text(
        f"CCO\nC1CC {evil}\nCCN\n" + "".join(f"{'C' * k}O\n" for k in range(3, 60))
    )
    Path(f"other{evil}.smi").write_text("CC\n")
    target = ["--target", f"toy.weight{evil}=heavy{evil}:eV"]
    tiny = ["--preset", "tiny", "--epochs", 1, "--device", "cpu"]
    shown = r"\x1b]0;owned\x07\x1b[2J[bold]:smile:[nothing]$^$"
    for command in (
        ["train", table, "-o", f"student{evil}", *target, *tiny],
        ["evaluate", f"student{evil}", table, *target, "--device", "cpu"],
        ["teach", table, "-o", f"teacher{evil}", *target, *tiny],
        ["distill", table, "--teacher", f"teacher{evil}", "-o", f"distilled{evil}", *target, *tiny],
        ["distill", "--unlabelled", f"u{evil}.smi", "--teacher", f"teacher{evil}", "-o", "soft", *tiny],
        ["prepare", table, "-o", f"t{evil}.prepared", *target],
        ["embed", f"u{evil}.smi", "-o", f"out{evil}.parquet", "--model", toy.weights],
        ["verify", f"out{evil}.parquet", f"other{evil}.smi"],
    ):
        printed = run(*command)
        text = printed.stdout + printed.stderr
        assert "Traceback" not in text and "error:" not in text, text
        assert "\x1b" not in text and "\x07" not in text
        assert shown in text.replace("\\\\", "\\"), text


def test_printable():
    assert printable("a\tb\n\x1b[1m\x07\u202e\udc80é") == "a\tb\n\\x1b[1m\\x07\\u202e\\udc80é"


def test_a_picture_of_too_many_atoms_is_not_drawn():
    assert depict("C" * MOST_ATOMS) and depict("C" * (MOST_ATOMS + 1)) is None
    assert "<svg" in depict("CCO", "C" * 20_000)


def test_a_picture_has_no_text_of_the_input():
    for smiles in ("CCO |$<script>alert(1)</script>;;$|", "CCO <img src=x>"):
        assert "script" not in depict(smiles) and "img" not in depict(smiles)


# ---- the network

WATCH = """
import os, sys
def watch(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")) and event not in ALLOWED:
        with open(os.environ["WATCHED"], "a") as file:
            print(event, arguments, file=file)
        raise RuntimeError("network access: " + event)
ALLOWED = {"socket.gethostname"}  # asks the kernel, not the network
sys.addaudithook(watch)
"""
COMMANDS = """
import sys
from stkd_screen.cli import main
def run(*arguments):
    sys.argv = ["stkd-screen", *arguments]
    try:
        main()
    except SystemExit as exit_:
        assert not exit_.code, arguments
run("--help")
run("embed", "in.smi", "-o", "out.parquet", "--model", WEIGHTS)
run("index", "out.parquet")
run("search", "CCO", "-k", "1", "--html", "hits.html", "--model", WEIGHTS)
run("evaluate", WEIGHTS, TABLE)
run("train", TABLE, "-o", "new", "--target", "toy.weight=heavy:eV", "--preset", "tiny", "--epochs", "1")
"""


def without_network():
    """What puts a command into a network of its own with nothing in it, where this machine allows it."""
    command = ["unshare", "-rn"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except OSError:
        allowed = False
    return command if allowed else []


def test_nothing_is_sent_or_fetched(toy, tmp_path):
    """Every use of a socket from Python raises, and what is no Python finds no network."""
    code = f"WEIGHTS, TABLE = {str(toy.weights)!r}, {str(toy.table)!r}\n{COMMANDS}"
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "in.smi").write_text("CCO a\nCCN b\nc1ccccc1 c\n")
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}",
        "STKD_SCREEN_HOME": str(tmp_path / "home"),
        "WATCHED": str(tmp_path / "watched"),
    }
    command = [*without_network(), sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "hits.html").exists() and (tmp_path / "new" / "config.json").exists()
    assert not (tmp_path / "watched").exists()


def test_the_watch_sees_a_socket(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "WATCHED": str(tmp_path / "watched")}
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert result.returncode == 1 and b"network access" in result.stderr
    assert "socket." in (tmp_path / "watched").read_text()
