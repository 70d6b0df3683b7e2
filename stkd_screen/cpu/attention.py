"""Attention over the few tokens of a molecule, in tiles that stay in registers.

With some 25 tokens and keys 16 wide the products of attention are too small for BLAS, and copies into its
layouts and back would take as long as the products themselves.
"""

import numpy as np

from stkd_screen.cpu.kernels import helper, kernel
from stkd_screen.cpu.vectors import (
    LANES,
    NO_FRACTIONS,
    in_all_lanes,
    larger,
    largest_lane,
    load,
    power_of_two,
    store,
    sum_of_lanes,
    widened,
)
from stkd_screen.jit import index

# Of a tile: twelve vectors, which leave four of the 16 registers of AVX to the factors.
ROWS, COLUMNS = 6, 2 * LANES


def whole(number: int, of: int) -> int:
    """The least multiple of `of` that is no less."""
    return -(-number // of) * of


def whole_tiles(columns: int) -> int:
    """The columns of as many tiles as these take."""
    return whole(columns, COLUMNS)


@kernel
def attend(n_atoms, pairs, pair_bias, key_width, projected, keys, scores, mixed):  # type: ignore[no-untyped-def]
    """Attention of each molecule, biased where queries and keys are twice as wide as `key_width`.

    The latter halves are the biases. By eq. 13 queries of tokens that are no atoms have none, nor have keys
    of tokens beyond the atoms: these are set to zero here.

    Args:
        n_atoms: (B,) of each molecule.
        pairs: (B, T, T) the codes of pairs of tokens; nothing where they have none.
        pair_bias: (heads, PAIRS) what each code adds to the scores, scaled as they are.
        projected: (N, ...) queries of all heads, scaled so that scores are exponents of 2, then values of
            all heads.
        keys: (heads * width, N + COLUMNS or more) keys, a column for each token.
        scores: (ROWS, whole tiles of T) work space.
        mixed: (N, heads * whole tiles of K) becomes the result.

    All but `pair_bias` and `scores` may be of bfloat16.
    """
    T, heads = len(mixed) // len(n_atoms), len(pair_bias)
    width, value_width = keys.shape[0] // heads, mixed.shape[1] // heads
    for b in range(len(n_atoms)):
        first, end = b * T, (b + 1) * T
        for h in range(heads):
            query, value = h * width, heads * width + h * value_width
            if width > key_width:
                bias, bias_end = query + key_width, query + width
                _mask_biases(n_atoms[b], projected[first:end, bias:bias_end], keys[bias:bias_end, first:end])
            for i in range(first, end, ROWS):
                rows = min(ROWS, end - i)
                for j in range(0, scores.shape[1], COLUMNS):
                    _tile(projected, i, query, keys, query, first + j, width, scores, 0, j, rows)
                if len(pairs):
                    _add_pair_bias(pairs[b, i - first : i - first + rows], pair_bias[h], scores)
                _softmax(scores[:rows], T)
                for d in range(0, value_width, COLUMNS):
                    _tile(scores, 0, 0, projected, first, value + d, T, mixed, i, h * value_width + d, rows)


@helper
def _mask_biases(n_atoms, queries, keys):  # type: ignore[no-untyped-def]
    """Args: (T, K) and (K, T)."""
    queries[0] = 0
    queries[n_atoms + 1 :] = 0
    keys[:, n_atoms + 1 :] = 0


@helper
def _add_pair_bias(pairs, pair_bias, scores):  # type: ignore[no-untyped-def]
    for i in range(len(pairs)):
        for j in range(pairs.shape[1]):
            scores[i, j] += pair_bias[index(pairs[i, j])]


@helper
def _tile(a, a_row, a_column, b, b_row, b_column, depth, c, c_row, c_column, rows):  # type: ignore[no-untyped-def]
    """c = a @ b for one tile of c, with `depth` columns of a and rows of b; each from its row and column on.

    Of a tile with less than `ROWS` rows the last one is computed and written several times.
    """
    r1, r2, r3 = min(1, rows - 1), min(2, rows - 1), min(3, rows - 1)
    r4, r5 = min(4, rows - 1), min(5, rows - 1)
    x0 = x1 = x2 = x3 = x4 = x5 = y0 = y1 = y2 = y3 = y4 = y5 = in_all_lanes(np.float32(0.0))
    for k in range(depth):
        x, y = load(b, b_row + k, b_column), load(b, b_row + k, b_column + LANES)
        f = in_all_lanes(widened(a[a_row, a_column + k]))
        x0, y0 = x0 + f * x, y0 + f * y
        f = in_all_lanes(widened(a[a_row + r1, a_column + k]))
        x1, y1 = x1 + f * x, y1 + f * y
        f = in_all_lanes(widened(a[a_row + r2, a_column + k]))
        x2, y2 = x2 + f * x, y2 + f * y
        f = in_all_lanes(widened(a[a_row + r3, a_column + k]))
        x3, y3 = x3 + f * x, y3 + f * y
        f = in_all_lanes(widened(a[a_row + r4, a_column + k]))
        x4, y4 = x4 + f * x, y4 + f * y
        f = in_all_lanes(widened(a[a_row + r5, a_column + k]))
        x5, y5 = x5 + f * x, y5 + f * y
    _store_row(x0, y0, c, c_row, c_column)
    _store_row(x1, y1, c, c_row + r1, c_column)
    _store_row(x2, y2, c, c_row + r2, c_column)
    _store_row(x3, y3, c, c_row + r3, c_column)
    _store_row(x4, y4, c, c_row + r4, c_column)
    _store_row(x5, y5, c, c_row + r5, c_column)


@helper
def _store_row(x, y, c, row, column):  # type: ignore[no-untyped-def]
    store(c, row, column, x)
    store(c, row, column + LANES, y)


@helper
def _softmax(scores, T):  # type: ignore[no-untyped-def]
    """Rows of T exponents of 2 to shares that add up to 1, in place; their length is a multiple of `LANES`.

    Each step is done for all rows before the next: within one row each waits for the one before it.
    """
    rows, columns = scores.shape
    for i in range(rows):
        for j in range(T, columns):
            scores[i, j] = -np.inf
    for i in range(rows):
        largest = load(scores, i, 0)
        for j in range(LANES, columns, LANES):
            largest = larger(largest, load(scores, i, j))
        largest = in_all_lanes(largest_lane(largest))
        for j in range(0, columns, LANES):
            store(scores, i, j, load(scores, i, j) - largest)
    for i in range(rows):
        for j in range(0, columns, LANES):
            store(scores, i, j, _exp2(load(scores, i, j)))
    for i in range(rows):
        total = load(scores, i, 0)
        for j in range(LANES, columns, LANES):
            total = total + load(scores, i, j)
        share = in_all_lanes(np.float32(1.0) / sum_of_lanes(total))
        for j in range(0, columns, LANES):
            store(scores, i, j, load(scores, i, j) * share)


@helper
def _exp2(x):  # type: ignore[no-untyped-def]
    """2 to the power of x <= 0, to 2e-7 of it: that of the nearest whole number times a polynomial."""
    x = larger(in_all_lanes(np.float32(-126.0)), x)
    rounded = x + in_all_lanes(np.float32(NO_FRACTIONS))
    f = x - (rounded - in_all_lanes(np.float32(NO_FRACTIONS)))
    p = in_all_lanes(np.float32(0.0013276461530985773))
    p = p * f + in_all_lanes(np.float32(0.009675541251228797))
    p = p * f + in_all_lanes(np.float32(0.0555071330586156))
    p = p * f + in_all_lanes(np.float32(0.2402211972591194))
    p = p * f + in_all_lanes(np.float32(0.6931469670449435))
    p = p * f + in_all_lanes(np.float32(1.0000000716540458))
    return p * power_of_two(rounded)
