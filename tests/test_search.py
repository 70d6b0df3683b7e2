"""Searching: the right hits, filters and outputs, and what a user is told when something is wrong."""

import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from stkd_screen.embed import embed
from stkd_screen.encoder import load
from stkd_screen.errors import SearchError
from stkd_screen.output import OutputOptions
from stkd_screen.records import RecordReader
from stkd_screen.search.build import BuildOptions, build_index
from stkd_screen.search.hits import NO_HIT, SearchOptions, search
from stkd_screen.search.index import Index
from stkd_screen.search.library import Library
from stkd_screen.search.manifest import save_manifest
from stkd_screen.search.queries import load_encoder, read_queries
from stkd_screen.search.report import html_report
from stkd_screen.search.where import check_condition, rows_where

# Stereoisomers have one embedding; o1C*c1 can be read here but not by RDKit.
EXTRA = ["C[C@H](N)O left", "C[C@@H](N)O right", "o1C*c1 odd", "C1CC bad", "OCC"]


@pytest.fixture(scope="module")
def toy_index(toy, tmp_path_factory):
    """An index of the toy molecules and a few odd ones, and the model it was built with."""
    folder = tmp_path_factory.mktemp("searched")
    smiles = pl.read_csv(toy.table)["smiles"]
    lines = [f"{text} m{i}" for i, text in enumerate(smiles)]
    (folder / "toy.smi").write_text("\n".join(lines + EXTRA) + "\n")
    encoder = load(toy.weights, "cpu")
    options = OutputOptions().checked(encoder.weights)
    embed(RecordReader([folder / "toy.smi"]), encoder, folder / "toy.parquet", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STKD_SCREEN_HOME", str(folder / "home"))
        build_index(Library([folder / "toy.parquet"]), folder / "home" / "indexes" / "toy", BuildOptions())
    return SimpleNamespace(
        home=folder / "home",
        library=folder / "toy.parquet",
        index=Index(folder / "home" / "indexes" / "toy"),
        encoder=encoder,
    )


@pytest.fixture
def ask(toy_index):
    """The hits of a query text."""

    def run(query, **options):
        queries = read_queries(query, toy_index.encoder, toy_index.index.manifest.origin)
        return search(toy_index.index, queries, SearchOptions(**options))

    return run


@pytest.fixture
def stkd_screen(monkeypatch, run_command, toy, toy_index, tmp_path):
    """Run `search` in this process with the toy model, in an empty folder."""
    monkeypatch.setenv("STKD_SCREEN_HOME", str(toy_index.home))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=toy.weights):
        chosen = ["--model", model] if model else []
        return run_command("search", *arguments, *chosen)

    return run


def test_a_molecule_of_the_library_finds_itself(ask, toy_index):
    hits = ask("CCO ethanol", k=3)
    first = hits.row(0, named=True)
    assert first["query_id"] == "ethanol" and first["rank"] == 1
    assert first["smiles"] in ("CCO", "OCC") and first["cosine"] == pytest.approx(1, abs=1e-3)
    assert first["tanimoto"] == 1
    assert hits["cosine"].is_sorted(descending=True) and hits["rank"].to_list() == [1, 2, 3]
    stored = pl.read_parquet(toy_index.library).filter(pl.col("smiles") == first["smiles"])
    assert first["weight_ev"] == stored["weight_ev"][0] and first["error"] is None


def test_a_cosine_is_one_of_unit_vectors(toy_index):
    """Stored as float16 a vector is up to 2e-4 too long or too short, and so were cosines."""
    index = toy_index.index
    queries = read_queries("CCO", toy_index.encoder, index.manifest.origin)
    (rows,), (cosines,) = index.nearest(queries.vectors, len(index))
    stored = index.store.vectors(rows).astype(np.float64)
    lengths = np.linalg.norm(stored, axis=1)
    assert np.abs(lengths - 1).max() > 2e-5
    np.testing.assert_allclose(cosines, stored @ queries.vectors[0] / lengths, atol=1e-6)
    assert (np.diff(cosines) <= 0).all()
    hit = search(index, queries, SearchOptions(k=1, min_similarity=1.0)).row(0, named=True)
    assert hit["smiles"] in ("CCO", "OCC")


