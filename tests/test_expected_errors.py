"""Half-widths of 90% intervals and the domain: learned, written, and kept to what they promise."""

import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
import torch

from stkd_screen import load
from stkd_screen.embed import embed
from stkd_screen.encoder import Encoder
from stkd_screen.errors import OutputError, TrainingError, WeightsError
from stkd_screen.expected_errors import (
    FILE,
    ExpectedErrors,
    disagreement,
    load_errors,
    measures,
    save_errors,
)
from stkd_screen.forward import ForwardPass
from stkd_screen.output import OutputOptions, schema
from stkd_screen.records import RecordReader
from stkd_screen.targets import Target
from stkd_screen.teach.calibrate import (
    FEWEST_ODD,
    RARE,
    calibrate,
    interval_metrics,
    interval_score,
    predictions_with_half_widths,
)
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.weights import load_weights, save_weights

SURE, UNSURE = 0.05, 1.0  # spread of the labels of molecules without and with fluorine


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A table of what the toy student knows, the labels of molecules with fluorine being unsure."""
    ends = ["C", "N", "O", "F", "CO", "CN"]
    smiles = [
        f"{a}{'C' * k}{b}{'C' * m}{c}"
        for a, k, b, m, c in product(["C", "N", "O", "F"], range(1, 5), ["C", "O", "N"], range(4), ends)
    ]
    rng = np.random.default_rng(0)
    heavy = np.array([sum(c.isalpha() for c in s) for s in smiles], float)
    spread = np.array([UNSURE if "F" in s else SURE for s in smiles])
    split = rng.choice(["train", "valid", "test"], len(smiles), p=[0.3, 0.4, 0.3])
    labels = heavy + spread * rng.laplace(size=len(smiles))
    path = tmp_path_factory.mktemp("noisy") / "noisy.csv"
    pl.DataFrame({"smiles": smiles, "heavy": labels, "split": split}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def calibrated(toy, noisy, tmp_path_factory):
    """The toy's folder with expected errors, and what they were learned from."""
    folder = tmp_path_factory.mktemp("calibrated") / "toy"
    shutil.copytree(toy.weights, folder)
    weights = load_weights(folder)
    data = read_labelled([noisy], [TargetColumn.parse("toy.weight=heavy:eV")])
    errors = calibrate(weights, data)
    save_errors(errors, weights.sha256, folder)
    return folder, errors, data


def measured_intervals(weights, errors, data, splits):
    predicted, half_widths = predictions_with_half_widths(replace(weights, errors=errors), data, splits)
    return interval_metrics(predicted, half_widths, weights.targets, data, splits)


def test_half_widths_of_many_molecules_are_those_of_embed(calibrated, noisy, monkeypatch):
    folder, _, data = calibrated
    monkeypatch.setattr("stkd_screen.teach.calibrate.AT_ONCE", 100)
    predicted, half_widths = predictions_with_half_widths(load_weights(folder), data, ["valid", "test"])
    smiles = pl.read_csv(noisy)["smiles"].to_list()
    frame = load(folder, "cpu", precision="float32").embed(smiles)
    asked = np.concatenate([data.rows("valid"), data.rows("test")])
    for ours, column in ((predicted, "weight_ev"), (half_widths, "weight_ev_err")):
        np.testing.assert_allclose(ours[asked, 0], frame[column].to_numpy()[asked], rtol=1e-4)
        assert np.isnan(ours[data.rows("train")]).all()


@pytest.mark.parametrize("ions", [FEWEST_ODD - 1, FEWEST_ODD])
def test_a_kind_with_few_molecules_widens_no_intervals(toy, noisy, tmp_path, ions):
    """One valid molecule of few atoms, off by twice the mean, once made all of its kind ten times as wide."""
    frame = pl.read_csv(noisy).with_columns(hetero=pl.col("heavy"))
    smiles = [f"[O-]{'C' * (k + 3)}" for k in range(ions)]
    off = pl.DataFrame({"smiles": smiles, "heavy": 60.0, "split": "valid", "hetero": 60.0})
    pl.concat([frame, off]).write_csv(tmp_path / "t.csv")
    columns = [TargetColumn.parse(f"toy.{name}=hetero:eV") for name in ("weight", "polar")]
    errors = calibrate(load_weights(toy.weights), read_labelled([tmp_path / "t.csv"], columns))["toy"]
    ionic, unpaired = errors.coefficients[3:5]
    assert (ionic > 0) == (ions == FEWEST_ODD), "molecules count, not their labels of two targets"
    assert unpaired == 0, "no molecule has one"


