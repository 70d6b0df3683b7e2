"""Compiled loops between the matrix products of a forward pass.

What a product gives comes with the steps of its rows and of its columns, and what the next one reads with the
steps of its rows, which are made here (rows.py).
"""

import math

import numpy as np
from numba import types

from stkd_screen.cpu.loops import helper, helper_by_type, kernel
from stkd_screen.cpu.rows import put_rows, value_of
from stkd_screen.jit import index

BLOCK = 8  # rows that are taken at a time, so that those of the widest product stay in the cache
EPSILON = 1e-5  # of nn.LayerNorm


@kernel
def add_entries(tokens, first, last, nothing, table, x):  # type: ignore[no-untyped-def]
    """Add to x[i] the rows of `table` that entries `first` to `last` of token i name, `nothing` aside."""
    for i in range(len(tokens)):
        for e in range(first, last):
            entry = index(tokens[i, e])
            if entry != nothing:
                for d in range(x.shape[1]):
                    x[i, d] += table[entry, d]


@kernel
def norm(x, gain, shift, rows, out, steps):  # type: ignore[no-untyped-def]
    """Layer norm of each row of x. `rows`, as those after it: (BLOCK, columns) work space."""
    means = np.empty(BLOCK, np.float32)
    for i in range(0, len(x), BLOCK):
        block = x[i : i + BLOCK]
        for k in range(len(block)):
            total = np.float32(0.0)
            for d in range(x.shape[1]):
                total += block[k, d]
            means[k] = total / np.float32(x.shape[1])
        _norm(block, means, gain, shift, rows)
        put_rows(rows[: len(block)], out, steps, i)


@kernel
def add_and_norm(  # type: ignore[no-untyped-def]
    branch, row_steps, column_steps, bias, x, gain, shift, rows, out, steps
):
    """Add a branch and its bias to x; `out` is the layer norm of that."""
    means = np.empty(BLOCK, np.float32)
    for i in range(0, len(x), BLOCK):
        block = x[i : i + BLOCK]
        for k in range(len(block)):
            total = np.float32(0.0)
            for d in range(x.shape[1]):
                block[k, d] += value_of(branch, row_steps, column_steps, i + k, d) + bias[d]
                total += block[k, d]
            means[k] = total / np.float32(x.shape[1])
        _norm(block, means, gain, shift, rows)
        put_rows(rows[: len(block)], out, steps, i)


@helper
def _norm(x, means, gain, shift, rows):  # type: ignore[no-untyped-def]
    """Of all rows of x one step after the other: the steps of a single one wait for each other."""
    scales = np.empty(BLOCK, np.float32)
    for k in range(len(x)):
        mean, squares = means[k], np.float32(0.0)
        for d in range(x.shape[1]):
            squares += (x[k, d] - mean) * (x[k, d] - mean)
        scales[k] = np.float32(1.0) / np.sqrt(squares / np.float32(x.shape[1]) + np.float32(EPSILON))
    for k in range(len(x)):
        mean, scale = means[k], scales[k]
        for d in range(x.shape[1]):
            rows[k, d] = (x[k, d] - mean) * scale * gain[d] + shift[d]


@kernel
def gelu(product, row_steps, column_steps, bias, rows, out, steps):  # type: ignore[no-untyped-def]
    """GELU of a product and its bias."""
    for i in range(0, len(out), BLOCK):
        block = rows[: len(out) - i]
        for k in range(len(block)):
            for d in range(len(bias)):
                y = value_of(product, row_steps, column_steps, i + k, d) + bias[d]
                block[k, d] = y * _share_below(product, y)
        put_rows(block, out, steps, i)


@kernel
def sum_of_gelu(product, row_steps, column_steps, bias, T, sums):  # type: ignore[no-untyped-def]
    """sums[b]: the sum of the GELU of a product and its bias over the T rows of molecule b."""
    for b in range(len(sums)):
        sums[b] = 0.0
        for i in range(b * T, (b + 1) * T):
            for d in range(len(bias)):
                y = value_of(product, row_steps, column_steps, i, d) + bias[d]
                sums[b, d] += y * _share_below(product, y)


