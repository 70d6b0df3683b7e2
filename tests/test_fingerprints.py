"""The second teacher: what its targets are, that an embedding learns them, and how training goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem, DataStructs
from test_distill import DISTILLING, POLAR, TEACHING, WEIGHT, smiles_of, table
from test_graphs import read

from stkd_screen import load
from stkd_screen.embed import embed
from stkd_screen.errors import StkdError, TrainingError
from stkd_screen.output import OutputOptions
from stkd_screen.records import RecordReader
from stkd_screen.search.build import BuildOptions, build_index
from stkd_screen.search.fingerprints import ecfp4
from stkd_screen.search.hits import SearchOptions, search
from stkd_screen.search.index import Index
from stkd_screen.search.library import Library
from stkd_screen.search.queries import read_queries
from stkd_screen.student import PRESETS
from stkd_screen.teach.distill import distill
from stkd_screen.teach.fingerprints import fingerprint_loss, fingerprint_targets, fit_fingerprint_basis
from stkd_screen.teach.labelled import LabelledMolecules, joined
from stkd_screen.teach.lessons import Lessons
from stkd_screen.teach.loop import run
from stkd_screen.teach.teach import teach
from stkd_screen.teach.teacher import Teacher, load_teacher
from stkd_screen.teach.train import StudentTrainer, TrainConfig, needs_graphs, starting_student, train
from stkd_screen.teach.trainer import Progress
from stkd_screen.weights import FingerprintBasis, load_weights

WIDTH = 12
SMILES = smiles_of(range(1, 5))


@pytest.fixture(scope="module", autouse=True)
def preset(toy):
    """The tiny student with a head, on the tokens of the shipped one. (`toy`, made before, has none.)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], surroundings=True, fingerprint=WIDTH))
        yield


@pytest.fixture(scope="module")
def data() -> LabelledMolecules:
    return table(SMILES, [WEIGHT, POLAR])


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory) -> Teacher:
    folder = tmp_path_factory.mktemp("models") / "teacher"
    teach(data, replace(TEACHING, epochs=2), folder)
    return load_teacher(folder)


LEARNING = replace(DISTILLING, epochs=35, fingerprint=2.0, alpha=0.0, beta=0.0, initial_stage=0.0)


