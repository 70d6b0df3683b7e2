"""A tiny student, really trained once a session, and a table to train it on."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from stkd_screen.cli import main
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.train import TrainConfig, train

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory):
    """No test writes into the data of whoever runs it: the index that `search` takes is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STKD_SCREEN_HOME", str(tmp_path_factory.mktemp("home")))
        yield


TARGETS = ["toy.weight=heavy:eV", "toy.polar=hetero:eV", "other.rings=rings:none"]


def toy_table() -> pl.DataFrame:
    """A few hundred chains and rings with properties that can be counted from the SMILES."""
    ends = [(a, b) for a in ("C", "N", "O", "F") for b in ("C", "O", "C=O")]
    chains = [f"{a}{'C' * k}{b}" for k in range(1, 9) for a, b in ends]
    rings = [f"C1{'C' * k}C1{b}" for k in range(1, 8) for b in ("C", "N", "O", "CO", "CN", "CC")]
    smiles = chains + rings
    heavy = [sum(c.isalpha() for c in s) for s in smiles]
    hetero = [sum(c in "NOF" for c in s) for s in smiles]
    is_ring = [float("1" in s) for s in smiles]
    frame = pl.DataFrame({"smiles": smiles, "heavy": heavy, "hetero": hetero, "rings": is_ring})
    # The last target is missing for every third molecule, as in tables of different origin.
    missing = pl.int_range(pl.len()) % 3 == 0
    return frame.with_columns(pl.when(missing).then(None).otherwise(pl.col("rings")).alias("rings"))


@dataclass(frozen=True)
class Toy:
    table: Path
    weights: Path
    columns: list[TargetColumn]


TOY_TRAINING = TrainConfig(
    preset="tiny", epochs=25, batch_size=32, learning_rate=3e-3, warmup_steps=10, ema=0.9, seed=1
)


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    folder = tmp_path_factory.mktemp("toy")
    table = folder / "toy.csv"
    toy_table().write_csv(table)
    columns = [TargetColumn.parse(text) for text in TARGETS]
    train(read_labelled([table], columns), TOY_TRAINING, folder / "weights")
    return Toy(table, folder / "weights", columns)


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Run `stkd-screen` in this process: exit status, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stkd-screen", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=printed.out, stderr=printed.err)

    return run
