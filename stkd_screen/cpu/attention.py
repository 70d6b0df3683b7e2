"""Attention over the few tokens of a molecule, in tiles that stay in registers.

With some 25 tokens and keys 16 wide the products of attention are too small for BLAS, and copies into its
layouts and back would take as long as the products themselves.

Eight heads stand in the lanes of vectors, and where these are as wide, of two queries: what one does all do,
so no step goes from lane to lane, and each number is read as the matrix product before has written it.
"""

import numpy as np

from stkd_screen.cpu.loops import helper, kernel
from stkd_screen.cpu.rows import put_rows, value_of
from stkd_screen.cpu.vectors import (
    EIGHT,
    NO_FRACTIONS,
    ROWS,
    in_all_lanes,
    larger,
    load,
    load_all,
    load_same,
    power_of_two,
    store,
    store_all,
)
from stkd_screen.jit import index

# Of a tile: twelve vectors of sums, which leave four of the 16 registers of AVX to the factors.
QUERIES, COLUMNS = 3, 4


@kernel
def attend(  # type: ignore[no-untyped-def]
    n_atoms, pairs, pair_bias, groups, projected, row_steps, column_steps, tokens, scores, mixed, out, steps
):
    """Attention of each molecule.

    Heads come in groups of eight, and what is said to be W wide is of a group 8 * W numbers: W times its
    heads beside each other. Queries and keys wider than values, K, are biased: what is beyond are the biases.
    By eq. 13 queries of tokens that are no atoms have none, nor have keys of tokens beyond the atoms: these
    are set to zero here.

    Args:
        n_atoms: (B,) int32 of each molecule.
        pairs: (B, T, T) uint8 the codes of pairs of tokens; (0, ...) where they have none.
        pair_bias: (groups * PAIRS, 8) what each code adds to the scores, scaled as they are.
        groups: number.
        projected: (N, groups of) queries, scaled so that scores are exponents of 2, keys, and values, as a
            product gives them; its steps are the next two (see rows.py).
        tokens: (T, as wide), scores: (T * QUERIES, LANES), mixed: (T, groups of K) work space.
        out: (N, groups of K) becomes the result, of those steps.
    """
    T, codes = len(tokens), len(pair_bias) // groups
    of_group, of_values = tokens.shape[1] // groups, mixed.shape[1] // groups
    of_queries = (of_group - of_values) // 2
    for b in range(len(n_atoms)):
        for t in range(T):
            for d in range(tokens.shape[1]):
                tokens[t, d] = value_of(projected, row_steps, column_steps, b * T + t, d)
        for g in range(groups):
            query = g * of_group
            key, value = query + of_queries, query + 2 * of_queries
            tokens[0, query + of_values : key] = 0
            tokens[n_atoms[b] + 1 :, query + of_values : key] = 0
            tokens[n_atoms[b] + 1 :, key + of_values : value] = 0
            for i in range(0, T, QUERIES * ROWS):
                x, y, z = _tokens(i, T), _tokens(i + ROWS, T), _tokens(i + 2 * ROWS, T)
                most = _scores(tokens, x, y, z, query, key, pairs, b, pair_bias, g * codes, scores)
                shares = _exponentials(scores, most)
                for d in range(0, of_values, COLUMNS * EIGHT):
                    _mix(scores, shares, tokens, value + d, of_values - d, mixed, x, y, z, g * of_values + d)
        put_rows(mixed, out, steps, b * T)


@helper
def _tokens(i, T):  # type: ignore[no-untyped-def]
    """The first and the last token from i on that a vector holds. Of a tile that reaches beyond the last
    token that one is computed and written several times."""
    return min(i, T - 1), min(i + ROWS - 1, T - 1)


