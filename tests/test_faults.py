"""Every fault of docs/reliability.md, as a user meets it: what is said, what is kept, the exit status.

Each case stands under its name in a table of the docs, word for word but for the figures.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import sys
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from stkd_screen.errors import InputError
from stkd_screen.records import RecordReader, open_text

DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
SMALL = b"CCO a\nCCN b\nCCC c\n"
CSV = b"smiles,id\nCCO,a\nCCN,b\nCCC,c\n"
BAD_QUOTE = "a quote that is opened and not closed"
NOT_ASCII = "character that is not printable ASCII"


def lines(count):
    """Of random text, so that they stay long when compressed."""
    text = random.Random(1).randbytes(12 * count).translate(b"CNOF" * 64).decode()
    return "".join(f"C{text[12 * i : 12 * i + 12]} m{i}\n" for i in range(count)).encode()


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def cut(data):
    return data[: len(data) * 9 // 10]


def flipped(data):
    data = bytearray(data)
    data[len(data) * 9 // 10] ^= 0xFF
    return bytes(data)


def tar(files):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return sink.getvalue()


def parquet(columns, **options):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def damaged_parquet():
    smiles = [line.split()[0].decode() for line in lines(8000).splitlines()]
    data = bytearray(parquet({"smiles": smiles}, row_group_size=2000, use_dictionary=False))
    middle = len(data) * 3 // 8  # of the second of four row groups
    data[middle : middle + 2000] = bytes(2000)
    return bytes(data)


@dataclass
class Case:
    name: str  # first cell of its row in the docs
    files: dict[str, bytes]
    rows: int | range | None  # of the output; None: there is none
    says: str = ""  # on standard error
    bad: dict[str, int] = field(default_factory=dict)  # kind of error -> rows
    code: int = 1
    inputs: tuple[str, ...] = ()  # by default the files
    options: tuple[str, ...] = ()


BIG = lines(20_000)
AGAIN = "copy or download it again"
CUT = f"damaged after line N (compressed data ended early); the rows before it were read; {AGAIN}"
ALTERED = f"the rows before it were read, but some may be altered; {AGAIN}"
GONE_COLUMN = "b.csv: no SMILES column among 'structur', 'id'; name it with --smiles-column"
CASES = [
    # Compressed files
    Case(
        "`.gz` cut short",
        {"x.smi.gz": cut(gzip.compress(BIG))},
        range(17_000, 20_000),
        f"error: x.smi.gz: {CUT}",
    ),
    Case(
        "`.bz2` cut short",
        {"x.smi.bz2": cut(bz2.compress(BIG, 1))},
        range(14_000, 20_000),
        f"error: x.smi.bz2: {CUT}",
    ),
    Case(
        "`.xz` cut short",
        {"x.smi.xz": cut(lzma.compress(BIG))},
        range(17_000, 20_000),
        f"error: x.smi.xz: {CUT}",
    ),
    Case(
        "`.zst` cut short", {"x.smi.zst": cut(zstd(BIG))}, range(10_000, 20_000), f"error: x.smi.zst: {CUT}"
    ),
    Case(
        "a byte altered in `.gz`",
        {"x.smi.gz": flipped(gzip.compress(BIG))},
        range(17_000, 20_000),
        f"error: x.smi.gz: damaged after line N (CRC check failed N != N); {ALTERED}",
    ),
    Case(
        "a byte altered in `.bz2`",
        {"x.smi.bz2": flipped(bz2.compress(BIG, 1))},
        range(14_000, 20_000),
        f"error: x.smi.bz2: damaged after line N (Invalid data stream); {ALTERED}",
    ),
    Case(
        "a byte altered in `.xz`",
        {"x.smi.xz": flipped(lzma.compress(BIG))},
        range(16_000, 20_000),
        f"error: x.smi.xz: damaged after line N (Corrupt input data); {ALTERED}",
    ),
    Case(
        "a byte altered in `.zst`",
        {"x.smi.zst": flipped(zstd(BIG))},
        range(10_000, 20_000),
        f"error: x.smi.zst: damaged after line N (ZSTD decompress failed: Restored data doesn't match "
        f"checksum); {ALTERED}",
    ),
    Case(
        "garbage after the compressed data",
        {"x.smi.bz2": bz2.compress(SMALL) + b"garbage"},
        3,
        f"error: x.smi.bz2: damaged after line N (Invalid data stream); {ALTERED}",
    ),
    Case(
        "several compressed files put one behind another",
        {
            "x.smi.gz": gzip.compress(SMALL) * 2,
            "y.smi.zst": zstd(SMALL) * 3,
            "z.smi.xz": lzma.compress(SMALL) * 2,
        },
        21,
        code=0,
    ),
    Case(
        "zeros after the compressed data",
        {"x.smi.gz": gzip.compress(SMALL) + bytes(512), "x.smi.xz": lzma.compress(SMALL) + bytes(512)},
        6,
        code=0,
    ),
    Case(
        "plain text named `.gz`",
        {"x.smi.gz": SMALL},
        None,
        f"error: x.smi.gz: no .gz data in it; if it is plain text, rename it to x.smi, else {AGAIN}",
    ),
    Case(
        "an empty file named `.gz`",
        {"x.smi.gz": b""},
        None,
        f"error: x.smi.gz: empty, not even the start of .gz data; {AGAIN}",
    ),
    Case(
        "compressed data without the extension",
        {"x.smi": gzip.compress(SMALL), "y.csv": zstd(CSV)},
        6,
        code=0,
    ),
    Case(
        "compressed twice",
        {"x.smi.gz": gzip.compress(gzip.compress(SMALL))},
        None,
        "error: x.smi.gz: cannot be read: compressed twice; decompress it once",
    ),
    # Text
    Case(
        "NUL bytes",
        {"x.smi": SMALL + bytes(100_000) + b"\n" + SMALL, "y.csv": b"smiles\nC\0C\nCC\n"},
        9,
        bad={NOT_ASCII: 2},
        code=0,
    ),
    Case(
        "bytes that are not UTF-8",
        {"x.smi": b"CC\xff a\nCCC \xe9\nC \xe9\n"},
        3,
        "warning: x.smi: ids that are not UTF-8 lose letters (written as U+FFFD); save it as UTF-8",
        bad={"not valid UTF-8": 1},
        code=0,
    ),
    Case(
        "byte order mark, also before a later line",
        {
            "x.smi": b"\xef\xbb\xbf" + SMALL + b"\xef\xbb\xbf" + SMALL,
            "y.csv": b"\xef\xbb\xbfsmiles\nC\n\xef\xbb\xbfCC\n",
        },
        8,
        code=0,
    ),
    Case(
        "UTF-16, with a mark or without",
        {"x.smi": SMALL.decode().encode("utf-16-le")},
        None,
        "error: x.smi: cannot be read: UTF-16 text; save it as UTF-8",
    ),
    Case(
        "line ends of Windows and old Macs, mixed",
        {"x.smi": b"C a\rCC b\r\nCCC c\nO d", "y.csv": b"smiles\rC\rCC\r"},
        6,
        code=0,
    ),
    Case(
        "a line of 10 MB",
        {
            "x.smi": b"C a\n" + b"C" * 10_000_000 + b" b\nCC c\n",
            "y.csv": b"smiles\n" + b"N" * 10_000_000 + b"\nC\n",
        },
        5,
        bad={"more than 1,000,000 bytes": 2},
        code=0,
    ),
    Case(
        "a line without end",
        {"x.smi": SMALL + bytes(140 << 20)},
        3,
        f"error: x.smi line 4: over 64 MB without a line end; the rows before it were read; {AGAIN}",
    ),
    Case(
        "a line without end in a table",
        {"x.csv": CSV + bytes(70 << 20)},
        3,
        f"error: x.csv line 5: over 64 MB without a line end; the rows before it were read; {AGAIN}",
    ),
    Case("no line end at the end of the file", {"x.smi": b"\n".join([b"C"] * 100_000)}, 100_000, code=0),
    Case(
        "the header once more further down",
        {"x.smi": b"smiles zinc_id\nC a\n" * 3, "y.csv": b"smiles,id\nC,a\n" * 3},
        6,
        code=0,
    ),
    Case(
        "another header further down in `.smi`",
        {"x.smi": b"smiles id\nC a\nsmiles zinc_id\nCC b\n"},
        3,
        bad={"character that is not part of a SMILES there": 1},
        code=0,
    ),
    Case(
        "a header with the columns in another order further down",
        {"x.csv": CSV + b"id,smiles\nd,CC\n"},
        3,
        "error: x.csv line 5: another header, 'id', 'smiles', after 'smiles', 'id'; the rows before it were "
        "read; make a file of its own of the rest",
    ),
    Case(
        "a quote that is never closed, before the SMILES",
        {"x.csv": b'id,smiles\na,C\n"b,CC\nc,CCC\nd,CCCC\n'},
        4,
        bad={BAD_QUOTE: 1},
        code=0,
    ),
    Case(
        "a quote that is never closed, behind the SMILES",
        {"x.csv": b'smiles,id\nC,a\nCC,"b\nCCC,c\nCCCC,d\n'},
        4,
        code=0,
    ),
    Case(
        "a row with fewer fields",
        {"x.csv": b"id,smiles\na,C\nb\nc,CC\n"},
        3,
        bad={"no SMILES in column 'smiles'": 1},
        code=0,
    ),
    Case(
        "a row with more fields, before the SMILES",
        {"x.csv": b"name,smiles\na,C\n2,N-b,CC\nc,CCC\n"},
        3,
        bad={"more fields than the header has, so that the SMILES may be in another": 1},
        code=0,
    ),
    Case(
        "a web page in place of the file",
        {"x.smi": b"<!DOCTYPE html>\n<html><body>404\n"},
        None,
        "error: x.smi: cannot be read: a web page; download the file anew",
    ),
    Case(
        "a zip archive or an Excel file",
        {"x.csv": b"PK\x03\x04" + bytes(100)},
        None,
        "error: x.csv: cannot be read: a zip archive or a spreadsheet; unpack it, or save it as .csv",
    ),
    Case(
        "a tar archive, compressed or not",
        {"x.smi": tar({"a.smi": SMALL})},
        None,
        "error: x.smi: cannot be read: a tar archive; unpack it",
    ),
    # Parquet
    Case(
        "Parquet cut short",
        {"x.parquet": cut(parquet({"smiles": ["C", "CC"]}))},
        None,
        "error: x.parquet: no whole Parquet file (Parquet magic bytes not found in footer. Either the file "
        f"is corrupted or this is not a parquet file); {AGAIN}",
    ),
    Case(
        "Parquet with a damaged page",
        {"x.parquet": damaged_parquet()},
        range(6000, 8000),
        "error: x.parquet: N of N rows cannot be read (Corrupt snappy compressed data): rows N to N; the "
        f"others were read; {AGAIN}",
    ),
    Case(
        "nested SMILES",
        {"x.parquet": parquet({"smiles": [["C"], ["CC"]]})},
        None,
        "error: x.parquet: column 'smiles' holds list<element: string>, not SMILES; choose another with "
        "--smiles-column",
    ),
    Case(
        "nulls, dictionaries, large strings, bytes",
        {
            "a.parquet": parquet({"smiles": pa.array(["C", None, "N"]).dictionary_encode()}),
            "b.parquet": parquet({"smiles": pa.array(["C", None], pa.large_string())}),
            "c.parquet": parquet({"smiles": pa.array([b"C", b"\xff"], pa.large_binary())}),
        },
        7,
        bad={"no SMILES in column 'smiles'": 2, "not valid UTF-8": 1},
        code=0,
    ),
    # Several inputs
    Case(
        "one of several inputs is damaged",
        {"a.smi": SMALL, "b.smi.gz": gzip.compress(BIG)[:50_000], "c.smi": SMALL},
        range(6000, 8000),
        f"warning: b.smi.gz: {CUT}; going on with the next input\nerror: b.smi.gz: {CUT}",
    ),
    Case(
        "two of several inputs are damaged",
        {"a.smi.gz": b"no", "b.smi": SMALL, "c.smi": b"PK\x03\x04"},
        3,
        f"warning: a.smi.gz: no .gz data in it; if it is plain text, rename it to a.smi, else {AGAIN}; going "
        "on with the next input\nerror: 2 of 3 inputs are not read in full:\n"
        f"- a.smi.gz: no .gz data in it; if it is plain text, rename it to a.smi, else {AGAIN}\n"
        "- c.smi: cannot be read: a zip archive or a spreadsheet; unpack it, or save it as .csv",
    ),
    Case(
        "a column that the second table lacks",
        {"a.csv": CSV, "b.csv": b"structur,id\nC,d\n", "c.csv": CSV},
        6,
        f"warning: {GONE_COLUMN}; going on with the next input\nerror: {GONE_COLUMN}",
    ),
    Case(
        "one of several inputs is empty",
        {"a.smi": SMALL, "b.smi": b"", "c.csv": b"smiles,id\n"},
        3,
        "warning: b.smi: no record in it\nwarning: c.csv: no record in it",
        code=0,
    ),
    Case("the only input is empty", {"x.smi": b""}, 0, code=0),
    Case(
        "a name that is not there",
        {"a.smi": SMALL},
        None,
        "error: no such file: b.smi; check the name, the folder you are in and who may read its folder",
        inputs=("a.smi", "b.smi"),
    ),
    Case(
        "a folder with nothing to read",
        {"folder/notes.md": b"no molecules"},
        None,
        "error: folder: no molecule file in this folder; name hidden and .txt files themselves; known "
        "extensions: .smi .smiles .ism .txt .csv .tsv .parquet, text ones also with .gz .bz2 .xz .zst",
        inputs=("folder",),
    ),
    Case(
        "a folder named like a file",
        {"x.smi/notes.md": b"no molecules"},
        None,
        "error: x.smi: no molecule file in this folder; name hidden and .txt files themselves; known "
        "extensions: .smi .smiles .ism .txt .csv .tsv .parquet, text ones also with .gz .bz2 .xz .zst",
        inputs=("x.smi",),
    ),
]


@pytest.fixture
def embed(monkeypatch, run_command, toy, tmp_path):
    """Run `embed` in this process in an empty folder: exit status, summary, what was said, the output."""
    monkeypatch.chdir(tmp_path)

    def run(*inputs):
        result = run_command("embed", *inputs, "-o", "out.parquet", "--model", toy.weights, "--json")
        return SimpleNamespace(
            code=result.returncode,
            summary=json.loads(result.stdout) if result.stdout else None,
            says=result.stderr.strip(),
            output=pl.read_parquet("out.parquet") if Path("out.parquet").exists() else None,
        )

    return run


def figures_out(text):
    return re.sub(r"0x[0-9a-f]+|\d[\d,]*|\bN\b", "N", text)


def documented(name, says, code):
    """The row of a fault in the docs has these words and this exit status."""
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| {name} |"))
    _, _, seen, _, status, _ = re.split(r"(?<!\\)\|", row)
    assert status.strip() == str(code)
    for line in says.splitlines():
        assert figures_out(f"`{line}`") in figures_out(seen), f"{name}: the docs lack {line}"
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_input_fault(embed, case):
    for name, content in case.files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    result = embed(*(case.inputs or case.files))
    assert figures_out(result.says) == figures_out(case.says)
    assert result.code == case.code
    assert documented(case.name, result.says, case.code)
    if case.rows is None:
        assert result.output is None
        return
    kept = len(result.output)
    assert kept == result.summary["records"] == result.output["row"].n_unique()
    if isinstance(case.rows, range):  # how much comes before the fault depends on the compressor
        assert kept in case.rows
    else:
        assert kept == case.rows and result.summary["bad"] == case.bad
    assert result.summary["input_fault"] == (result.says.rpartition("error: ")[2] if case.code else None)


@pytest.mark.parametrize("kind", ["smi", "parquet"])
@pytest.mark.parametrize("change", ["grows", "shrinks"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, kind, change):
    monkeypatch.chdir(tmp_path)
    smiles = ["C" * (i % 9 + 1) for i in range(1000)]
    path = Path(f"x.{kind}")
    path.write_bytes(parquet({"smiles": smiles}) if kind == "parquet" else "\n".join(smiles).encode())
    os.utime(path, (1, 1))  # so that the clock is fine enough to show a change
    read = 0
    with pytest.raises(InputError) as fault:
        for batch in RecordReader([path], batch_size=100):
            if read == 0 and change == "grows":
                with path.open("ab") as file:
                    file.write(b"\nC more")
            elif read == 0:
                os.truncate(path, path.stat().st_size - 1)
            read += len(batch)
    assert read == 1000 + (kind == "smi" and change == "grows")
    assert documented(
        f"a file that {change} while it is read", f"error: {fault.value}".replace(kind, "smi"), 1
    )


def test_a_file_put_in_place_of_another_while_it_is_read_is_no_fault(tmp_path):
    path, other = tmp_path / "x.smi", tmp_path / "y.smi"
    path.write_bytes(SMALL)
    other.write_bytes(SMALL * 2)
    read = 0
    for batch in RecordReader([path], batch_size=1):
        if read == 0:
            other.replace(path)
        read += len(batch)
    assert read == 3


def test_a_pipe_that_ends_early_ends_the_input(embed):
    os.mkfifo("x.smi")

    def feed():
        with open("x.smi", "wb") as pipe:
            pipe.write(SMALL + b"CCCC half")

    feeder = threading.Thread(target=feed)
    feeder.start()
    result = embed("x.smi")
    feeder.join()
    assert (result.code, result.says, len(result.output)) == (0, "", 4)
    assert documented("a pipe that ends early", "", 0)


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_compressed_data_on_standard_input_shows_where_it_was_cut(embed, monkeypatch, compress):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise OSError("Illegal seek")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe(cut(compress(BIG)))))
    result = embed("-")
    says = f"error: <stdin>: {CUT}"
    assert figures_out(result.says) == figures_out(says) and result.code == 1
    assert documented("a pipe of compressed data that ends early", says, 1)
    assert 10_000 < len(result.output) < 20_000


def test_standard_input_that_is_closed(embed, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    result = embed("-")
    assert result.code == 1 and result.output is None
    assert documented("standard input is closed", result.says, 1)


def test_links_to_nothing(embed):
    Path("folder").mkdir()
    Path("folder/a.smi").symlink_to("gone.smi")
    Path("folder/b.smi").write_bytes(SMALL)
    Path("folder/loop").symlink_to("..")
    named = embed("folder/a.smi")
    assert named.code == 1 and named.output is None
    assert documented("a link to nothing", named.says, 1)
    inside = embed("folder")
    assert inside.code == 1 and len(inside.output) == 3
    assert documented("a link to nothing in a folder", inside.says, 1)


@pytest.mark.parametrize("name", ["x.smi", "x.parquet"])
def test_a_file_that_may_not_be_read(embed, monkeypatch, name):
    Path(name).write_bytes(SMALL)
    Path("y.smi").write_bytes(SMALL)
    real = Path.open

    def refuse(path, *mode, **options):  # root may read everything
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return real(path, *mode, **options)

    monkeypatch.setattr(Path, "open", refuse)
    result = embed(name, "y.smi")
    assert result.code == 1 and len(result.output) == 3
    assert documented("no permission to read", result.says.replace("parquet", "smi"), 1)


def test_a_folder_that_may_not_be_listed(embed, monkeypatch):
    Path("folder/sub").mkdir(parents=True)
    Path("folder/a.smi").write_bytes(SMALL)
    real = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = embed("folder")
    assert result.code == 1 and result.output is None
    assert documented("a folder in the folder that may not be listed", result.says, 1)


def test_a_disk_that_fails_while_it_is_read(embed, monkeypatch):
    class Failing(io.BytesIO):
        def read1(self, size=-1):
            if self.tell() > 100_000:
                raise OSError(5, "Input/output error")
            return super().read1(min(size, 1000))

    Path("x.smi").write_bytes(BIG)
    monkeypatch.setattr("stkd_screen.records.streams.open_file", lambda path: Failing(path.read_bytes()))
    result = embed("x.smi")
    assert result.code == 1 and 5000 < len(result.output) < 8000
    assert documented("the disk fails while it is read", result.says, 1)


def test_a_fault_before_the_limit_is_told(embed):
    Path("a.smi.gz").write_bytes(b"no")
    Path("b.smi").write_bytes(SMALL * 1000)
    result = embed("a.smi.gz", "b.smi", "--limit", "5")
    assert result.code == 1 and len(result.output) == 5 and "error: a.smi.gz: no .gz data" in result.says


def test_reading_all_of_a_damaged_table_raises(tmp_path):
    """Training reads a table as a whole: half a table would be learned from in silence."""
    path = tmp_path / "x.csv.gz"
    path.write_bytes(cut(gzip.compress(BIG)))
    with open_text(path) as stream, pytest.raises(InputError, match="damaged .compressed data ended early."):
        stream.read()