def test_a_shipped_model_is_calibrated_in_a_copy_only(run_command, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("smiles,gap\nCCO,1.0\n", encoding="utf-8")
    result = run_command("calibrate", "small", table)
    assert result.returncode == 1 and "copy" in result.stderr and "Traceback" not in result.stderr


def test_intervals_hold_what_they_promise_and_are_narrow_where_they_can_be(calibrated):
    folder, errors, data = calibrated
    measured = measured_intervals(load_weights(folder), errors, data, ["test"])["test"]["toy.weight"]
    assert 0.86 < measured["covered"] < 0.94
    assert measured["score"] < 0.9 * measured["constant_score"]
    frame = load(folder, "cpu").embed(["CCCOCCC", "FCCOCCF"])
    assert frame["weight_ev_err"][1] > 2 * frame["weight_ev_err"][0] > 0


def test_other_columns_are_null_and_the_domain_is_there(calibrated, toy):
    folder = calibrated[0]
    frame = load(folder, "cpu").embed(["CCC", "C(", "CCO"])
    assert frame["polar_ev_err"].null_count() == 3  # no label of the table calibrates it
    assert frame["weight_ev_err"].is_null().to_list() == [False, True, False]
    assert frame["domain"].is_null().to_list() == [False, True, False]
    other = load(folder, "cpu").embed(["CCC"], level="other")
    assert other.select("weight_ev_err", "rings_err", "domain").null_count().sum_horizontal()[0] == 3
    plain = load(toy.weights, "cpu").embed(["CCC"])
    assert plain.columns == frame.columns
    assert plain.select("weight_ev_err", "domain").null_count().sum_horizontal()[0] == 2


def test_what_is_farther_is_farther_and_less_sure(calibrated, noisy):
    known = pl.read_csv(noisy).filter(pl.col("split") == "valid")["smiles"]
    frame = load(calibrated[0], "cpu").embed([*known, "C" * 60])
    assert frame["domain"][:-1].quantile(0.95, "linear") == pytest.approx(1, abs=0.01)
    assert frame["domain"][-1] > 1
    assert frame["weight_ev_err"][-1] > frame["weight_ev_err"].median()


def test_measures_by_hand():
    targets = [
        Target("gap", "a", "eV", 0, 2.0),
        Target("gap", "b", "eV", 0, 1.0),
        Target("gap", "b", "D", 0, 1),
    ]
    errors = ExpectedErrors(
        regions=np.array([[3, 4], [0, 0]], np.float32),
        radius=np.float32(2.5),
        size=np.float32(10),
        few=np.float32(10),
        coefficients=np.array([1, 0.5, 0, 0.5, 1, 0.5, 0, 0], np.float32),
        factors=np.array([0.1], np.float32),
    )
    embedding, prediction = (
        np.array([[3, 4], [9, 12]], np.float32),
        np.array([[1, 2, 0], [1, 1, 0]], np.float32),
    )
    np.testing.assert_allclose(disagreement("a", targets, prediction), [0.5, 0])
    assert disagreement("c", targets, prediction).tolist() == [0, 0]
    np.testing.assert_allclose(errors.domain(embedding), [0, 10 / 2.5], atol=1e-6)
    given = measures(
        errors,
        "a",
        targets,
        embedding,
        errors.domain(embedding),
        prediction,
        np.array([10, 20]),
        np.array([True, False]),
        np.array([False, False]),
    )
    ion_of_few_atoms = [0, 0, np.log(0.54), np.log(10), 0, np.log(10), 0.6, 0.8]
    large = [np.log(2), np.log(4), np.log(0.04), 0, 0, 0, 0.6, 0.8]
    np.testing.assert_allclose(given, [ion_of_few_atoms, large], rtol=1e-5)
    np.testing.assert_allclose(errors.half_widths(given)[:, 0], [0.1 * 10, 0.1 * 2 * 2], rtol=1e-5)


def test_ions_zwitterions_and_radicals_are_less_sure():
    frame = load("small", "cpu").embed(["NCC(=O)O", "[NH3+]CC(=O)[O-]", "CCC(C)C", "C[CH]C(C)C"])
    widths = frame["gap_ev_err"].to_list()
    assert widths[1] > 2 * widths[0] and widths[3] > 1.2 * widths[2]


def test_few_atoms_are_those_that_few_labelled_molecules_have(calibrated, noisy):
    heavy = pl.read_csv(noisy).filter(pl.col("split") == "train")["smiles"].str.count_matches("[A-Z]")
    few = load_weights(calibrated[0]).errors["toy"].few
    share = (heavy <= few).mean()
    assert share <= RARE < (heavy <= few + 1).mean()


def test_larger_molecules_of_another_level_count(toy, noisy, tmp_path):
    """At level `toy` nothing is known of large molecules; labels of the same property elsewhere say how bad
    they are."""
    weights = load_weights(toy.weights)
    other = replace(weights.targets[0], level="other")
    weights = replace(weights, targets=[weights.targets[0], other, weights.targets[2]])
    small = pl.read_csv(noisy).filter(~pl.col("smiles").str.contains("F"))
    large = [f"{'C' * k}{a}{'C' * m}" for k in range(14, 24) for a in "NO" for m in range(1, 12)]
    wrong = pl.DataFrame({"smiles": large, "elsewhere": [60.0] * len(large), "split": ["valid"] * len(large)})
    for name, frame in (("small", small), ("large", wrong)):
        frame.write_csv(tmp_path / f"{name}.csv")
    own, elsewhere = (TargetColumn.parse(t) for t in ("toy.weight=heavy:eV", "other.weight=elsewhere:eV"))
    both = read_labelled([tmp_path / "small.csv", tmp_path / "large.csv"], [own, elsewhere])
    alone = calibrate(weights, read_labelled([tmp_path / "small.csv"], [own]))
    helped = calibrate(weights, both)
    off, widths = [], []
    for errors in (alone, helped):
        frame = Encoder(replace(weights, errors=errors), "cpu").embed(large)
        off.append((frame["weight_ev"] - 60).abs().to_numpy())
        widths.append(frame["weight_ev_err"].to_numpy())
    assert (off[0] > widths[0]).mean() > 0.9
    assert (off[1] <= widths[1]).mean() > 0.8


def test_a_handful_of_other_molecules_does_not_rule(toy, noisy, tmp_path):
    weights = load_weights(toy.weights)
    targets = [weights.targets[0], replace(weights.targets[0], level="other"), weights.targets[2]]
    weights = replace(weights, targets=targets)
    far = pl.DataFrame({"smiles": ["C" * 30], "elsewhere": [500.0], "split": ["valid"]})
    far.write_csv(tmp_path / "far.csv")
    own, elsewhere = (TargetColumn.parse(t) for t in ("toy.weight=heavy:eV", "other.weight=elsewhere:eV"))
    data = read_labelled([noisy, tmp_path / "far.csv"], [own, elsewhere])
    measured = measured_intervals(weights, calibrate(weights, data), data, ["test"])["test"]["toy.weight"]
    assert 0.86 < measured["covered"] < 0.94
    assert measured["score"] < measured["constant_score"]


def test_a_molecule_without_a_result_does_not_spoil_the_others(toy, noisy, monkeypatch):
    data = read_labelled([noisy], [TargetColumn.parse("toy.weight=heavy:eV")])
    batches = ForwardPass.batches

    def with_one_bad(self, molecules, rows):
        for batch, embedding, prediction in batches(self, molecules, rows):
            bad = batch == data.rows("valid")[3]
            embedding[bad] = prediction[bad] = np.nan
            yield batch, embedding, prediction

    monkeypatch.setattr(ForwardPass, "batches", with_one_bad)
    errors = calibrate(load_weights(toy.weights), data)["toy"]
    assert np.isfinite(errors.coefficients).all() and np.isfinite(errors.factors).any()


def test_labels_enough_for_a_level_but_for_none_of_its_targets(toy, noisy, tmp_path):
    table = pl.read_csv(noisy).with_row_index()
    valid = pl.col("split") == "valid"
    few = table.filter(~valid | (pl.col("index") % 3 == 0)).with_columns(
        pl.when(pl.col("index") % 2 == 0).then("heavy").alias("first"),
        pl.when(pl.col("index") % 2 == 1).then("heavy").alias("second"),
    )
    few.write_csv(tmp_path / "few.csv")
    columns = [TargetColumn.parse(t) for t in ("toy.weight=first:eV", "toy.polar=second:eV")]
    with pytest.raises(TrainingError, match="labels in the valid split: "):
        calibrate(load_weights(toy.weights), read_labelled([tmp_path / "few.csv"], columns))


def test_new_weights_in_the_folder_take_the_old_errors_away(calibrated, tmp_path):
    shutil.copytree(calibrated[0], tmp_path / "again")
    weights = load_weights(tmp_path / "again")
    assert weights.errors and weights.errors_sha256
    with torch.no_grad():
        weights.student.table += 1
    save_weights(weights, tmp_path / "again")
    assert not load_weights(tmp_path / "again").errors


def test_a_run_does_not_go_on_with_other_errors(calibrated, toy, tmp_path):
    (tmp_path / "in.smi").write_text("CCO\nCCC\n")

    def run(weights):
        options = OutputOptions().checked(weights)
        reader = RecordReader([tmp_path / "in.smi"])
        return embed(reader, Encoder(weights, "cpu"), tmp_path / "out.parquet", options)

    run(load_weights(calibrated[0], with_errors=False))
    with pytest.raises(OutputError, match=r"made otherwise \(errors"):
        run(load_weights(calibrated[0]))


def test_columns_are_the_same_at_every_level(toy):
    weights = load_weights(toy.weights)
    targets = [replace(weights.targets[0], level="a"), replace(weights.targets[2], level="b", unit="class")]
    for order in (targets, targets[::-1]):
        mixed = replace(weights, targets=order)
        names = {tuple(schema(mixed, OutputOptions(level=level)).names) for level in ("a", "b")}
        assert len(names) == 1 and "rings_err" not in names.pop()


@pytest.mark.parametrize("name", ["domain", "gap_err"])
def test_targets_do_not_take_the_names_of_these_columns(noisy, name):
    with pytest.raises(TrainingError, match=f"'{name}' (is a column|would be taken)"):
        read_labelled([noisy], [TargetColumn.parse(f"toy.{name}=heavy:none")])


def test_too_few_molecules_calibrate_nothing(toy):
    with pytest.raises(TrainingError, match=r"; labels in the valid split: toy.weight \d+, toy.polar \d+"):
        calibrate(load_weights(toy.weights), read_labelled([toy.table], toy.columns))


def test_interval_score_by_hand():
    off, width = np.array([0.5, 3.0]), np.array([1.0, 1.0])
    assert interval_score(width, off) == pytest.approx((2 + 2 + 20 * 2) / 2)


def test_the_file_belongs_to_its_weights(calibrated, tmp_path):
    folder, errors, _ = calibrated
    sha256 = load_weights(folder).sha256
    again = load_errors(folder, sha256)
    assert all(
        np.array_equal(getattr(again[level], name), array, equal_nan=True)
        for level, of_level in errors.items()
        for name, array in vars(of_level).items()
    )
    save_errors(errors, "0" * 64, tmp_path)
    with pytest.raises(WeightsError, match=r"belongs to other weights .* calibrate them anew"):
        load_errors(tmp_path, sha256)
    before = {
        level: replace(of_level, coefficients=of_level.coefficients[1:]) for level, of_level in errors.items()
    }
    save_errors(before, sha256, tmp_path)
    with pytest.raises(WeightsError, match="written by another version .* calibrate the weights anew"):
        load_errors(tmp_path, sha256)
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes()[:-10])
    with pytest.raises(WeightsError, match=r"errors\.safetensors cannot be read"):
        load_errors(tmp_path, sha256)
    assert load_errors(tmp_path / "nowhere", sha256) == {}