@pytest.mark.parametrize("query", ["CCO ethanol", " CCO\tethanol ", "CCO \t ethanol"])
def test_an_id_follows_the_smiles_after_white_space(ask, query):
    first = ask(query, k=1).row(0, named=True)
    assert (first["query_smiles"], first["query_id"]) == ("CCO", "ethanol")


def test_a_smiles_may_be_longer_than_the_name_of_a_file(ask):
    long = "[CH3]" + "[CH2]" * 60 + "[CH3]"
    first = ask(long, k=1).row(0, named=True)
    assert (first["query_smiles"], first["query_id"], first["rank"]) == (long, None, 1)


def test_every_query_has_its_rows_in_input_order(ask, tmp_path):
    (tmp_path / "q.smi").write_text("CCCCO a\nC1CC b\no1C*c1 c\n")
    hits = ask(str(tmp_path / "q.smi"), k=2)
    assert hits["query"].to_list() == [1, 1, 2, 3, 3]
    bad = hits.row(2, named=True)
    assert bad["rank"] is None and bad["error"] == "unclosed ring bond 1 at column 2"
    unknown_to_rdkit = hits.filter(pl.col("query") == 3)
    assert unknown_to_rdkit["id"][0] == "odd" and unknown_to_rdkit["tanimoto"].null_count() == 2


def test_unique_keeps_the_first_of_mirror_images_and_writings(ask):
    assert set(ask("C[C@H](N)O", k=2)["id"]) == {"left", "right"}
    unique = ask("C[C@H](N)O", k=8, unique=True)
    assert len({"left", "right"} & set(unique["id"])) == 1 and len(unique) == 8
    assert len(ask("CCO", k=5, unique=True).filter(pl.col("smiles").is_in(["CCO", "OCC"]))) == 1


def test_rerank_by_tanimoto_over_a_wider_list(ask):
    hits = ask("NCCCO", k=10, rerank="tanimoto", candidates=100)
    tanimoto = hits["tanimoto"].to_list()
    assert tanimoto == sorted(tanimoto, reverse=True)
    assert tanimoto[-1] > ask("NCCCO", k=10)["tanimoto"].min()
    least = ask("NCCCO", k=10, rerank="tanimoto", candidates=100, min_similarity=0.5)
    assert least["tanimoto"].to_list() == [t for t in tanimoto if t >= 0.5]


def test_conditions_on_the_hits(ask):
    rings = ask("CCO", k=5, where="smiles like '%1%' and weight_ev > 4", exact=True)
    assert rings["smiles"].str.contains("1").all() and len(rings) == 5
    assert ask("CCO", k=9, min_similarity=0.99)["cosine"].min() >= 0.99
    none = ask("CCO", where="weight_ev > 1e6")
    assert none["error"].to_list() == [NO_HIT] and none["rank"].to_list() == [None]
    assert not ask("CCO", k=5, where="not warned")["warned"].any()
    average = "weight_ev > (max(weight_ev) + min(weight_ev)) / 2"
    assert len(ask("CCO", k=5, where=average)) == 5


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("weight_ev <", "weight_ev <"),
        ("nope > 3", "'nope' is no column and no function for conditions"),
        ('"nope" > 3', 'there is no column "nope"; a text stands in single quotes'),
        ("weight_ev + 1", "not true or false for each molecule"),
        ("max(weight_ev) > 1", "not true or false for each molecule"),
        ("weight_ev < 3; drop table x", "';' is no part of a condition"),
        ("smiles = 'C", '"\'" is no part of a condition'),
        ("weight_ev < 'a'", "cannot compare"),
        ("", "give a condition on the columns id, smiles, weight_ev"),
    ],
)
def test_a_condition_that_does_not_hold_water_is_named(toy_index, condition, reason):
    with pytest.raises(SearchError) as error:
        rows_where(toy_index.index.store, condition)
    with pytest.raises(SearchError) as early:
        check_condition(toy_index.index.store, condition)
    assert str(early.value) == str(error.value), "before a molecule is looked at"
    assert reason in str(error.value) and "such as" in str(error.value)


