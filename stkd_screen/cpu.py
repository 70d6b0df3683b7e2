"""The student's forward pass on a CPU: BLAS for the products, one compiled loop for all between two of them.

It gives what `Student.forward` gives in evaluation mode, up to rounding. With layers so narrow PyTorch's own
operators spend half of the time outside of the products: on attention over some 25 tokens, on copies from
layout to layout, and on memory taken anew for each batch. Here each thread keeps its work space.

Shapes: B molecules, T tokens each, N = B * T, D width, H heads, K = D / H key width, E embedding width.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stkd_screen.jit import cached, index
from stkd_screen.smiles.tokens import NOTHING
from stkd_screen.student import FingerprintHead, Layer, Student, bias_mask_factors

EPSILON = 1e-5  # of nn.LayerNorm
LOG2_E = math.log2(math.e)

# Sums may be taken in any order, so that they fill vector registers; NaN and infinity stay what they are.
_REORDERED = {"reassoc", "contract", "arcp", "nsz"}


def _kernel(function: Callable) -> Callable[..., None]:
    """A compiled function of tensors; it changes the last of them, or those that it says."""
    run = cached(nogil=True, fastmath=_REORDERED, error_model="numpy")(function)

    @wraps(function)
    def call(*arguments: Tensor | int) -> None:
        run(*(each.numpy() if isinstance(each, Tensor) else each for each in arguments))

    return call


def _helper(function: Callable) -> Callable:
    return cached(forceinline=True, fastmath=_REORDERED, error_model="numpy")(function)


class CpuStudent:
    """A student in evaluation mode, called as it is, from several threads at once if need be.

    The student must not change afterwards: of some of its parameters this holds copies.
    """

    def __init__(self, student: Student) -> None:
        self.student = student
        layers = [cast(Layer, layer) for layer in student.layers]
        self._layers = [_AllTokens(layer) for layer in layers[:-1]]
        self._last = _LastLayer(layers[-1])
        self._norms = [layer.attention_norm for layer in layers]  # each layer prepares the next one's input
        self._head = student.fingerprint and _Head(student.fingerprint)
        self._spaces: list[_Space] = []  # those that no thread is using

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, n_atoms: Tensor) -> tuple[Tensor, Tensor]:
        """As `Student.forward`; the results are the caller's to keep."""
        try:
            space = self._spaces.pop()
        except IndexError:
            space = _Space()
        try:
            return self._forward(tokens, n_atoms, space)
        finally:
            self._spaces.append(space)

    def _forward(self, tokens: Tensor, n_atoms: Tensor, space: "_Space") -> tuple[Tensor, Tensor]:
        B, T, entries = tokens.shape
        N, D = B * T, self.student.config.width
        x, normed = space("x", N, D), space("normed", N, D)
        _sum_of_entries(tokens.view(N, entries), self.student.table.detach(), x)
        _norm(x, *_gain_and_shift(self._norms[0]), normed)
        row, column = (factor.squeeze(1) for factor in bias_mask_factors(n_atoms, T, x.dtype))
        for layer, next_norm in zip(self._layers, self._norms[1:], strict=True):
            layer(x, normed, row, column, next_norm, space)
        summary = self.student.norm(self._last(x, normed, T))
        embedding = summary if self._head is None else self._head(x, T, space)
        return embedding, self.student.readout(summary)


