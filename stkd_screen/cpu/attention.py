"""Attention over the few tokens of a molecule, in tiles that stay in registers.

With some 25 tokens and keys 16 wide the products of attention are too small for BLAS, and copies into its
layouts and back would take as long as the products themselves.

The heads stand in the lanes of vectors: what one does all do, so no step goes from lane to lane, each number
is read as the matrix product before has written it, and one of its rows is all that there is of a token.
"""

import numpy as np

from stkd_screen.cpu.kernels import helper, kernel
from stkd_screen.cpu.vectors import LANES, NO_FRACTIONS, in_all_lanes, larger, load, power_of_two, store
from stkd_screen.jit import index

# Of a tile: twelve vectors of sums, which leave four of the 16 registers of AVX to the factors.
QUERIES, COLUMNS = 3, 4


@kernel
def attend(n_atoms, pairs, pair_bias, groups, projected, scores, mixed):  # type: ignore[no-untyped-def]
    """Attention of each molecule.

    Heads come in groups of `LANES`, and what is said to be W wide is of a group W * LANES numbers: W times
    its heads beside each other. Queries and keys wider than values, K, are biased: what is beyond are the
    biases. By eq. 13 queries of tokens that are no atoms have none, nor have keys of tokens beyond the atoms:
    these are set to zero here.

    Args:
        n_atoms: (B,) int32 of each molecule.
        pairs: (B, T, T) uint8 the codes of pairs of tokens; (0, ...) where they have none.
        pair_bias: (groups * PAIRS, LANES) what each code adds to the scores, scaled as they are.
        groups: number.
        projected: (N, groups of) queries, scaled so that scores are exponents of 2, keys, and values. Changed
            where there are biases, see above.
        scores: (T * QUERIES, LANES) work space.
        mixed: (N, groups of) K becomes the result.

    `projected` and `mixed` may be of bfloat16.
    """
    T, codes = len(mixed) // len(n_atoms), len(pair_bias) // groups
    of_group, of_values = projected.shape[1] // groups, mixed.shape[1] // groups
    of_queries = (of_group - of_values) // 2
    for b in range(len(n_atoms)):
        tokens, out = projected[b * T : (b + 1) * T], mixed[b * T : (b + 1) * T]
        for g in range(groups):
            query = g * of_group
            key, value = query + of_queries, query + 2 * of_queries
            tokens[0, query + of_values : key] = 0
            tokens[n_atoms[b] + 1 :, query + of_values : key] = 0
            tokens[n_atoms[b] + 1 :, key + of_values : value] = 0
            for i in range(0, T, QUERIES):
                # Of a tile that reaches beyond the last token that one is computed and written several times.
                i1, i2 = min(i + 1, T - 1), min(i + 2, T - 1)
                most = _scores(tokens, i, i1, i2, query, key, pairs, b, pair_bias, g * codes, scores)
                shares = _exponentials(scores, most)
                for d in range(0, of_values, COLUMNS * LANES):
                    _mix(scores, shares, tokens, value + d, of_values - d, out, i, i1, i2, g * of_values + d)


@helper
def _scores(tokens, i, i1, i2, query, key, pairs, b, pair_bias, code, scores):  # type: ignore[no-untyped-def]
    """Scores of three queries with all keys, those of a key one after another; gives each query's largest."""
    T = len(tokens)
    most = most1 = most2 = in_all_lanes(np.float32(-np.inf))
    for j in range(0, T, COLUMNS):
        j1, j2, j3 = min(j + 1, T - 1), min(j + 2, T - 1), min(j + 3, T - 1)
        x0 = x1 = x2 = x3 = y0 = y1 = y2 = y3 = z0 = z1 = z2 = z3 = in_all_lanes(np.float32(0.0))
        if len(pairs):
            x, y, z = pairs[b, i], pairs[b, i1], pairs[b, i2]
            x0, x1 = load(pair_bias, code + index(x[j]), 0), load(pair_bias, code + index(x[j1]), 0)
            x2, x3 = load(pair_bias, code + index(x[j2]), 0), load(pair_bias, code + index(x[j3]), 0)
            y0, y1 = load(pair_bias, code + index(y[j]), 0), load(pair_bias, code + index(y[j1]), 0)
            y2, y3 = load(pair_bias, code + index(y[j2]), 0), load(pair_bias, code + index(y[j3]), 0)
            z0, z1 = load(pair_bias, code + index(z[j]), 0), load(pair_bias, code + index(z[j1]), 0)
            z2, z3 = load(pair_bias, code + index(z[j2]), 0), load(pair_bias, code + index(z[j3]), 0)
        for k in range(0, key - query, LANES):
            f0, f1 = load(tokens, j, key + k), load(tokens, j1, key + k)
            f2, f3 = load(tokens, j2, key + k), load(tokens, j3, key + k)
            f = load(tokens, i, query + k)
            x0, x1, x2, x3 = x0 + f * f0, x1 + f * f1, x2 + f * f2, x3 + f * f3
            f = load(tokens, i1, query + k)
            y0, y1, y2, y3 = y0 + f * f0, y1 + f * f1, y2 + f * f2, y3 + f * f3
            f = load(tokens, i2, query + k)
            z0, z1, z2, z3 = z0 + f * f0, z1 + f * f1, z2 + f * f2, z3 + f * f3
        _store_three(scores, j, x0, y0, z0)
        _store_three(scores, j1, x1, y1, z1)
        _store_three(scores, j2, x2, y2, z2)
        _store_three(scores, j3, x3, y3, z3)
        most = larger(most, larger(larger(x0, x1), larger(x2, x3)))
        most1 = larger(most1, larger(larger(y0, y1), larger(y2, y3)))
        most2 = larger(most2, larger(larger(z0, z1), larger(z2, z3)))
    return most, most1, most2


