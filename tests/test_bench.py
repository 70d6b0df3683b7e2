"""The measurement of speed: not how fast, but whether it is told whole, and of what was measured."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from stkd_screen.cli import app
from stkd_screen.encoder import load
from stkd_screen.errors import InputError, OutputError
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.speed import measure as measure_module
from stkd_screen.speed.measure import STAGES, forward_flops, measure
from stkd_screen.speed.result import differences, read_result
from stkd_screen.student import PRESETS, Student
from stkd_screen.teach.example import EXAMPLE_LIBRARY

SMILES = [f"{'C' * k}{end}" for k in range(1, 21) for end in ("O", "N", "C1CC1")] + ["C1CC", "hello"]


@pytest.fixture(autouse=True)
def small_product(monkeypatch):
    monkeypatch.setitem(measure_module.MATMUL_SIDE, "cpu", 64)


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "library.smi"
    path.write_text("\n".join(SMILES))
    return path


@pytest.fixture
def bench(toy, library):
    def run(*arguments):
        options = ["--model", toy.weights, "--library", library, "--molecules", len(SMILES), "--repeats", 1]
        return CliRunner().invoke(app, ["bench", *map(str, [*options, *arguments])], env={"COLUMNS": "200"})

    return run


def test_it_shows_tables_and_prints_all_as_json(bench, toy, library):
    ran = bench()
    assert ran.exit_code == 0, ran.output
    for text in (*STAGES, "one after another", "end to end", "1,000,000,000 molecules", "matrix product"):
        assert text in ran.stderr
    (line,) = ran.stdout.splitlines()
    result = json.loads(line)
    assert list(result["stages"]) == list(STAGES)
    assert all(stage["seconds"] > 0 for stage in result["stages"].values())
    assert sum(stage["share"] for stage in result["stages"].values()) == pytest.approx(1)
    whole = sum(stage["seconds"] for stage in result["stages"].values())
    assert result["one_after_another"] == pytest.approx(len(SMILES) / whole)
    assert result["seconds_for"]["1000000"] == pytest.approx(1e6 / result["end_to_end"])
    assert (result["molecules"], result["unreadable"], result["device"]) == (len(SMILES), 2, "cpu")
    assert result["model_sha256"] == load(toy.weights, "cpu").weights.sha256
    assert list(result["library"]) == [str(library)]
    assert result["dtype"] == load(toy.weights, "cpu").precision
    assert result["padding"] == 0 and result["peak_memory_mb"] > 50
    assert set(result["machine"]) == {"cpu", "cores", "threads", "memory_gb", "gpu"}
    assert set(result["versions"]) == {"stkd-screen", "python", "torch", "numpy", "numba"}
    assert set(result["startup_seconds"]) == {"weights", "parser", "first_forward"}
    parsed = pretransform(*pack_smiles(SMILES))
    tokens = 1 + np.diff(parsed.atom_offsets) + np.diff(parsed.bond_offsets)
    assert result["tokens_per_molecule"] == pytest.approx(tokens[parsed.error == 0].mean())
    quiet = bench("--json")
    assert quiet.stderr == "" and json.loads(quiet.stdout).keys() == result.keys()


def test_the_stages_are_what_embed_does(toy):
    """Layout, transfer, forward pass and return, one after another, give what `encode` gives."""
    encoder = load(toy.weights, "cpu")
    parsed, forward = pretransform(*pack_smiles(SMILES)), encoder.forward

    def stages(rows):
        return rows, *forward.to_host(forward.run(forward.to_device(forward.lay_out(parsed, rows))))

    staged = list(forward.each(stages, forward.split(forward.token_counts(parsed))))
    for one, other in zip(staged, forward.batches(parsed), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert np.array_equal(
        encoder.in_order(len(parsed), staged).embedding, encoder.encode(parsed).embedding, equal_nan=True
    )


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_operations_are_those_of_the_formulas(name):
    config, T = PRESETS[name], 23
    D, E = config.width, config.fingerprint

    def layer(projections, attention):
        return 2 * T * D * (projections + 1) * D + 4 * T * D * config.feed_forward + 4 * T * T * attention * D

    expected = config.standard_layers * layer(3, 1)
    expected += (config.biased_layers - 1) * layer(5, 2)  # keys, and V beside them, twice as wide
    expected += 2 * D * D + 4 * T * D * D + 4 * T * D + 2 * D * D + 4 * D * config.feed_forward  # [V] alone
    expected += 2 * D * D + 2 * D * config.targets
    expected += 2 * T * D * E + 2 * E * E
    assert forward_flops(Student(config).eval(), T) == expected


def test_a_small_library_is_taken_again_and_again(bench, library):
    library.write_text("CCO ethanol\nC1CC\nCCN\n")
    result = json.loads(bench("--molecules", 20).stdout)
    assert (result["library_molecules"], result["molecules"], result["unreadable"]) == (3, 20, 7)
    assert result["tokens_per_molecule"] == pytest.approx(6)
    assert "20 molecules of library.smi (3 again and again)" in bench("--molecules", 20).stderr


def test_as_many_molecules_are_taken_as_there_is_time_for(toy, monkeypatch):
    monkeypatch.setattr(measure_module, "BUDGET", 0.2)
    monkeypatch.setattr(measure_module, "PILOT_SECONDS", 1e-6)
    told = []
    speed = measure([EXAMPLE_LIBRARY], toy.weights, "cpu", repeats=2, report=told.append)
    assert 1 <= speed.molecules < 65_536 and len(speed.end_to_end_runs) == 2
    assert f"{speed.molecules:,} molecules stage by stage, 2 of 2" in told


def test_compare_shows_ratios_and_tells_what_differs(bench, toy, library, tmp_path):
    first = bench().stdout
    earlier = tmp_path / "earlier.txt"
    earlier.write_text("some words\n" + first + '{"benchmark": "search"}\n')
    ran = bench("--compare", earlier)
    result, before = json.loads(ran.stdout), json.loads(first)
    assert "before" in ran.stderr and "ratio" in ran.stderr and "not measured alike" not in ran.stderr
    assert result["compared"]["differences"] == []
    ratio = result["end_to_end"] / before["end_to_end"]
    assert result["compared"]["end_to_end_ratio"] == pytest.approx(ratio)
    assert f"{ratio:.2f}" in next(line for line in ran.stderr.splitlines() if "end to end" in line)

    before |= {"model": "other", "model_sha256": "ab" * 32}
    before["machine"] |= {"cpu": "Zilog\x1b[31m Z80", "cores": 1000}
    earlier.write_text(json.dumps(before))
    library.write_text("\n".join(SMILES[::-1]))
    told = bench("--compare", earlier).stderr
    assert "not measured alike, model other (abababababab) -> weights (" in told
    assert r"not measured alike, cpu Zilog\x1b[31m Z80 -> " in told and "cores 1000 -> " in told
    assert "not measured alike, library library.smi (" in told


def test_differences_are_none_of_a_result_and_itself(bench):
    result = json.loads(bench().stdout)
    assert differences(result, result) == []
    assert differences(result | {"molecules": 5}, result) == [f"molecules 5 -> {len(SMILES)}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "no line of it is a result of bench"),
        ('{"benchmark": "search"}\n[1]\n{', "no line of it is a result of bench"),
        ('{"benchmark": "speed"}', "damaged or of another version"),
    ],
)
def test_what_cannot_be_compared_with_is_told_before_the_measurement(bench, tmp_path, content, message):
    if content is not None:
        (tmp_path / "old.json").write_text(content)
    ran = bench("--compare", tmp_path / "old.json")
    assert isinstance(ran.exception, InputError) and ran.stdout == ""
    assert message in str(ran.exception) and "old.json" in str(ran.exception)


def test_a_result_with_other_kinds_of_values_cannot_be_compared_with(bench, tmp_path):
    result = json.loads(bench().stdout)
    for damage in ({"stages": []}, {"end_to_end": 0}, {"padding": "none"}, {"machine": 1}, {"library": []}):
        (tmp_path / "old.json").write_text(json.dumps(result | damage))
        with pytest.raises(InputError, match="damaged or of another version"):
            raise bench("--compare", tmp_path / "old.json").exception
    assert read_result(tmp_path / "old.json")["library"] == []


def test_libraries_that_cannot_be_measured(bench, toy, library, tmp_path):
    library.write_text("\n")
    assert "no record in it" in str(bench().exception)
    library.write_text("C1CC\nhello\n")
    assert "none of its first 2 records is a molecule" in str(bench("--molecules", 2).exception)
    assert "cannot be read more than once" in str(bench("--library", "-").exception)
    assert "no such file" in str(bench("--library", tmp_path / "gone.smi").exception)


def test_no_room_for_temporary_files(toy, library, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="set TMPDIR"):
        measure([library], toy.weights, "cpu", molecules=5)


def test_options_before_a_subcommand_are_refused():
    ran = CliRunner().invoke(app, ["bench", "--model", "x", "search", "sets"], env={"COLUMNS": "200"})
    assert ran.exit_code == 2 and "--model is given before 'search'; give it after" in ran.stderr
