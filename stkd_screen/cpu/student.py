"""The student's forward pass on a CPU: BLAS for the products, one compiled loop for all between two of them.

It gives what `Student.forward` gives in evaluation mode, up to rounding. With layers so narrow PyTorch's own
operators spend half of the time outside of the products: on attention over some 25 tokens, on copies from
layout to layout, and on memory taken anew for each batch. Here each thread keeps its work space.

Shapes: B molecules, T tokens each, N = B * T, D width, H heads, K = D / H key width, E embedding width.
"""

import math
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stkd_screen.cpu.attention import QUERIES, attend
from stkd_screen.cpu.kernels import BLOCK, add_and_norm, add_entries, attend_virtual, gelu, norm, sum_of_gelu
from stkd_screen.cpu.products import Product
from stkd_screen.cpu.space import Matrix, Space
from stkd_screen.cpu.vectors import EIGHT, LANES
from stkd_screen.smiles.tokens import ENVIRONMENT_ENTRIES, NOTHING
from stkd_screen.student import FingerprintHead, Layer, Student

LOG2_E = math.log2(math.e)


class CpuStudent:
    """A student in evaluation mode, called as it is, from several threads at once if need be.

    The student must not change afterwards: of some of its parameters this holds copies.

    Args:
        dtype: of the matrix products over all tokens, and of [V]'s last feed-forward: float32, bfloat16 or
            int8. Everything else is float32.
    """

    def __init__(self, student: Student, dtype: torch.dtype = torch.float32) -> None:
        self.student, self.dtype = student, dtype
        self._table = student.table.detach().numpy()
        pair_bias = (
            torch.zeros(student.config.heads, 0)
            if student.pair_bias is None
            else student.pair_bias.detach().T.contiguous()
        )
        layers = [cast(Layer, layer) for layer in student.layers]
        self._first_norm = _Norm.of(layers[0].attention_norm)
        self._layers = [
            _AllTokens(layer, pair_bias, _Norm.of(next_layer.attention_norm), dtype)
            for layer, next_layer in pairwise(layers)
        ]
        self._last = _LastLayer(layers[-1], pair_bias, _Norm.of(student.norm), dtype)
        self._head = student.fingerprint and _Head(student.fingerprint, dtype)
        self._spaces: list[Space] = []  # those that no thread is using

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, n_atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """As `Student.forward`; the results are the caller's to keep."""
        try:
            space = self._spaces.pop()
        except IndexError:
            space = Space()
        try:
            return self._forward(tokens, n_atoms, pairs, space)
        finally:
            self._spaces.append(space)

    def _forward(self, tokens: Tensor, n_atoms: Tensor, pairs: Tensor, space: Space) -> tuple[Tensor, Tensor]:
        B, T, _ = tokens.shape
        N, D = B * T, self.student.config.width
        atoms = n_atoms.view(B).numpy()
        codes = (pairs.view(B, T, T) if self.student.config.surroundings else pairs[:0]).numpy()
        entries = tokens.reshape(N, -1).numpy()
        x = space.array("x", N, D)
        x.fill(0)
        normed = space.matrix("normed", N, D, self.dtype)
        last_normed = space.matrix("last normed", N, D, torch.float32)
        for first, last in self._first_entries(entries):
            add_entries(entries, first, last, NOTHING, self._table, x)
        into = [*[normed] * len(self._layers), last_normed]
        norm(x, *self._first_norm, *_target(into[0], space))
        for layer, out in zip(self._layers, into[1:], strict=True):
            layer(x, normed, atoms, codes, out, space)
        summary = self._last(x, last_normed.tensor.view(B, T, D), codes, space)
        return self._embed(summary, x, normed, entries, space), self.student.readout(summary)

    def _first_entries(self, entries: np.ndarray) -> list[tuple[int, int]]:
        """First and last of those that the first layer sees, as `Student.first_entries`."""
        if not self.student.config.late_environments:
            return [(0, entries.shape[1])]
        return [(0, ENVIRONMENT_ENTRIES.start), (ENVIRONMENT_ENTRIES.stop, entries.shape[1])]

    def _embed(
        self, summary: Tensor, x: np.ndarray, normed: Matrix, entries: np.ndarray, space: Space
    ) -> Tensor:
        """As `Student.embed`; overwrites x and `normed`."""
        if self._head is None:
            return summary
        if self.student.config.late_environments:
            add_entries(entries, ENVIRONMENT_ENTRIES.start, ENVIRONMENT_ENTRIES.stop, NOTHING, self._table, x)
        return self._head(x, normed, len(summary), space)


