"""Is similarity by embedding any good? Enrichment of actives, and agreement of neighbours, beside ECFP4.

The protocol is that of S. Riniker, G. A. Landrum, J. Cheminf. 5, 26 (2013): a few known actives of a target
are the queries, all its other actives and its decoys are ranked by their best similarity to any of them.
"""

import csv
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rdkit.DataStructs import ExplicitBitVect
from rdkit.ML.Scoring import Scoring

from stkd_screen.encoder import Encoder
from stkd_screen.errors import SearchError
from stkd_screen.search.fingerprints import ecfp4, tanimoto
from stkd_screen.search.library import Library, normalised

ACTIVES, DECOYS = "_actives.dat.gz", "_decoys.dat.gz"
QUERIES = 5
MEASURES = ("auc", "ef1", "bedroc")
NEAREST, AMONG = 10, 100  # of neighbours that are compared: by cosine, and by Tanimoto


@dataclass(frozen=True)
class Target:
    """Molecules that bind to a protein and molecules that (presumably) do not."""

    collection: str  # DUD, MUV, ChEMBL, or the name of any folder
    name: str
    actives: list[str]  # SMILES
    decoys: list[str]


@dataclass(frozen=True)
class Molecules:
    """What similarities of n molecules are computed from."""

    vectors: np.ndarray  # (n, D) float32 of unit length; zero where the SMILES cannot be read
    fingerprints: list[ExplicitBitVect | None]  # ECFP4

    def take(self, rows: Sequence[int]) -> "Molecules":
        return Molecules(self.vectors[rows], [self.fingerprints[row] for row in rows])


def read_targets(folder: Path) -> list[Target]:
    """The targets of a folder, or of its subfolders: `NAME_actives.dat.gz` and `NAME_decoys.dat.gz` each.

    Tab-separated name, id, SMILES, with a header line that starts with #. Targets without decoys of their
    own share the one other file of decoys in their folder.

    Raises:
        SearchError: there is none, or a target has no decoys.
    """
    targets = []
    for actives in sorted(folder.rglob(f"*{ACTIVES}")):
        own = actives.with_name(actives.name.replace(ACTIVES, DECOYS))
        decoys = [own] if own.exists() else sorted(actives.parent.glob(f"*{DECOYS}"))
        if len(decoys) != 1:
            raise SearchError(f"{actives}: no {own.name}, and no one file of shared decoys beside it")
        name = actives.name.removesuffix(ACTIVES).removeprefix("cmp_list_")
        target = Target(actives.parent.name, name, _read_smiles(actives), _read_smiles(decoys[0]))
        if len(target.actives) <= QUERIES or not target.decoys:
            raise SearchError(
                f"{actives}: {len(target.actives)} actives, {len(target.decoys)} decoys; more than {QUERIES} "
                "actives are needed, the queries among them, and a decoy; take the set out of the folder"
            )
        targets.append(target)
    if not targets:
        raise SearchError(f"{folder}: no *{ACTIVES} in it; give a folder of sets of actives and decoys")
    return targets


def describe(encoder: Encoder, smiles: Sequence[str], dims: int | None = None) -> Molecules:
    """Embed molecules, in their leading dimensions if so wished, and make their fingerprints."""
    embedding = encoder.embed(list(smiles), embedding_dtype="float32", dims=dims)["embedding"]
    vectors = np.zeros((len(smiles), embedding.dtype.shape[0]), np.float32)  # type: ignore[attr-defined]
    good = embedding.is_not_null().to_numpy()
    vectors[good] = normalised(embedding.drop_nulls().to_numpy())
    return Molecules(vectors, [ecfp4(text) for text in smiles])


def measure_enrichment(
    targets: Sequence[Target],
    encoder: Encoder,
    repeats: int = 10,
    seed: int = 0,
    dims: int | None = None,
) -> pl.DataFrame:
    """The rows of `enrichment` for each target. Molecules that targets share are embedded once."""
    distinct = dict.fromkeys(smiles for target in targets for smiles in target.actives + target.decoys)
    number = {smiles: i for i, smiles in enumerate(distinct)}
    all_molecules = describe(encoder, list(number), dims)
    results = []
    for target in targets:
        rows = [number[smiles] for smiles in target.actives + target.decoys]
        results.append(enrichment(target, all_molecules.take(rows), repeats, seed))
    return pl.concat(results)