class _Space:
    """Tensors by name, which grow when they must and otherwise stay where they are."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """A float32 tensor, holding anything."""
        size = math.prod(shape)
        tensor = self._tensors.get(name)
        if tensor is None or len(tensor) < size:
            tensor = self._tensors[name] = torch.empty(size)
        return tensor[:size].view(shape)


class _AllTokens:
    """Any layer but the last."""

    def __init__(self, layer: Layer) -> None:
        attention = layer.attention
        self.key_width, self.biased = attention.key_width, attention.biased
        D = attention.project.in_features
        # (H, K, D) each; the scores are to come out scaled, as powers of 2.
        weight = attention.project.weight.detach()
        query, key, value, *bias = weight.view(-1, attention.heads, self.key_width, D)
        query = query * (LOG2_E / math.sqrt(self.key_width))
        if self.biased:  # the biases stand beside what they are added to
            query = torch.cat([query, bias[0] * LOG2_E], 1)
            key = torch.cat([key, bias[1]], 1)
        self.widths = [query.shape[1], key.shape[1], self.key_width]
        # By head, so that what it gives is ready for attention: (H, D, 3K or 5K).
        self.project = torch.cat([query, key, value], 1).transpose(1, 2).contiguous()
        self.out = _transposed(attention.out)
        self.no_bias = torch.zeros(D)
        self.feed_forward_norm = layer.feed_forward_norm
        up, down = cast(nn.Linear, layer.feed_forward[0]), cast(nn.Linear, layer.feed_forward[2])
        self.up, self.up_bias = _transposed(up), up.bias.detach()
        self.down, self.down_bias = _transposed(down), down.bias.detach()

    def __call__(
        self,
        x: Tensor,
        normed: Tensor,
        row: Tensor,
        column: Tensor,
        next_norm: nn.LayerNorm,
        space: _Space,
    ) -> None:
        """Change x (N, D) as the layer does, and `normed` from its own norm of x to the next layer's.

        `row` and `column` are the factors of the bias mask, (B, T, 1).
        """
        N, D = x.shape
        mixed = space("mixed", N, D)
        self.attend(normed, row, column, mixed, space)
        branch = torch.mm(mixed, self.out, out=space("branch", N, D))
        _add_and_norm(branch, self.no_bias, *_gain_and_shift(self.feed_forward_norm), x, normed)
        hidden = torch.mm(normed, self.up, out=space("wide", N, self.up.shape[1]))
        _gelu(self.up_bias, hidden)
        torch.mm(hidden, self.down, out=branch)
        _add_and_norm(branch, self.down_bias, *_gain_and_shift(next_norm), x, normed)

    def attend(self, normed: Tensor, row: Tensor, column: Tensor, mixed: Tensor, space: _Space) -> None:
        """Attention as in student.Attention: `mixed` (N, D) becomes what its `out` takes."""
        (N, D), (H, _, width), K = normed.shape, self.project.shape, self.key_width
        B, T, _ = row.shape
        projected = torch.bmm(normed.expand(H, N, D), self.project, out=space("wide", H, N, width))
        projected = projected.view(H, B, T, width)
        query, key, value = projected.split(self.widths, -1)
        if self.biased:
            query[..., K:] *= row
            key[..., K:] *= column
        scores, result = space("scores", H * B, T, T), space("result", H * B, T, K)
        torch.bmm(query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), out=scores)
        _softmax(scores.view(-1, T))
        torch.bmm(scores, value.flatten(0, 1), out=result)
        mixed.view(B, T, H, K).copy_(result.view(H, B, T, K).permute(1, 2, 0, 3))


class _LastLayer:
    """The last layer, of which only [V] is read.

    No keys and values are computed: its few queries are taken to the width of the tokens instead.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        attention = layer.attention
        weight = attention.project.weight.detach()[: 3 * attention.project.in_features]
        heads = weight.view(3, attention.heads, attention.key_width, -1)
        query, self.key, self.value = heads  # (H, K, D) each
        self.query = query.flatten(0, 1) / math.sqrt(attention.key_width)

    def __call__(self, x: Tensor, normed: Tensor, T: int) -> Tensor:
        """(B, D), [V] as it leaves the layer."""
        H, K, D = self.key.shape
        tokens = normed.view(-1, T, D)
        query = F.linear(tokens[:, 0], self.query).view(-1, H, K).transpose(0, 1)  # (H, B, K)
        query = (query @ self.key).transpose(0, 1)  # (B, H, D)
        shares = (query @ tokens.transpose(1, 2)).softmax(-1)  # (B, H, T)
        mixed = (shares @ tokens).transpose(0, 1) @ self.value.transpose(1, 2)  # (H, B, K)
        virtual = x.view(-1, T, D)[:, 0] + self.layer.attention.out(mixed.transpose(0, 1).flatten(1))
        return virtual + self.layer.feed_forward(self.layer.feed_forward_norm(virtual))