@helper
def _store_three(scores, j, x, y, z):  # type: ignore[no-untyped-def]
    store(scores, QUERIES * j, 0, x)
    store(scores, QUERIES * j + 1, 0, y)
    store(scores, QUERIES * j + 2, 0, z)


@helper
def _exponentials(scores, most):  # type: ignore[no-untyped-def]
    """Scores less the largest of their query become powers of 2; gives 1 / the sum of each query."""
    x, y, z = most
    sum_x = sum_y = sum_z = in_all_lanes(np.float32(0.0))
    for j in range(0, len(scores), QUERIES):
        x_power = _exp2(load(scores, j, 0) - x)
        y_power = _exp2(load(scores, j + 1, 0) - y)
        z_power = _exp2(load(scores, j + 2, 0) - z)
        store(scores, j, 0, x_power)
        store(scores, j + 1, 0, y_power)
        store(scores, j + 2, 0, z_power)
        sum_x, sum_y, sum_z = sum_x + x_power, sum_y + y_power, sum_z + z_power
    one = in_all_lanes(np.float32(1.0))
    return one / sum_x, one / sum_y, one / sum_z


@helper
def _mix(powers, shares, tokens, value, left, mixed, i, i1, i2, column):  # type: ignore[no-untyped-def]
    """The sums of the values of all tokens by their shares, four vectors of each of three queries.

    Where less than four are `left`, a number of numbers, the last is computed and written several times.
    """
    last = left - LANES
    d1, d2, d3 = min(LANES, last), min(2 * LANES, last), min(3 * LANES, last)
    x0 = x1 = x2 = x3 = y0 = y1 = y2 = y3 = z0 = z1 = z2 = z3 = in_all_lanes(np.float32(0.0))
    for j in range(len(tokens)):
        f0, f1 = load(tokens, j, value), load(tokens, j, value + d1)
        f2, f3 = load(tokens, j, value + d2), load(tokens, j, value + d3)
        f = load(powers, QUERIES * j, 0)
        x0, x1, x2, x3 = x0 + f * f0, x1 + f * f1, x2 + f * f2, x3 + f * f3
        f = load(powers, QUERIES * j + 1, 0)
        y0, y1, y2, y3 = y0 + f * f0, y1 + f * f1, y2 + f * f2, y3 + f * f3
        f = load(powers, QUERIES * j + 2, 0)
        z0, z1, z2, z3 = z0 + f * f0, z1 + f * f1, z2 + f * f2, z3 + f * f3
    x, y, z = shares
    _store_four(mixed, i, column, d1, d2, d3, x0 * x, x1 * x, x2 * x, x3 * x)
    _store_four(mixed, i1, column, d1, d2, d3, y0 * y, y1 * y, y2 * y, y3 * y)
    _store_four(mixed, i2, column, d1, d2, d3, z0 * z, z1 * z, z2 * z, z3 * z)


@helper
def _store_four(mixed, i, column, d1, d2, d3, x0, x1, x2, x3):  # type: ignore[no-untyped-def]
    store(mixed, i, column, x0)
    store(mixed, i, column + d1, x1)
    store(mixed, i, column + d2, x2)
    store(mixed, i, column + d3, x3)


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
