"""Compiled loops between the matrix products of a forward pass."""

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from numba import njit
from torch import Tensor

from stkd_screen.cpu.vectors import narrowed, widened
from stkd_screen.jit import cached, index

EPSILON = 1e-5  # of nn.LayerNorm
LARGEST = 127  # of int8, and -127: as many steps on both sides of zero
SMALLEST = 1e-30  # magnitude that a scale is found for, instead of 0, which nothing can be divided by
SMALLEST_BITS = int(np.float32(SMALLEST).view(np.int32))

# Sums may be taken in any order, so that they fill vector registers; NaN and infinity stay what they are.
REORDERED = {"reassoc", "contract", "arcp", "nsz"}


def kernel(function: Callable) -> Callable[..., None]:
    """A compiled function of tensors; it changes the last of them, or those that it says.

    Tensors of float32 may also be of bfloat16, but for those of `to_int8` and `from_int8`: what is computed
    is float32.
    """
    run = cached(nogil=True, fastmath=REORDERED, error_model="numpy")(function)

    @wraps(function)
    def call(*arguments: Tensor | int) -> None:
        run(*(_array(each) if isinstance(each, Tensor) else each for each in arguments))

    return call


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def helper(function: Callable) -> Callable:
    """A part of such functions, compiled into each of them. It has no cache of its own: that would name the
    classes of its types, and not be read any more when one of these is renamed."""
    return njit(function, forceinline=True, fastmath=REORDERED, error_model="numpy")


@kernel
def sum_of_entries(tokens, nothing, table, x):  # type: ignore[no-untyped-def]
    """x[i]: the sum of the rows of `table` that token i names, `nothing` aside."""
    for i in range(len(tokens)):
        row = x[i]
        row[:] = 0.0
        for entry in tokens[i]:
            if entry != nothing:
                named = table[index(entry)]
                for d in range(len(row)):
                    row[d] += named[d]


@helper
def _norm_row(x, gain, shift, out):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for d in range(len(x)):
        total += x[d]
    mean = total / np.float32(len(x))
    squares = np.float32(0.0)
    for d in range(len(x)):
        squares += (x[d] - mean) * (x[d] - mean)
    scale = np.float32(1.0) / np.sqrt(squares / np.float32(len(x)) + np.float32(EPSILON))
    for d in range(len(x)):
        out[d] = narrowed(out, (x[d] - mean) * scale * gain[d] + shift[d])


@kernel
def norm(x, gain, shift, out):  # type: ignore[no-untyped-def]
    """Layer norm of each row of x."""
    for i in range(len(x)):
        _norm_row(x[i], gain, shift, out[i])


@kernel
def add_and_norm(branch, bias, gain, shift, x, out):  # type: ignore[no-untyped-def]
    """Add a branch and its bias to x; `out` is the layer norm of that."""
    for i in range(len(x)):
        for d in range(x.shape[1]):
            x[i, d] += widened(branch[i, d]) + bias[d]
        _norm_row(x[i], gain, shift, out[i])


@kernel
def gelu(bias, x):  # type: ignore[no-untyped-def]
    """GELU of x + bias, in place."""
    for i in range(len(x)):
        for d in range(x.shape[1]):
            y = widened(x[i, d]) + bias[d]
            y = np.float32(0.5) * y * (np.float32(1.0) + _erf(y * np.float32(math.sqrt(0.5))))
            x[i, d] = narrowed(x, y)


@kernel
def to_int8(x, scales, rounded):  # type: ignore[no-untyped-def]
    """Each row of x in steps of its scale, its largest magnitude / 127: changes `scales` and `rounded`."""
    # Without their sign floats are in the order of their bits, and whole numbers fill vector registers.
    bits, scale_bits = x.view(np.int32), scales.view(np.int32)
    for i in range(len(x)):
        most = np.int32(SMALLEST_BITS)
        for d in range(x.shape[1]):
            most = max(most, bits[i, d] & np.int32(0x7FFFFFFF))
        scale_bits[i] = most
        steps = np.float32(LARGEST) / scales[i]
        for d in range(x.shape[1]):
            rounded[i, d] = np.int8(np.rint(x[i, d] * steps))
        scales[i] /= np.float32(LARGEST)


@kernel
def from_int8(sums, row_scales, column_scales, out):  # type: ignore[no-untyped-def]
    """out[i, j] = sums[i, j] * row_scales[i] * column_scales[j]; what lies beyond the scales stays."""
    for i in range(len(row_scales)):
        for j in range(len(column_scales)):
            out[i, j] = np.float32(sums[i, j]) * row_scales[i] * column_scales[j]


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
