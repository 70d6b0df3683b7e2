"""The main path of a search: nearest molecules of each query, filtered and ranked, as one table."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stkd_screen.errors import SearchError
from stkd_screen.search.fingerprints import ecfp4, tanimoto, without_stereo
from stkd_screen.search.index import QUERIES_AT_A_TIME, Index
from stkd_screen.search.queries import Queries
from stkd_screen.search.where import check_condition, rows_where

RERANKINGS = ("tanimoto",)
NO_HIT = "no molecule of the index meets the conditions"


ROUNDING = 1e-6  # of a cosine: a molecule and itself have one of 1, less that


@dataclass(frozen=True)
class SearchOptions:
    """What counts as a hit."""

    k: int = 10  # hits for each query
    exact: bool = False  # compare with every molecule, whatever the index offers
    where: str | None = None  # condition on the columns of the index
    min_similarity: float | None = None  # least cosine, or Tanimoto where that ranks
    unique: bool = False  # of molecules that differ in stereochemistry or writing alone, only the first
    rerank: str | None = None  # tanimoto: rank by Tanimoto instead of cosine
    candidates: int = 500  # nearest by cosine that `unique` and `rerank` choose from

    @property
    def wide(self) -> int:
        """Neighbours to look at for each query."""
        return max(self.k, self.candidates) if self.unique or self.rerank else self.k

    def check(self, index: Index) -> None:
        """Refuse what cannot be done.

        Raises:
            SearchError: one of them does not fit the index or another one.
        """
        if not 1 <= self.k <= len(index):
            raise SearchError(
                f"-k {self.k}: index {index.folder.name} holds {len(index):,} molecules; "
                f"give a number from 1 to {len(index)}"
            )
        if self.rerank is not None and self.rerank not in RERANKINGS:
            raise SearchError(f"--rerank {self.rerank}: choose {' or '.join(RERANKINGS)}")
        if self.where is not None:
            check_condition(index.store, self.where)


def search(index: Index, queries: Queries, options: SearchOptions) -> pl.DataFrame:
    """The hits of each query, best first.

    Returns:
        Columns query, query_id, query_smiles, rank (from 1), id, smiles, cosine, tanimoto (null where RDKit
        cannot read either molecule), the numbers (`Origin`) and `warned` of the index, error. A query
        without a hit has one row, whose `error` says why.

    Raises:
        SearchError: the options do not fit the index.
    """
    options.check(index)
    allowed = rows_where(index.store, options.where) if options.where is not None else None
    good = queries.good
    parts = [good[start : start + QUERIES_AT_A_TIME] for start in range(0, len(good), QUERIES_AT_A_TIME)]
    hits = pl.concat(_ranked(_neighbours(index, queries, part, options, allowed), options) for part in parts)
    about = queries.about.select("query", "query_id", "query_smiles", "error")
    return about.join(hits, on="query", how="left", maintain_order="left_right").select(
        "query",
        "query_id",
        "query_smiles",
        "rank",
        "id",
        "smiles",
        "cosine",
        "tanimoto",
        *index.manifest.origin.numbers,
        "warned",
        pl.when(pl.col("rank").is_null()).then(pl.col("error").fill_null(NO_HIT)).alias("error"),
    )


def _neighbours(
    index: Index, queries: Queries, numbers: np.ndarray, options: SearchOptions, allowed: np.ndarray | None
) -> pl.DataFrame:
    """The nearest molecules of the queries of these row numbers: their records, `query` and `cosine`."""
    wide = min(options.wide, len(index))
    rows, cosines = index.nearest(queries.vectors[numbers], wide, allowed=allowed, exact=options.exact)
    there = rows >= 0  # (Q, wide)
    about = queries.about[numbers].select("query", pl.col("query_smiles").alias("asked_for"))
    records = pl.DataFrame(pl.from_arrow(index.store.records(rows[there])))
    return pl.concat(
        [about[np.nonzero(there)[0]], records, pl.DataFrame({"cosine": cosines[there]})], how="horizontal"
    )


def _ranked(neighbours: pl.DataFrame, options: SearchOptions) -> pl.DataFrame:
    """The hits among neighbours, which come nearest first for each query; adds `tanimoto` and `rank`."""
    place = pl.int_range(pl.len()).over("query")
    if options.unique:
        structures = pl.Series("structure", map(without_stereo, neighbours["smiles"]), pl.String)
        neighbours = neighbours.with_columns(structures).unique(
            ["query", "structure"], keep="first", maintain_order=True
        )
    if not options.rerank:
        neighbours = neighbours.filter(place < options.k)  # before the fingerprints, which take the time
    neighbours = neighbours.with_columns(_tanimoto(neighbours))
    if options.rerank:
        neighbours = neighbours.sort(
            ["query", "tanimoto", "cosine"], descending=[False, True, True], nulls_last=True
        ).filter(place < options.k)
    if options.min_similarity is not None:
        least = options.min_similarity - ROUNDING
        neighbours = neighbours.filter(pl.col(options.rerank or "cosine") >= least)
    return neighbours.with_columns((place + 1).alias("rank"))


def _tanimoto(neighbours: pl.DataFrame) -> pl.Series:
    """Similarity of each neighbour to its query, null where RDKit cannot read either."""
    parts = [np.empty(0, np.float32)]
    for group in neighbours.partition_by("query", maintain_order=True):
        fingerprints = [ecfp4(smiles) for smiles in group["smiles"]]
        parts.append(tanimoto(ecfp4(group["asked_for"][0]), fingerprints))
    return pl.Series("tanimoto", np.concatenate(parts)).fill_nan(None)