class _Norm(NamedTuple):
    """The parameters of a layer norm, (D,) each."""

    gain: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> "_Norm":
        return cls(norm.weight.detach().numpy(), norm.bias.detach().numpy())


class _Linear:
    """A product with a bias, which the loop after it adds."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        self.product = Product(linear.weight.detach().T.contiguous(), dtype)
        self.bias = linear.bias.detach().numpy()


class _FeedForward:
    """The second half of a layer, up to the norm that follows."""

    def __init__(self, layer: Layer, next_norm: _Norm, dtype: torch.dtype) -> None:
        up, _, down = layer.feed_forward
        self.up, self.down = _Linear(cast(nn.Linear, up), dtype), _Linear(cast(nn.Linear, down), dtype)
        self.next_norm = next_norm

    def __call__(self, x: np.ndarray, normed: Matrix, out: Matrix, space: Space) -> None:
        """Changes x (N, D), whose norm is `normed`, and makes `out` the next norm of it."""
        wide = self.up.product(normed, space, "wide")
        # What is of the same format takes the place of the product, so that less has to stay in the cache.
        name = "rounded" if self.up.product.dtype == torch.int8 else "wide"
        hidden = space.matrix(name, len(x), self.up.product.outputs, self.up.product.dtype)
        gelu(*wide, self.up.bias, *_target(hidden, space))
        branch = self.down.product(hidden, space, "branch")
        add_and_norm(*branch, self.down.bias, x, *self.next_norm, *_target(out, space))


class _AllTokens:
    """Any layer but the last."""

    def __init__(self, layer: Layer, pair_bias: Tensor, next_norm: _Norm, dtype: torch.dtype) -> None:
        """Args: pair_bias is (H, PAIRS)."""
        attention = layer.attention
        self.pair_bias = _in_groups(pair_bias * LOG2_E).flatten(0, 1).contiguous().numpy()
        self.groups = math.ceil(attention.heads / EIGHT)
        D = attention.project.in_features
        # (H, K, D) each; the scores are to come out scaled, as exponents of 2.
        weight = attention.project.weight.detach()
        query, key, value, *bias = weight.view(-1, attention.heads, attention.key_width, D)
        query = query * (LOG2_E / math.sqrt(attention.key_width))
        if attention.biased:  # the biases stand beside what they are added to
            query = torch.cat([query, bias[0] * LOG2_E], 1)
            key = torch.cat([key, bias[1]], 1)
        project = _in_groups(torch.cat([query, key, value], 1))
        self.project = Product(project.flatten(0, 2).T.contiguous(), dtype)
        out = attention.out.weight.detach().T.view(attention.heads, attention.key_width, D)
        self.out = Product(_in_groups(out).flatten(0, 2).contiguous(), dtype)
        self.no_bias = np.zeros(D, np.float32)
        self.feed_forward_norm = _Norm.of(layer.feed_forward_norm)
        self.feed_forward = _FeedForward(layer, next_norm, dtype)

    def __call__(
        self,
        x: np.ndarray,
        normed: Matrix,
        atoms: np.ndarray,
        codes: np.ndarray,
        out: Matrix,
        space: Space,
    ) -> None:
        """Changes x (N, D) and its norm `normed`; the norm of the next layer becomes `out`.

        Args:
            atoms: (B,) numbers of atoms.
            codes: (B, T, T) of pairs; (0, ...) where there are none.
        """
        branch = self.out(self.attend(normed, atoms, codes, space), space, "branch")
        add_and_norm(*branch, self.no_bias, x, *self.feed_forward_norm, *_target(normed, space))
        self.feed_forward(x, normed, out, space)

    def attend(self, normed: Matrix, atoms: np.ndarray, codes: np.ndarray, space: Space) -> Matrix:
        """Attention as in student.Attention, up to what its `out` takes."""
        N, K = len(normed.array), self.out.inputs
        T = N // len(atoms)
        projected = self.project(normed, space, "wide")
        tokens = space.array("tokens", T, self.project.outputs)
        scores = space.array("scores", T * QUERIES, LANES)
        of_molecule = space.array("mixed of a molecule", T, K)
        mixed = space.matrix("mixed", N, K, self.out.dtype)
        attend(
            atoms, codes, self.pair_bias, self.groups, *projected,
            tokens, scores, of_molecule, mixed.array, mixed.steps,
        )  # fmt: skip
        return mixed


class _LastLayer:
    """The last layer, of which only [V] is read.

    No keys and values are computed: its few queries are taken to the width of the tokens instead.
    """

    def __init__(self, layer: Layer, pair_bias: Tensor, next_norm: _Norm, dtype: torch.dtype) -> None:
        """Args: pair_bias is (H, PAIRS)."""
        self.pair_bias = pair_bias.numpy()
        attention = layer.attention
        self.out = attention.out
        weight = attention.project.weight.detach()[: 3 * attention.project.in_features]
        heads = weight.view(3, attention.heads, attention.key_width, -1)
        query, self.key, self.value = heads  # (H, K, D) each
        self.query = query.flatten(0, 1) / math.sqrt(attention.key_width)
        self.feed_forward_norm = _Norm.of(layer.feed_forward_norm)
        self.feed_forward = _FeedForward(layer, next_norm, dtype)

    def __call__(self, x: np.ndarray, tokens: Tensor, codes: np.ndarray, space: Space) -> Tensor:
        """(B, D), the norm of [V] as it leaves the layer; `tokens` (B, T, D) are the norm of x."""
        H, K, D = self.key.shape
        B, T, _ = tokens.shape
        query = F.linear(tokens[:, 0], self.query).view(B, H, K).transpose(0, 1) @ self.key  # (H, B, D)
        scores, seen = space.array("scores of [V]", T), space.array("seen by [V]", H, B, D)
        of_virtual = codes[0, 0] if len(codes) else np.empty(0, np.uint8)  # [V] has the same in all molecules
        attend_virtual(query.numpy(), tokens.numpy(), self.pair_bias, of_virtual, scores, seen)
        mixed = torch.from_numpy(seen) @ self.value.transpose(1, 2)  # (H, B, K)
        virtual = (
            torch.from_numpy(x).view(B, T, D)[:, 0] + self.out(mixed.transpose(0, 1).flatten(1))
        ).numpy()
        normed = space.matrix("normed [V]", B, D, self.feed_forward.up.product.dtype)
        norm(virtual, *self.feed_forward_norm, *_target(normed, space))
        state = torch.empty(B, D)
        self.feed_forward(virtual, normed, Matrix(state.numpy(), normed.steps[:0], state), space)
        return state


class _Head:
    """FingerprintHead."""

    def __init__(self, head: FingerprintHead, dtype: torch.dtype) -> None:
        self.norm, self.token, self.molecule = _Norm.of(head.norm), _Linear(head.token, dtype), head.molecule

    def __call__(self, x: np.ndarray, normed: Matrix, B: int, space: Space) -> Tensor:
        """(B, E); `normed` becomes the head's own norm of x."""
        norm(x, *self.norm, *_target(normed, space))
        sums = torch.empty(B, self.token.product.outputs)
        sum_of_gelu(*self.token.product(normed, space, "wide"), self.token.bias, len(x) // B, sums.numpy())
        return self.molecule(sums / 16)


def _target(matrix: Matrix, space: Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a loop that makes a matrix takes: work space for some rows of it, it, and its steps."""
    return space.array("rows", BLOCK, matrix.array.shape[1]), matrix.array, matrix.steps


def _in_groups(heads: Tensor) -> Tensor:
    """(H, W, ...) as (groups, W, 8, ...), with zeros for the heads that the last group lacks."""
    groups = math.ceil(len(heads) / EIGHT)
    lacking = heads.new_zeros(groups * EIGHT - len(heads), *heads.shape[1:])
    return torch.cat([heads, lacking]).view(groups, EIGHT, *heads.shape[1:]).transpose(1, 2)
