"""Runs killed at random moments end in the same output, bit for bit, as a run that was left alone."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import zstandard
from conftest import SHARED_DATA

from stkd_screen.verify import verify

KILLING = Path(__file__).with_name("killing.py")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # the number of threads touches the last bits


def bits(table: pa.Table) -> list[tuple[str, str, str]]:
    """Name, type and hash of each column; equal where every bit is."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.combine_chunks()
        digest = hashlib.sha256()
        digest.update(str(values.is_null().to_pylist()).encode())
        flat = values.flatten() if pa.types.is_fixed_size_list(values.type) else values.drop_null()
        is_text = pa.types.is_string(flat.type)
        digest.update(str(flat.to_pylist()).encode() if is_text else flat.to_numpy().tobytes())
        columns.append((name, str(values.type), digest.hexdigest()))
    return columns


def read_three_times(output: Path) -> list[pa.Table]:
    """As pyarrow, DuckDB and Polars read it."""
    files = str(output / "*.parquet") if output.is_dir() else str(output)
    table = pa.dataset.dataset(output).to_table()
    by_duckdb = duckdb.sql(f"select * exclude embedding from read_parquet('{files}') order by row")
    return [
        table,
        by_duckdb.to_arrow_table(),
        pl.read_parquet(files).to_arrow(compat_level=pl.CompatLevel.oldest()),
    ]


def killed_and_resumed(arguments: list[object], output: Path, kills: int, seconds: float, seed: int) -> dict:
    command = ["embed", *map(str, arguments), "-o", str(output), "--device", "cpu"]
    run = [sys.executable, KILLING, str(kills), str(seconds), str(seed), "--", *command]
    result = subprocess.run(run, env=ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


def left_alone(arguments: list[object], output: Path) -> pa.Table:
    command = [sys.executable, "-m", "stkd_screen", "embed", *map(str, arguments), "-o", output]
    subprocess.run([*command, "--device", "cpu"], env=ONE_THREAD, check=True, capture_output=True)
    return pa.dataset.dataset(output).to_table()


def check_equal(output: Path, whole: pa.Table) -> None:
    table, by_duckdb, by_polars = read_three_times(output)
    assert bits(table) == bits(whole)
    same = whole.drop_columns("embedding")
    for other in (by_duckdb, by_polars.drop_columns("embedding")):
        assert other.cast(same.schema).to_pylist() == same.to_pylist()
    assert pl.from_arrow(whole)["embedding"].to_list() == pl.from_arrow(by_polars)["embedding"].to_list()
    assert {check.holds for check in verify(output)} == {True}


@pytest.fixture(scope="module")
def small_run(toy, tmp_path_factory):
    """Arguments of a run over 1,000 records, and what it gives when it is left alone."""
    folder = tmp_path_factory.mktemp("killed")
    smiles = [f"{'C' * (k % 30 + 1)}{'ON('[k % 3]}" for k in range(1_000)]  # a third of them bad
    text = "".join(f"{s} m{k}\n" for k, s in enumerate(smiles))
    (folder / "in.smi.gz").write_bytes(gzip.compress(text.encode()))
    arguments = [folder / "in.smi.gz", "--model", toy.weights, "--rows-per-part", 50]
    return arguments, left_alone(arguments, folder / "whole.parquet")


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_a_few_kills(small_run, tmp_path, output):
    arguments, whole = small_run
    counts = killed_and_resumed(arguments, tmp_path / output, kills=4, seconds=0.5, seed=1)
    assert counts["kills"] == 4
    check_equal(tmp_path / output, whole)


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    """1,500 records of a real tranche, and what a run over them gives when it is left alone."""
    tranche = SHARED_DATA / "zinc" / "CDAA.smi.gz"
    if not tranche.exists():
        pytest.skip(f"{tranche} is not here")
    folder = tmp_path_factory.mktemp("real")
    text = b"".join(gzip.decompress(tranche.read_bytes()).splitlines(keepends=True)[:1_501])
    (folder / "in.smi").write_bytes(text)
    return text, left_alone([folder / "in.smi", "--rows-per-part", 64], folder / "whole.parquet")


# KILL_SEEDS=5:10 kills at other moments, KILL_SEEDS=0:1 a fifth as often.
SEEDS = range(*map(int, os.environ.get("KILL_SEEDS", "0:5").split(":")))
FORMS = [("in.smi", "out.parquet"), ("in.smi", "out"), ("in.smi.gz", "out.parquet"), ("in.smi.zst", "out")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "output"), FORMS)
def test_two_hundred_kills_of_a_real_library(real_run, tmp_path, seed, name, output):
    """Ten of them each; over all, twenty outputs are compared."""
    text, whole = real_run
    pack = {".smi": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[Path(name).suffix]
    (tmp_path / name).write_bytes(pack(text))
    arguments = [tmp_path / name, "--rows-per-part", 64]
    counts = killed_and_resumed(arguments, tmp_path / output, kills=10, seconds=6.0, seed=seed)
    print(name, output, counts)
    assert counts["kills"] == 10 and counts["more_safe"] > 0
    check_equal(tmp_path / output, whole)
