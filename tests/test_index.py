"""Building an index: what is in it, what kind it is, and that nothing is lost when a build goes wrong."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stkd_screen.errors import OutputError, SearchError, StkdWarning
from stkd_screen.parts.manifest import Manifest, Part, save_manifest
from stkd_screen.parts.outputs import MANIFEST, MANIFEST_KEY
from stkd_screen.records.parquet import METADATA_KEY
from stkd_screen.search import inverted_lists, store
from stkd_screen.search.build import BuildOptions, build_index
from stkd_screen.search.home import HOME_VARIABLE, default_index, find_index, index_folder, list_indexes
from stkd_screen.search.index import Index, approximate_neighbours
from stkd_screen.search.inverted_lists import choose_kind
from stkd_screen.search.library import Library

WIDTH = 16


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STKD_SCREEN_HOME", str(tmp_path / "home"))


@pytest.fixture
def stkd_screen(monkeypatch, run_command):
    """Run a command in this process, in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    return run_command


def write_library(path, rows=300, *, failed=(), seed=0, first=0, **about):
    """A Parquet file as `embed` writes it, with drawn vectors around a few centres."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, WIDTH))
    vectors = (centres[random.integers(20, size=rows)] + 0.5 * random.normal(size=(rows, WIDTH))).astype("f2")
    error = [f"bad {i}" if i in failed else None for i in range(rows)]
    missing = pa.array([reason is not None for reason in error])
    table = pa.table(
        {
            "row": np.arange(rows),
            "id": [f"m{first + i}" for i in range(rows)],
            "smiles": ["C" * (1 + i % 30) for i in range(rows)],
            "gap_ev": pa.array(np.arange(rows, dtype=np.float32)),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH, mask=missing),
            "error": pa.array(error, pa.string()),
            "warning": pa.array(["odd" if i % 2 else None for i in range(rows)], pa.string()),
        }
    )
    facts = {"model": "drawn", "model_sha256": "a" * 64, "level": "toy", "largest_fragment": False} | about
    metadata = {METADATA_KEY: json.dumps(facts | {"units": {"gap_ev": "eV"}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def build(*paths, name="drawn", **options):
    folder = index_folder(name)
    return build_index(Library(paths), folder, BuildOptions(**options))[0], Index(folder)


def test_a_small_library_is_searched_exactly(tmp_path):
    file = write_library(tmp_path / "a.parquet", failed=(3, 7))
    manifest, index = build(file)
    assert (manifest.kind, manifest.rows, manifest.left_out, manifest.recall) == ("exact", 298, 2, 1.0)
    records = index.store.records(np.array([5, 0, 3]))
    assert records["id"].to_pylist() == ["m6", "m0", "m4"]
    assert records["gap_ev"].to_pylist() == [6, 0, 4] and records["warned"].to_pylist() == [False] * 3
    vectors = np.concatenate([block for _, block in index.store.blocks()]).astype("f4")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    rows, cosines = index.nearest(vectors[:4], 5)
    expected = vectors[:4] @ vectors.T
    assert (rows == np.argsort(-expected, axis=1)[:, :5]).all()
    assert np.allclose(cosines, -np.sort(-expected, axis=1)[:, :5], atol=1e-3)


def test_the_kind_follows_the_size():
    gigabyte = 1_000_000_000
    assert choose_kind(100_000, 128, gigabyte)[0] == "exact"
    assert choose_kind(300_000, 128, gigabyte)[0] == "ivf"
    kind, why = choose_kind(10**8, 128, gigabyte)
    assert kind == "ivf-pq" and "1.0 GB" in why


@pytest.mark.parametrize("kind", ["ivf", "ivf-pq"])
def test_inverted_lists_find_what_exact_search_finds(tmp_path, kind):
    file = write_library(tmp_path / "a.parquet", 1200)
    manifest, index = build(file, kind=kind)
    assert manifest.recall >= 0.95 and manifest.effort
    queries = index.store.vectors(np.arange(100)).astype("f4")
    found, _ = inverted_search(index, queries, 10)
    exact, _ = index.nearest(queries, 10, exact=True)
    shared = [len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]
    assert np.mean(shared) >= 9.5
    assert {"lists.faiss", "lists.ivfdata"} <= set(manifest.files)


def inverted_search(index, queries, k, **options):
    """Without the shortcut that few molecules are compared one by one."""
    return approximate_neighbours(index.store, index._lists, queries, k, index.manifest.effort, **options)


def test_shards_make_the_same_index_as_one_piece(tmp_path, monkeypatch):
    file = write_library(tmp_path / "a.parquet", 3000)
    _, whole = build(file, kind="ivf", name="whole")
    monkeypatch.setattr(store, "BLOCK_ROWS", 500)
    monkeypatch.setattr(inverted_lists, "code_bytes", lambda kind, width: (64 << 20) // 2000)
    written = []
    write_index = inverted_lists.faiss.write_index
    monkeypatch.setattr(
        inverted_lists.faiss,
        "write_index",
        lambda lists, path: (written.append(path), write_index(lists, path)),
    )
    _, sharded = build(file, kind="ivf", name="sharded", memory=1)
    assert len(written) == 4  # three shards and the centroids
    queries = whole.store.vectors(np.arange(0, 3000, 50)).astype("f4")
    assert (inverted_search(whole, queries, 10)[0] == inverted_search(sharded, queries, 10)[0]).all()


def test_only_allowed_molecules_are_found(tmp_path):
    _, index = build(write_library(tmp_path / "a.parquet", 3000), kind="ivf")
    allowed = np.arange(3000) % 3 == 0
    queries = index.store.vectors(np.arange(20)).astype("f4")
    exact, _ = index.nearest(queries, 5, allowed=allowed)
    listed, _ = inverted_search(index, queries, 5, allowed=allowed)
    assert (exact % 3 == 0).all() and (listed % 3 == 0).all()
    few = np.arange(3000) < 2
    rows, cosines = index.nearest(queries, 5, allowed=few)
    assert (rows[:, 2:] == -1).all() and np.isnan(cosines[:, 2:]).all()


def test_more_molecules_can_be_added(tmp_path, monkeypatch):
    first = write_library(tmp_path / "a.parquet", failed=(0,))
    second = write_library(tmp_path / "b.parquet", 200, seed=1, first=300, failed=(1, 2))
    build(first)
    monkeypatch.setattr(inverted_lists, "EXACT_ROWS", 400)
    manifest, index = build(second, add=True)
    assert (manifest.rows, manifest.left_out, manifest.kind) == (497, 3, "ivf")
    assert manifest.sources == [str(first), str(second)]
    assert index.store.records(np.array([0, 298, 299]))["id"].to_pylist() == ["m1", "m299", "m300"]
    with pytest.raises(SearchError, match=r"holds .*b\.parquet already"):
        build(second, add=True)
    with pytest.raises(SearchError, match="of model 'other' .* cannot be compared"):
        build(write_library(tmp_path / "c.parquet", model="other", model_sha256="b" * 64), add=True)
    assert Index(index.folder).manifest == manifest


def test_a_folder_of_shards_is_one_library(tmp_path):
    for i in range(3):
        write_library(tmp_path / "shards" / f"{i}.parquet", 10, seed=i, first=10 * i)
    manifest, index = build(tmp_path / "shards")
    assert manifest.rows == 30
    assert index.store.records(np.arange(30))["id"].to_pylist() == [f"m{i}" for i in range(30)]


def write_manifest(folder, parts, **about):
    """The manifest that `embed` keeps in the folder of its parts."""
    made = [Part(300, file.stat().st_size, "", {}, 0, {}, file.name) for file in parts]
    manifest = Manifest("drawn", "a" * 64, {}, [], {}, made, **{"complete": True} | about)
    save_manifest(manifest, folder / MANIFEST)
    return manifest


def test_other_dimensions_are_not_another_model(tmp_path):
    long, short = (write_library(tmp_path / f"{name}.parquet", rows=20) for name in ("long", "short"))
    table = pq.read_table(short)
    place = table.schema.get_field_index("embedding")
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))[:, :4]
    cut = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 4)
    pq.write_table(table.set_column(place, pa.field("embedding", cut.type), cut), short)
    with pytest.raises(SearchError, match=rf"4 dimensions, .* of {WIDTH}; embed both with the same --dims"):
        Library([long, short])


def test_an_input_without_a_name_is_refused(stkd_screen):
    refused = stkd_screen("index", "")
    assert refused.returncode == 1 and "an input without a name" in refused.stderr


def test_of_a_folder_the_parts_that_its_manifest_names_are_taken(tmp_path):
    folder = tmp_path / "out"
    parts = [write_library(folder / f"part-0000{i}.parquet", seed=i) for i in range(3)]
    write_manifest(folder, parts[:2])
    assert Library([folder]).files == Library([tmp_path]).files == parts[:2]
    parts[0].unlink()
    with pytest.raises(SearchError, match=r"part-00000\.parquet has 0 bytes, .*; copy the folder again"):
        Library([folder])


def test_an_unfinished_run_of_embed_is_refused(tmp_path):
    folder = tmp_path / "out"
    part = write_library(folder / "part-00000.parquet")
    write_manifest(folder, [part], complete=False)
    unfinished = r"an unfinished run .* the command that began it goes on after them"
    for library in (folder, tmp_path):
        with pytest.raises(SearchError, match=f"out: {unfinished}; or name single files"):
            Library([library])
    assert Library([part]).files == [part]


def test_a_file_that_embed_has_not_finished_is_no_missing_file(tmp_path):
    work = tmp_path / "lib" / "out.parquet.partial"
    write_library(tmp_path / "lib" / "other.parquet")
    work.mkdir()
    write_manifest(work, [], complete=False)
    with pytest.raises(SearchError, match=r"out\.parquet: an unfinished run of stkd-screen embed"):
        Library([tmp_path / "lib" / "out.parquet"])
    with pytest.raises(SearchError, match=r"out\.parquet\.partial: an unfinished run of stkd-screen embed"):
        Library([tmp_path / "lib"])


def test_a_damaged_input_of_embed_is_told(tmp_path, stkd_screen):
    part = write_library(tmp_path / "out" / "part-00000.parquet")
    manifest = write_manifest(tmp_path / "out", [part], input_fault="x.smi.gz: damaged")
    table = pq.read_table(part)
    with pq.ParquetWriter(tmp_path / "single.parquet", table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({MANIFEST_KEY: manifest.to_json()})
    for path in (tmp_path / "out", tmp_path / "single.parquet"):
        told = f"{path}: its input was not read in full, so molecules may be missing: x.smi.gz: damaged"
        assert f"warning: {told}" in stkd_screen("index", path).stderr


def test_an_index_is_replaced_only_when_told(tmp_path):
    file = write_library(tmp_path / "a.parquet", 20)
    build(file)
    with pytest.raises(OutputError, match="there already; .*--overwrite"):
        build(file)
    assert build(write_library(tmp_path / "b.parquet", 30), overwrite=True)[0].rows == 30
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no index; give another --name"):
        build(file, name=tmp_path / "mine", overwrite=True)


def test_a_failed_build_leaves_the_old_index(tmp_path, monkeypatch):
    file = write_library(tmp_path / "a.parquet")
    old, _ = build(file)

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stkd_screen.search.build.save_manifest", disk_full)
    with pytest.raises(OutputError, match="No space left on device; free space"):
        build(file, overwrite=True, kind="ivf")
    assert Index(index_folder("drawn")).manifest == old
    assert [path.name for path in index_folder("drawn").parent.iterdir()] == ["drawn"]


def test_a_killed_build_leaves_the_old_index(tmp_path):
    file = write_library(tmp_path / "a.parquet")
    old, _ = build(file)
    code = (
        "import os, sys; from pathlib import Path; from stkd_screen.search.build import *; "
        "build_index(Library([sys.argv[1]]), Path(sys.argv[2]), BuildOptions('ivf', overwrite=True), "
        "lambda stage, *_: 'recall' in stage and os.kill(os.getpid(), 9))"
    )
    killed = subprocess.run([sys.executable, "-c", code, file, index_folder("drawn")])
    assert killed.returncode == -9
    assert Index(find_index()).manifest == old
    assert list_indexes() == [index_folder("drawn")]
    assert build(file, overwrite=True)[0].rows == old.rows
    assert [path.name for path in index_folder("drawn").parent.iterdir()] == ["drawn"]


def test_an_index_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done, rename = [], Path.rename
    monkeypatch.setattr("stkd_screen.search.build.sync", lambda path: done.append(path.name))
    monkeypatch.setattr(Path, "rename", lambda path, to: (done.append("rename"), rename(path, to)))
    manifest, _ = build(write_library(tmp_path / "a.parquet"), kind="ivf")
    at = done.index("rename")
    assert set(done[:at]) == {*manifest.files, "manifest.json", ".drawn.partial"}
    assert done[at + 1 :] == ["indexes"]


@pytest.mark.parametrize(("renames", "rows"), [(1, 300), (2, 200), (3, 200)])
def test_a_build_killed_while_it_takes_its_place_leaves_an_index(tmp_path, renames, rows):
    build(write_library(tmp_path / "a.parquet"))
    new = write_library(tmp_path / "b.parquet", 200)
    code = (
        "import os, sys; from pathlib import Path; from stkd_screen.search.build import *; "
        "rename, left = Path.rename, [None] * int(sys.argv[3])\n"
        "def rename_and_die(path, to):\n"
        "    rename(path, to)\n"
        "    left.pop()\n"
        "    left or os._exit(9)\n"
        "Path.rename = rename_and_die\n"
        "build_index(Library([sys.argv[1]]), Path(sys.argv[2]), BuildOptions(overwrite=True))"
    )
    killed = subprocess.run([sys.executable, "-c", code, new, index_folder("drawn"), str(renames)])
    assert killed.returncode == 9
    with pytest.raises(OutputError, match="there already"):
        build(new)
    assert Index(find_index()).manifest.rows == rows
    build(new, overwrite=True)
    assert [path.name for path in index_folder("drawn").parent.iterdir()] == ["drawn"]


@pytest.mark.parametrize(
    "opened",
    [
        find_index,
        lambda: find_index("drawn"),
        lambda: list_indexes()[0],
        lambda: Index(index_folder("drawn")).folder,
    ],
)
def test_an_index_that_was_left_aside_is_put_back(tmp_path, opened):
    old, _ = build(write_library(tmp_path / "a.parquet"))
    build(write_library(tmp_path / "b.parquet"), name="another")
    for name in ("drawn", "another"):
        index_folder(name).rename(index_folder(name).with_name(f".{name}.before"))
    assert Index(opened()).manifest.rows == old.rows


def test_two_builds_of_one_index_are_kept_apart(tmp_path):
    file = write_library(tmp_path / "a.parquet")
    refused = []

    def build_another(*_):
        with pytest.raises(OutputError, match="drawn is being built by another process; wait for it"):
            build(file)
        refused.append(True)

    build_index(Library([file]), index_folder("drawn"), BuildOptions(), build_another)
    assert refused and Index(find_index()).manifest.rows == 300


@pytest.mark.parametrize("name", ["vectors.f16", "records.arrow", "lists.faiss", "lists.ivfdata"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    _, index = build(write_library(tmp_path / "a.parquet"), kind="ivf")
    path = index.folder / name
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:middle])
    else:
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    with pytest.raises(SearchError, match=rf"{name} .*; build the index anew: stkd-screen index"):
        Index(index.folder)


def test_a_damaged_or_foreign_manifest_is_named(tmp_path):
    _, index = build(write_library(tmp_path / "a.parquet"))
    path = index.folder / "manifest.json"
    path.write_text(json.dumps(asdict(index.manifest) | {"format": 99}))
    with pytest.raises(SearchError, match="format 99, this program reads 1"):
        Index(index.folder)
    path.write_text("{")
    with pytest.raises(SearchError, match=r"manifest\.json cannot be read .*build the index anew"):
        Index(index.folder)


def test_what_cannot_be_indexed_is_named(tmp_path):
    with pytest.raises(SearchError, match="no such file"):
        Library([tmp_path / "nothing.parquet"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SearchError, match=r"no \.parquet file in this folder"):
        Library([tmp_path / "empty"])
    (tmp_path / "text.parquet").write_text("CCO")
    with pytest.raises(SearchError, match="no whole Parquet file"):
        Library([tmp_path / "text.parquet"])
    pq.write_table(pa.table({"smiles": ["C"]}), tmp_path / "plain.parquet")
    with pytest.raises(SearchError, match="not written by stkd-screen embed; first: stkd-screen embed"):
        Library([tmp_path / "plain.parquet"])
    file = write_library(tmp_path / "a.parquet", 5, failed=range(5))
    bare = pq.read_table(file).drop_columns("embedding")
    pq.write_table(bare, tmp_path / "bare.parquet")
    with pytest.raises(SearchError, match="--no-embedding"):
        Library([tmp_path / "bare.parquet"])
    with pytest.raises(SearchError, match="none of 5 rows has an embedding"):
        build(file)
    pq.write_table(pq.read_table(file).slice(0, 0), tmp_path / "nothing.parquet")
    with pytest.raises(SearchError, match="no rows; embed a library that has molecules"):
        build(tmp_path / "nothing.parquet")
    other = write_library(tmp_path / "b.parquet", 5, level="other")
    with pytest.raises(SearchError, match="level other, .* with toy"):
        Library([file, other])
    with pytest.raises(SearchError, match="ivf-pq needs 256 molecules"):
        build(write_library(tmp_path / "c.parquet", 20), kind="ivf-pq")
    with pytest.raises(SearchError, match="choose one of exact, ivf, ivf-pq"):
        build(write_library(tmp_path / "d.parquet", 20), kind="hnsw")


def test_a_damaged_library_is_named(tmp_path):
    file = write_library(tmp_path / "a.parquet", 5000)
    content = bytearray(file.read_bytes())
    content[2000:60_000] = bytes(58_000)
    file.write_bytes(content)
    with pytest.raises(SearchError, match=r"a\.parquet: damaged after row 0 .*embed it anew"):
        build(file)
    assert list_indexes() == []


def test_names_and_the_default(tmp_path):
    with pytest.raises(SearchError, match="no index yet .* stkd-screen index"):
        find_index()
    file = write_library(tmp_path / "a.parquet", 20)
    build(file, name="one")
    build(file, name=tmp_path / "elsewhere" / "two")
    assert find_index() == default_index() == tmp_path / "elsewhere" / "two"
    assert list_indexes() == [index_folder("one"), tmp_path / "elsewhere" / "two"]
    with pytest.raises(SearchError, match="no index 'three': .* there are: one, two"):
        find_index("three")
    with pytest.raises(SearchError, match="no name for an index"):
        index_folder("..")
    (default_index() / "manifest.json").unlink()
    with pytest.raises(SearchError, match="built last is gone; choose one with --index, there are: one"):
        find_index()


def test_building_needs_no_torch(tmp_path):
    code = "import sys, stkd_screen.search.build; assert not {'torch', 'rdkit', 'polars'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_says_what_it_did(tmp_path, stkd_screen):
    file = write_library(tmp_path / "zinc.parquet", 50, failed=(1,))
    built = stkd_screen("index", file)
    for text in ("zinc", "49", "1 rows with an error", "exact", "drawn (aaaaaaaaaaaa)", "bytes a molecule"):
        assert text in built.stderr
    assert "zinc (default)" in stkd_screen("index", "--list").stdout
    described = stkd_screen("index", "--info", "--name", "zinc").stdout
    assert stkd_screen("index", "--info", "zinc").stdout == described
    assert str(file) in described.replace("\n", "") and "unaltered" in described
    more = write_library(tmp_path / "more.parquet", 10, seed=2)
    assert "59" in stkd_screen("index", more, "--add").stderr
    nothing = stkd_screen("index")
    assert nothing.returncode == 1 and "error: nothing to index" in nothing.stderr


def test_an_index_that_cannot_become_the_default_is_built_and_found_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "file"))  # nobody can make a folder of it
    write_library(tmp_path / "a.parquet")
    with pytest.warns(
        StkdWarning, match=r"is built, but cannot be made the default .*; search it with --index"
    ):
        build(tmp_path / "a.parquet", name=tmp_path / "mine")
    assert len(Index(tmp_path / "mine")) == 300


def test_vectors_are_loaded_to_be_searched(tmp_path):
    write_library(tmp_path / "a.parquet")
    build(tmp_path / "a.parquet")
    index = Index(index_folder("drawn"))
    assert "_loaded" not in vars(index)
    index.nearest(np.eye(1, index.store.width, dtype=np.float32), 3)
    assert len(vars(index)["_loaded"]) == 1


def test_a_library_that_is_not_embedded_yet(tmp_path):
    (tmp_path / "x.smi").write_text("CCO a\n")
    with pytest.raises(SearchError, match=r"x\.smi was not written by stkd-screen embed; first: stkd-screen"):
        Library([tmp_path / "x.smi"])
