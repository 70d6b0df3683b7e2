"""Reading molecule files: every format, compression, dialect and kind of damage, on small real files."""

import bz2
import gzip
import io
import lzma
import os
import random
import re
import sys
import uuid
import warnings
import zlib
from threading import Event, Semaphore, Thread, Timer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stkd_screen.errors import InputError, StkdWarning
from stkd_screen.records import RecordReader, Records, open_text, smi, streams

TEXT = b"CCO ethanol\nc1ccccc1\tbenzene\nC methane\n"
ROWS = [("CCO", "ethanol"), ("c1ccccc1", "benzene"), ("C", "methane")]


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, 1),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": zstd,
}
compressed = pytest.mark.parametrize("extension", [".gz", ".bz2", ".xz", ".zst"])
any_compression = pytest.mark.parametrize("extension", COMPRESS)


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def rows(*inputs, **options):
    """All records as (smiles, id), after checking what holds for every batch."""
    found = []
    for batch in RecordReader(inputs, **options):
        check_layout(batch)
        found += zip(batch.smiles.to_pylist(), batch.id.to_pylist(), strict=True)
    return found


def check_layout(batch):
    assert len(batch) == len(batch.smiles) == len(batch.id) == len(batch.lines) > 0
    assert batch.smiles.type == batch.id.type == pa.large_string()
    assert batch.smiles.offset == batch.id.offset == 0
    assert batch.smiles.buffers()[0] is None
    assert batch.lines.dtype == np.int64
    assert all(0 <= i < len(batch) for i in batch.errors)
    batch.smiles.validate(full=True)
    batch.id.validate(full=True)


def random_smiles(count):
    """Rows of 30 random atoms: two bits a character, so that files stay long when compressed."""
    atoms = random.Random(1).randbytes(30 * count).translate(b"CNOF" * 64).decode()
    return [atoms[i : i + 30] for i in range(0, len(atoms), 30)]


def rows_before_fault(*inputs, **options):
    """Records handed over before the InputError, and its text."""
    found = []
    with pytest.raises(InputError) as fault:
        for batch in RecordReader(inputs, **options):
            check_layout(batch)
            found += batch.smiles.to_pylist()
    return found, str(fault.value)


# ---- .smi


@pytest.mark.parametrize(
    ("line", "smiles", "id"),
    [
        (b"CCO", "CCO", None),
        (b"CCO ", "CCO", None),
        (b"CCO ethanol", "CCO", "ethanol"),
        (b"CCO\tethanol", "CCO", "ethanol"),
        (b"  CCO \t  ethyl alcohol, 96 % \t ", "CCO", "ethyl alcohol, 96 %"),
        (b"CCO\ta\tb", "CCO", "a\tb"),
        (b"CCO # not a comment", "CCO", "# not a comment"),
        (b"C#N nitrile", "C#N", "nitrile"),
        (b"CCO |$;;R$| alcohol", "CCO", "alcohol"),
        (b"CCO |c:1, t:2| ethyl alcohol", "CCO", "ethyl alcohol"),
        (b"CCO |$;;R$|", "CCO", None),
        (b"CCO |$;;R$|  ", "CCO", None),
        (b"CCO || x", "CCO", "x"),
        (b"CCO |a|x", "CCO", "x"),
        (b"CCO |never closed", "CCO", "|never closed"),
        (b"CCO |", "CCO", "|"),
        (b"CCO a |b| c", "CCO", "a |b| c"),
        ("CCO caf\u00e9".encode(), "CCO", "caf\u00e9"),
        (b"CCO\x0bid", "CCO", "id"),
    ],
)
def test_smi_line(write, line, smiles, id):
    path = write("x.smi", b"N first\n" + line + b"\nO |x| last\n")
    assert rows(path) == [("N", "first"), (smiles, id), ("O", "last")]


@pytest.mark.parametrize("name", ["x.smi", "x.SMI", "x.smiles", "x.ism", "x.txt", "x.y.smi"])
def test_smi_extensions(write, name):
    assert rows(write(name, TEXT)) == ROWS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last_end", [True, False])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("block", [3, 4, 5, 1 << 20])
def test_smi_line_ends_and_bom(write, monkeypatch, end, last_end, bom, block):
    monkeypatch.setattr(smi, "_BLOCK", block)
    data = bom + TEXT.replace(b"\n", end)
    path = write("x.smi", data if last_end else data.removesuffix(end))
    [batch] = RecordReader([path])
    assert list(zip(batch.smiles.to_pylist(), batch.id.to_pylist(), strict=True)) == ROWS
    assert batch.lines.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "header", ["smiles", "SMILES zinc_id", "Canonical_SMILES\tid", "smi", "structure name"]
)
def test_smi_header_only_on_first_record_line(write, header):
    path = write("x.smi", b"\n# made by hand\n" + header.encode() + b"\nCCO a\nsmiles b\n")
    [batch] = RecordReader([path])
    assert batch.smiles.to_pylist() == ["CCO", "smiles"]
    assert batch.place(0) == f"{path} line 4"


