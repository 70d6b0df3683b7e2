"""An index that is open for questions: the nearest molecules of a vector, by cosine."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from stkd_screen.errors import SearchError
from stkd_screen.search.home import put_back
from stkd_screen.search.inverted_lists import EXACT_ROWS, find_candidates, open_lists
from stkd_screen.search.library import normalised
from stkd_screen.search.manifest import Effort, Manifest, check_files, load_manifest
from stkd_screen.search.store import BLOCK_ROWS, Store

QUERIES_AT_A_TIME = 256
MEASURED_AT = 10  # neighbours that the effort of an index was measured for


class Index:
    """A finished index.

    Args:
        folder: as `find_index` gives it.

    Raises:
        SearchError: a file of it is missing, cut short, altered or of another format.
        OutputError: it was left aside by a build that was killed, and cannot be put back.
    """

    def __init__(self, folder: Path) -> None:
        put_back(folder)
        self.folder = folder
        self.manifest: Manifest = load_manifest(folder)
        check_files(self.manifest, folder)
        try:
            self.store = Store(folder, self.manifest.origin.width)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SearchError(f"{folder}: not an index ({error}); build it anew") from error
        self._lists = open_lists(folder) if self.manifest.effort else None

    @cached_property
    def _loaded(self) -> list["Block"] | None:
        """All vectors in memory, where there are no lists to look in."""
        return None if self._lists is not None else list(flat_blocks(self.store))

    def __len__(self) -> int:
        return len(self.store)

    def nearest(
        self, queries: np.ndarray, k: int, *, allowed: np.ndarray | None = None, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest molecules of each query.

        Args:
            queries: (Q, D) float32 of unit length.
            allowed: (N,) bool, the molecules that may be found; None: all.
            exact: look at every vector even where there are inverted lists.

        Returns:
            (Q, k) row numbers, nearest first, -1 where there are no more; and (Q, k) float32 cosines.
        """
        chosen = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if exact or self._lists is None or chosen <= EXACT_ROWS:
            in_memory = self._loaded if allowed is None else None
            found, _ = exact_neighbours(in_memory or flat_blocks(self.store, allowed), queries, k)
        else:
            assert self.manifest.effort is not None
            effort = scaled_effort(self.manifest.effort, k, chosen / len(self))
            found, _ = approximate_neighbours(self.store, self._lists, queries, k, effort, allowed)
        return self._ranked(queries, found)

    def _ranked(self, queries: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same rows by their cosines; scores are none, of vectors that float16 makes 2e-4 too long."""
        ranked, cosines = np.full_like(found, -1), np.full(found.shape, np.nan, np.float32)
        for i, rows in enumerate(found):
            rows = rows[rows >= 0]
            scores = normalised(self.store.vectors(rows).astype(np.float32)) @ queries[i]
            order = np.lexsort((rows, -scores))
            ranked[i, : len(rows)], cosines[i, : len(rows)] = rows[order], scores[order]
        return ranked, np.clip(cosines, -1, 1)


def scaled_effort(measured: Effort, k: int, share: float = 1.0) -> Effort:
    """The effort for k neighbours among a share of the molecules, from that measured for 10 among all.

    k neighbours lie in more lists than 10 do, and those of a subset lie further away than those of all.
    """
    more = max(1.0, k / MEASURED_AT)
    return Effort(round(measured.probes * more**0.5 / share), round(measured.candidates * more))


Block = tuple[np.ndarray, faiss.IndexScalarQuantizer]  # (B,) row numbers, and the vectors of these rows


def flat_blocks(store: Store, allowed: np.ndarray | None = None) -> Iterator[Block]:
    """The (allowed) vectors of a store, as FAISS compares them fastest: float16 as they are."""
    if allowed is None:
        for start, vectors in store.blocks():
            yield np.arange(start, start + len(vectors)), _flat(vectors)
    else:
        rows = np.flatnonzero(allowed)
        for start in range(0, len(rows), BLOCK_ROWS):
            part = rows[start : start + BLOCK_ROWS]
            yield part, _flat(store.vectors(part))


def _flat(vectors: np.ndarray) -> faiss.IndexScalarQuantizer:
    float16 = faiss.ScalarQuantizer.QT_fp16
    flat = faiss.IndexScalarQuantizer(vectors.shape[1], float16, faiss.METRIC_INNER_PRODUCT)
    flat.add_sa_codes(np.ascontiguousarray(vectors).view(np.uint8))
    return flat


def exact_neighbours(blocks: Iterable[Block], queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `Index.nearest`, by comparing each query with every vector of the blocks."""
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for rows, flat in blocks:
        scores, at = flat.search(queries, min(k, len(rows)))
        best.add_result(scores, rows[at])
    best.finalize()
    return best.I, _cosines(best.D, best.I)


def approximate_neighbours(
    store: Store,
    lists: faiss.IndexIVF,
    queries: np.ndarray,
    k: int,
    effort: Effort,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `Index.nearest`, among the candidates that the inverted lists offer."""
    found = np.full((len(queries), k), -1, np.int64)
    cosines = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(queries), QUERIES_AT_A_TIME):
        some = slice(start, start + QUERIES_AT_A_TIME)
        for i, rows in enumerate(find_candidates(lists, queries[some], effort, allowed), start):
            rows = rows[rows >= 0]
            scores = store.vectors(rows).astype(np.float32) @ queries[i]
            order = np.lexsort((rows, -scores))[:k]
            found[i, : len(order)], cosines[i, : len(order)] = rows[order], scores[order]
    return found, _cosines(cosines, found)


def _cosines(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    # Of vectors that are of length 1 only to 2e-4.
    return np.where(rows >= 0, np.clip(scores, -1, 1), np.nan).astype(np.float32)
