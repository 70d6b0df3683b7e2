"""Approximate search: FAISS inverted lists of compressed vectors, built in bounded memory, mapped from disk.

Vectors are sorted into lists by their nearest of about 2 sqrt(N) centroids and kept as what is left after
subtracting it, compressed: one byte a dimension (`ivf`), or one byte for four (`ivf-pq`, product
quantisation; H. Jegou, M. Douze, C. Schmid, IEEE PAMI 33, 117 (2011)). A query visits the lists of its
nearest centroids. Scores of compressed vectors only choose candidates: `Index` scores those anew.
"""

from pathlib import Path

import faiss
import numpy as np

from stkd_screen.errors import SearchError
from stkd_screen.search.manifest import Effort
from stkd_screen.search.store import Store

LISTS = "lists.faiss"  # centroids and codebooks
LISTS_DATA = "lists.ivfdata"  # the lists themselves
EXACT, IVF, IVF_PQ = KINDS = ("exact", "ivf", "ivf-pq")
EXACT_ROWS = 100_000  # up to here a look at every vector takes some 10 ms
LEAST_ROWS = {EXACT: 1, IVF: 1, IVF_PQ: 256}  # a product quantiser has 256 code words to learn
ROW_NUMBER_BYTES = 8
PROGRAM_BYTES = 350 << 20  # what the program takes by itself, out of a bound on memory
POINTS_PER_CENTROID = 64


def choose_kind(rows: int, width: int, memory: int) -> tuple[str, str]:
    """The kind of index for so many vectors of a width in `memory` bytes, and why."""
    if rows <= EXACT_ROWS:
        return EXACT, f"up to {EXACT_ROWS:,} molecules a search compares all of them"
    if rows * code_bytes(IVF, width) <= memory:
        return IVF, f"above {EXACT_ROWS:,} molecules inverted lists save the look at most of them"
    return IVF_PQ, f"lists at one byte a dimension would not fit into {memory / 1e9:.1f} GB"


def code_bytes(kind: str, width: int) -> int:
    """Bytes of one molecule in the lists."""
    return (width if kind == IVF else _subvectors(width)) + ROW_NUMBER_BYTES


def build_lists(store: Store, kind: str, folder: Path, memory: int) -> None:
    """Train on a sample of the store, then add all of it, shard by shard, and merge the shards on disk.

    Args:
        store: N vectors.
        kind: ivf or ivf-pq.
        folder: where `LISTS` and `LISTS_DATA` are written.
        memory: bytes that this may take at its peak, the program itself included. Pages of mapped files,
            which the system takes back when it needs them, do not count.
    """
    free = max(memory - PROGRAM_BYTES, 64 << 20)
    lists = _trained(store, kind, free)
    # FAISS grows its lists by doubling.
    shard_rows = free // (2 * code_bytes(kind, store.width))
    shards: list[Path] = []

    def finish_shard() -> None:
        shards.append(folder / f"shard{len(shards)}.faiss")
        faiss.write_index(lists, str(shards[-1]))
        lists.reset()

    in_shard = 0
    for start, block in store.blocks():
        if in_shard and in_shard + len(block) > shard_rows:
            finish_shard()
            in_shard = 0
        lists.add_with_ids(block.astype(np.float32), np.arange(start, start + len(block)))
        in_shard += len(block)
    finish_shard()
    _merge(shards, lists, folder / LISTS_DATA)
    faiss.write_index(lists, str(folder / LISTS))
    for shard in shards:
        shard.unlink()


def _merge(shards: list[Path], lists: faiss.IndexIVF, path: Path) -> None:
    """Write each list's codes and row numbers, from all shards, one list after another; `lists` gets them.

    FAISS's `merge_ondisk` makes the same file, but through a map of the whole of it, and prints.
    """
    opened = [faiss.read_index(str(shard), faiss.IO_FLAG_MMAP) for shard in shards]
    merged = faiss.OnDiskInvertedLists(lists.nlist, lists.code_size, str(path))
    merged.lists.clear()
    with open(path, "wb") as file:
        for number in range(lists.nlist):
            parts = [(index.invlists, index.invlists.list_size(number)) for index in opened]
            place = faiss.OnDiskOneList()
            place.offset = file.tell()
            place.size = place.capacity = sum(size for _, size in parts)
            merged.lists.push_back(place)
            for part, size in parts:
                file.write(faiss.rev_swig_ptr(part.get_codes(number), size * lists.code_size).data)
            for part, size in parts:
                file.write(faiss.rev_swig_ptr(part.get_ids(number), size).data)
        merged.totsize = file.tell()
    lists.replace_invlists(merged, True)
    merged.this.disown()
    lists.ntotal = sum(index.ntotal for index in opened)


def open_lists(folder: Path) -> faiss.IndexIVF:
    """The lists of a folder, mapped.

    Raises:
        SearchError: FAISS cannot read them.
    """
    try:
        # FAISS would look for the data where they were when the index was built.
        lists = faiss.read_index(str(folder / LISTS), faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
        data = faiss.downcast_InvertedLists(lists.invlists)
        data.filename = str(folder / LISTS_DATA)
        data.do_mmap()
        return lists
    except (RuntimeError, AttributeError) as error:
        reason = str(error).rsplit("\n", 1)[-1]
        raise SearchError(f"{folder / LISTS} cannot be read ({reason}); build the index anew") from error


def find_candidates(
    lists: faiss.IndexIVF, queries: np.ndarray, effort: Effort, allowed: np.ndarray | None = None
) -> np.ndarray:
    """(Q, candidates) row numbers for (Q, D) queries, -1 where the lists visited held fewer.

    Args:
        allowed: (N,) bool, the rows that may be found; None: all.
    """
    probes = min(effort.probes, lists.nlist)
    if allowed is None:
        parameters = faiss.SearchParametersIVF(nprobe=probes)
    else:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
    return lists.search(queries, effort.candidates, params=parameters)[1]


def _trained(store: Store, kind: str, free: int) -> faiss.IndexIVF:
    width, rows = store.width, len(store)
    sample_rows = min(rows, free // (3 * 4 * width))  # float32, and FAISS makes copies
    centroids = max(1, min(int(2 * rows**0.5), sample_rows // 39))
    sample = _sample(store, min(sample_rows, POINTS_PER_CENTROID * centroids))
    quantiser = faiss.IndexFlatIP(width)
    metric = faiss.METRIC_INNER_PRODUCT
    lists: faiss.IndexIVF
    if kind == IVF:
        eight_bits = faiss.ScalarQuantizer.QT_8bit
        lists = faiss.IndexIVFScalarQuantizer(quantiser, width, centroids, eight_bits, metric)
    else:
        lists = faiss.IndexIVFPQ(quantiser, width, centroids, _subvectors(width), 8, metric)
        lists.pq.cp.min_points_per_centroid = 1
    lists.cp.min_points_per_centroid = 1  # no warning for a small library
    lists.train(sample)
    return lists


def _sample(store: Store, size: int) -> np.ndarray:
    """(size, D) float32: random rows, gathered in one pass."""
    chosen = np.sort(np.random.default_rng(0).choice(len(store), size, replace=False))
    parts = []
    for start, block in store.blocks():
        first, last = np.searchsorted(chosen, [start, start + len(block)])
        parts.append(block[chosen[first:last] - start])
    return np.concatenate(parts).astype(np.float32)


def _subvectors(width: int) -> int:
    """Bytes of a product code: one for four dimensions, or for the next more that divide the width."""
    return next(count for count in range(max(width // 4, 1), 0, -1) if width % count == 0)