def embedded(toy, tmp_path, smiles):
    """A library of a few molecules, as `embed` writes it with the toy model."""
    pl.DataFrame({"smiles": smiles}).write_csv(tmp_path / "in.csv")
    encoder = load(toy.weights)
    options = OutputOptions().checked(encoder.weights)
    embed(RecordReader([tmp_path / "in.csv"]), encoder, tmp_path / "out.parquet", options)
    return tmp_path / "out.parquet"


def test_a_condition_on_what_is_known_of_no_molecule_is_refused(toy, tmp_path, monkeypatch):
    """HOMO at a level that has only the gap: nothing would meet the condition, and nobody be told why."""
    monkeypatch.setenv("STKD_SCREEN_HOME", str(tmp_path / "home"))
    table = pq.read_table(embedded(toy, tmp_path, ["CCO", "CCN", "CCC"]))
    place = table.schema.get_field_index("weight_ev")
    table = table.set_column(place, table.schema.field(place), pa.nulls(3, pa.float32()))
    pq.write_table(table, tmp_path / "gap.parquet")
    build_index(Library([tmp_path / "gap.parquet"]), tmp_path / "gap", BuildOptions())
    index = Index(tmp_path / "gap")
    with pytest.raises(SearchError, match="weight_ev is null for every molecule of this index"):
        rows_where(index.store, "weight_ev < 3 or smiles is null")
    with pytest.raises(SearchError, match="on the columns smiles, polar_ev"):
        rows_where(index.store, "weight_ev < 3")
    assert rows_where(index.store, "smiles like '%N'").tolist() == [False, True, False]


def test_a_small_index_gives_all_it_has_unless_asked_for_more(stkd_screen, tmp_path, toy, monkeypatch):
    monkeypatch.setenv("STKD_SCREEN_HOME", str(tmp_path / "home"))
    build_index(Library([embedded(toy, tmp_path, ["CCO", "CCN", "CCC"])]), tmp_path / "small", BuildOptions())
    result = stkd_screen("CCO", "--index", tmp_path / "small")
    assert result.returncode == 0 and "3 hits of 1 query among 3 molecules" in result.stderr
    refused = stkd_screen("CCO", "--index", tmp_path / "small", "-k", 4)
    assert refused.returncode == 1 and "holds 3 molecules; give a number from 1 to 3" in refused.stderr


def test_words_in_quotes_are_no_subquery(toy_index):
    assert not rows_where(toy_index.index.store, "id = 'select from'").any()


def test_the_command_prints_a_table(stkd_screen):
    result = stkd_screen("CCO ethanol", "-k", 3)
    assert result.returncode == 0, result.stderr
    for text in ("query 1: CCO ethanol", "cosine", "Tanimoto", "weight_ev", "1.000"):
        assert text in result.stdout
    assert "3 hits of 1 query among" in result.stderr and "exact" in result.stderr


def test_in_a_narrow_terminal_smiles_and_ids_stay_whole(stkd_screen, monkeypatch):
    wide = stkd_screen("CCCCCCCCOC=O", "-k", 5)
    monkeypatch.setenv("COLUMNS", "40")
    assert stkd_screen("CCCCCCCCOC=O", "-k", 5).stdout == wide.stdout
    heads, *hits = wide.stdout.splitlines()[1:-1]
    assert len(hits) == 5 and heads.split()[-1] == "SMILES"
    assert all(Chem.MolFromSmiles(hit.split()[-1]) for hit in hits)


def test_an_empty_query_is_no_folder(stkd_screen, tmp_path):
    (tmp_path / "there.smi").write_text("CCO\n")
    for query in ("", "  "):
        result = stkd_screen(query)
        assert result.returncode == 1 and "an empty query" in result.stderr, result.stdout