@helper_by_type
def _share_below(product, x):  # type: ignore[no-untyped-def]
    """The share of the normal distribution below x, as exact as the format of a product asks for."""

    def exact(product, x):  # type: ignore[no-untyped-def]
        return np.float32(0.5) + np.float32(0.5) * _erf(x * np.float32(math.sqrt(0.5)))

    def short(product, x):  # type: ignore[no-untyped-def]
        return _short_share_below(x)

    return exact if product.dtype == types.float32 else short


@helper
def _erf(x):  # type: ignore[no-untyped-def]
    """The error function to 5e-7: an odd rational function, fitted for |x| < 4, beyond which it is 1."""
    x = np.float32(-4.0) if x < np.float32(-4.0) else x
    x = np.float32(4.0) if x > np.float32(4.0) else x
    t = x * x
    p = np.float32(1.97483296e-06)
    p = p * t + np.float32(0.000288040337)
    p = p * t + np.float32(0.0040036099)
    p = p * t + np.float32(0.0534673699)
    p = p * t + np.float32(0.196248173)
    p = p * t + np.float32(1.12837898)
    q = np.float32(3.74808349e-05)
    q = q * t + np.float32(0.0012163506)
    q = q * t + np.float32(0.0154443514)
    q = q * t + np.float32(0.116476092)
    q = q * t + np.float32(0.507251574)
    q = q * t + np.float32(1.0)
    return x * p / q


@helper
def _short_share_below(x):  # type: ignore[no-untyped-def]
    """The share of the normal distribution below x, to 6e-5 / x: a polynomial, fitted for |x| < 4.1, beyond
    which it stays 7e-6 away from 0 or 1. Far below a step of bfloat16, in half the time of `_erf`."""
    x = np.float32(-4.1) if x < np.float32(-4.1) else x
    x = np.float32(4.1) if x > np.float32(4.1) else x
    t = x * x
    p = np.float32(-1.03251558e-09)
    p = p * t + np.float32(8.78468917e-08)
    p = p * t + np.float32(-3.25679452e-06)
    p = p * t + np.float32(6.98115151e-05)
    p = p * t + np.float32(-0.000971879265)
    p = p * t + np.float32(0.00937974869)
    p = p * t + np.float32(-0.0656745327)
    p = p * t + np.float32(0.398553071)
    return np.float32(0.5) + x * p


@kernel
def attend_virtual(query, tokens, pair_bias, codes, scores, mixed):  # type: ignore[no-untyped-def]
    """What the heads of [V] see of the tokens of each molecule.

    Args:
        query: (H, B, D) of [V], as wide as the tokens.
        tokens: (B, T, D).
        pair_bias: (H, PAIRS) what each code adds to the scores.
        codes: (T,) of the pairs of [V] with the tokens, the same in all molecules; (0,) where there are none.
        scores: (T,) work space.
        mixed: (H, B, D) becomes the sum of the tokens by their shares.
    """
    for b in range(len(tokens)):
        for h in range(len(query)):
            most = np.float32(-np.inf)
            for t in range(len(scores)):
                score = pair_bias[h, index(codes[t])] if len(codes) else np.float32(0.0)
                for d in range(query.shape[2]):
                    score += query[h, b, d] * tokens[b, t, d]
                scores[t] = score
                most = max(most, score)
            total = np.float32(0.0)
            for t in range(len(scores)):
                scores[t] = np.exp(scores[t] - most)
                total += scores[t]
            mixed[h, b] = 0.0
            for t in range(len(scores)):
                share = scores[t] / total
                for d in range(query.shape[2]):
                    mixed[h, b, d] += share * tokens[b, t, d]
