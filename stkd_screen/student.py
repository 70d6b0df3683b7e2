"""The student: a SMILES Transformer that needs no molecular graph (ST-KD, section 3.3).

Standard Transformer layers followed by biased ones, over tokens ([V], n atoms, m bonds; or [V] and the atoms
alone, with their surroundings and a bias for what lies between each two of them). Molecules of one batch all
have the same number of tokens T, so there is no padding and no padding mask; how many of the T tokens are
atoms differs from molecule to molecule.

Shapes: B molecules, T tokens, D width, H heads, K = D / H key width.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stkd_screen.smiles.pairs import PAIRS
from stkd_screen.smiles.tokens import (
    ENTRIES_PER_TOKEN,
    ENTRIES_PER_TOKEN_SURROUNDED,
    ENVIRONMENT_1,
    ENVIRONMENT_ENTRIES,
    NOTHING,
    VOCABULARY_SIZE,
    VOCABULARY_SIZE_SURROUNDED,
)


@dataclass(frozen=True)
class StudentConfig:
    """Size of a student; saved beside its weights."""

    width: int  # D
    heads: int
    feed_forward: int
    standard_layers: int = 3
    biased_layers: int = 3
    dropout: float = 0.0
    targets: int = 3  # predicted numbers a molecule
    # Beyond the paper:
    surroundings: bool = False  # atom tokens alone, with their surroundings and pairs (smiles/tokens.py)
    fingerprint: int = 0  # E, width of an embedding taught by ECFP4; 0: the embedding is the state of [V]
    # Environments are for that embedding alone: made from them too, QM9's energies are learned by heart
    # (docs/log.md).
    late_environments: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.late_environments and not self.surroundings:
            raise ValueError("late_environments without surroundings: there are no environments")

    @property
    def embedding_width(self) -> int:
        """Width of the embedding of a molecule."""
        return self.fingerprint or self.width

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


PRESETS = {
    # Table 6 of the paper.
    "paper": StudentConfig(width=512, heads=16, feed_forward=2048, dropout=0.1),
    # The same with what is better than the paper: 27M parameters, 5M more of them in the table.
    "large": StudentConfig(
        width=512,
        heads=16,
        feed_forward=2048,
        dropout=0.1,
        surroundings=True,
        fingerprint=512,
        late_environments=True,
    ),
    # Between `small` and `large`: 5.1M parameters in its layers, 8.1M with its table.
    "medium": StudentConfig(
        width=256, heads=16, feed_forward=1024, surroundings=True, fingerprint=256, late_environments=True
    ),
    # For CPUs: 1.3M parameters in its layers, 2.8M with its table; without dropout, which only slows a
    # student that still underfits.
    "small": StudentConfig(
        width=128, heads=8, feed_forward=512, surroundings=True, fingerprint=256, late_environments=True
    ),
    # For experiments: 0.4M parameters, the paper's number of layers and the paper's tokens.
    "mini": StudentConfig(width=64, heads=4, feed_forward=256),
    # For tests and first tries: seconds to train, no use for chemistry.
    "tiny": StudentConfig(width=32, heads=2, feed_forward=64, standard_layers=1, biased_layers=1),
}


class Attention(nn.Module):
    """Multi-head attention, standard (eq. 1-3) or biased (eq. 9-13).

    The bias mask of eq. 13 is an outer product, (row is an atom) x (column is an atom or [V]), so the
    biased form is plain attention with keys twice as wide:

        softmax(Q K^T / sqrt(K) + M * (Qb Kb^T)) V = softmax(Q' K'^T / sqrt(K)) V
        Q' = [Q, sqrt(K) * Qb * row],  K' = [K, Kb * column]

    and no T x T bias is ever stored; V is padded to the width of the keys, which the fused kernels ask for.
    All projections of the input are one matrix product.
    """

    def __init__(self, config: StudentConfig, biased: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.key_width = config.width // config.heads  # K
        self.biased = biased
        self.dropout = config.dropout
        # Rows: Q, K, V and, where biased, Qb, Kb.
        self.project = nn.Linear(config.width, (5 if biased else 3) * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, row: Tensor, column: Tensor, pair_bias: Tensor | None = None) -> Tensor:
        """Args: see `bias_mask_factors` and `Student.bias_between`."""
        B, T, D = x.shape
        projected = self.project(x).view(B, T, -1, self.heads, self.key_width)
        q, k, v, *bias = projected.permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        scale = 1.0 / math.sqrt(self.key_width)
        if self.biased:
            q_bias, k_bias = bias
            q = torch.cat([q, q_bias * (row / scale)], dim=-1)  # (B, H, T, 2K)
            k = torch.cat([k, k_bias * column], dim=-1)
            v = F.pad(v, (0, self.key_width))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, pair_bias, dropout, scale=scale)
        mixed = mixed[..., : self.key_width]
        return self.out(mixed.transpose(1, 2).reshape(B, T, D))

    def virtual(self, x: Tensor, pair_bias: Tensor | None = None) -> Tensor:
        """The first row of `forward`, for [V] alone: (B, T, D) -> (B, 1, D).

        Its row of the bias mask is zero, so no bias enters but that of pairs.
        """
        B, T, D = x.shape
        q = F.linear(x[:, :1], self.project.weight[:D]).view(B, 1, self.heads, -1).transpose(1, 2)
        k, v = (
            F.linear(x, self.project.weight[D : 3 * D]).view(B, T, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        dropout = self.dropout if self.training else 0.0
        of_virtual = None if pair_bias is None else pair_bias[:, :, :1]
        mixed = F.scaled_dot_product_attention(q, k, v, of_virtual, dropout)
        return self.out(mixed.transpose(1, 2).reshape(B, 1, D))

    def bias(self, x: Tensor) -> Tensor:
        """The attention bias B of eq. 9, unmasked, for distillation: (B, T, D) -> (B, H, T, T)."""
        B, T, D = x.shape
        q_weight, k_weight = self.project.weight[3 * D :].chunk(2)
        q_bias, k_bias = (
            F.linear(x, weight).view(B, T, self.heads, -1).transpose(1, 2) for weight in (q_weight, k_weight)
        )
        return q_bias @ k_bias.transpose(-1, -2)


class Layer(nn.Module):
    """Pre-norm Transformer layer: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: StudentConfig, biased: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config, biased)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward),
            nn.GELU(),
            nn.Linear(config.feed_forward, config.width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, row: Tensor, column: Tensor, pair_bias: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), row, column, pair_bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def virtual(self, x: Tensor, pair_bias: Tensor | None = None) -> Tensor:
        """What `forward` gives for [V], at a fraction of the cost: (B, T, D) -> (B, 1, D)."""
        virtual = x[:, :1] + self.dropout(self.attention.virtual(self.attention_norm(x), pair_bias))
        return virtual + self.dropout(self.feed_forward(self.feed_forward_norm(virtual)))


