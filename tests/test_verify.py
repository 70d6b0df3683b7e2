"""verify finds what is wrong with an output, and nothing where nothing is."""

import json
import shutil

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_resume import LINES, run

from stkd_screen import load
from stkd_screen.errors import OutputError
from stkd_screen.files import file_sha256
from stkd_screen.parts.outputs import output_at
from stkd_screen.verify import verify

OUTPUTS = ["out.parquet", "out"]


@pytest.fixture(scope="module")
def encoder(toy):
    return load(toy.weights, device="cpu")


@pytest.fixture(scope="module")
def made(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "in.smi").write_text("".join(LINES))
    for output in OUTPUTS:
        run(encoder, folder / "in.smi", folder / output)
    return folder


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def failing(output, *inputs):
    return {check.name: check.finding for check in verify(output, inputs) if check.holds is False}


@pytest.mark.parametrize("output", OUTPUTS)
def test_all_holds_of_an_output_as_it_was_written(made, output):
    checks = verify(made / output)
    assert [check.name for check in checks] == ["output", "parts", "columns", "rows", "results", "input"]
    assert {check.holds for check in checks} == {True}
    assert "67 (" in checks[4].finding and "33 rows with an error" in checks[4].finding


@pytest.mark.parametrize("output", OUTPUTS)
def test_one_altered_byte_is_found(copy, output):
    path = copy / output if output.endswith("parquet") else copy / output / "part-00002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "its SHA-256 is another" in failing(copy / output)["parts"]


def test_missing_short_and_foreign_parts_are_found(copy):
    folder = copy / "out"
    shutil.copy(folder / "part-00001.parquet", folder / "more.parquet")
    assert "more.parquet" in failing(folder)["parts"]
    (folder / "more.parquet").unlink()
    (folder / "part-00001.parquet").write_bytes((folder / "part-00001.parquet").read_bytes()[:100])
    assert "has 100 bytes of" in failing(folder)["parts"]
    (folder / "part-00001.parquet").unlink()
    checks = {check.name: check for check in verify(folder)}
    assert [*checks] == ["output", "parts", "columns", "rows", "results", "input"]
    assert "part 1 (" in checks["parts"].finding and "is missing" in checks["parts"].finding
    held = [check.holds for check in checks.values()]
    assert held.count(False) == 2 and held[-1] is None  # parts, and the first that could not be read
    assert "not looked at" in checks["input"].finding


def rewrite(folder, number, change):
    """Alter the rows of a part, and make its manifest agree with the altered file."""
    path = folder / f"part-{number:05}.parquet"
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    manifest = json.loads((folder / "_manifest.json").read_text())
    part = manifest["parts"][number]
    part["bytes"], part["sha256"] = path.stat().st_size, file_sha256(path)
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def with_column(table, name, values):
    i = table.column_names.index(name)
    return table.set_column(i, table.schema.field(i), pa.array(values, table.schema.field(i).type))


@pytest.mark.parametrize(
    ("change", "check", "finding"),
    [
        (lambda t: t.take(np.r_[1, 0, 2 : len(t)]), "rows", "out of order at row 20"),
        (lambda t: t[1:], "rows", "99, its manifest says 100"),
        (
            lambda t: with_column(t, "error", ["x"] * len(t)),
            "results",
            "row 21 has both a result and an error",
        ),
        (lambda t: with_column(t, "warning", ["x"] * len(t)), "results", "its manifest says"),
        (lambda t: with_column(t, "smiles", ["C", *t["smiles"].to_pylist()[1:]]), "input", "in.smi line 21"),
        (lambda t: with_column(t, "id", [None, *t["id"].to_pylist()[1:]]), "input", "in.smi line 21"),
        (lambda t: t.drop_columns("warning"), "columns", "instead of"),
        (lambda t: t.replace_schema_metadata(None), "columns", "of another model than weights"),
    ],
)
def test_altered_rows_are_found_even_with_hashes_that_fit(copy, change, check, finding):
    rewrite(copy / "out", 1, change)
    assert finding in failing(copy / "out")[check]


def test_another_input_is_found(encoder, copy):
    output = copy / "again.parquet"
    run(encoder, copy / "in.smi", output)
    (copy / "in.smi").rename(copy / "moved.smi")
    assert verify(output)[-1].holds is None and failing(output) == {}
    assert failing(output, copy / "moved.smi") == {}
    (copy / "moved.smi").write_text("".join([*LINES, "C more\n"]))
    assert "goes on after the 100" in failing(output, copy / "moved.smi")["input"]
    (copy / "moved.smi").write_text("".join(LINES[:50]))
    assert "ends after 50 records" in failing(output, copy / "moved.smi")["input"]
    (copy / "moved.smi").write_text("".join([LINES[1], *LINES[1:]]))
    assert "line 1 is not what was embedded as row 0" in failing(output, copy / "moved.smi")["input"]
    (copy / "moved.smi").write_text("# a comment\n" + "".join(LINES))
    assert "files of other bytes" in verify(output, [copy / "moved.smi"])[-1].finding
    assert "no such file" in failing(output, copy / "gone.smi")["input"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_unfinished_run_is_incomplete_and_otherwise_sound(encoder, made, tmp_path, output):
    run(encoder, made / "in.smi", tmp_path / output, stop_after=4)
    assert list(failing(tmp_path / output)) == ["output"]
    assert "rows so far" in failing(tmp_path / output)["output"]
    assert failing(output_at(tmp_path / output).work) == failing(tmp_path / output)


def test_a_folder_may_be_the_one_that_one_is_in_or_have_any_name(made, tmp_path, monkeypatch):
    shutil.copytree(made / "out", tmp_path / "out.partial")
    found = [check.finding for check in verify(made / "out")][:5]
    assert [check.finding for check in verify(tmp_path / "out.partial")][:5] == found
    monkeypatch.chdir(made / "out")
    assert [check.finding for check in verify(".")][:5] == found


def test_a_limited_run_holds(encoder, made, tmp_path):
    run(encoder, made / "in.smi", tmp_path / "limited.parquet", limit=25)
    assert failing(tmp_path / "limited.parquet") == {}


def test_what_has_no_manifest_is_refused(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(OutputError, match="has no manifest"):
        verify(tmp_path / "foreign.parquet")
    with pytest.raises(OutputError, match="is not there"):
        verify(tmp_path / "nothing.parquet")
    (tmp_path / "short.parquet").write_bytes((tmp_path / "foreign.parquet").read_bytes()[:-9])
    with pytest.raises(OutputError, match="no whole Parquet file: it was cut short"):
        verify(tmp_path / "short.parquet")
    with pytest.raises(OutputError, match="an output without a name"):
        verify("")


def test_the_manifest_names_the_rows_it_counts(made):
    for output in OUTPUTS:
        manifest = output_at(made / output).finished()
        assert manifest.rows == 100 and [part.rows for part in manifest.parts] == [20] * 5
        assert manifest.inputs[0].sha256 == file_sha256(made / "in.smi")
        assert manifest.columns["embedding"] == "float16[32]" and manifest.columns["row"] == "int64"