def test_smi_blank_and_comment_lines_are_no_records_but_count(write):
    path = write("x.smi", b"\n  \t\n#CCO no\n  # no\nCCO a\n\n\nC b\n\n")
    [batch] = RecordReader([path])
    assert batch.smiles.to_pylist() == ["CCO", "C"]
    assert batch.lines.tolist() == [5, 8]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"# only a comment", b"smiles id\n", b"\xef\xbb\xbf", b" \r\n\r\n"]
)
def test_smi_without_records(write, data):
    assert rows(write("x.smi", data)) == []


def test_smi_invalid_utf8_stays_one_row_with_a_reason(write):
    path = write("x.smi", b"CCO a\nCC\xc3\xa9\xffO b\nCCN caf\xe9\nC d\n")
    [batch] = RecordReader([path])
    assert batch.smiles.to_pylist() == ["CCO", "CC\u00e9\ufffdO", "CCN", "C"]
    assert batch.id.to_pylist() == ["a", "b", "caf\ufffd", "d"]
    assert batch.errors == {1: "not valid UTF-8 at column 4"}  # a foreign name costs no molecule


def test_smi_nul_bytes_and_other_control_bytes_are_left_to_the_parser(write, tmp_path):
    path = write("x.smi", b"C\0C a\0b\n\0\n\x01C c\n")
    [batch] = RecordReader([path])
    assert batch.smiles.to_pylist() == ["C\0C", "\0", "\x01C"]
    assert batch.id.to_pylist() == ["a\0b", None, "c"]
    table = pa.table({"smiles": batch.smiles, "id": batch.id})
    pq.write_table(table, tmp_path / "stored.parquet")
    assert pq.read_table(tmp_path / "stored.parquet").cast(table.schema).equals(table)


def test_smi_random_bytes_never_crash(write):
    data = random.Random(0).randbytes(200_000)
    path = write("x.smi", data)
    assert sum(len(batch) for batch in RecordReader([path], batch_size=100)) > 1000


def test_smi_very_long_line_is_one_record(write):
    long = b"C" * 10_000_000
    path = write("x.smi", b"N a\n" + long + b" b\nO c\n")
    assert rows(path) == [("N", "a"), (long.decode(), "b"), ("O", "c")]


def test_smi_utf16_names_the_fix(write):
    found, message = rows_before_fault(write("x.smi", TEXT.decode().encode("utf-16")))
    assert found == []
    assert message.endswith("x.smi: cannot be read: UTF-16 text; save it as UTF-8")


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
@pytest.mark.parametrize("block", [3, 16, 300, 1 << 20])
def test_smi_any_batch_and_block_size_gives_the_same_records(write, monkeypatch, batch_size, block):
    monkeypatch.setattr(smi, "_BLOCK", block)
    draw = random.Random(block)
    parts = ["C", "CC(=O)N", "c1ccccc1", " ", "  ", "\t", "id 7", "|a b|", "#", "\u00e9"]
    lines = ["".join(draw.choices(parts, k=draw.randrange(6))) for _ in range(200)]
    expected = [(number, *record) for number, line in enumerate(lines, 1) if (record := one_line(line))]
    path = write("x.smi", "\n".join(lines).encode())

    batches = list(RecordReader([path], batch_size=batch_size))
    found = [
        (int(number), smiles, id)
        for batch in batches
        for number, smiles, id in zip(
            batch.lines, batch.smiles.to_pylist(), batch.id.to_pylist(), strict=True
        )
    ]
    assert found == expected
    assert all(len(batch) == batch_size for batch in batches[:-1])


def one_line(line):
    """The rules of .smi, said slowly."""
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    smiles, *rest = line.split(None, 1)
    rest = rest[0] if rest else ""
    if rest.startswith("|") and "|" in rest[1:]:
        rest = rest[rest.index("|", 1) + 1 :].strip()
    return smiles, rest or None


# ---- compression and damage


@any_compression
@pytest.mark.parametrize("kind", ["smi", "csv", "tsv"])
def test_compressions(write, extension, kind):
    text = {
        "smi": TEXT,
        "csv": b"smiles,id\nCCO,ethanol\nc1ccccc1,benzene\nC,methane\n",
        "tsv": b"id\tsmiles\nethanol\tCCO\nbenzene\tc1ccccc1\nmethane\tC\n",
    }[kind]
    assert rows(write(f"x.{kind}{extension}", COMPRESS[extension](text))) == ROWS


@compressed
def test_several_members_are_one_file(write, extension):
    compress = COMPRESS[extension]
    assert rows(write(f"x.smi{extension}", compress(TEXT[:17]) + compress(TEXT[17:]))) == ROWS


