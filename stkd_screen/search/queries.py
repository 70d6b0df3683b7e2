"""The molecules to search for: read like a library, embedded with the model of the index."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from stkd_screen.encoder import Encoder, load
from stkd_screen.errors import InputError, SearchError, WeightsError
from stkd_screen.output import OutputOptions
from stkd_screen.records import RecordReader, Records
from stkd_screen.records.inputs import STDIN, file_format
from stkd_screen.search.index import Index
from stkd_screen.search.library import Origin, describe_model, normalised


@dataclass(frozen=True)
class Queries:
    """Q query molecules, in input order."""

    about: pl.DataFrame  # (Q rows) query (from 1), query_id, query_smiles, numbers (`Origin`), warned, error
    vectors: np.ndarray  # (Q, D) float32 of unit length; zero where `error` says why there is none

    @property
    def good(self) -> np.ndarray:
        """Numbers of the rows that have a vector."""
        return np.flatnonzero(self.about["error"].is_null().to_numpy())


def load_encoder(
    index: Index, model: str | Path | None = None, device: str = "auto", precision: str = "auto"
) -> Encoder:
    """The model that an index was built with.

    Args:
        model: where to find it; None: the shipped model of the name that the index has.
        device, precision: as for `Encoder`.

    Raises:
        SearchError: it is not there, or is another one.
    """
    origin = index.manifest.origin
    built_with = f"index {index.folder.name} was built with model {describe_model(origin)}"
    if model is None and Path(origin.model).name != origin.model:  # an index is no reason to read any folder
        raise SearchError(
            f"{built_with}, which is no name of a model; give the folder of that model with --model"
        )
    try:
        encoder = load(model or origin.model, device, precision=precision)
    except WeightsError as error:
        raise SearchError(f"{built_with}; {error}; give the folder of that model with --model") from error
    found = encoder.weights
    if found.sha256 != origin.model_sha256:
        raise SearchError(
            f"{built_with}, {str(model or origin.model)!r} is {found.sha256[:12]}: vectors of two models "
            "cannot be compared; give the folder of the old one with --model, or embed and index the "
            "library anew"
        )
    return encoder


def read_queries(
    query: str,
    encoder: Encoder,
    origin: Origin,
    *,
    smiles_column: str | None = None,
    id_column: str | None = None,
) -> Queries:
    """Read and embed query molecules.

    Args:
        query: a file or folder as `embed` takes it, `-` for standard input, or a SMILES, which an id may
            follow after white space.
        encoder: the model of the index.
        origin: how the molecules of the index were embedded; the queries are embedded likewise.
        smiles_column, id_column: of tables, as for `RecordReader`.

    Raises:
        SearchError: there is no query, or none that can be read; the first one's reason is named.
        InputError: the file cannot be read.
    """
    options = OutputOptions(
        level=origin.level,
        embedding_dtype="float32",
        dims=origin.width,
        largest_fragment=origin.largest_fragment,
    ).checked(encoder.weights)
    tables = []
    rows = 0
    for records in _records(query, encoder.window, smiles_column, id_column):
        tables.append(encoder.table(records, options, first_row=rows)[0])
        rows += len(records)
    if rows == 0:
        raise SearchError(f"{query}: no molecule in it; a query is a SMILES, or a file with one a line")
    table = pa.concat_tables(tables)
    about = _about(table, origin)
    if about["error"].null_count() == 0:
        first = about.row(0, named=True)
        raise SearchError(
            f"none of {rows} query molecules can be read; the first is {first['query_smiles']!r}: "
            f"{first['error']}"
        )
    vectors = np.zeros((rows, origin.width), np.float32)
    good = table["embedding"].is_valid().to_numpy()
    values = table["embedding"].combine_chunks().flatten().to_numpy()  # of the good rows
    vectors[good] = normalised(values.reshape(-1, origin.width))
    return Queries(about, vectors)


def _records(
    query: str, batch_size: int, smiles_column: str | None, id_column: str | None
) -> Iterator[Records]:
    if not query.strip():
        raise InputError("an empty query (an empty variable?); give a SMILES, a file or -")
    path = Path(query)
    # os.path.exists, unlike Path.exists, takes a SMILES that is too long for the name of a file.
    if path == STDIN or os.path.exists(path) or file_format(path):
        yield from RecordReader(
            [query], smiles_column=smiles_column, id_column=id_column, batch_size=batch_size
        )
    else:
        smiles, *id = query.strip().split(maxsplit=1)
        text = pa.large_string()
        ids = pa.array([id[0] if id else None], text)
        yield Records(pa.array([smiles], text), ids, {}, "QUERY", np.array([1]))


def _about(table: pa.Table, origin: Origin) -> pl.DataFrame:
    columns = ["row", "id", "smiles", *origin.numbers, "warning", "error"]
    frame = pl.DataFrame(pl.from_arrow(table.select(columns)))
    return frame.rename({"id": "query_id", "smiles": "query_smiles"}).select(
        (pl.col("row") + 1).alias("query"),
        "query_id",
        "query_smiles",
        *origin.numbers,
        pl.col("warning").is_not_null().alias("warned"),
        "error",
    )