class FingerprintHead(nn.Module):
    """The embedding that ECFP4 teaches, from the states of all tokens: (B, T, D) -> (B, E).

    A fingerprint counts the surroundings of each atom, so this is a sum over tokens, not the state of [V].
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.token = nn.Linear(config.width, config.fingerprint)
        self.molecule = nn.Linear(config.fingerprint, config.fingerprint)

    def forward(self, x: Tensor) -> Tensor:
        # Divided by some number of tokens, so that what is summed stays near unit size; not by their own
        # number, for a larger molecule has more to add.
        return self.molecule(F.gelu(self.token(self.norm(x))).sum(1) / 16)


class Student(nn.Module):
    """Tokens of a batch of molecules in, embeddings and standardised predictions out."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.entries = ENTRIES_PER_TOKEN_SURROUNDED if config.surroundings else ENTRIES_PER_TOKEN
        vocabulary = VOCABULARY_SIZE_SURROUNDED if config.surroundings else VOCABULARY_SIZE
        self.table = nn.Parameter(torch.empty(vocabulary, config.width))
        self.pair_bias = nn.Parameter(torch.zeros(PAIRS, config.heads)) if config.surroundings else None
        biased = [False] * config.standard_layers + [True] * config.biased_layers
        self.layers = nn.ModuleList(Layer(config, b) for b in biased)
        self.norm = nn.LayerNorm(config.width)
        self.readout = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.targets)
        )
        self.fingerprint = FingerprintHead(config) if config.fingerprint else None
        if not self.table.is_meta:  # there it would load PyTorch's compiler, a second's work
            self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.table, std=0.5)  # four to ten of them are summed: about unit variance a token
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2 and name != "table":
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        # The residual stream grows with depth; each branch starts small.
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(("attention.out.weight", "feed_forward.2.weight")):
                    parameter.mul_(1.0 / math.sqrt(2 * len(self.layers)))
            # Eq. 10 does not scale the biases; they start as large as the scaled products beside them.
            for layer in cast(list[Layer], self.layers):
                if layer.attention.biased:
                    layer.attention.project.weight[3 * self.config.width :].mul_(
                        layer.attention.key_width**-0.25
                    )
            self.table[NOTHING] = 0.0
            self.table[ENVIRONMENT_1:] = 0.0  # a hash that no training molecule had then says nothing
            if self.fingerprint is not None:
                self.fingerprint.molecule.weight.zero_()

    def forward(
        self,
        tokens: Tensor,
        n_atoms: Tensor,
        pairs: Tensor | None = None,
        learned: "Learned | None" = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed and predict.

        Args:
            tokens: (B, T, 4 or, with surroundings, 12) integer vocabulary entries of each token, as `lay_out`
                gives them.
            n_atoms: (B,) number of atoms of each molecule; its tokens are [V], then these, then bonds.
            pairs: (B, T, T) uint8, with surroundings: what lies between tokens (smiles/pairs.py).
            learned: filled with what distillation compares with the teacher.

        Returns:
            embedding (B, E), by the fingerprint head, or (B, D), the final state of [V], where there is none;
            and prediction (B, targets), standardised.
        """
        pair_bias = self.bias_between(pairs)
        x = self.before_the_last_layer(tokens, n_atoms, pair_bias, learned)
        # Only [V] is read, so the last layer computes nothing else.
        last = cast(Layer, self.layers[-1])
        state = last.virtual(x, pair_bias)[:, 0]
        if learned is not None:
            learned.add_bias(last, x)
            learned.states.append(state)
        # Under bfloat16 autocast the readout stays in float32: it costs nothing and would round to 5 meV.
        with torch.autocast(x.device.type, enabled=False):
            summary = self.norm(state.to(self.norm.weight.dtype))
            return self.embed(summary, x.to(summary.dtype), tokens), self.readout(summary)

    def before_the_last_layer(
        self,
        tokens: Tensor,
        n_atoms: Tensor,
        pair_bias: Tensor | None,
        learned: "Learned | None" = None,
    ) -> Tensor:
        """What the last layer reads, (B, T, D); see `forward`, and for `pair_bias` `bias_between`."""
        row, column = bias_mask_factors(n_atoms, tokens.shape[1], self.table.dtype)
        x = self.sum_of_entries(self.first_entries(tokens))
        for layer in cast(list[Layer], self.layers[:-1]):
            if learned is not None:
                learned.add_bias(layer, x)
            x = layer(x, row, column, pair_bias)
            if learned is not None:
                learned.states.append(x[:, 0])
        return x

    def first_entries(self, tokens: Tensor) -> Tensor:
        """(B, T, entries) those that the first layer sees."""
        if not self.config.late_environments:
            return tokens
        before, after = ENVIRONMENT_ENTRIES.start, ENVIRONMENT_ENTRIES.stop
        return torch.cat([tokens[..., :before], tokens[..., after:]], dim=-1)

    def sum_of_entries(self, entries: Tensor) -> Tensor:
        """(B, T, entries) -> (B, T, D), the sum of their rows of the table."""
        flat = entries.reshape(-1, entries.shape[-1]).int()
        rows = F.embedding_bag(flat, self.table, mode="sum", padding_idx=NOTHING)
        return rows.view(*entries.shape[:2], -1)

    def embed(self, summary: Tensor, x: Tensor, tokens: Tensor) -> Tensor:
        """The embedding (B, E), or (B, D) without a fingerprint head.

        Args:
            summary: (B, D) the final state of [V].
            x: (B, T, D) what the last layer read.
            tokens: as `forward` takes them.
        """
        if self.fingerprint is None:
            return summary
        if self.config.late_environments:
            x = x + self.sum_of_entries(tokens[..., ENVIRONMENT_ENTRIES])
        return self.fingerprint(x)

    def bias_between(self, pairs: Tensor | None) -> Tensor | None:
        """What is added to the scores of attention in every layer; None for a student without surroundings.

        Args:
            pairs: (B, T, T) codes.

        Returns:
            (B, H, T, T), row i, column j for the way from token i to token j.
        """
        if self.pair_bias is None:
            return None
        table: Tensor = self.pair_bias
        device = table.device.type
        if torch.is_autocast_enabled(device):  # else each layer would cast all of the bias
            table = table.to(torch.get_autocast_dtype(device))
        assert pairs is not None, "a student with surroundings reads pairs"
        return F.embedding(pairs.int(), table).permute(0, 3, 1, 2).contiguous()


@dataclass
class Learned:
    """What a student has in common with its teacher, collected layer by layer."""

    # Of the largest molecule of the batch: the biases are cut to [V] and that many tokens. None: no biases.
    atoms: int | None = None
    states: list[Tensor] = field(default_factory=list)  # layers x (B, D): [V] as it leaves each layer
    biases: list[Tensor | None] = field(default_factory=list)  # layers x (B, H, 1 + atoms, 1 + atoms)

    def add_bias(self, layer: Layer, x: Tensor) -> None:
        if self.atoms is None:
            return
        corner = x[:, : 1 + self.atoms]
        attention = layer.attention
        self.biases.append(attention.bias(layer.attention_norm(corner)) if attention.biased else None)

    def bias(self, layer: int) -> Tensor:
        """(B, H, 1 + atoms, 1 + atoms), unmasked (eq. 9), of a biased layer."""
        bias = self.biases[layer]
        assert bias is not None, f"layer {layer} is a standard one"
        return bias


def bias_mask_factors(n_atoms: Tensor, T: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two factors of the bias mask of eq. 13, M = row x column^T, each (B, 1, T, 1)."""
    token = torch.arange(T, device=n_atoms.device)
    column = token <= n_atoms[:, None]
    row = column & (token > 0)
    return row.to(dtype)[:, None, :, None], column.to(dtype)[:, None, :, None]