def test_where_nothing_is_without_a_warning_that_is_said(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("STKD_SCREEN_HOME", str(tmp_path / "home"))
    ions = embedded(toy, tmp_path, ["CC[O-]", "CC[N-]C", "C[S-]"])
    build_index(Library([ions]), tmp_path / "ions", BuildOptions())
    store = Index(tmp_path / "ions").store
    with pytest.raises(SearchError, match="all molecules of this index are warned of"):
        rows_where(store, "weight_ev < 30 and not warned")
    assert not rows_where(store, "weight_ev < -1e6").any()


def test_hits_are_written_in_three_formats(stkd_screen, tmp_path):
    (tmp_path / "q.csv").write_text('name,smiles\n"a, <b>",CCO\nbad,C1C\n')
    for suffix, read in ((".parquet", pl.read_parquet), (".csv", pl.read_csv), (".json", pl.read_json)):
        output = tmp_path / "new" / f"hits{suffix}"
        result = stkd_screen("q.csv", "-k", 2, "-o", output)
        assert result.returncode == 0 and result.stdout == "" and "1 query without a hit" in result.stderr
        hits = read(output)
        assert hits["query_id"].to_list() == ["a, <b>", "a, <b>", "bad"] and hits["rank"].to_list() == [
            1,
            2,
            None,
        ]
    again = stkd_screen("q.csv", "-o", output)
    assert again.returncode == 1 and "exists already" in again.stderr and "--overwrite" in again.stderr
    assert stkd_screen("q.csv", "-o", output, "--overwrite").returncode == 0
    assert "name it hits.parquet" in stkd_screen("q.csv", "-o", "hits.xlsx").stderr


def test_the_report_is_one_page_with_every_value_escaped(stkd_screen, tmp_path):
    evil = "<script>alert('x')</script> \"quoted\" & <img src=x>"
    (tmp_path / "q.smi").write_text(f"C1CC1CO {evil}\nC1C <b>bad</b>\n")
    assert stkd_screen("q.smi", "-k", 4, "--html", "report.html").returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<img" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page
    assert page.count("<svg") == 5 and page.count("<article") == 4
    assert "unclosed ring bond" in page and "prefers-color-scheme: dark" in page
    assert "var(--shared)" in page and "var(--oxygen)" in page
    drawings = "".join(part.partition("</svg>")[0] for part in page.split("<svg")[1:])
    assert "#" not in drawings  # colours are the page's, for light and for dark
    assert "://" not in page.replace("http://www.w3.org", "").replace("http://www.rdkit.org", "")


def test_low_recall_is_told_with_what_mends_it(stkd_screen, toy_index):
    folder, manifest = toy_index.index.folder, toy_index.index.manifest
    save_manifest(replace(manifest, recall=0.81), folder)
    try:
        told = stkd_screen("CCO").stderr
        assert "81% of the true 10 nearest" in told and "--exact" in told and "--kind ivf" in told
        assert "81%" not in stkd_screen("CCO", "--exact").stderr
    finally:
        save_manifest(manifest, folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CCO", "-k", 100_000], "holds 142 molecules; give a number from 1 to 142"),
        (["CCO", "--where", "gap <"], "--where 'gap <'"),
        (["CCO", "--where", "id = 13"], "(a text stands in single quotes)"),
        (["CCO", "--rerank", "dice"], "--rerank dice: choose tanimoto"),
        (["CCO", "--index", "nope"], "no index 'nope'"),
        (["C1CC"], "none of 1 query molecules can be read; the first is 'C1CC': unclosed ring bond"),
        (["empty.smi"], "empty.smi: no molecule in it"),
        ([""], "an empty query"),
        (["missing.smi"], "no such file: missing.smi"),
    ],
)
def test_wrong_turns_are_errors_without_a_traceback(stkd_screen, tmp_path, arguments, message):
    (tmp_path / "empty.smi").write_text("# nothing\n")
    result = stkd_screen(*arguments)
    assert result.returncode == 1 and result.stderr.startswith("error: ")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_without_an_index_the_way_to_one_is_told(stkd_screen, tmp_path, monkeypatch):
    monkeypatch.setenv("STKD_SCREEN_HOME", str(tmp_path))
    result = stkd_screen("CCO")
    assert result.returncode == 1 and "build one: stkd-screen index OUT.parquet" in result.stderr