@compressed
@pytest.mark.parametrize("kind", ["smi", "csv"])
def test_truncated_file_keeps_the_rows_before(write, extension, kind):
    smiles = random_smiles(15_000)
    text = ("smiles\n" + "\n".join(smiles) + "\n").encode()
    whole = COMPRESS[extension](text)
    path = write(f"x.{kind}{extension}", whole[: len(whole) * 19 // 20])

    found, message = rows_before_fault(path, batch_size=1000)
    assert len(found) > 1000
    assert found == smiles[: len(found)]
    place = f"damaged after line {len(found) + 1} (compressed data ended early)"
    assert message == f"{path}: {place}; the rows before it were read; copy or download it again"


@pytest.mark.parametrize("extension", [".gz", ".bz2", ".xz"])  # pyarrow's zstd writes no checksum
def test_flipped_byte_is_noticed(write, extension):
    smiles = random_smiles(15_000)
    data = bytearray(COMPRESS[extension]("\n".join(smiles).encode()))
    data[len(data) * 9 // 10] ^= 0xFF
    found, message = rows_before_fault(write(f"x.smi{extension}", bytes(data)))
    # What follows the wrong byte may pass as data until the checksum is met: the error comes all the same.
    assert found[:1000] == smiles[: len(found)][:1000]
    assert "damaged after line" in message and "some may be altered; copy or download it again" in message


def test_zstd_hands_over_all_that_can_be_decompressed(write):
    text = TEXT * 20_000  # many zstd blocks
    path = write("x.smi.zst", zstd(text) + zstd(TEXT)[:5])
    found, _ = rows_before_fault(path)
    assert len(found) == 60_000


@compressed
def test_not_compressed_at_all(write, extension):
    found, message = rows_before_fault(write(f"x.smi{extension}", TEXT))
    assert found == []
    assert message.endswith(
        f"no {extension} data in it; if it is plain text, rename it to x.smi, else copy or download it again"
    )


@any_compression
@pytest.mark.parametrize("kind", ["smi", "csv"])
def test_a_file_of_nothing_is_told_and_no_error(write, extension, kind):
    path = write(f"x.{kind}{extension}", COMPRESS[extension](b""))
    assert rows(path) == []
    other = write("other.smi", TEXT)
    with pytest.warns(StkdWarning, match=re.escape(f"{path}: no record in it")):
        assert rows(path, other) == ROWS


@compressed
def test_an_empty_file_is_no_compressed_one(write, extension):
    found, message = rows_before_fault(write(f"x.smi{extension}", b""))
    assert found == []
    assert message.endswith(f"empty, not even the start of {extension} data; copy or download it again")


# ---- .csv, .tsv


def test_csv_quotes_and_lines(write):
    path = write("x.csv", b'name,smiles\n"a, ""b""\nc",CCO\n\nd,"C(C)\n"\n')
    [batch] = RecordReader([path])
    assert batch.smiles.to_pylist() == ["CCO", "C(C)"]
    assert batch.id.to_pylist() == ['a, "b"\nc', "d"]
    assert batch.lines.tolist() == [2, 5]
    assert batch.place(1) == f"{path} line 5"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_line_ends_and_bom(write, end):
    text = end.join(["\ufeffsmiles,id", "CCO,a", "C,b", ""])
    [batch] = RecordReader([write("x.csv", text.encode())])
    assert batch.smiles.to_pylist() == ["CCO", "C"]
    assert batch.lines.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("header", "options", "expected"),
    [
        ("a,SMILES,id", {}, ("2", "3")),
        ("zinc_id,Canonical_SMILES,a", {}, ("2", "1")),
        ("rdkit_smiles,smiles,CID", {}, ("2", "3")),
        ("a,rdkit_smiles,gdb_index", {}, ("2", "3")),
        ("a,smiles,b", {}, ("2", None)),
        ("smiles,other,id", {"smiles_column": "other"}, ("2", "3")),
        ("smiles,other,id", {"smiles_column": "Other", "id_column": "smiles"}, ("2", "1")),
        ("smiles,other,id", {"smiles_column": 2, "id_column": 1}, ("2", "1")),
        ("smiles,other,id", {"smiles_column": "2"}, ("2", "3")),
        ("x,y,Name", {"smiles_column": 2}, ("2", "3")),
        ("name,structure,smiles,id", {}, ("3", "4")),
        ("title,canonical_smiles,smiles", {}, ("3", "1")),
        ("structure,rdkit_smiles,name", {}, ("2", "3")),
        ("structure,name,b", {}, ("1", "2")),
    ],
)
def test_csv_columns(write, header, options, expected):
    assert rows(write("x.csv", f"{header}\n1,2,3,4\n".encode()), **options) == [expected]


def test_chosen_columns_can_be_shown(write):
    paths = [write("x.csv", b"a,SMILES,Id\n1,C,2\n"), write("y.csv", b"1,C\n"), write("z.smi", TEXT)]
    reader = RecordReader(paths[:1])
    assert reader.columns == {}
    list(reader)
    assert reader.columns == {str(paths[0]): ("SMILES", "Id")}
    reader = RecordReader(paths[1:], smiles_column=2)
    list(reader)
    assert reader.columns == {str(paths[1]): ("column 2", None)}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.csv", "id;smiles\na;CCO\nb;C\n", [("CCO", "a"), ("C", "b")]),
        ("x.csv", '\r\n"id";"smiles"\r\n"a;b";CCO\r\n', [("CCO", "a;b")]),
        ("x.csv", "id\tsmiles\na\tCCO\n", [("CCO", "a")]),
        ("x.csv", "smiles\tnote; id\nCCO\ta\n", [("CCO", None)]),
        ("x.tsv", "id;smiles\na;CCO\n", [("CCO", "a")]),
        ("x.csv", '"smiles; as given"\nCCO\n', [("CCO", None)]),
        ("x.csv", "id,smiles;raw\na,CCO\n", [("CCO", "a")]),
    ],
)
def test_csv_other_delimiter(write, name, text, expected):
    path = write(name, text.encode())
    assert rows(path) == expected
    [batch] = RecordReader([path])
    assert batch.lines[0] == text.count("\n", 0, text.index("CCO")) + 1