class _Head:
    """FingerprintHead."""

    def __init__(self, head: FingerprintHead) -> None:
        self.norm = head.norm
        self.token, self.token_bias = _transposed(head.token), head.token.bias.detach()
        self.molecule = head.molecule

    def __call__(self, x: Tensor, T: int, space: _Space) -> Tensor:
        """(B, E)."""
        normed = space("normed", *x.shape)
        _norm(x, *_gain_and_shift(self.norm), normed)
        hidden = torch.mm(normed, self.token, out=space("wide", len(x), self.token.shape[1]))
        _gelu(self.token_bias, hidden)
        return self.molecule(hidden.view(len(x) // T, T, -1).sum(1) / 16)


def _transposed(linear: nn.Linear) -> Tensor:
    return linear.weight.detach().T.contiguous()


def _gain_and_shift(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight.detach(), norm.bias.detach()


@_kernel
def _sum_of_entries(tokens, table, x):  # type: ignore[no-untyped-def]
    """x[i]: the sum of the rows of `table` that token i names."""
    for i in range(len(tokens)):
        row = x[i]
        row[:] = 0.0
        for entry in tokens[i]:
            if entry != NOTHING:
                named = table[index(entry)]
                for d in range(len(row)):
                    row[d] += named[d]


@_helper
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
        out[d] = (x[d] - mean) * scale * gain[d] + shift[d]


@_kernel
def _norm(x, gain, shift, out):  # type: ignore[no-untyped-def]
    """Layer norm of each row of x."""
    for i in range(len(x)):
        _norm_row(x[i], gain, shift, out[i])


@_kernel
def _add_and_norm(branch, bias, gain, shift, x, out):  # type: ignore[no-untyped-def]
    """Add a branch and its bias to x; `out` is the layer norm of that."""
    for i in range(len(x)):
        for d in range(x.shape[1]):
            x[i, d] += branch[i, d] + bias[d]
        _norm_row(x[i], gain, shift, out[i])


@_kernel
def _gelu(bias, x):  # type: ignore[no-untyped-def]
    """GELU of x + bias, in place."""
    for i in range(len(x)):
        for d in range(x.shape[1]):
            y = x[i, d] + bias[d]
            x[i, d] = np.float32(0.5) * y * (np.float32(1.0) + _erf(y * np.float32(math.sqrt(0.5))))


@_helper
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


@_helper
def _exp2(x):  # type: ignore[no-untyped-def]
    """2 to the power of x <= 0, to 2e-7 of it: a polynomial, its exponent raised by the whole part of x."""
    x = np.float32(-126.0) if x < np.float32(-126.0) else x
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    p = np.float32(0.0013276461530985773)
    p = p * f + np.float32(0.009675541251228797)
    p = p * f + np.float32(0.0555071330586156)
    p = p * f + np.float32(0.2402211972591194)
    p = p * f + np.float32(0.6931469670449435)
    p = p * f + np.float32(1.0000000716540458)
    return p * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@_kernel
def _softmax(scores):  # type: ignore[no-untyped-def]
    """Rows of powers of 2 to shares that add up to 1, in place."""
    for i in range(len(scores)):
        row = scores[i]
        largest = _largest(row)
        for j in range(len(row)):
            row[j] = _exp2(row[j] - largest)
        total = np.float32(0.0)
        for j in range(len(row)):
            total += row[j]
        scale = np.float32(1.0) / total
        for j in range(len(row)):
            row[j] *= scale


@_helper
def _largest(row):  # type: ignore[no-untyped-def]
    largest = row[0]
    for j in range(len(row)):
        largest = row[j] if row[j] > largest else largest
    return largest
