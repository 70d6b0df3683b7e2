"""The student's forward pass on a CPU: BLAS for the products, one compiled loop for all between two of them.

It gives what `Student.forward` gives in evaluation mode, up to rounding. With layers so narrow PyTorch's own
operators spend half of the time outside of the products: on attention over some 25 tokens, on copies from
layout to layout, and on memory taken anew for each batch. Here each thread keeps its work space.

Shapes: B molecules, T tokens each, N = B * T, M >= N rows of a product, D width, H heads, K = D / H key
width, E embedding width.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stkd_screen.cpu.attention import QUERIES, attend
from stkd_screen.cpu.kernels import add_and_norm, gelu, norm, sum_of_entries
from stkd_screen.cpu.products import Product
from stkd_screen.cpu.space import Space
from stkd_screen.cpu.vectors import LANES
from stkd_screen.smiles.tokens import ENVIRONMENT_ENTRIES, NOTHING
from stkd_screen.student import FingerprintHead, Layer, Student

# oneDNN, which multiplies bfloat16 and int8, compiles a kernel for each shape and keeps a thousand of them:
# 400 MB. With rows in such multiples there are few shapes.
ROWS_OF_A_PRODUCT = {torch.float32: 1, torch.bfloat16: 64, torch.int8: 64}
LOG2_E = math.log2(math.e)


class CpuStudent:
    """A student in evaluation mode, called as it is, from several threads at once if need be.

    The student must not change afterwards: of some of its parameters this holds copies.

    Args:
        dtype: of the matrix products over all tokens: float32, bfloat16 or int8. What they read and give is
            bfloat16 if they are, else float32, as is everything else.
    """

    def __init__(self, student: Student, dtype: torch.dtype = torch.float32) -> None:
        self.student = student
        self._rows = ROWS_OF_A_PRODUCT[dtype]
        self._activations = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
        pair_bias = (
            torch.zeros(student.config.heads, 0)
            if student.pair_bias is None
            else student.pair_bias.detach().T
        )
        layers = [cast(Layer, layer) for layer in student.layers]
        self._layers = [_AllTokens(layer, pair_bias, dtype) for layer in layers[:-1]]
        self._last = _LastLayer(layers[-1], pair_bias)
        self._norms = [layer.attention_norm for layer in layers]  # each layer prepares the next one's input
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
        n_atoms = n_atoms.view(B)
        pairs = pairs.view(B, T, T) if self.student.config.surroundings else pairs[:0]
        N, D = B * T, self.student.config.width
        M = math.ceil(N / self._rows) * self._rows  # rows that products are computed of; the rest is noise
        x, normed = space("x", N, D), space("normed", M, D, dtype=self._activations)
        self._sum_of_entries(self.student.first_entries(tokens), x)
        norm(x, *_gain_and_shift(self._norms[0]), normed[:N])
        for layer, next_norm in zip(self._layers, self._norms[1:], strict=True):
            layer(x, normed, n_atoms, pairs, next_norm, space)
        summary = self.student.norm(self._last(x, normed[:N].float(), pairs, T))
        return self._embed(summary, x, normed, tokens, space), self.student.readout(summary)

    def _sum_of_entries(self, entries: Tensor, x: Tensor) -> None:
        """x (B * T, D) becomes the sum of the rows of the table that `entries` (B, T, entries) name."""
        sum_of_entries(entries.reshape(len(x), -1), NOTHING, self.student.table.detach(), x)

    def _embed(self, summary: Tensor, x: Tensor, normed: Tensor, tokens: Tensor, space: Space) -> Tensor:
        """As `Student.embed`; overwrites x and `normed`."""
        if self._head is None:
            return summary
        if self.student.config.late_environments:
            environments = space("environments", *x.shape)
            self._sum_of_entries(tokens[..., ENVIRONMENT_ENTRIES], environments)
            x += environments
        return self._head(x, normed, tokens.shape[1], space)


class _AllTokens:
    """Any layer but the last."""

    def __init__(self, layer: Layer, pair_bias: Tensor, dtype: torch.dtype) -> None:
        """Args: pair_bias is (H, PAIRS)."""
        attention = layer.attention
        self.pair_bias = _in_groups(pair_bias * LOG2_E).flatten(0, 1).contiguous()
        self.groups = math.ceil(attention.heads / LANES)
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
        self.no_bias = torch.zeros(D)
        self.feed_forward_norm = layer.feed_forward_norm
        up, down = cast(nn.Linear, layer.feed_forward[0]), cast(nn.Linear, layer.feed_forward[2])
        self.up, self.up_bias = _product(up, dtype), up.bias.detach()
        self.down, self.down_bias = _product(down, dtype), down.bias.detach()

    def __call__(
        self,
        x: Tensor,
        normed: Tensor,
        n_atoms: Tensor,
        pairs: Tensor,
        next_norm: nn.LayerNorm,
        space: Space,
    ) -> None:
        """Change x (N, D) as the layer does, and `normed` from its own norm of x to the next layer's.

        `normed` has M >= N rows.
        """
        N = len(x)
        mixed = self.attend(N, normed, n_atoms, pairs, space)
        branch = self.out(mixed, N, space, "branch")
        add_and_norm(branch[:N], self.no_bias, *_gain_and_shift(self.feed_forward_norm), x, normed[:N])
        hidden = self.up(normed, N, space, "wide")
        gelu(self.up_bias, hidden[:N])
        branch = self.down(hidden, N, space, "branch")
        add_and_norm(branch[:N], self.down_bias, *_gain_and_shift(next_norm), x, normed[:N])

    def attend(self, N: int, normed: Tensor, n_atoms: Tensor, pairs: Tensor, space: Space) -> Tensor:
        """Attention as in student.Attention, up to what its `out` takes: (M, groups of K)."""
        M, T = len(normed), N // len(n_atoms)
        projected = self.project(normed, N, space, "wide")
        scores = space("scores", T * QUERIES, LANES)
        mixed = space("mixed", M, self.out.inputs, dtype=normed.dtype)
        attend(n_atoms, pairs, self.pair_bias, self.groups, projected[:N], scores, mixed[:N])
        return mixed


class _LastLayer:
    """The last layer, of which only [V] is read.

    No keys and values are computed: its few queries are taken to the width of the tokens instead.
    """

    def __init__(self, layer: Layer, pair_bias: Tensor) -> None:
        """Args: pair_bias is (H, PAIRS)."""
        self.layer, self.pair_bias = layer, pair_bias
        attention = layer.attention
        weight = attention.project.weight.detach()[: 3 * attention.project.in_features]
        heads = weight.view(3, attention.heads, attention.key_width, -1)
        query, self.key, self.value = heads  # (H, K, D) each
        self.query = query.flatten(0, 1) / math.sqrt(attention.key_width)

    def __call__(self, x: Tensor, normed: Tensor, pairs: Tensor, T: int) -> Tensor:
        """(B, D), [V] as it leaves the layer."""
        H, K, D = self.key.shape
        tokens = normed.view(-1, T, D)
        query = F.linear(tokens[:, 0], self.query).view(-1, H, K).transpose(0, 1)  # (H, B, K)
        query = (query @ self.key).transpose(0, 1)  # (B, H, D)
        scores = query @ tokens.transpose(1, 2)  # (B, H, T)
        if len(pairs):
            scores += self.pair_bias[:, pairs[0, 0].int()]  # [V] has the same pairs in all of a batch
        shares = scores.softmax(-1)
        mixed = (shares @ tokens).transpose(0, 1) @ self.value.transpose(1, 2)  # (H, B, K)
        virtual = x.view(-1, T, D)[:, 0] + self.layer.attention.out(mixed.transpose(0, 1).flatten(1))
        return virtual + self.layer.feed_forward(self.layer.feed_forward_norm(virtual))


class _Head:
    """FingerprintHead."""

    def __init__(self, head: FingerprintHead, dtype: torch.dtype) -> None:
        self.norm = head.norm
        self.token, self.token_bias = _product(head.token, dtype), head.token.bias.detach()
        self.molecule = head.molecule

    def __call__(self, x: Tensor, normed: Tensor, T: int, space: Space) -> Tensor:
        """(B, E); `normed`, with M >= N rows, becomes the head's own norm of x."""
        N = len(x)
        norm(x, *_gain_and_shift(self.norm), normed[:N])
        hidden = self.token(normed, N, space, "wide")[:N]
        gelu(self.token_bias, hidden)
        return self.molecule(hidden.view(N // T, T, -1).sum(1, dtype=torch.float32) / 16)


def _in_groups(heads: Tensor) -> Tensor:
    """(H, W, ...) as (groups, W, LANES, ...), with zeros for the heads that the last group lacks."""
    groups = math.ceil(len(heads) / LANES)
    lacking = heads.new_zeros(groups * LANES - len(heads), *heads.shape[1:])
    return torch.cat([heads, lacking]).view(groups, LANES, *heads.shape[1:]).transpose(1, 2)


def _product(linear: nn.Linear, dtype: torch.dtype) -> Product:
    return Product(linear.weight.detach().T.contiguous(), dtype)


def _gain_and_shift(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight.detach(), norm.bias.detach()