def test_csv_semicolons_of_extended_smiles_separate_nothing(write):
    path = write("x.csv", b"CCO |$;;R$|\nC\n")
    assert rows(path, smiles_column=1) == [("CCO", None), ("C", None)]


def test_csv_without_header_by_number(write):
    path = write("x.csv", b"7,CCO\n8,C\n")
    assert rows(path, smiles_column=2) == [("CCO", None), ("C", None)]
    assert rows(path, smiles_column=2, id_column=1) == [("CCO", "7"), ("C", "8")]


def test_csv_no_smiles_column_lists_those_there_are(write):
    found, message = rows_before_fault(write("x.csv", b"a,b\n1,2\n"))
    assert found == []
    assert message.endswith("x.csv: no SMILES column among 'a', 'b'; name it with --smiles-column")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"smiles_column": "c"}, "no column 'c' among 'smiles', 'b'; choose one with --smiles-column"),
        ({"smiles_column": 3}, "no column 3, there are 2; choose one with --smiles-column"),
        ({"id_column": "c"}, "no column 'c' among 'smiles', 'b'; choose one with --id-column"),
    ],
)
def test_csv_wrong_column(write, options, reason):
    _, message = rows_before_fault(write("x.csv", b"smiles,b\n1,2\n"), **options)
    assert message.endswith(reason)


def test_csv_bad_rows_stay_rows(write):
    path = write("x.csv", b"id,smiles\na\nb,\nc, CCO \nd,CC\xffO\n\xff,C\n,N\n")
    [batch] = RecordReader([path])
    assert batch.smiles.to_pylist() == ["", "", "CCO", "CC\ufffdO", "C", "N"]
    assert batch.id.to_pylist() == ["a", "b", "c", "d", "\ufffd", None]
    assert batch.errors == {
        0: "no SMILES in column 'smiles'",
        1: "no SMILES in column 'smiles'",
        3: "not valid UTF-8 at column 3",
    }


def test_csv_cxsmiles_tail(write):
    assert rows(write("x.csv", b'smiles,id\nCCO |$a b$|,1\n"C |c:1,2|",2\n')) == [("CCO", "1"), ("C", "2")]


def test_csv_long_field(write):
    long = b"C" * 10_000_000
    assert rows(write("x.csv", b"smiles\n" + long + b"\nN\n")) == [(long.decode(), None), ("N", None)]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("after", [2, 998, 999, 1000, 5000])  # lines that the quote could swallow
@pytest.mark.parametrize("smiles_first", [True, False])
def test_an_open_quote_costs_its_own_line_alone(write, kind, after, smiles_first):
    fields = [("smiles", "id"), ("CCO", "a"), ("C", '"b'), *(("N", f"c{i}") for i in range(after))]
    fields += [('"O"', '"d""\ne"'), ("F", "f")]
    comma = "\t" if kind == "tsv" else ","
    text = "\n".join(comma.join(pair if smiles_first else pair[::-1]) for pair in fields)
    batches = list(RecordReader([write(f"x.{kind}", text.encode())], batch_size=7))
    assert [smiles for batch in batches for smiles in batch.smiles.to_pylist()] == [
        "CCO", "C", *["N"] * after, "O", "F",
    ]  # fmt: skip
    assert [id for batch in batches for id in batch.id.to_pylist()] == [
        "a", '"b', *(f"c{i}" for i in range(after)), 'd"\ne', "f",
    ]  # fmt: skip
    lines = np.concatenate([batch.lines for batch in batches]).tolist()
    assert lines == [*range(2, after + 5), after + 6]
    reasons = {batch.lines[i]: reason for batch in batches for i, reason in batch.errors.items()}
    assert reasons == ({} if smiles_first else {3: "a quote that is opened and not closed"})


def test_csv_batches_are_full(write):
    path = write("x.csv", b"smiles\n" + b"C\n" * 25)
    assert [len(batch) for batch in RecordReader([path], batch_size=10)] == [10, 10, 5]


