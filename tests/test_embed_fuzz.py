"""Mutated SMILES through the whole of embed: no crash, no hang, no lost row."""

import random
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_smiles_fuzz import SEEDS, mutated

from stkd_screen import load
from stkd_screen.embed import embed
from stkd_screen.output import OutputOptions
from stkd_screen.records import RecordReader


def mutated_bytes(count, seed):
    """Some bytes of well-formed SMILES replaced by any others: NUL, line ends, quotes, invalid UTF-8."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        text = bytearray(rng.choice(SEEDS).encode())
        for _ in range(rng.choice((1, 1, 2, 5))):
            text[rng.randrange(len(text))] = rng.randrange(256)
        texts.append(bytes(text))
    return texts


def write_csv(path, texts):
    """Quoted, since a .smi file would take a "#" for a comment and a line end for the end of the record."""
    with open(path, "wb") as file:
        file.write(b"id,smiles\n")
        for i, text in enumerate(texts):
            file.write(b'm%d,"%s"\n' % (i, text.replace(b'"', b'""')))


def embed_mutations(encoder, folder, count, seed):
    """Half of them mutated by symbols, half by bytes; what came out, after checking that nothing is amiss."""
    symbols = [text.encode() for text in mutated(count - count // 2, seed)]
    texts = symbols + mutated_bytes(count // 2, seed)
    random.Random(seed).shuffle(texts)
    write_csv(folder / "mutated.csv", texts)
    options = OutputOptions(embedding_dtype="float32").checked(encoder.weights)
    windows, last = [], time.perf_counter()

    def report(summary):
        nonlocal last
        now = time.perf_counter()
        windows.append(now - last)
        last = now

    reader = RecordReader([folder / "mutated.csv"], batch_size=encoder.window)
    summary = embed(reader, encoder, folder / "out.parquet", options, report=report)
    row = good = kept = 0
    with pq.ParquetFile(folder / "out.parquet") as file:
        for batch in file.iter_batches(50_000):
            assert batch["row"].to_pylist() == list(range(row, row + len(batch)))
            assert batch["id"].to_pylist() == [f"m{i}" for i in range(row, row + len(batch))]
            bad = batch["error"].is_valid().to_numpy(zero_copy_only=False)
            for column in ("weight_ev", "polar_ev", "embedding"):
                assert (batch[column].is_null().to_numpy(zero_copy_only=False) == bad).all()
            assert np.isfinite(batch["embedding"].flatten().to_numpy(zero_copy_only=False)).all()
            good += np.count_nonzero(~bad)
            plain = [text.decode("utf-8", "replace").strip() for text in texts[row : row + len(batch)]]
            kept += sum(map(str.__eq__, plain, batch["smiles"].to_pylist()))
            row += len(batch)
    assert row == count == summary.records and good == summary.good
    assert kept > 0.99 * count  # the others have the tail of an extended SMILES
    return {
        "rows": row,
        "good": int(good),
        "kinds of error": len(summary.bad),
        "seconds": round(summary.seconds, 1),
        "slowest window, ms a row": round(1000 * max(windows) / encoder.window, 3),
    }


@pytest.fixture(scope="module")
def encoder(toy):
    return load(toy.weights, device="cpu")


def test_mutated_smiles_lose_no_row(encoder, tmp_path):
    counts = embed_mutations(encoder, tmp_path, 20_000, seed=3)
    assert 0.02 < counts["good"] / counts["rows"] < 0.9 and counts["kinds of error"] > 12


@pytest.mark.slow
def test_a_million_mutated_smiles_lose_no_row(encoder, tmp_path):
    counts = embed_mutations(encoder, tmp_path, 1_000_000, seed=4)
    print(counts)
    assert counts["kinds of error"] > 12
