"""The main path: one row for each record, in order, the same in any company."""

import gzip
import json
import resource
import signal
from threading import Event

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from stkd_screen import load
from stkd_screen.background import in_background
from stkd_screen.embed import TABLE_THREADS, embed
from stkd_screen.errors import InputError, OutputError, StkdError
from stkd_screen.output import OutputOptions, result_table
from stkd_screen.parts.outputs import output_at
from stkd_screen.records import RecordReader
from stkd_screen.records.parquet import METADATA_KEY

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "C1CC", "CCN", "", "OCC(O)CO", "CC(C)(C)(C)C", "N", "[Na+].[Cl-]"]


@pytest.fixture(scope="module")
def encoder(toy):
    return load(toy.weights, device="cpu")


def run(encoder, path, output, **options):
    limits = {
        key: options.pop(key) for key in ("limit", "strict", "overwrite", "batch_size") if key in options
    }
    chosen = OutputOptions(**options).checked(encoder.weights)
    batch_size = limits.pop("batch_size", 3)
    return embed(RecordReader([path], batch_size=batch_size), encoder, output, chosen, **limits)


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "library.smi"
    path.write_text("".join(f"{smiles or '  '}\tm{i}\n" for i, smiles in enumerate(MOLECULES) if smiles))
    return path


def test_one_row_for_each_record_in_order(encoder, library, tmp_path):
    summary = run(encoder, library, tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    written = [smiles for smiles in MOLECULES if smiles]
    assert frame["smiles"].to_list() == written
    assert frame["row"].to_list() == list(range(len(written)))
    assert frame["id"].to_list() == [f"m{i}" for i, smiles in enumerate(MOLECULES) if smiles]
    assert frame.columns == [
        "row", "id", "smiles", "weight_ev", "weight_ev_err", "polar_ev", "polar_ev_err", "rings", "rings_err",
        "domain", "embedding", "error", "warning",
    ]  # fmt: skip
    assert summary.records == len(written) and summary.bad.total() == 2


@pytest.mark.parametrize("limit", [None, 61])
def test_several_threads_make_the_same_rows(encoder, tmp_path, monkeypatch, limit):
    """As beside a GPU."""
    path = tmp_path / "library.smi"
    path.write_text("".join(f"{'C' * (k % 30)}{'1' * (k % 13 == 5)}O m{k}\n" for k in range(200)))
    run(encoder, path, tmp_path / "one.parquet", batch_size=7, limit=limit)
    monkeypatch.setitem(TABLE_THREADS, "cpu", 3)
    run(encoder, path, tmp_path / "three.parquet", batch_size=7, limit=limit)
    one, three = (pl.read_parquet(tmp_path / name) for name in ("one.parquet", "three.parquet"))
    assert one.height == (limit or 200) and one["error"].null_count() < one.height
    assert_frame_equal(one, three)


def test_numbers_have_no_dictionary(encoder, library, tmp_path):
    """With one, an embedding is larger and takes twice as long to write and to read."""
    run(encoder, library, tmp_path / "out.parquet")
    group = pq.read_metadata(tmp_path / "out.parquet").row_group(0)
    chunks = {chunk.path_in_schema: chunk for chunk in map(group.column, range(group.num_columns))}
    assert {name for name, chunk in chunks.items() if chunk.has_dictionary_page} == {"error", "warning"}
    assert {name for name, chunk in chunks.items() if not chunk.is_stats_set} == {"embedding.list.element"}


def test_bad_records_have_a_reason_and_nulls(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out.parquet")
    bad = pl.read_parquet(tmp_path / "out.parquet").filter(pl.col("error").is_not_null())
    assert bad["smiles"].to_list() == ["C1CC", "CC(C)(C)(C)C"]
    assert bad["error"][0] == "unclosed ring bond 1 at column 2"
    for column in ("weight_ev", "polar_ev", "embedding", "warning"):
        assert bad[column].null_count() == 2


def test_values_do_not_depend_on_batch_or_order(encoder, toy):
    smiles = [f"{'C' * k}{end}" for k in range(1, 40) for end in ("O", "N", "C(=O)O", "c1ccccc1")]
    alone = np.array([encoder.embed([s])["weight_ev"][0] for s in smiles])
    together = encoder.embed(smiles)["weight_ev"].to_numpy()
    order = np.random.default_rng(0).permutation(len(smiles))
    shuffled = encoder.embed([smiles[i] for i in order])["weight_ev"].to_numpy()
    np.testing.assert_allclose(together, alone, atol=1e-4, rtol=0)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-4, rtol=0)
    small_batches = load(toy.weights, device="cpu", batch_tokens=64)
    np.testing.assert_allclose(small_batches.embed(smiles)["weight_ev"], together, atol=1e-4, rtol=0)


def test_mirror_images_and_isotopes_get_the_same_answer(encoder):
    writings = ["C[C@H](N)O", "C[C@@H](N)O", "CC(N)O", "[13CH3]C(N)O", "C[CH:7](N)O", "CC([H])(N)O"]
    frame = encoder.embed(writings)
    # Within rounding: a place in a batch may change the last bit.
    assert frame["weight_ev"].max() - frame["weight_ev"].min() < 1e-5
    assert len({tuple(v) for v in frame["embedding"].to_list()}) == 1


def test_python_takes_lists_numpy_and_polars_alike(encoder):
    smiles = ["CCO", "C1CC", "CCN"]
    frames = [encoder.embed(kind) for kind in (smiles, np.array(smiles), pl.Series(smiles))]
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])
    assert frames[0]["error"].to_list() == [None, "unclosed ring bond 1 at column 2", None]
    assert encoder.embed([None, "C"])["error"].to_list() == ["empty SMILES at column 1", None]
    assert encoder.embed([]).height == 0