def test_csv_utf16_names_the_fix(write):
    _, message = rows_before_fault(write("x.csv", "smiles\nC\n".encode("utf-16")))
    assert message.endswith("UTF-16 text; save it as UTF-8")


# ---- .parquet


def write_parquet(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
)
def test_parquet_nulls_and_places(tmp_path, kind):
    smiles = pa.array(["CCO", None, "C", "", "N |c:1|"]).cast(kind)
    path = write_parquet(
        tmp_path / "x.parquet", {"other": [0] * 5, "SMILES": smiles, "id": [10, 11, None, 13, 14]}
    )
    [batch] = RecordReader([path])
    check_layout(batch)
    assert batch.smiles.to_pylist() == ["CCO", "", "C", "", "N"]
    assert batch.id.to_pylist() == ["10", "11", None, "13", "14"]
    assert batch.errors == {1: "no SMILES in column 'SMILES'", 3: "no SMILES in column 'SMILES'"}
    assert batch.place(2) == f"{path} row 3"


def test_parquet_batches_over_row_groups(tmp_path):
    smiles = [f"C{i}" for i in range(100)]
    path = write_parquet(tmp_path / "x.parquet", {"smiles": smiles}, row_group_size=30)
    reader = RecordReader([path], batch_size=40)
    batches = list(reader)
    for batch in batches:
        check_layout(batch)
    assert [one for batch in batches for one in batch.smiles.to_pylist()] == smiles
    assert np.concatenate([batch.lines for batch in batches]).tolist() == list(range(1, 101))
    assert all(batch.id.null_count == len(batch) <= 40 for batch in batches)
    assert reader.bytes_read == reader.bytes_total == path.stat().st_size