def enrichment(target: Target, molecules: Molecules, repeats: int = 10, seed: int = 0) -> pl.DataFrame:
    """How early a ranking by similarity finds the actives of a target.

    Args:
        target: with more than `QUERIES` actives.
        molecules: its actives, then its decoys.
        repeats: random choices of the queries.
        seed: of these choices.

    Returns:
        One row for each repeat and method (embedding, ecfp4): area under the ROC curve, enrichment factor of
        the first 1%, BEDROC with alpha 20.
    """
    random = np.random.default_rng(seed)
    rows = []
    for repeat in range(repeats):
        queries = random.choice(len(target.actives), QUERIES, replace=False)
        rest = np.setdiff1d(np.arange(len(molecules.vectors)), queries)
        random.shuffle(rest)  # so that ties favour neither actives nor decoys
        for method, scores in _similarities(molecules, queries, rest).items():
            ranked = rest[np.argsort(-scores, kind="stable")]
            rows.append({"repeat": repeat, "method": method} | _scores(ranked < len(target.actives)))
    named = pl.DataFrame(rows).with_columns(
        pl.lit(target.collection).alias("collection"), pl.lit(target.name).alias("target")
    )
    return named.select("collection", "target", "repeat", "method", *MEASURES)


def summary(results: pl.DataFrame) -> pl.DataFrame:
    """Mean and standard deviation over targets of each measure, by collection and method."""
    by_target = results.group_by("collection", "target", "method").agg(pl.col(MEASURES).mean())
    return (
        by_target.group_by("collection", "method")
        .agg(
            pl.len().alias("targets"),
            pl.col(MEASURES).mean(),
            pl.col(MEASURES).std().name.suffix("_spread"),
        )
        .sort("collection", "method")
    )


def library_molecules(path: Path, rows: int, encoder: Encoder, dims: int | None = None) -> Molecules:
    """The first molecules of a file that `embed` wrote, by their leading dimensions if so wished.

    Raises:
        SearchError: another model wrote it, or with fewer dimensions, or it has too few molecules.
    """
    library = Library([path])
    dims = dims or encoder.student.config.embedding_width
    if library.origin.model_sha256 != encoder.weights.sha256 or library.origin.width < dims:
        raise SearchError(
            f"{path} has {library.origin.width} dimensions of model {library.origin.model!r}; embed it with "
            f"{encoder.weights.name!r} and at least {dims} dimensions"
        )
    vectors, smiles = [], []
    for batch, records, _ in library.batches():
        vectors.append(batch[:, :dims].astype(np.float32))
        smiles += records["smiles"].to_pylist()
        if len(smiles) >= rows:
            break
    if len(smiles) <= AMONG:
        raise SearchError(
            f"{path}: {len(smiles)} molecules in it; neighbours are compared among more than {AMONG}"
        )
    return Molecules(normalised(np.concatenate(vectors)[:rows]), [ecfp4(text) for text in smiles[:rows]])


def neighbour_agreement(
    molecules: Molecules, queries: int = 200, *, nearest: int = NEAREST, among: int = AMONG, seed: int = 0
) -> float:
    """Share of the nearest by cosine that are among the (more) nearest by Tanimoto, mean over random queries.

    Molecules tied with the last of the nearest by Tanimoto count as among them; the query does not count, and
    molecules that RDKit cannot read are none.
    """
    readable = [i for i, fingerprint in enumerate(molecules.fingerprints) if fingerprint is not None]
    chosen = np.random.default_rng(seed).choice(readable, min(queries, len(readable)), replace=False)
    shares = []
    for query in chosen:
        cosine = molecules.vectors @ molecules.vectors[query]
        similarity = np.nan_to_num(tanimoto(molecules.fingerprints[query], molecules.fingerprints), nan=-1)
        cosine[query] = similarity[query] = -np.inf
        last = np.partition(similarity, -among)[-among]
        shares.append((similarity[np.argpartition(cosine, -nearest)[-nearest:]] >= last).mean())
    return float(np.mean(shares))


def _read_smiles(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [row[2] for row in csv.reader(lines, delimiter="\t") if row and not row[0].startswith("#")]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise SearchError(
            f"{path} cannot be read: {error}; it must be gzip, with name, id and SMILES between tabs"
        ) from error


def _similarities(molecules: Molecules, queries: np.ndarray, rest: np.ndarray) -> dict[str, np.ndarray]:
    """Best similarity of each of the rest to any query, by method; -1 where there is none."""
    cosine = (molecules.vectors[rest] @ molecules.vectors[queries].T).max(axis=1)
    unread = ~molecules.vectors[rest].any(axis=1)
    fingerprints = [molecules.fingerprints[i] for i in rest]
    best = np.fmax.reduce([tanimoto(molecules.fingerprints[query], fingerprints) for query in queries])
    return {"embedding": np.where(unread, -1, cosine), "ecfp4": np.nan_to_num(best, nan=-1)}


def _scores(active: np.ndarray) -> dict[str, float]:
    """RDKit's measures of a ranking; `active` says of each place, from the first, if an active is there."""
    ranking = [[bool(is_active)] for is_active in active]
    return {
        "auc": Scoring.CalcAUC(ranking, 0),
        "ef1": Scoring.CalcEnrichment(ranking, 0, [0.01])[0],
        "bedroc": Scoring.CalcBEDROC(ranking, 0, 20),
    }