def test_python_and_the_command_give_the_same_rows(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out.parquet")
    written = pl.read_parquet(tmp_path / "out.parquet").drop("id")
    in_memory = encoder.embed(written["smiles"])
    assert_frame_equal(written.drop("embedding"), in_memory.drop("embedding"), abs_tol=1e-5)
    assert written.schema == in_memory.schema


def test_levels_choose_the_columns(encoder):
    other = encoder.embed(["CCO"], level="other")
    assert other["weight_ev"][0] is None and other["rings"][0] is not None
    with pytest.raises(StkdError, match="no level 'b3lyp'; its levels: toy, other"):
        encoder.embed(["C"], level="b3lyp")


def test_warnings_name_what_no_label_covered(encoder):
    texts = ["CCO", "[Na+].[Cl-]", "C[N+](C)(C)C", "C" * 40, "CC[SeH]"]
    frame = encoder.embed([*texts, "[NH3+]CC(=O)[O-]", "C[N+](=O)[O-]", "C[CH]C"])
    assert frame["warning"][0] is None
    assert frame["warning"][1] == "atoms never seen with a label: [Cl-] [Na+]; ions; 2 fragments"
    assert frame["warning"][2] == "atoms never seen with a label: [N+]; net charge +1"
    assert frame["warning"][3].startswith("more than ")
    assert frame["warning"][4] == "atoms never seen with a label: [SeH]"
    assert frame["warning"][5].endswith("; zwitterion")
    assert "zwitterion" not in frame["warning"][6]  # a nitro group
    assert frame["warning"][7] == "unpaired electron"


def test_a_warning_does_not_depend_on_the_other_molecules(encoder):
    texts = [
        "CCO",
        "[Na+].[Cl-]",
        "CC(=O)[O-]",
        "C[N+](C)(C)C",
        "C" * 40,
        "CC[SeH]",
        "C1CC",
        "O.O.O",
        "C[CH]C",
    ]
    alone = [encoder.embed([text])["warning"][0] for text in texts]
    order = np.random.default_rng(0).integers(len(texts), size=200)
    together = encoder.embed([texts[i] for i in order])["warning"].to_list()
    assert (
        together == [alone[i] for i in order] and len({*alone}) == len(texts) - 1
    )  # none: ethanol, the error


def test_molecules_of_few_atoms_are_warned_of_where_few_labelled_ones_are_as_small():
    small = load("small", device="cpu")
    warning = "at most 4 heavy atoms, smaller than nearly all labelled molecules"
    told = small.embed(["O", "CCCC", "CCCCC", "[H][H]", "bad"])["warning"].to_list()
    assert told[:3] == [warning, warning, None] and told[3].endswith(warning) and told[4] is None


def test_every_writing_of_a_molecule_has_the_shipped_models_one_answer():
    writings = ["CC(=O)Oc1ccccc1C(=O)O", "OC(=O)C1=CC=CC=C1OC(C)=O", "c1ccc(C(O)=O)c(OC(=O)C)c1"]
    frame = load("small", device="cpu").embed(writings)
    for column in ("homo_ev", "lumo_ev", "gap_ev", "gap_ev_err", "domain"):
        assert frame[column].max() - frame[column].min() < 1e-4, column
    embeddings = np.stack(frame["embedding"].to_list()).astype(np.float32)
    assert np.abs(embeddings - embeddings[0]).max() < 1e-3  # float16


def test_an_element_that_no_label_has_leaves_no_expected_error():
    frame = load("small", device="cpu").embed(["CCCCC[Po]CC", "CCCCC[SiH2]CC", "CCCCC[Na]"], level="pcqm")
    assert frame["gap_ev"].is_not_null().all()
    assert frame["gap_ev_err"].is_null().to_list() == [True, False, True]


def test_warnings_are_counted_by_reason(encoder, tmp_path):
    path, output = tmp_path / "salts.smi", tmp_path / "out.parquet"
    path.write_text("CCO\n[Na+].[Cl-]\nCC[SeH]\nC[N+](C)(C)C\nC1\n")
    summary = run(encoder, path, output)
    counts = {"atoms never seen with a label": 3, "ions": 1, "several fragments": 1, "net charge": 1}
    assert summary.warnings == counts and summary.warned == 3
    assert run(encoder, path, output).warnings == counts, "of a finished output"


def test_a_row_with_an_error_has_no_warning(encoder, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,smiles\na,CC[SeH]\nb,CC[SeH],more\n")
    summary = run(encoder, path, tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame["error"].is_null().to_list() == [True, False]
    assert frame["warning"].is_null().to_list() == [False, True]
    assert summary.warned == 1 and summary.warnings.total() == 1


def test_largest_fragment_drops_the_counter_ion(encoder):
    frame = encoder.embed(["[Cl-].CCO", "CCO"], largest_fragment=True)
    assert frame["weight_ev"][0] == pytest.approx(frame["weight_ev"][1], abs=1e-5)
    assert frame["warning"][0] == "only the largest of 2 fragments"


def test_embedding_types_and_none(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "half.parquet")
    run(encoder, library, tmp_path / "single.parquet", embedding_dtype="float32")
    run(encoder, library, tmp_path / "without.parquet", embedding=False)
    half, single = (pq.read_schema(tmp_path / f"{name}.parquet") for name in ("half", "single"))
    assert half.field("embedding").type == pa.list_(pa.float16(), 32)
    assert single.field("embedding").type == pa.list_(pa.float32(), 32)
    assert "embedding" not in pq.read_schema(tmp_path / "without.parquet").names
    with pytest.raises(StkdError, match="int8"):
        OutputOptions(embedding_dtype="int8").checked(encoder.weights)


def test_metadata_names_model_hash_version_and_units(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out.parquet")
    about = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[METADATA_KEY])
    assert about["model_sha256"] == encoder.weights.sha256
    assert about["level"] == "toy" and about["units"]["weight_ev"] == "eV"


def test_independent_readers_open_the_output(encoder, library, tmp_path):
    run(encoder, library, tmp_path / "out.parquet")
    rows = duckdb.sql(
        f"select id, weight_ev, len(embedding) from '{tmp_path / 'out.parquet'}' where error is null"
    ).fetchall()
    assert len(rows) == 7 and {length for *_, length in rows} == {32}


def test_an_output_that_is_not_named_parquet_is_refused(encoder, library, tmp_path):
    with pytest.raises(OutputError, match=r"name it x\.parquet"):
        output_at("x.parquet.gz")
    with pytest.raises(OutputError, match=r"name it out\.parquet"):
        run(encoder, library, tmp_path / "out.csv")


def test_progress_counts_the_bytes_of_the_records_done(encoder, tmp_path):
    path = tmp_path / "in.smi.gz"
    path.write_bytes(gzip.compress("".join(f"{'C' * (k % 30 + 1)} m{k}\n" for k in range(1000)).encode()))
    size, seen = path.stat().st_size, []
    options = OutputOptions().checked(encoder.weights)
    report = lambda summary: seen.append(summary.bytes_read)  # noqa: E731
    embed(RecordReader([path], batch_size=250), encoder, tmp_path / "out.parquet", options, report=report)
    assert seen == pytest.approx([size * k / 4 for k in (1, 2, 3, 4)], rel=0.05)


def test_limit(encoder, library, tmp_path):
    for limit in (1, 3, 4, 100):
        summary = run(encoder, library, tmp_path / f"{limit}.parquet", limit=limit)
        assert summary.records == min(limit, 9) == pl.read_parquet(tmp_path / f"{limit}.parquet").height


def test_strict_stops_at_the_first_bad_record_with_its_place(encoder, library, tmp_path):
    with pytest.raises(InputError, match=r"library\.smi line 4: unclosed ring bond 1 at column 2: 'C1CC'"):
        run(encoder, library, tmp_path / "out.parquet", strict=True)
    assert not (tmp_path / "out.parquet").exists()


def test_strict_tells_of_the_bad_record_and_not_of_what_failed_after_it(
    encoder, library, tmp_path, monkeypatch
):
    encode_windows, failed = encoder.encode_windows, Event()

    def failing(windows):
        yield next(encode_windows(windows))  # that of the bad record; the next fails before its table is made
        failed.set()
        raise StkdError("the device is gone")

    def waiting(*arguments):
        failed.wait(60)
        return result_table(*arguments)

    library.write_text("C1CC ring\nCC\nCCC\nC\nCC\nCCC\n")
    monkeypatch.setattr(encoder, "encode_windows", failing)
    monkeypatch.setattr("stkd_screen.windows.result_table", waiting)
    with pytest.raises(InputError, match=r"library\.smi line 1: unclosed ring bond"):
        run(encoder, library, tmp_path / "out.parquet", strict=True)


def test_an_existing_output_is_kept_unless_told(encoder, library, tmp_path):
    output = tmp_path / "out.parquet"
    run(encoder, library, output)
    with pytest.raises(OutputError, match=r"out\.parquet exists already.*limit None -> 1.*--overwrite"):
        run(encoder, library, output, limit=1)
    run(encoder, library, output, overwrite=True, limit=1)
    assert pl.read_parquet(output).height == 1
    pl.DataFrame({"a": [1]}).write_parquet(output)
    with pytest.raises(OutputError, match=r"out\.parquet exists already; .*--overwrite"):
        run(encoder, library, output)


def test_a_damaged_input_keeps_the_rows_before_the_fault(encoder, tmp_path):
    content = gzip.compress("".join(f"{'C' * (k % 30 + 1)} m{k}\n" for k in range(4_000)).encode())
    (tmp_path / "cut.smi.gz").write_bytes(content[: len(content) // 2])
    summary = run(encoder, tmp_path / "cut.smi.gz", tmp_path / "out.parquet", batch_size=256)
    assert summary.input_fault and "cut.smi.gz" in summary.input_fault
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert 0 < frame.height == summary.records < 4_000


def test_a_full_disk_is_an_output_error_and_leaves_nothing(encoder, library, tmp_path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead, as on a full disk
    try:
        with pytest.raises(OutputError, match=r"out\.parquet cannot be written"):
            run(encoder, library, tmp_path / "out.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert [path.name for path in tmp_path.iterdir()] == ["library.smi"]


def test_windows_are_put_together_in_order(encoder, monkeypatch):
    smiles = [f"{'C' * (k % 9 + 1)}{'ON'[k % 2]}" for k in range(50)]
    whole = encoder.embed(smiles, embedding_dtype="float32")
    monkeypatch.setattr(encoder, "window", 7)
    parts = encoder.embed(smiles, embedding_dtype="float32")
    assert_frame_equal(whole, parts, abs_tol=1e-5)
    assert parts["row"].to_list() == list(range(50))


def test_a_single_string_is_refused(encoder):
    with pytest.raises(TypeError, match=r"give \[smiles\]"):
        encoder.embed("CCO")
    with pytest.raises(TypeError, match="not None"):
        encoder.embed(None)


def test_an_empty_input_gives_an_empty_table(encoder, tmp_path):
    (tmp_path / "empty.smi").write_text("")
    summary = run(encoder, tmp_path / "empty.smi", tmp_path / "out.parquet")
    assert summary.records == 0 and pl.read_parquet(tmp_path / "out.parquet").height == 0


def test_in_background_waits_for_no_item_that_does_not_come_when_it_is_to_stop():
    more, stop = Event(), Event()

    def items():
        yield 1
        more.wait(60)
        yield 2

    found = in_background(items(), should_stop=stop.is_set)
    assert next(found) == 1
    stop.set()
    assert list(found) == []
    more.set()


def test_in_background_keeps_order_and_raises_in_place():
    def items():
        yield from range(5)
        raise KeyError("here")

    seen = []
    with pytest.raises(KeyError, match="here"):
        for item in in_background(items()):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]
