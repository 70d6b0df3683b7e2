"""Batches of molecules with one token count, so that nothing is padded and nothing is masked."""

from collections.abc import Callable, Iterator

import numpy as np


def equal_length_batches(
    token_counts: np.ndarray, rows: np.ndarray, batch_size: Callable[[int], int]
) -> Iterator[np.ndarray]:
    """Split rows into batches whose molecules all have the same number of tokens.

    Args:
        token_counts: (R,) tokens of each row.
        rows: rows to batch, in the order in which they fill the batches.
        batch_size: molecules a batch at a given token count.

    Yields:
        Arrays of row numbers, shortest molecules first.
    """
    by_length = rows[np.argsort(token_counts[rows], kind="stable")]
    lengths, starts = np.unique(token_counts[by_length], return_index=True)
    for length, group in zip(lengths, np.split(by_length, starts[1:]), strict=False):
        size = batch_size(int(length))
        for start in range(0, len(group), size):
            yield group[start : start + size]