@helper
def _scores(tokens, x, y, z, query, key, pairs, b, pair_bias, code, scores):  # type: ignore[no-untyped-def]
    """Scores of three vectors of queries with all keys, those of a key one after another; gives the largest
    of each query."""
    T = len(tokens)
    most_x = most_y = most_z = in_all_lanes(np.float32(-np.inf))
    for j in range(0, T, COLUMNS):
        j1, j2, j3 = min(j + 1, T - 1), min(j + 2, T - 1), min(j + 3, T - 1)
        x0 = x1 = x2 = x3 = y0 = y1 = y2 = y3 = z0 = z1 = z2 = z3 = in_all_lanes(np.float32(0.0))
        if len(pairs):
            x0, x1 = _bias(pairs[b], x, j, pair_bias, code), _bias(pairs[b], x, j1, pair_bias, code)
            x2, x3 = _bias(pairs[b], x, j2, pair_bias, code), _bias(pairs[b], x, j3, pair_bias, code)
            y0, y1 = _bias(pairs[b], y, j, pair_bias, code), _bias(pairs[b], y, j1, pair_bias, code)
            y2, y3 = _bias(pairs[b], y, j2, pair_bias, code), _bias(pairs[b], y, j3, pair_bias, code)
            z0, z1 = _bias(pairs[b], z, j, pair_bias, code), _bias(pairs[b], z, j1, pair_bias, code)
            z2, z3 = _bias(pairs[b], z, j2, pair_bias, code), _bias(pairs[b], z, j3, pair_bias, code)
        for k in range(0, key - query, EIGHT):
            f0, f1 = load_same(tokens, j, key + k), load_same(tokens, j1, key + k)
            f2, f3 = load_same(tokens, j2, key + k), load_same(tokens, j3, key + k)
            f = load(tokens, x[0], x[1], query + k)
            x0, x1, x2, x3 = x0 + f * f0, x1 + f * f1, x2 + f * f2, x3 + f * f3
            f = load(tokens, y[0], y[1], query + k)
            y0, y1, y2, y3 = y0 + f * f0, y1 + f * f1, y2 + f * f2, y3 + f * f3
            f = load(tokens, z[0], z[1], query + k)
            z0, z1, z2, z3 = z0 + f * f0, z1 + f * f1, z2 + f * f2, z3 + f * f3
        _store_three(scores, j, x0, y0, z0)
        _store_three(scores, j1, x1, y1, z1)
        _store_three(scores, j2, x2, y2, z2)
        _store_three(scores, j3, x3, y3, z3)
        most_x = larger(most_x, larger(larger(x0, x1), larger(x2, x3)))
        most_y = larger(most_y, larger(larger(y0, y1), larger(y2, y3)))
        most_z = larger(most_z, larger(larger(z0, z1), larger(z2, z3)))
    return most_x, most_y, most_z


@helper
def _bias(pairs, x, j, pair_bias, code):  # type: ignore[no-untyped-def]
    return load(pair_bias, code + index(pairs[x[0], j]), code + index(pairs[x[1], j]), 0)


@helper
def _store_three(scores, j, x, y, z):  # type: ignore[no-untyped-def]
    store_all(scores, QUERIES * j, 0, x)
    store_all(scores, QUERIES * j + 1, 0, y)
    store_all(scores, QUERIES * j + 2, 0, z)


@helper
def _exponentials(scores, most):  # type: ignore[no-untyped-def]
    """Scores less the largest of their query become powers of 2; gives 1 / the sum of each query."""
    x, y, z = most
    sum_x = sum_y = sum_z = in_all_lanes(np.float32(0.0))
    for j in range(0, len(scores), QUERIES):
        x_power = _exp2(load_all(scores, j, 0) - x)
        y_power = _exp2(load_all(scores, j + 1, 0) - y)
        z_power = _exp2(load_all(scores, j + 2, 0) - z)
        _store_three(scores, j // QUERIES, x_power, y_power, z_power)
        sum_x, sum_y, sum_z = sum_x + x_power, sum_y + y_power, sum_z + z_power
    one = in_all_lanes(np.float32(1.0))
    return one / sum_x, one / sum_y, one / sum_z


@helper
def _mix(powers, shares, tokens, value, left, mixed, x, y, z, column):  # type: ignore[no-untyped-def]
    """The sums of the values of all tokens by their shares, four times eight of each query.

    Where less than four are `left`, a number of numbers, the last is computed and written several times.
    """
    last = left - EIGHT
    d1, d2, d3 = min(EIGHT, last), min(2 * EIGHT, last), min(3 * EIGHT, last)
    x0 = x1 = x2 = x3 = y0 = y1 = y2 = y3 = z0 = z1 = z2 = z3 = in_all_lanes(np.float32(0.0))
    for j in range(len(tokens)):
        f0, f1 = load_same(tokens, j, value), load_same(tokens, j, value + d1)
        f2, f3 = load_same(tokens, j, value + d2), load_same(tokens, j, value + d3)
        f = load_all(powers, QUERIES * j, 0)
        x0, x1, x2, x3 = x0 + f * f0, x1 + f * f1, x2 + f * f2, x3 + f * f3
        f = load_all(powers, QUERIES * j + 1, 0)
        y0, y1, y2, y3 = y0 + f * f0, y1 + f * f1, y2 + f * f2, y3 + f * f3
        f = load_all(powers, QUERIES * j + 2, 0)
        z0, z1, z2, z3 = z0 + f * f0, z1 + f * f1, z2 + f * f2, z3 + f * f3
    of_x, of_y, of_z = shares
    _store_four(mixed, x, column, d1, d2, d3, x0 * of_x, x1 * of_x, x2 * of_x, x3 * of_x)
    _store_four(mixed, y, column, d1, d2, d3, y0 * of_y, y1 * of_y, y2 * of_y, y3 * of_y)
    _store_four(mixed, z, column, d1, d2, d3, z0 * of_z, z1 * of_z, z2 * of_z, z3 * of_z)


@helper
def _store_four(mixed, x, column, d1, d2, d3, x0, x1, x2, x3):  # type: ignore[no-untyped-def]
    store(mixed, x[0], x[1], column, x0)
    store(mixed, x[0], x[1], column + d1, x1)
    store(mixed, x[0], x[1], column + d2, x2)
    store(mixed, x[0], x[1], column + d3, x3)


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