def test_parquet_columns(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", {"a": ["C"], "b": ["N"], "n": [1], "deep": [[1, 2]]})
    assert rows(path, smiles_column="a", id_column="b") == [("C", "N")]
    assert rows(path, smiles_column=2, id_column="n") == [("N", "1")]
    assert rows(path, smiles_column="a", id_column="a") == [("C", "C")]
    assert "no SMILES column among 'a', 'b', 'n', 'deep'" in rows_before_fault(path)[1]
    assert "column 'n' holds int64, not SMILES" in rows_before_fault(path, smiles_column="n")[1]
    assert (
        "choose another with --id-column" in rows_before_fault(path, smiles_column="a", id_column="deep")[1]
    )


@pytest.mark.parametrize(
    "store", [lambda ids: ids, lambda ids: ids.cast(pa.uuid()), lambda ids: ids.dictionary_encode()]
)
def test_parquet_ids_of_fixed_size(tmp_path, store):
    number = uuid.UUID(int=0xAB)
    ids = store(pa.array([number.bytes, None], pa.binary(16)))
    path = write_parquet(tmp_path / "x.parquet", {"smiles": ["C", "N"], "id": ids})
    assert rows(path) == [("C", number.hex), ("N", None)]


@pytest.mark.parametrize("name", ["smiles", "id"])
def test_parquet_two_columns_of_one_name(tmp_path, name):
    columns = [pa.array(["C"]), pa.array(["a"]), pa.array(["N"]), pa.array([1]), pa.array([2])]
    table = pa.Table.from_arrays(columns, names=["smiles", "id", name, "other", "other"])
    pq.write_table(table, tmp_path / "x.parquet")
    message = rows_before_fault(tmp_path / "x.parquet")[1]
    assert message.endswith(f"x.parquet: 2 columns are named {name!r}; rename all but one")
    other = table.select([0, 1, 3, 4])
    pq.write_table(other, tmp_path / "y.parquet")
    assert rows(tmp_path / "y.parquet") == [("C", "a")]


def test_parquet_without_rows(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", {"smiles": pa.array([], pa.string())})
    reader = RecordReader([path])
    assert list(reader) == []
    assert reader.bytes_read == reader.bytes_total


def test_parquet_damage(tmp_path):
    smiles = random_smiles(20_000)
    path = write_parquet(
        tmp_path / "x.parquet", {"smiles": smiles}, row_group_size=5000, use_dictionary=False
    )
    whole = path.read_bytes()

    path.write_bytes(whole[:-100])
    assert "no whole Parquet file" in rows_before_fault(path)[1]

    middle = len(whole) * 6 // 10
    path.write_bytes(whole[:middle] + bytes(5000) + whole[middle + 5000 :])
    found, message = rows_before_fault(path, batch_size=1000)
    lost = re.search(
        r"([\d,]+) of 20,000 rows cannot be read \(.+\): rows (\d+) to 15000; the others", message
    )
    first = int(lost[2])
    assert 10_000 < first < 15_000 and lost[1] == f"{15_001 - first:,}"
    assert found == smiles[: first - 1] + smiles[15_000:]


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("batch_size", [7, 300, 1000, 5000])
def test_parquet_damage_in_several_row_groups(tmp_path, batch_size, dictionary):
    smiles = [f"{'C' * (i % 9 + 1)}O" if dictionary else text for i, text in enumerate(random_smiles(3000))]
    array = pa.array(smiles).dictionary_encode() if dictionary else pa.array(smiles)
    path = write_parquet(
        tmp_path / "x.parquet",
        {"smiles": array, "id": range(3000)},
        row_group_size=300,
        data_page_size=1000,
        write_batch_size=50,
        compression="gzip",
        use_dictionary=dictionary,
    )
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        for group in (1, 2, 7):
            column = file.metadata.row_group(group).column(0)
            start = column.dictionary_page_offset or column.data_page_offset
            place = start + column.total_compressed_size * 2 // 3
            data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    kept, places = [], []
    with pytest.raises(InputError, match="of 3,000 rows cannot be read") as fault:
        for batch in RecordReader([path], batch_size=batch_size):
            check_layout(batch)
            assert batch.id.to_pylist() == [str(line - 1) for line in batch.lines]
            kept += batch.smiles.to_pylist()
            places += batch.lines.tolist()
    assert kept == [smiles[line - 1] for line in places] and places == sorted(set(places))
    lost = set(range(1, 3001)) - set(places)
    assert {(line - 1) // 300 for line in lost} == {1, 2, 7}
    assert f"x.parquet: {len(lost):,} of 3,000" in str(fault.value)
    assert len(lost) < 900 or dictionary


# ---- inputs, progress


def test_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    reader = RecordReader(["-"])
    assert reader.bytes_total is None
    [batch] = reader
    assert batch.smiles.to_pylist() == [smiles for smiles, _ in ROWS]
    assert batch.place(1) == "<stdin> line 2"
    assert reader.bytes_read == len(TEXT)
    assert not sys.stdin.buffer.closed


def test_folder(write, tmp_path):
    (tmp_path / "b").mkdir()
    write("c.smi", b"O c\n")
    write("a.csv.gz", gzip.compress(b"smiles,id\nN,a\n"))
    write("b/x.smi", b"C b\n")
    write("notes.md", b"not read")
    write("d.parquet.gz", b"not read")
    reader = RecordReader([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in reader.files] == [
        "a.csv.gz",
        "b/x.smi",
        "c.smi",
    ]
    assert rows(tmp_path) == [("N", "a"), ("C", "b"), ("O", "c")]


def test_folder_leaves_out_what_is_no_library(write, tmp_path):
    for name in (".hidden", "sub", ".top"):
        (tmp_path / name).mkdir()
    names = ["README.txt", "notes.txt.gz", ".x.smi", ".hidden/x.smi", "out.parquet.partial", "x.smi.partial"]
    for name in (*names, "sub/x.smi", ".top/y.smi"):
        write(name, TEXT)
    assert RecordReader([tmp_path]).files == [tmp_path / "sub" / "x.smi"]
    assert RecordReader([tmp_path / ".top"]).files == [tmp_path / ".top" / "y.smi"]
    assert rows(tmp_path / "README.txt") == ROWS
    (tmp_path / "sub" / "x.smi").unlink()
    with pytest.raises(InputError, match=r"hidden and \.txt files"):
        RecordReader([tmp_path])


def test_output_is_no_input(write, tmp_path, monkeypatch):
    write("x.smi", TEXT)
    output = write_parquet(tmp_path / "out.parquet", {"smiles": ["C"]})
    monkeypatch.chdir(tmp_path)
    for exclude in (output, output.relative_to(tmp_path), tmp_path / "new.parquet", None):
        files = RecordReader([tmp_path], exclude=exclude).files
        assert (output in files) == (exclude is None or exclude.name == "new.parquet")
    for named in (output, "out.parquet"):
        with pytest.raises(InputError, match=r"out\.parquet is both input and output; give another -o"):
            RecordReader(["x.smi", named], exclude=output)
    (tmp_path / "x.smi").unlink()
    with pytest.raises(InputError, match="no molecule file"):
        RecordReader([tmp_path], exclude=output)


def test_inputs_keep_their_order_and_names(write, tmp_path, monkeypatch):
    write("b.smi", b"C\n")
    write("a.smi", b"N\n")
    monkeypatch.chdir(tmp_path)
    assert [batch.place(0) for batch in RecordReader(["b.smi", "./a.smi"])] == [
        "b.smi line 1",
        "a.smi line 1",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.smi", "no such file"),
        ("empty", "no molecule file in this folder"),
        ("x.sdf", "unknown extension; convert it to one of these, or rename it if it is one: .smi"),
        ("x.gz", "unknown extension"),
        ("x.parquet.gz", "unknown extension"),
        ("x", "unknown extension"),
    ],
)
def test_inputs_that_cannot_be_read(write, tmp_path, name, reason):
    (tmp_path / "empty").mkdir()
    for other in ("x.sdf", "x.gz", "x.parquet.gz", "x"):
        write(other, TEXT)
    with pytest.raises(InputError, match=reason) as fault:
        RecordReader([tmp_path / name])
    assert str(tmp_path / name) in str(fault.value)


def test_file_gone_after_the_start(write):
    path = write("x.smi", TEXT)
    reader = RecordReader([path])
    path.unlink()
    with pytest.raises(InputError, match="cannot be opened"):
        next(iter(reader))


def test_columns_for_smi_files_name_the_fix(write):
    path = write("x.smi", TEXT)
    with pytest.raises(InputError, match=r"rename .* to \.tsv"):
        RecordReader([path], smiles_column=2)
    table = write("x.csv", b"a,b\n1,C\n")
    assert rows(path, table, smiles_column="b") == [*ROWS, ("C", None)]


@any_compression
@pytest.mark.parametrize("kind", ["smi", "csv"])
def test_progress_reaches_the_total(write, extension, kind):
    text = b"smiles\n" + b"".join(b"C" * (i % 50 + 1) + b"\n" for i in range(8_000))
    path = write(f"x.{kind}{extension}", COMPRESS[extension](text))
    reader = RecordReader([path, path], batch_size=1000)
    assert reader.bytes_read == 0
    seen = [reader.bytes_read for _ in reader]
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert reader.bytes_read == reader.bytes_total == 2 * path.stat().st_size
    next(iter(reader))
    assert reader.bytes_read <= path.stat().st_size  # a second pass starts anew


def test_open_text_is_usable_by_itself(write):
    with open_text(write("x.smi.gz", gzip.compress(TEXT))) as stream:
        assert io.TextIOWrapper(stream).read() == TEXT.decode()


def test_batch_of_sliced_arrays_starts_at_offset_zero():
    texts = pa.array(["O", "C", "N"], pa.large_string())
    batch = Records(texts[1:], pa.array(["a", "b", None], pa.large_string())[1:], {}, "x", np.array([2, 3]))
    check_layout(batch)
    check_layout(batch.head(1))
    assert batch.smiles.to_pylist() == ["C", "N"]
    assert batch.id.to_pylist() == ["b", None]


def test_batch_size_must_be_positive(write):
    with pytest.raises(ValueError, match="batch_size"):
        RecordReader([write("x.smi", TEXT)], batch_size=0)


@pytest.mark.parametrize(
    "pieces",
    [(b"SMILES name\nC one\nCC two\nCC", b"C three\n"), (b"C one, methane\r\nCC two\r", b"\nCCC three\r\n")],
    ids=["within a line", "within a line end"],
)
def test_records_of_a_pipe_that_keeps_one_waiting_come_without_those_after_them(
    tmp_path, monkeypatch, pieces
):
    monkeypatch.setattr(streams, "_PAUSE", 0.05)
    path, taken = tmp_path / "slow.smi", Event()
    os.mkfifo(path)
    in_time = []

    def give():
        with path.open("wb", buffering=0) as pipe:
            pipe.write(pieces[0])
            in_time.append(taken.wait(20))
            pipe.write(pieces[1])

    giver = Thread(target=give)
    giver.start()
    batches = iter(RecordReader([path], batch_size=1000))
    first = next(batches)
    assert first.smiles.to_pylist() == ["C", "CC"]
    Event().wait(0.2)  # meanwhile the reader finds nothing, some times over
    taken.set()
    (second,) = batches
    giver.join()
    assert in_time == [True]
    assert (second.smiles.to_pylist(), second.id.to_pylist()) == (["CCC"], ["three"])
    assert second.lines[0] == first.lines[1] + 1


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    """Gives a function that makes a pipe, fed with pieces, each after a call of the one returned."""
    monkeypatch.setattr(streams, "_PAUSE", 0.05)
    monkeypatch.setattr(streams, "_GRACE", 0.01)
    givers, goes_on = [], Semaphore(0)

    def make(name, *pieces):
        path = tmp_path / name
        os.mkfifo(path)

        def give():
            with path.open("wb", buffering=0) as file:
                for piece in pieces:
                    file.write(piece)
                    goes_on.acquire(timeout=20)

        givers.append(Thread(target=give))
        givers[-1].start()
        return path, goes_on.release

    yield make
    for giver in givers:
        goes_on.release()
        giver.join()


def flushed(compressor, flush):
    """A function that gives what a program has written of a text when it wrote out what it had so far."""
    return lambda text: compressor.compress(text) + compressor.flush(flush)


@pytest.mark.parametrize(
    "compress",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        flushed(zlib.compressobj(wbits=31), zlib.Z_SYNC_FLUSH),
    ],
    ids=["plain", "gzip members", "bzip2 members", "xz members", "gzip, flushed"],
)
def test_a_short_line_of_a_pipe_comes_before_the_next(pipe, compress):
    path, go_on = pipe("x.smi", compress(b"C one\n"), compress(b"CC two\n"))
    batches = iter(RecordReader([path], batch_size=1000))
    assert next(batches).smiles.to_pylist() == ["C"]
    go_on()
    assert next(batches).smiles.to_pylist() == ["CC"]


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("members", [1, 2])
def test_what_is_decompressed_of_a_pipe_is_not_kept_back(pipe, compress, members):
    """More than one read gives, of bytes that were all taken by the first."""
    path, _ = pipe("x.smi", compress(b"C\n" * (400_000 // members)) * members)
    batches = iter(RecordReader([path], batch_size=1000))
    assert sum(len(next(batches)) for _ in range(400)) == 400_000


def test_half_a_line_is_no_record_where_a_pipe_was_ended_with_this_program(pipe):
    for name, text in (("x.smi", b"C one\nCC tw"), ("x.csv", b"smiles,id\nC,one\nCC")):
        path, go_on = pipe(name, text)
        go_on()
        reader = RecordReader([path])
        [batch] = reader.batches(lambda: True)
        assert batch.smiles.to_pylist() == ["C"]
        assert not reader.hashes
    path, go_on = pipe("y.smi", b"C one\nCC tw")
    go_on()
    assert rows(path) == [("C", "one"), ("CC", "tw")]  # else it is the last line, as in a file


def test_an_end_that_is_asked_for_while_a_pipe_keeps_one_waiting(pipe, write):
    path, _ = pipe("x.smi", b"C one\nCC tw")
    stop = Event()
    reader = RecordReader([path, write("y.smi", TEXT)])
    batches = reader.batches(stop.is_set)
    assert next(batches).smiles.to_pylist() == ["C"]
    stop.set()
    assert list(batches) == [] and reader.fault is None and not reader.hashes


def test_nothing_is_read_behind_a_pipe_that_was_ended_with_this_program(pipe, write):
    path, go_on = pipe("x.smi", b"C one\n")
    go_on()
    reader = RecordReader([write("w.smi.gz", gzip.compress(TEXT)[:-3]), path, write("y.smi", TEXT)])
    with warnings.catch_warnings(), pytest.raises(InputError, match=r"w\.smi\.gz: damaged after line 3"):
        warnings.simplefilter("ignore", StkdWarning)
        found = []
        for batch in reader.batches(lambda: True):
            found += batch.smiles.to_pylist()
    assert found == [*(smiles for smiles, _ in ROWS), "C"]


def test_a_pipe_in_a_folder_has_to_be_named(pipe, write, tmp_path):
    (tmp_path / "lib").mkdir()
    path, go_on = pipe("lib/x", b"C one\n")
    go_on()
    write("lib/y.smi", TEXT)
    assert rows(tmp_path / "lib") == ROWS
    assert rows(path) == [("C", "one")]


def test_a_pipe_without_an_extension_holds_smi_lines(pipe):
    path, go_on = pipe("63", b"C one\n")
    go_on()
    reader = RecordReader([path])
    assert reader.bytes_total is None
    assert rows(path) == [("C", "one")]


def test_a_table_on_standard_input_is_one_whose_columns_are_told(monkeypatch):
    table = b"id;smiles\nethanol;CCO\n"
    for options in ({"smiles_column": "smiles"}, {"id_column": "id"}):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table)))
        assert rows("-", **options) == [("CCO", "ethanol")]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('"Catalog No";"SMILES";"Price, EUR"\r\n"V1";"CCO";"12,50"\r\n', {"id_column": "Catalog No"}),
        ('V1;CCO;"12,50"\n', {"smiles_column": 2, "id_column": 1}),
        ('V1\tCCO\t"12,50; or more"\n', {"smiles_column": 2, "id_column": 1}),
        ('V1,CCO,"12;50"\n', {"smiles_column": 2, "id_column": 1}),
    ],
)
def test_a_comma_within_quotes_separates_no_columns(write, text, options):
    assert rows(write("x.csv", text.encode()), **options) == [("CCO", "V1")]


def test_outputs_in_a_folder_are_no_part_of_the_library(write, tmp_path):
    write("x.smi", TEXT)
    table = pa.table({"smiles": ["N"], "id": ["old"]}).replace_schema_metadata({"stkd_screen": "{}"})
    pq.write_table(table, tmp_path / "old.parquet")
    with pytest.warns(StkdWarning, match=r"old\.parquet: left out, for embed wrote it"):
        assert rows(tmp_path) == ROWS
    (tmp_path / "x.smi").unlink()
    assert rows(tmp_path) == rows(tmp_path / "old.parquet") == [("N", "old")]


def test_standard_input_by_its_path(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    assert rows("/dev/stdin") == ROWS


def test_standard_input_that_does_not_wait(monkeypatch):
    """As another program may have left it: nothing to read yet is not its end."""
    descriptor, giver = os.pipe()
    os.set_blocking(descriptor, False)
    with open(descriptor) as standard_input, open(giver, "wb", buffering=0) as file:
        monkeypatch.setattr(sys, "stdin", standard_input)
        timer = Timer(0.3, lambda: (file.write(TEXT), file.close()))
        timer.start()
        assert rows("-") == ROWS
        timer.join()
