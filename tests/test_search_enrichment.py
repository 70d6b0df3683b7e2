"""The measures of a similarity search, on sets small enough to know the answer."""

import gzip
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from stkd_screen.cli import app
from stkd_screen.embed import embed
from stkd_screen.encoder import load
from stkd_screen.errors import SearchError
from stkd_screen.output import OutputOptions
from stkd_screen.records import RecordReader
from stkd_screen.search.enrichment import (
    Molecules,
    Target,
    describe,
    enrichment,
    library_molecules,
    measure_enrichment,
    neighbour_agreement,
    read_targets,
    summary,
)
from stkd_screen.search.fingerprints import ecfp4

RINGS = [f"c1ccccc1{'C' * k}O" for k in range(1, 21)]
CHAINS = [f"{'C' * k}{end}" for k in range(1, 41) for end in ("", "N", "F", "Cl", "Br")]


def write_set(folder, name, actives, decoys=None):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, smiles in (("actives", actives), ("decoys", decoys)):
        if smiles:
            lines = ["# name\tid\tSMILES"] + [f"n{i}\t{kind}{i}\t{text}" for i, text in enumerate(smiles)]
            (folder / f"cmp_list_{name}_{kind}.dat.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def drawn(vectors, smiles):
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Molecules(vectors.astype(np.float32), [ecfp4(text) for text in smiles])


def test_sets_are_read_with_their_own_or_shared_decoys(tmp_path):
    write_set(tmp_path / "A", "A_one", RINGS, CHAINS[:30])
    write_set(tmp_path / "A", "A_two", RINGS[:6], CHAINS[:10])
    write_set(tmp_path / "B", "B_three", RINGS[:7])
    write_set(tmp_path / "B", "B_zinc", None, CHAINS)
    targets = read_targets(tmp_path)
    assert [(t.collection, t.name, len(t.actives), len(t.decoys)) for t in targets] == [
        ("A", "A_one", 20, 30),
        ("A", "A_two", 6, 10),
        ("B", "B_three", 7, 200),
    ]
    assert targets[0].actives == RINGS
    with pytest.raises(SearchError, match="give a folder of sets"):
        read_targets(tmp_path / "A" / "nothing")
    write_set(tmp_path / "C", "C_four", RINGS)
    with pytest.raises(SearchError, match="C_four_decoys"):
        read_targets(tmp_path / "C")


def test_a_perfect_and_a_useless_ranking():
    target = Target("A", "one", RINGS, CHAINS)
    random = np.random.default_rng(0)
    apart = np.concatenate([np.tile([1.0, 0], (20, 1)), np.tile([0, 1.0], (200, 1))])
    perfect = enrichment(target, drawn(apart, RINGS + CHAINS), repeats=3).filter(method="embedding")
    assert perfect["auc"].to_list() == pytest.approx([1] * 3)
    assert perfect["bedroc"].min() > 0.99 and perfect["ef1"].min() > 10
    tied = drawn(np.ones((220, 2)) + 0 * random.normal(size=(220, 2)), RINGS + CHAINS)
    useless = enrichment(target, tied, repeats=20)
    assert useless.filter(method="embedding")["auc"].mean() == pytest.approx(0.5, abs=0.06)
    assert useless.filter(method="ecfp4")["auc"].min() > 0.95


def test_molecules_that_cannot_be_read_come_last(toy):
    encoder = load(toy.weights, "cpu")
    molecules = describe(encoder, ["CCO", "C1CC"])
    assert molecules.fingerprints[1] is None and not molecules.vectors[1].any()
    results = measure_enrichment([Target("A", "one", RINGS, [*CHAINS, "C1CC"])], encoder, repeats=2)
    assert results.columns == ["collection", "target", "repeat", "method", "auc", "ef1", "bedroc"]
    table = summary(results)
    assert table["targets"].to_list() == [1, 1] and table["method"].to_list() == ["ecfp4", "embedding"]
    assert results.equals(
        measure_enrichment([Target("A", "one", RINGS, [*CHAINS, "C1CC"])], encoder, repeats=2)
    )


def test_neighbours_agree_fully_with_a_copy_of_tanimoto_and_not_with_noise():
    smiles = [f"{a}{'C' * k}{b}" for k in range(1, 20) for a in ("N", "O", "F") for b in ("C=O", "C#N", "CS")]
    bits = np.array([ecfp4(text).ToList() for text in smiles], np.float32)
    options = {"queries": 30, "nearest": 5, "among": 25}
    assert neighbour_agreement(drawn(bits, smiles), **options) > 0.9
    noise = np.random.default_rng(0).normal(size=(len(smiles), 64))
    assert neighbour_agreement(drawn(noise, smiles), **options) < 0.4


def test_bench_search_prints_a_table_and_a_line_of_json(toy, tmp_path):
    write_set(tmp_path / "A", "A_one", RINGS, CHAINS[:30])
    write_set(tmp_path / "A", "A_two", RINGS[:6], CHAINS[:10])
    (tmp_path / "library.smi").write_text("\n".join(CHAINS))
    arguments = ["--model", str(toy.weights)]
    runner = CliRunner()
    library = str(tmp_path / "library.parquet")
    assert (
        runner.invoke(app, ["embed", str(tmp_path / "library.smi"), "-o", library, *arguments]).exit_code == 0
    )
    arguments += ["--repeats", "2", "--library", library, "--rows", "150"]
    ran = runner.invoke(app, ["bench", "search", str(tmp_path / "A"), *arguments])
    assert ran.exit_code == 0, ran.output
    assert "BEDROC" in ran.stderr and "ecfp4" in ran.stderr
    result = json.loads(ran.stdout)
    assert [row["method"] for row in result["means"]] == ["ecfp4", "embedding"]
    assert result["means"][0]["targets"] == 2 and 0.1 < result["neighbour_agreement"] <= 1
    quiet = runner.invoke(app, ["bench", "search", str(tmp_path / "A"), *arguments, "--json"])
    assert quiet.stderr == ""
    for again, row in zip(json.loads(quiet.stdout)["means"], result["means"], strict=True):
        assert again["auc"] == pytest.approx(row["auc"]) and again["ef1"] == pytest.approx(row["ef1"])


def test_a_library_of_another_model_or_too_small_is_refused(toy, tmp_path):
    encoder = load(toy.weights, "cpu")
    (tmp_path / "few.smi").write_text("\n".join(CHAINS[:20]))
    embed(
        RecordReader([tmp_path / "few.smi"]),
        encoder,
        tmp_path / "few.parquet",
        OutputOptions().checked(encoder.weights),
    )
    with pytest.raises(SearchError, match="20 molecules in it; neighbours are compared among more than 100"):
        library_molecules(tmp_path / "few.parquet", 1000, encoder)
    with pytest.raises(SearchError, match="has 32 dimensions of model 'weights'; embed it with 'small'"):
        library_molecules(tmp_path / "few.parquet", 1000, load("small", "cpu"))


def test_sets_too_small_or_damaged_are_named(tmp_path):
    write_set(tmp_path / "A", "A_one", RINGS[:5], CHAINS)
    with pytest.raises(SearchError, match=r"A_one_actives.*: 5 actives, 200 decoys; more than 5 actives"):
        read_targets(tmp_path / "A")
    write_set(tmp_path / "B", "B_one", RINGS, CHAINS)
    file = tmp_path / "B" / "cmp_list_B_one_actives.dat.gz"
    for content in (file.read_bytes()[:40], b"no gzip", gzip.compress(b"one field\n")):
        file.write_bytes(content)
        with pytest.raises(SearchError, match=r"B_one_actives.*cannot be read: .*; it must be gzip"):
            read_targets(tmp_path / "B")


def test_molecules_that_rdkit_cannot_read_ask_for_no_neighbours():
    random = np.random.default_rng(0)
    molecules = drawn(random.normal(size=(240, 8)), RINGS + CHAINS + ["C1CC"] * 20)
    of_all = neighbour_agreement(molecules, queries=240)
    assert of_all == neighbour_agreement(molecules, queries=220)  # the same 220 are asked
    assert of_all < 0.9
