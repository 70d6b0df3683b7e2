"""Files damaged at random: no crash, no hang, and whatever knows its length loses no row in silence."""

import bz2
import gzip
import lzma
import random
import time

import pytest
import zstandard
from test_faults import parquet

from stkd_screen.errors import InputError
from stkd_screen.records import RecordReader

ROWS = 3000


def smiles():
    text = random.Random(1).randbytes(12 * ROWS).translate(b"CNOF" * 64).decode()
    return ["C" + text[12 * i : 12 * i + 12] for i in range(ROWS)]


def whole_files():
    texts = smiles()
    smi = "".join(f"{text} m{i}\n" for i, text in enumerate(texts)).encode()
    csv = ("id,smiles\n" + "".join(f'm{i},"{text}"\n' for i, text in enumerate(texts))).encode()
    columns = {"smiles": texts, "id": [f"m{i}" for i in range(ROWS)]}
    plain = {"row_group_size": 700, "use_dictionary": False}
    return {
        "x.smi": smi,
        "x.csv": csv,
        "x.smi.gz": gzip.compress(smi),
        "x.csv.bz2": bz2.compress(csv),
        "x.smi.xz": lzma.compress(smi),
        "x.smi.zst": zstandard.ZstdCompressor(write_checksum=True).compress(smi),
        "a.parquet": parquet(columns, row_group_size=700),
        "b.parquet": parquet(columns, **plain, compression="zstd", write_page_checksum=True),
        "c.parquet": parquet(columns, **plain, compression="none"),
        "d.parquet": parquet(
            columns, **plain, data_page_version="2.0", column_encoding={"smiles": "DELTA_BYTE_ARRAY"}
        ),
    }


WHOLE = whole_files()


def damage(data, rng):
    data = bytearray(data)
    at, length = rng.randrange(len(data)), rng.randrange(1, 3000)
    match rng.randrange(6):
        case 0:
            del data[at:]
        case 1:
            for _ in range(rng.choice((1, 5, 50))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = rng.randbytes(length)
        case 4:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case 5:  # near the end, where Parquet says what is where
            data[rng.randrange(max(0, len(data) - 1500), len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def read_damaged(folder, name, seeds):
    """How many of the damaged files had a fault that was told."""
    faults = 0
    for seed in seeds:
        rng = random.Random(f"{name} {seed}")
        path = folder / name
        path.write_bytes(damage(WHOLE[name], rng))
        rows, told, started = 0, False, time.process_time()
        try:
            for batch in RecordReader([path], batch_size=rng.choice((50, 1000, 8192))):
                batch.smiles.validate(full=True)
                batch.id.validate(full=True)
                rows += len(batch)
        except InputError:
            told = True
        assert time.process_time() - started < 30  # a page that says it has 2 GB takes some seconds
        if name not in ("x.smi", "x.csv"):  # plain text cannot know what it has lost
            assert told or rows == ROWS, f"{name} {seed}: {rows} rows"
        faults += told
    return faults


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_told(tmp_path, name):
    faults = read_damaged(tmp_path, name, range(15))
    assert faults > 7 or name in ("x.smi", "x.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_told_long(tmp_path, name):
    print(name, read_damaged(tmp_path, name, range(2000)))
