"""How well an approximate index finds: recall@10 against exact search, on a sample of its own molecules."""

import faiss
import numpy as np

from stkd_screen.search.index import MEASURED_AT, approximate_neighbours, exact_neighbours, flat_blocks
from stkd_screen.search.manifest import Effort
from stkd_screen.search.store import Store

GOOD_RECALL = 0.95  # below it `search` warns
AIM = 0.98  # the least effort that reaches it is kept
SAMPLE = 200
EFFORTS = [Effort(2**i, 2 ** (i + 3)) for i in range(3, 10)]  # 8 lists and 64 candidates to 512 and 4,096
TIE = 1e-6  # mirror images have one vector: where they are tied for the last place, any of them is right


def tune_effort(store: Store, lists: faiss.IndexIVF) -> tuple[Effort, float]:
    """The least effort whose recall reaches `AIM`, else the greatest there is; and its recall."""
    rows = np.random.default_rng(1).choice(len(store), min(SAMPLE, len(store)), replace=False)
    queries = store.vectors(rows).astype(np.float32)
    # One neighbour more than asked for: the nearest of a stored molecule is itself, and does not count.
    k = min(MEASURED_AT + 1, len(store))
    _, cosines = exact_neighbours(flat_blocks(store), queries, k)
    for effort in EFFORTS:
        recall = _recall(store, lists, rows, queries, cosines[:, -1], effort)
        if recall >= AIM:
            break
    return effort, recall


def _recall(
    store: Store,
    lists: faiss.IndexIVF,
    rows: np.ndarray,
    queries: np.ndarray,
    last_cosine: np.ndarray,
    effort: Effort,
) -> float:
    """Mean share of the true neighbours that is found.

    Args:
        rows: (Q,) the molecules asked for, themselves no neighbours.
        last_cosine: (Q,) cosine of the last true neighbour.
    """
    k = min(MEASURED_AT, len(store) - 1)
    found, cosines = approximate_neighbours(store, lists, queries, k + 1, effort)
    right = (found != rows[:, None]) & (cosines >= last_cosine[:, None] - TIE)
    return float(np.minimum(right.sum(axis=1), k).mean() / max(k, 1))
