"""The teacher: Graphormer, a Transformer over the atoms of a molecular graph (Ying et al. 2021).

The structure enters as centrality (the degree of an atom, one of its features), as a bias of the attention by
shortest-path distance, and as another by the bonds along that path. A virtual node, first of the tokens,
is joined to every atom and holds the molecule.

Shapes: B molecules, N atoms of the largest of them, T = N + 1 tokens, D width, H heads, K = D / H, L layers.
"""

import math
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stkd_screen.teach.graphs import ATOM_FEATURES, BOND_FEATURES
from stkd_screen.teach.structure import DISTANCES, NO_BOND, PATH_BONDS, GraphBatch


@dataclass(frozen=True)
class GraphormerConfig:
    """Size of a teacher; saved beside its weights."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    dropout: float = 0.0
    targets: int = 3

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


PRESETS = {
    # The paper's teacher: 42.6M parameters in its layers.
    "base": GraphormerConfig(layers=12, width=768, heads=32, feed_forward=768, dropout=0.1),
    # For CPUs: 0.6M parameters.
    "slim": GraphormerConfig(layers=6, width=128, heads=8, feed_forward=128),
    # For tests and first tries.
    "tiny": GraphormerConfig(layers=3, width=32, heads=4, feed_forward=32),
}


@dataclass(frozen=True)
class Teaching:
    """All that a teacher says of B molecules."""

    prediction: Tensor  # (B, targets), standardised
    states: list[Tensor]  # L x (B, D): the virtual node as it leaves each layer
    attention: list[Tensor]  # L x (B, H, T, T), rows sum to 1; nothing where not asked for


class Attention(nn.Module):
    """Multi-head attention with an additive bias: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: GraphormerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.project = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, bias: Tensor, keep: list[Tensor] | None) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.project(x).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, K)
        if keep is None:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        else:
            weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias, dim=-1)
            keep.append(weights)
            mixed = F.dropout(weights, self.dropout, self.training) @ v
        return self.out(mixed.transpose(1, 2).reshape(B, T, D))


class Layer(nn.Module):
    """Pre-norm Transformer layer: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: GraphormerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward),
            nn.GELU(),
            nn.Linear(config.feed_forward, config.width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor, keep: list[Tensor] | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), bias, keep))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class StructureBias(nn.Module):
    """The spatial and edge encodings as one bias of the attention, the same in every layer.

    For atoms i and j at distance d, joined by the bonds e_1 ... e_d: a scalar a head for d, plus the mean
    over the first PATH_BONDS bonds of e_k W_k, e_k the embedding of the bond and W_k a matrix of its place.
    Since bonds have few values, e_k W_k is a table of (place, bond) -> heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.distance = nn.Parameter(torch.zeros(DISTANCES, heads))
        self.bond = nn.Parameter(torch.randn(BOND_FEATURES + 1, heads) * 0.1)
        self.place = nn.Parameter(torch.randn(PATH_BONDS, heads, heads) * heads**-0.5)
        self.virtual = nn.Parameter(torch.zeros(heads))

    def forward(self, batch: GraphBatch) -> Tensor:
        """(B, H, T, T), -inf in the columns of padding."""
        B, N = batch.distance.shape[:2]
        heads = len(self.virtual)
        distance = batch.distance.int()
        spatial = F.embedding(distance, self.distance)  # (B, N, N, H)
        places = torch.einsum("bh,khg->kbg", self.bond, self.place)  # (PATH_BONDS, bonds, H)
        offsets = torch.arange(PATH_BONDS, device=distance.device, dtype=torch.int32) * (BOND_FEATURES + 1)
        bonds = batch.path.int()
        weights = (bonds != NO_BOND).to(places.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        edge = F.embedding_bag(
            (bonds + offsets).view(-1, PATH_BONDS),
            places.reshape(-1, heads),
            mode="sum",
            per_sample_weights=weights.view(-1, PATH_BONDS),
        ).view(B, N, N, heads)
        bias = F.pad((spatial + edge).permute(0, 3, 1, 2), (1, 0, 1, 0))  # (B, H, T, T)
        to_virtual = torch.zeros(N + 1, N + 1, device=distance.device, dtype=bias.dtype)
        to_virtual[0, :] = to_virtual[:, 0] = 1
        bias = bias + self.virtual[:, None, None] * to_virtual
        padded = torch.arange(N + 1, device=distance.device) > batch.n_atoms[:, None]  # (B, T)
        return bias.masked_fill(padded[:, None, None, :], -math.inf)


class Graphormer(nn.Module):
    """Graphs of a batch of molecules in, standardised predictions out; and all that a student learns from."""

    def __init__(self, config: GraphormerConfig) -> None:
        super().__init__()
        self.config = config
        self.atoms = nn.Parameter(torch.empty(sum(ATOM_FEATURES.values()), config.width))
        self.virtual = nn.Parameter(torch.empty(config.width))
        self.bias = StructureBias(config.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.readout = nn.Linear(config.width, config.targets)
        first = torch.tensor([0, *ATOM_FEATURES.values()][:-1], device="cpu").cumsum(0)  # no weight to load
        self.register_buffer("first_entry", first.int(), persistent=False)
        if not self.atoms.is_meta:  # there it would load PyTorch's compiler, a second's work
            self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.atoms, std=len(ATOM_FEATURES) ** -0.5)  # that many are summed
        nn.init.normal_(self.virtual)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        # The residual stream grows with depth; each branch starts small.
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(("attention.out.weight", "feed_forward.2.weight")):
                    parameter.mul_(1.0 / math.sqrt(2 * len(self.layers)))
        nn.init.zeros_(self.readout.bias)

    def forward(self, batch: GraphBatch, with_attention: bool = False) -> Teaching:
        """Predict; with the states of the virtual node, and the attention of every layer where asked for."""
        B, N, features = batch.atom_features.shape
        entries = batch.atom_features.int() + cast(Tensor, self.first_entry)
        atoms = F.embedding_bag(entries.view(B * N, features), self.atoms, mode="sum").view(B, N, -1)
        x = torch.cat([self.virtual.expand(B, 1, -1), atoms], dim=1)  # (B, T, D)
        bias = self.bias(batch)
        states: list[Tensor] = []
        attention: list[Tensor] = []
        for layer in self.layers:
            x = layer(x, bias.to(x.dtype), attention if with_attention else None)
            states.append(x[:, 0])
        with torch.autocast(x.device.type, enabled=False):
            prediction = self.readout(self.norm(x[:, 0].to(self.norm.weight.dtype)))
        return Teaching(prediction, states, attention)