def test_commands(toy, noisy, tmp_path, run_command):
    folder = tmp_path / "mine"
    shutil.copytree(toy.weights, folder)
    (folder / FILE).write_bytes(b"damaged")  # calibrating anew is the way out
    target = ("--target", "toy.weight=heavy:eV")
    done = run_command("calibrate", folder, noisy, *target)
    assert done.returncode == 0 and "inside" in done.stdout and FILE in done.stderr
    told = run_command("evaluate", folder, noisy, *target, "--json")
    measured = json.loads(told.stdout)
    assert set(measured["intervals"]) == {"valid", "test"} and "train" in measured
    assert 0.8 < measured["intervals"]["test"]["toy.weight"]["covered"] < 1
    shown = run_command("evaluate", folder, noisy, *target, "--split", "train").stdout
    assert "half-width" in shown and "valid" not in shown


def test_the_shipped_weights_know_what_is_far():
    drug = "CN1CCN(CC1)c1ccc2nc(-c3ccc(Oc4ccccc4)cc3)c(C(N)=O)n2c1"
    frame = load("small", "cpu").embed(["CCCO", "CC1CC1C#N", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", drug])
    assert frame["domain"][:2].max() < 1 < frame["domain"][2:].min()
    assert frame["gap_ev_err"][:2].max() < frame["gap_ev_err"][3] / 2
    columns = frame.select("homo_ev_err", "lumo_ev_err", "gap_ev_err", "domain")
    assert columns.null_count().sum_horizontal()[0] == 0