@pytest.fixture(scope="module")
def learned(data, teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "student"
    distill(data, teacher, LEARNING, folder)
    return folder


def targets_of(basis: FingerprintBasis, data: LabelledMolecules, rows: np.ndarray) -> torch.Tensor:
    bits = data.needed_graphs().set_bits(rows)
    return fingerprint_targets(basis, *(torch.from_numpy(part) for part in bits))


def test_the_bits_are_those_of_the_search():
    _, graphs, _ = read(SMILES)
    dense = graphs.fingerprints(np.arange(len(SMILES)))
    for row, smiles in enumerate(SMILES):
        expected = np.zeros(2048, np.float32)
        DataStructs.ConvertToNumpyArray(ecfp4(smiles), expected)
        np.testing.assert_array_equal(dense[row], expected)
    chosen = np.array([7, 3, 3, len(SMILES) - 1])
    np.testing.assert_array_equal(graphs.fingerprints(chosen), dense[chosen])


def test_the_targets_are_principal_components(data):
    """Against the textbook: a singular value decomposition of the centred fingerprints."""
    rows = np.arange(len(SMILES))
    basis = fit_fingerprint_basis(data.needed_graphs(), rows, WIDTH)
    targets = targets_of(basis, data, rows).double()
    centred = data.needed_graphs().fingerprints(rows).astype(np.float64)
    centred -= centred.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    scores = torch.from_numpy(left * size)[:, :WIDTH]
    scores = scores / scores.std(0, correction=0).sqrt()  # to the square root of the standard deviation
    scores = scores / scores.square().sum(1).mean().sqrt()
    for ours, textbook in zip(targets.T, scores.T, strict=True):
        sign = torch.sign(ours @ textbook)
        torch.testing.assert_close(ours, sign * textbook, rtol=0, atol=3e-3)  # the basis is float16
    assert targets.square().sum(1).mean() == pytest.approx(1, abs=1e-2)
    spread = targets.var(0)
    assert (spread[:-1] > spread[1:] * 0.99).all()  # the leading components say most


def test_the_nearest_by_cosine_of_the_targets_are_the_nearest_by_tanimoto(data):
    rows = np.arange(len(SMILES))
    targets = targets_of(fit_fingerprint_basis(data.needed_graphs(), rows, WIDTH), data, rows)
    cosine = torch.nn.functional.cosine_similarity(targets[:, None], targets[None], dim=-1).numpy()
    fingerprints = [ecfp4(smiles) for smiles in SMILES]
    tanimoto = np.array([DataStructs.BulkTanimotoSimilarity(one, fingerprints) for one in fingerprints])
    np.fill_diagonal(cosine, -1)
    np.fill_diagonal(tanimoto, -1)
    found = np.take_along_axis(tanimoto, np.argsort(-cosine)[:, :3], axis=1).mean()
    best = np.sort(tanimoto)[:, -3:].mean()
    assert found > 0.9 * best > 3 * tanimoto.mean()


def test_few_molecules_leave_the_rest_of_the_basis_empty(data):
    basis = fit_fingerprint_basis(data.needed_graphs(), np.arange(5), WIDTH)
    assert torch.isfinite(basis.components).all()
    assert basis.components.any(0).tolist() == [True] * 4 + [False] * (WIDTH - 4)


def test_the_loss_is_the_share_not_explained():
    target = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert fingerprint_loss(torch.zeros(2, 2), target) == 1
    assert fingerprint_loss(target, target) == 0


def test_the_embedding_learns_the_fingerprint_of_molecules_it_never_saw(learned, data):
    weights = load_weights(learned)
    rows = data.rows("test")
    embedding = load(learned).embed([SMILES[row] for row in rows], embedding_dtype="float32")["embedding"]
    embedding = torch.tensor(embedding.to_numpy())
    assert embedding.shape == (len(rows), WIDTH)
    target = targets_of(weights.fingerprints, data, rows)
    assert fingerprint_loss(embedding, target) < 0.5 * target.square().sum(1).mean()
    # Energies are learned beside it.
    assert weights.metrics["test"]["toy.weight"]["r2"] > 0.5


class Killed(Exception):
    pass


def kill(progress: Progress) -> None:
    """After the first evaluation, where there is a checkpoint."""
    if progress.valid:
        raise Killed


def test_a_killed_run_goes_on_to_the_same_bits(data, teacher, tmp_path):
    config = replace(LEARNING, epochs=2, kekule=0.5)
    unbroken = distill(data, teacher, config, tmp_path / "unbroken")
    with pytest.raises(Killed):
        distill(data, teacher, config, tmp_path / "broken", kill)
    resumed = distill(data, teacher, config, tmp_path / "broken")
    assert unbroken.sha256 == resumed.sha256


def test_a_checkpoint_brings_its_components(data, tmp_path, monkeypatch):
    """Found anew they may differ: by rounding on another machine, as here by far."""
    config = TrainConfig(preset="tiny", epochs=2, batch_size=16)
    unbroken = train(data, config, tmp_path / "unbroken")
    with pytest.raises(Killed):
        train(data, config, tmp_path / "broken", kill)
    other = fit_fingerprint_basis(data.needed_graphs(), data.rows("test"), WIDTH)
    assert not torch.equal(other.mean, unbroken.fingerprints.mean)
    monkeypatch.setattr(
        "stkd_screen.teach.train.fit_fingerprint_basis", lambda *_: pytest.fail("fitted again")
    )
    trainer = StudentTrainer(data, config)
    trainer.fingerprints = other
    resumed = load_weights(run(trainer, tmp_path / "broken", lambda progress: None))
    for name, tensor in vars(unbroken.fingerprints).items():
        assert torch.equal(tensor, vars(resumed.fingerprints)[name])
    assert unbroken.sha256 == resumed.sha256


def test_going_on_keeps_the_components(learned, data, teacher, tmp_path):
    """Other molecules would give other components, and an embedding that has to be learned anew."""
    start = load_weights(learned)
    more = joined(data, table([f"S{text}" for text in SMILES if text[0] in "NO"], [WEIGHT, POLAR], False))
    tuned = distill(more, teacher, replace(LEARNING, epochs=1, start=str(learned)), tmp_path / "tuned")
    for name, tensor in vars(start.fingerprints).items():
        assert torch.equal(tensor, vars(tuned.fingerprints)[name])


def test_without_the_loss_there_is_no_head(learned, data, tmp_path):
    config = TrainConfig(start=str(learned), epochs=1, batch_size=16, fingerprint=0.0)
    assert not needs_graphs(config) and needs_graphs(replace(config, fingerprint=0.5))
    weights = train(replace(data, graphs=None), config, tmp_path / "plain")
    assert weights.fingerprints is None and weights.student.config.fingerprint == 0
    assert load(tmp_path / "plain").embed(["CCO"])["embedding"].dtype.shape == (weights.student.config.width,)
    assert starting_student(config, data.columns, None).fingerprint is None


def test_molecules_without_fingerprints_are_refused(data):
    with pytest.raises(TrainingError, match="without graphs"):
        train(replace(data, graphs=None), TrainConfig(preset="tiny", epochs=1), Path("unused"))


def test_what_the_teacher_says_once_is_part_of_the_budget(data, teacher, tmp_path, monkeypatch):
    now = 0.0

    def clock():
        nonlocal now
        now += 0.1  # seconds from one look to the next
        return now

    class Slow(Lessons):
        def __init__(self, teacher, data, rows, *arguments):
            nonlocal now
            now += 0.15 * len(rows)
            super().__init__(teacher, data, rows, *arguments)

    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("stkd_screen.teach.distill.Lessons", Slow)
    config = replace(LEARNING, epochs=100_000, max_minutes=0.5, soft=0.5)
    asking = 1.1 * 0.15 * len(data.rows("train"))  # all molecules, and before them a tenth
    left = 10 * (30 - asking)  # steps; a share of them is kept for evaluations
    assert 8 < asking < 11
    assert 0.8 * left <= distill(data, teacher, config, tmp_path).training["steps"] <= left


def test_a_molecule_that_rdkit_reads_otherwise_has_no_bits():
    _, graphs, failures = read(["CC", "C1CC", "CCO"])
    assert [*failures] == [1] and Chem.MolFromSmiles("C1CC") is None
    assert np.diff(graphs.fingerprint_offsets)[1] == 0


# Leading dimensions


def test_leading_dimensions_are_the_beginning_of_the_whole(learned):
    encoder = load(learned)
    whole = encoder.embed(["CCO", "C1CC"])["embedding"]
    short = encoder.embed(["CCO", "C1CC"], dims=5)["embedding"]
    assert short.dtype.shape == (5,) and short[0].to_list() == whole[0].to_list()[:5]
    assert short[1] is None


def test_an_embedding_is_cut_only_where_that_was_taught(learned, toy):
    with pytest.raises(StkdError, match="--dims 13: .* has 12 dimensions"):
        load(learned).embed(["CCO"], dims=13)
    with pytest.raises(StkdError, match="not taught.*leave out --dims"):
        load(toy.weights).embed(["CCO"], dims=5)


def test_queries_are_cut_as_their_library_is(learned, tmp_path):
    encoder = load(learned)
    (tmp_path / "library.smi").write_text("\n".join(SMILES))
    reader = RecordReader([tmp_path / "library.smi"])
    options = OutputOptions(dims=5).checked(encoder.weights)
    embed(reader, encoder, tmp_path / "library.parquet", options)
    build_index(Library([tmp_path / "library.parquet"]), tmp_path / "index", BuildOptions())
    index = Index(tmp_path / "index")
    hits = search(index, read_queries(SMILES[7], encoder, index.manifest.origin), SearchOptions(k=1))
    assert index.manifest.origin.width == 5
    assert hits["cosine"][0] == pytest.approx(1, abs=2e-3)
