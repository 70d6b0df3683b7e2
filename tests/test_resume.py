"""A run that was stopped goes on where it was, and only where it may."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest
from test_killed_runs import bits

import stkd_screen.parts.manifest
from stkd_screen import load
from stkd_screen.embed import embed
from stkd_screen.errors import InputError, OutputError, SearchError
from stkd_screen.files import file_sha256
from stkd_screen.output import OutputOptions
from stkd_screen.parts.lock import Locked, locked
from stkd_screen.parts.outputs import MANIFEST, MANIFEST_KEY, output_at
from stkd_screen.records import RecordReader
from stkd_screen.search.library import Library
from stkd_screen.verify import verify
from stkd_screen.windows import pass_over

LINES = [f"{'C' * (k % 30 + 1)}{'ON('[k % 3]} m{k}\n" for k in range(100)]  # a third of them bad


@pytest.fixture(scope="module")
def encoder(toy):
    return load(toy.weights, device="cpu")


@pytest.fixture
def library(tmp_path):
    (tmp_path / "in.smi").write_text("".join(LINES))
    return tmp_path / "in.smi"


def run(encoder, inputs, output, *, stop_after=None, level=None, **options):
    """Embed in windows of 10 records and parts of 20; `stop_after` so many questions whether to stop."""
    reader = RecordReader(inputs if isinstance(inputs, list) else [inputs], batch_size=10, exclude=None)
    chosen = OutputOptions(level=level).checked(encoder.weights)
    asked = iter(range(1_000))
    stop = (lambda: next(asked) >= stop_after) if stop_after is not None else (lambda: False)
    options = {"rows_per_part": 20, "should_stop": stop} | options
    return embed(reader, encoder, output, chosen, **options)


def rows(output):
    return pyarrow.dataset.dataset(output).to_table()


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
@pytest.mark.parametrize("stop_after", [1, 2, 7])
def test_a_stopped_run_goes_on_and_gives_the_same_rows(encoder, library, tmp_path, output, stop_after):
    run(encoder, library, tmp_path / "whole.parquet")
    first = run(encoder, library, str(tmp_path / output), stop_after=stop_after)
    assert not first.complete and 0 < first.records < 100 and first.output_bytes > 0
    second = run(encoder, library, str(tmp_path / output))
    assert second.complete and (second.resumed, second.records) == (first.records, 100)
    assert second.bad == {"no atom where one is expected": 33}
    assert bits(rows(tmp_path / output)) == bits(rows(tmp_path / "whole.parquet"))
    assert not (tmp_path / "out.parquet.partial").exists()


def test_a_folder_has_parts_of_so_many_rows_at_most(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out", rows_per_part=35)
    sizes = {p.name: pl.read_parquet(p).height for p in sorted((tmp_path / "out").glob("*.parquet"))}
    assert sizes == {f"part-{k:05}.parquet": n for k, n in enumerate([30, 30, 30, 10])}
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["_manifest.json", *sizes]


def test_a_complete_output_is_left_as_it_is(encoder, library, tmp_path):
    for output in (tmp_path / "out.parquet", tmp_path / "out"):
        run(encoder, library, output)
        files = sorted(output.rglob("*")) if output.is_dir() else [output]
        before = [(path, path.stat().st_mtime_ns) for path in files]
        again = run(encoder, library, output)
        assert again.complete and again.resumed == again.records == 100 and again.bad.total() == 33
        assert [(path, path.stat().st_mtime_ns) for path in files] == before


def stopped(encoder, library, tmp_path, **options):
    output = tmp_path / "out.parquet"
    assert not run(encoder, library, output, stop_after=3, **options).complete
    return output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "other"}, "level toy -> other"),
        ({"limit": 50}, "limit None -> 50"),
        ({"rows_per_part": 30}, "rows-per-part 20 -> 30"),
    ],
)
def test_another_option_is_refused_with_what_differs(encoder, library, tmp_path, options, message):
    output = stopped(encoder, library, tmp_path)
    with pytest.raises(OutputError, match=message) as refusal:
        run(encoder, library, output, **options)
    assert "--restart" in str(refusal.value)
    assert run(encoder, library, output, **options, restart=True).resumed == 0


def test_another_input_is_refused_with_what_differs(encoder, library, tmp_path):
    output = stopped(encoder, library, tmp_path)
    other = tmp_path / "other.smi"
    shutil.copy(library, other)
    with pytest.raises(OutputError, match=r"input \S+in\.smi -> \S+other\.smi"):
        run(encoder, other, output)
    with pytest.raises(OutputError, match="1 input files -> 2"):
        run(encoder, [library, other], output)
    size = library.stat().st_size
    library.write_text("".join(LINES) + "C late\n")
    with pytest.raises(OutputError, match=rf"in\.smi: {size} bytes -> {size + 7}"):
        run(encoder, library, output)
    library.write_text("".join(LINES).replace("m99", "x99"))
    with pytest.raises(OutputError, match=r"in\.smi: the same size, but other content"):
        run(encoder, library, output)
    (tmp_path / "moved").mkdir()
    library.unlink()
    (tmp_path / "moved" / "in.smi").write_text("".join(LINES))
    assert run(encoder, tmp_path / "moved" / "in.smi", output).complete


def test_a_change_that_no_sample_meets_is_found_by_the_rows(encoder, library, tmp_path, monkeypatch):
    monkeypatch.setattr(stkd_screen.parts.manifest, "_SAMPLE_BYTES", 8)
    output = stopped(encoder, library, tmp_path)
    text = "".join(LINES)
    library.write_text(text.replace("\nCCCCCN m4\n", "\nCCCCCF m4\n"))
    with pytest.raises(InputError, match=r"in\.smi line 5 is not the record that was embedded as row 4"):
        run(encoder, library, output)
    library.write_text(text)
    assert run(encoder, library, output).complete


def test_another_model_and_another_version_are_refused(encoder, library, tmp_path, monkeypatch):
    output = stopped(encoder, library, tmp_path)
    sha = encoder.weights.sha256
    monkeypatch.setattr(encoder, "weights", replace(encoder.weights, sha256="0" * 64, name="new"))
    with pytest.raises(OutputError, match=rf"model weights \({sha[:12]}\) -> new \(000000000000\)"):
        run(encoder, library, output)
    monkeypatch.undo()
    manifest = tmp_path / "out.parquet.partial" / "_manifest.json"
    manifest.write_text(manifest.read_text().replace('"program": "0.', '"program": "9.'))
    with pytest.raises(OutputError, match=r"stkd-screen 9\."):
        run(encoder, library, output)


def test_overwrite_replaces_what_is_finished_and_goes_on_with_what_is_not(encoder, library, tmp_path):
    for output in (tmp_path / "out.parquet", tmp_path / "out"):
        run(encoder, library, output, limit=30)
        with pytest.raises(
            OutputError, match=r"exists already, made otherwise \(limit 30 -> None\).*--overwrite"
        ):
            run(encoder, library, output)
        assert not run(encoder, library, output, overwrite=True, stop_after=3).complete
        again = run(encoder, library, output, overwrite=True)
        assert again.resumed and again.complete and len(rows(output)) == 100


def test_a_run_killed_after_its_last_step_is_complete(encoder, library, tmp_path, monkeypatch):
    output = tmp_path / "out.parquet"
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr("stkd_screen.parts.outputs.OutputFile.discard", lambda self: None)
    run(encoder, library, output)
    monkeypatch.undo()
    assert (tmp_path / "out.parquet.partial" / "_manifest.json").exists()
    again = run(encoder, library, output, overwrite=True)
    assert again.complete and again.resumed == 100
    assert not (tmp_path / "out.parquet.partial").exists()


def test_index_reads_the_parts_and_nothing_beside_them(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out")
    other = tmp_path / "out" / "other.parquet"
    run(encoder, library, other, stop_after=3)
    with pytest.raises(SearchError, match=r"other\.parquet\.partial: an unfinished run"):
        Library([tmp_path / "out"])
    run(encoder, library, other)
    found = Library([tmp_path / "out"])
    assert [file.name for file in found.files] == [f"part-{k:05}.parquet" for k in range(5)]
    assert found.rows == 100


class Dead(BaseException):
    """Stands for SIGKILL: no clean-up comes after it."""


class Mortal:
    """Calls of the system; the one of number `last` and all after it raise `Dead`."""

    CALLS = ("fsync", "replace", "unlink", "rmdir")

    def __init__(self, monkeypatch, last):
        self.count, self.last = 0, last
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, call):
        def counted_call(*arguments, **named):
            self.count += 1
            if self.count >= self.last:
                raise Dead
            return call(*arguments, **named)

        return counted_call


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_death_at_any_step(encoder, library, tmp_path, monkeypatch, output):
    """Killed runs hit these moments by chance; here each of them is met."""
    library.write_text("".join(LINES[:30]))
    run(encoder, library, tmp_path / "whole.parquet", limit=25)
    whole = bits(rows(tmp_path / "whole.parquet"))
    last, died = 1, True
    while died:
        folder = tmp_path / str(last)
        folder.mkdir()
        with monkeypatch.context() as patch:
            Mortal(patch, last)
            try:
                run(encoder, library, f"{folder}/{output}", limit=25)
                died = False
            except Dead:
                pass
        assert run(encoder, library, f"{folder}/{output}", limit=25).complete
        assert bits(rows(folder / output)) == whole
        assert sorted(path.name for path in folder.iterdir()) == [output.strip("/")]
        last += 1
    assert last > 15


def test_lost_parts_are_noticed(encoder, library, tmp_path):
    output = stopped(encoder, library, tmp_path)
    os.truncate(tmp_path / "out.parquet.partial" / "rows", 1_000)
    with pytest.raises(OutputError, match=r"rows has 1,000 bytes, its parts have .*--restart"):
        run(encoder, library, output)
    run(encoder, library, tmp_path / "out", stop_after=3)
    (tmp_path / "out" / "part-00000.parquet").unlink()
    with pytest.raises(OutputError, match=r"part-00000\.parquet has 0 bytes"):
        run(encoder, library, tmp_path / "out")


def test_parquet_files_of_something_else_are_left_alone(encoder, library, tmp_path):
    (tmp_path / "out").mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "out" / "part-00000.parquet")
    for options in ({}, {"overwrite": True}, {"restart": True}):
        with pytest.raises(OutputError, match="no manifest names"):
            run(encoder, library, tmp_path / "out", **options)
    assert pl.read_parquet(tmp_path / "out" / "part-00000.parquet")["a"].to_list() == [1]


def test_standard_input_runs_once_and_cannot_be_continued(encoder, tmp_path, monkeypatch):
    output = tmp_path / "out.parquet"

    def give(lines):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("".join(lines).encode())))

    give(LINES)
    with monkeypatch.context() as patch, pytest.raises(Dead):
        Mortal(patch, 8)
        run(encoder, "-", output)
    unfinished = r"cannot be read again from its beginning: begin anew with --restart"
    assert unfinished in verify(output)[0].finding
    with pytest.raises(SearchError, match=f"unfinished run .*; a pipe {unfinished}"):
        Library([output])
    with pytest.raises(OutputError, match="standard input or a pipe, which cannot be read again.*--restart"):
        run(encoder, "-", output)
    give(LINES)
    assert run(encoder, "-", output, restart=True).records == 100
    give(LINES)
    stopped = run(encoder, "-", output, overwrite=True, stop_after=3)
    assert stopped.stopped and not stopped.complete and len(rows(output)) == 100  # it was whole before
    give(LINES)
    stopped = run(encoder, "-", tmp_path / "new.parquet", stop_after=3)
    assert stopped.stopped and stopped.complete
    assert 0 < stopped.records == len(rows(tmp_path / "new.parquet")) < 100
    assert "stopped before the end of the input" in verify(tmp_path / "new.parquet")[0].finding
    give(LINES[:50])  # what is done already may be of another input
    with pytest.raises(OutputError, match="exists already, and whether standard input.*--overwrite"):
        run(encoder, "-", output)
    give(LINES[:50])
    assert run(encoder, "-", output, overwrite=True, restart=True).records == 50


def test_strict_rows_before_the_bad_one_are_kept(encoder, library, tmp_path):
    lines = [line.replace("(", "O") for line in LINES]
    lines[44] = "C1CC ring\n"
    library.write_text("".join(lines))
    output = tmp_path / "out.parquet"
    with pytest.raises(InputError, match=r"in\.smi line 45: unclosed ring bond"):
        run(encoder, library, output, strict=True)
    summary = run(encoder, library, output)
    assert summary.resumed == 40 and summary.bad.total() == 1
    with pytest.raises(InputError, match=r"1 of the 100 rows that are done are bad .*, or --overwrite with"):
        run(encoder, library, output, strict=True)
    library.write_text("".join(lines[:50]))
    run(encoder, library, tmp_path / "two.parquet", stop_after=5)
    with pytest.raises(InputError, match=r"or --restart with it"):
        run(encoder, library, tmp_path / "two.parquet", strict=True)


def test_the_hash_of_every_kind_of_input_is_that_of_its_bytes(encoder, tmp_path):
    import bz2
    import lzma

    import zstandard

    text = "".join(LINES).encode()
    packed = {
        "a.smi": text,
        "a.smi.gz": gzip.compress(text),
        "a.smi.bz2": bz2.compress(text),
        "a.smi.xz": lzma.compress(text),
        "a.smi.zst": zstandard.compress(text),
        "a.tsv": b"smiles\tid\n" + text.replace(b" ", b"\t"),
    }
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
    pl.DataFrame({"smiles": ["C", "CC"]}).write_parquet(tmp_path / "a.parquet")
    files = [tmp_path / name for name in [*packed, "a.parquet"]]
    run(encoder, files, tmp_path / "out", stop_after=25)
    run(encoder, files, tmp_path / "out")
    manifest = output_at(tmp_path / "out").finished()
    assert [file.sha256 for file in manifest.inputs] == [file_sha256(path) for path in files]


def test_a_lock_ends_with_its_owner(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from stkd_screen.parts.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(Locked), locked(tmp_path / "lock"):
        pass
    owner.kill()
    owner.wait()
    with locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_second_run_on_one_output_is_refused(encoder, library, tmp_path):
    for output in (tmp_path / "out.parquet", tmp_path / "out"):
        seen = []

        def try_a_second_one(summary, output=output, seen=seen):
            with pytest.raises(
                OutputError, match=rf"is being written by another run \(process {os.getpid()}"
            ):
                run(encoder, library, output)
            seen.append(summary.records)

        run(encoder, library, output, report=try_a_second_one)
        assert seen[-1] == 100 and len(rows(output)) == 100


def damaged_inputs(folder, order):
    """An input that can be read to its 63rd record, one that cannot be read at all and a sound one."""
    text = "".join(LINES).encode()
    (folder / "cut.smi.gz").write_bytes(gzip.compress(text)[:-100])
    (folder / "empty.smi.gz").write_bytes(b"")
    (folder / "sound.smi").write_bytes(text)
    return [next(folder.glob(f"{name}.*")) for name in order.split()]


@pytest.mark.parametrize(
    ("order", "limit"),
    [
        ("cut sound", None),
        ("cut sound", 75),
        ("empty cut sound", 20),
        ("cut", 63),  # the limit is met first
        ("cut", 64),
        ("sound cut", 100),  # and here, too
    ],
)
@pytest.mark.filterwarnings("ignore::stkd_screen.errors.StkdWarning")
def test_a_resumed_run_tells_of_damaged_inputs_as_an_unbroken_one(encoder, tmp_path, order, limit):
    """Stopped after the first window, in the middle, or when the last row was safe already."""
    inputs = damaged_inputs(tmp_path, order)
    windows = []
    unbroken = run(encoder, inputs, tmp_path / "unbroken.parquet", limit=limit, report=windows.append)
    for stop_after in {1, len(windows) // 2, len(windows)}:
        output = tmp_path / f"{stop_after}.parquet"
        assert not run(encoder, inputs, output, limit=limit, stop_after=stop_after).complete
        resumed = run(encoder, inputs, output, limit=limit)
        assert resumed.complete and resumed.records == unbroken.records
        assert resumed.input_fault == unbroken.input_fault
        assert output_at(output).finished().input_fault == unbroken.input_fault


def test_records_that_are_done_are_not_encoded_again(encoder, library, tmp_path, monkeypatch):
    output = tmp_path / "out.parquet"
    stopped_at = run(encoder, library, output, stop_after=5).records
    encoded = []
    in_order = encoder.in_order

    def counted(count, results):
        encoded.append(count)
        return in_order(count, results)

    monkeypatch.setattr(encoder, "in_order", counted)
    run(encoder, library, output)
    assert sum(encoded) == 100 - stopped_at


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
@pytest.mark.parametrize("stop_after", [None, 3])
def test_an_output_with_a_damaged_manifest_can_be_replaced(encoder, library, tmp_path, output, stop_after):
    path = tmp_path / output
    run(encoder, library, str(path), stop_after=stop_after)
    if output == "out.parquet" and stop_after is None:
        table = rows(path)
        about = table.schema.metadata | {MANIFEST_KEY: b"{}"}
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), path)
    else:
        manifest = path if output == "out/" else tmp_path / "out.parquet.partial"
        (manifest / MANIFEST).write_text("{")
    with pytest.raises(OutputError, match=r"its manifest is damaged .*copy the output anew, give another"):
        run(encoder, library, str(path))
    assert run(encoder, library, str(path), overwrite=True).complete
    assert rows(path).num_rows == 100


@pytest.mark.parametrize(
    "change",
    [
        {"options": []}, {"columns": None}, {"complete": "yes"}, {"parts": []}, {"rows": "x"}, {"rows": -3},
        {"bytes": None}, {"bad": [1]}, {"warnings": None}, {"file": "../a.parquet"}, {"file": 5},
    ],
)  # fmt: skip
def test_a_manifest_of_other_kinds_of_values_is_damaged(encoder, library, tmp_path, change):
    run(encoder, library, str(tmp_path / "out/"))
    path = tmp_path / "out" / MANIFEST
    content = json.loads(path.read_text())
    (content if change.keys() <= content.keys() else content["parts"][1]).update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="its manifest is damaged"):
        run(encoder, library, str(tmp_path / "out/"))
    with pytest.raises(OutputError, match="its manifest is damaged"):
        verify(tmp_path / "out")
    assert run(encoder, library, str(tmp_path / "out/"), overwrite=True).complete


def test_a_run_that_tidies_up_holds_its_lock(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out.parquet", stop_after=3)
    output = output_at(tmp_path / "out.parquet")
    with output.locked():
        output.discard()
        with pytest.raises(OutputError, match="is being written by another run"), output.locked():
            pass
    assert not output.work.exists()


def test_a_lock_file_is_closed_before_it_is_removed_where_the_system_asks_for_it(tmp_path, monkeypatch):
    done = []
    close, unlink = os.close, Path.unlink
    monkeypatch.setattr("stkd_screen.parts.lock.fcntl", None)  # as on Windows
    with locked(tmp_path / "lock"):
        monkeypatch.setattr(os, "close", lambda descriptor: (done.append("closed"), close(descriptor)))
        monkeypatch.setattr(
            Path, "unlink", lambda *path, **how: (done.append("removed"), unlink(*path, **how))
        )
    assert done == ["closed", "removed"]


def test_an_input_that_goes_on_where_it_ended_is_another(library):
    batches = ((records, 0, None) for records in RecordReader([library], batch_size=10))
    with pytest.raises(
        InputError, match="goes on where it ended before, after 14 records; the input was changed"
    ):
        pass_over(batches, 14, _Same(), None, lambda: False, lambda row, size: None)


class _Same:
    def first_difference(self, records):
        return None


def test_a_damaged_footer_of_a_part_is_told(encoder, library, tmp_path, capsys):
    run(encoder, library, tmp_path / "out.parquet", stop_after=6)
    file = tmp_path / "out.parquet.partial" / "rows"
    content = bytearray(file.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little")
    content[-8 - footer : -8] = b"\xff" * footer
    file.write_bytes(content)
    with pytest.raises(OutputError, match="the footer of a part is damaged; --restart begins anew"):
        run(encoder, library, tmp_path / "out.parquet")
    checks = {check.name: check for check in verify(tmp_path / "out.parquet")}
    assert checks["parts"].holds is False and checks["columns"].holds is False
    assert run(encoder, library, tmp_path / "out.parquet", restart=True).complete