def test_another_model_is_refused(stkd_screen, toy_index):
    missing = stkd_screen("CCO", model=None)
    assert missing.returncode == 1 and "give the folder of that model with --model" in missing.stderr
    other = stkd_screen("CCO", model="small")
    assert other.returncode == 1 and "vectors of two models cannot be compared" in other.stderr
    with pytest.raises(SearchError, match="built with model 'weights'"):
        load_encoder(toy_index.index, "small")


def test_standard_input_is_a_query(stkd_screen, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"CCO a\nCCN b\n")))
    result = stkd_screen("-", "-k", 1)
    assert result.returncode == 0 and "2 hits of 2 queries" in result.stderr


def test_queries_are_embedded_like_the_library(toy_index):
    queries = read_queries("CCO", toy_index.encoder, toy_index.index.manifest.origin)
    assert queries.vectors.shape == (1, toy_index.index.manifest.origin.width)
    assert np.linalg.norm(queries.vectors) == pytest.approx(1)
    assert queries.about.columns[:3] == ["query", "query_id", "query_smiles"]


def test_an_index_keeps_how_far_off_its_predictions_may_be(tmp_path):
    names = ["CC(O)C1CC1", "CC1CC1C#N", "CN1CCN(CC1)c1ccc2nc(-c3ccc(Oc4ccccc4)cc3)c(C(N)=O)n2c1"]
    (tmp_path / "few.smi").write_text("\n".join(names) + "\n")
    encoder = load("small", "cpu")
    options = OutputOptions().checked(encoder.weights)
    embed(RecordReader([tmp_path / "few.smi"]), encoder, tmp_path / "few.parquet", options)
    build_index(Library([tmp_path / "few.parquet"]), tmp_path / "index", BuildOptions())
    index = Index(tmp_path / "index")
    queries = read_queries(names[1], encoder, index.manifest.origin)
    hits = search(index, queries, SearchOptions(k=3)).sort("smiles")
    embedded = pl.read_parquet(tmp_path / "few.parquet").sort("smiles")
    for name in ("homo_ev_err", "lumo_ev_err", "gap_ev_err", "domain"):
        assert hits[name].to_list() == embedded[name].to_list() and not hits[name].has_nulls()
    near = search(index, queries, SearchOptions(k=3, where="domain < 1.5 and gap_ev_err < 0.5"))
    assert set(near["smiles"]) == set(names[:2])
    best = hits.row(by_predicate=pl.col("smiles") == names[1], named=True)
    where = "domain < 1.5 and gap_ev_err < 0.5"
    page = html_report(near, queries, index.manifest, "few", where)
    assert "Hits are those where domain &lt; 1.5 and gap_ev_err &lt; 0.5." in page
    assert f"<dd>{best['gap_ev']:.2f} ± {best['gap_ev_err']:.2f} eV</dd>" in page


def test_an_index_of_before_there_were_expected_errors(toy_index, tmp_path):
    old = pq.read_table(toy_index.library)
    kept = [name for name in old.column_names if not name.endswith("_err") and name != "domain"]
    pq.write_table(old.select(kept), tmp_path / "old.parquet")
    build_index(Library([tmp_path / "old.parquet"]), tmp_path / "index", BuildOptions())
    content = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert content["origin"].pop("expected_errors") == []
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(content))
    index = Index(tmp_path / "index")
    queries = read_queries("CCO", toy_index.encoder, index.manifest.origin)
    hits = search(index, queries, SearchOptions(k=1))
    assert hits["smiles"].to_list() == ["CCO"] and "domain" not in hits.columns
    assert "±" not in html_report(hits, queries, index.manifest, "old")
    with pytest.raises(SearchError, match=r"index was made before .* build the index anew with --overwrite"):
        build_index(Library([toy_index.library]), tmp_path / "index", BuildOptions(add=True))
