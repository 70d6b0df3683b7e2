"""The models that stand beside the student in the paper's table 1: ST-BASE, MLP-ECFP, GCN and GIN.

Each takes a batch of B molecules and gives (B, targets) standardised predictions; where a list is handed in
as `states`, it is filled with one (B, D) embedding of the molecules a layer, for knowledge mixing.

Shapes: B molecules, N atoms and M bonds of all of them together, D width, T tokens.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from torch import Tensor, nn

from stkd_screen.errors import StkdError
from stkd_screen.smiles import Molecules
from stkd_screen.student import Layer, StudentConfig
from stkd_screen.teach.graphs import ATOM_FEATURES, BOND_FEATURES, Graphs


@dataclass(frozen=True)
class Size:
    """Size of a graph network or of an MLP."""

    layers: int
    width: int
    dropout: float = 0.0


# `paper`: OGB's baselines for PCQM4M (Hu et al. 2021), which the paper cites: GCN 2.0M, GCN-VN 4.9M, GIN 3.8M
# and GIN-VN 6.7M parameters as in its table 1, MLP-ECFP 16.1M as OGB has it where the paper says 15.8M.
# `small`: for CPUs, to stand beside the student of that name. `tiny`: for tests.
# ST-BASE has the sizes of the student (`student.PRESETS`): `paper` is 19.2M, the paper says 19.1M.
GRAPH_PRESETS = {"paper": Size(5, 600), "small": Size(5, 256), "tiny": Size(3, 32)}
MLP_PRESETS = {"paper": Size(6, 1600, 0.2), "small": Size(3, 512, 0.2), "tiny": Size(2, 32)}


# ST-BASE

UNKNOWN, VIRTUAL = 0, 1  # token codes; those of the vocabulary follow


def smiles_tokens(smiles: str) -> list[str]:
    """The tokens of a SMILES: a bracket atom, Br, Cl and a ring number of two digits are one each."""
    tokens, start = [], 0
    while start < len(smiles):
        if smiles[start] == "[":
            end = smiles.index("]", start) + 1
        elif smiles.startswith("%(", start):
            end = smiles.index(")", start) + 1
        elif smiles[start] == "%":
            end = start + 3
        elif smiles.startswith(("Br", "Cl"), start):
            end = start + 2
        else:
            end = start + 1
        tokens.append(smiles[start:end])
        start = end
    return tokens


def token_codes(tokens: list[str], code: dict[str, int]) -> list[int]:
    """[V] and the codes of the tokens."""
    return [VIRTUAL, *(code.get(token, UNKNOWN) for token in tokens)]


def code_of_each(tokens: Iterable[str]) -> dict[str, int]:
    """The code of each different token, in their order; [unknown] and [V] come first."""
    return {token: k for k, token in enumerate(["[unknown]", "[V]", *sorted(set(tokens))])}


class SmilesTransformer(nn.Module):
    """ST-BASE: a Transformer over the tokens of the SMILES as it is written (ST-KD, section 4.1).

    The student without its pre-transformation and its biases: the same layers, all of them standard, the same
    readout of [V], sinusoidal positions (Vaswani et al. 2017).

    Args:
        config: that of the student beside which it stands.
        vocabulary: different tokens, [V] and the unknown one among them.
    """

    def __init__(self, config: StudentConfig, vocabulary: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, config.width)
        layers = config.standard_layers + config.biased_layers
        self.layers = nn.ModuleList(Layer(config, biased=False) for _ in range(layers))
        self.norm = nn.LayerNorm(config.width)
        self.readout = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.targets)
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # As in the student: the residual stream grows with depth, so each branch starts small.
        with torch.no_grad():
            for name, parameter in self.layers.named_parameters():
                if name.endswith(("attention.out.weight", "feed_forward.2.weight")):
                    parameter.mul_(1.0 / math.sqrt(2 * len(self.layers)))
            self.table.weight[UNKNOWN] = 0.0

    def forward(self, tokens: Tensor, states: list[Tensor] | None = None) -> Tensor:
        """Predict from tokens (B, T), [V] first; all molecules of a batch have T tokens."""
        x = self.table(tokens.int())  # (B, T, D)
        x = x + sinusoids(x.shape[1], x.shape[2], x.device)
        unused = x.new_empty(0)  # a standard layer has no bias to mask
        for layer in self.layers[:-1]:
            x = layer(x, unused, unused)
            if states is not None:
                states.append(x[:, 0])
        state = cast(Layer, self.layers[-1]).virtual(x)[:, 0]  # only [V] is read
        if states is not None:
            states.append(state)
        with torch.autocast(x.device.type, enabled=False):
            return self.readout(self.norm(state.to(self.norm.weight.dtype)))


def sinusoids(T: int, D: int, device: torch.device) -> Tensor:
    """(T, D): sine and cosine of the position at D / 2 wavelengths from 2 pi to 20,000 pi, by turns."""
    position = torch.arange(T, device=device)[:, None]
    frequency = 10_000.0 ** (-torch.arange(0, D, 2, device=device) / D)
    angle = position * frequency  # (T, D / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).view(T, D)


# MLP-ECFP

ECFP_RADIUS, ECFP_BITS = 2, 2048


def packed_fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """(R, ECFP_BITS / 8) uint8: Morgan fingerprints, eight bits a byte."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=ECFP_RADIUS, fpSize=ECFP_BITS)
    prints = (generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(text)) for text in smiles)
    return np.stack([np.packbits(bits) for bits in prints])


class FingerprintMLP(nn.Module):
    """MLP-ECFP: layers of linear, batch norm, ReLU and dropout over the bits (OGB-LSC's `main_mlpfp`)."""

    def __init__(self, size: Size, targets: int) -> None:
        super().__init__()
        widths = [ECFP_BITS] + [size.width] * size.layers
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(size.dropout))
            for a, b in pairwise(widths)
        )
        self.readout = nn.Linear(size.width, targets)

    def forward(self, bits: Tensor, states: list[Tensor] | None = None) -> Tensor:
        """Predict from bits (B, ECFP_BITS), 0 and 1."""
        x = bits.float()
        for layer in self.layers:
            x = layer(x)
            if states is not None:
                states.append(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.readout(x.float())


# GCN and GIN


@dataclass(frozen=True)
class PackedGraphs:
    """B graphs as one of N atoms and 2 M edges, both directions of each bond."""

    atoms: Tensor  # (N, features) uint8
    molecule: Tensor  # (N,) int64, below B
    edges: Tensor  # (2, 2 M) int64, from atom and to atom
    bonds: Tensor  # (2 M,) uint8, features of the bond of each edge
    count: int  # B

    def to(self, device: torch.device) -> "PackedGraphs":
        tensors = (self.atoms, self.molecule, self.edges, self.bonds)
        return PackedGraphs(*(t.to(device, non_blocking=True) for t in tensors), self.count)


def pack_graphs(molecules: Molecules, graphs: Graphs, rows: np.ndarray) -> PackedGraphs:
    """Collate rows, of any sizes, into a batch."""
    atoms, atoms_of_each = _places(molecules.atom_offsets, rows)
    bonds, bonds_of_each = _places(molecules.bond_offsets, rows)
    first_atom = np.cumsum(atoms_of_each) - atoms_of_each
    ends = (molecules.bond_atoms[bonds] + np.repeat(first_atom, bonds_of_each)[:, None]).T  # (2, M)
    features = graphs.bond_features[bonds]
    return PackedGraphs(
        atoms=torch.from_numpy(graphs.atom_features[atoms]),
        molecule=torch.from_numpy(np.repeat(np.arange(len(rows)), atoms_of_each)),
        edges=torch.from_numpy(np.concatenate([ends, ends[::-1]], axis=1)),
        bonds=torch.from_numpy(np.concatenate([features, features])),
        count=len(rows),
    )


def _places(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the atoms (bonds) of some rows stand, one row after another, and how many each row has."""
    counts = offsets[rows + 1] - offsets[rows]
    before = np.cumsum(counts) - counts
    return np.repeat(offsets[rows] - before, counts) + np.arange(counts.sum()), counts


def _bond_table(width: int) -> nn.Embedding:
    table = nn.Embedding(BOND_FEATURES, width)
    nn.init.xavier_uniform_(table.weight)
    return table


class GCNLayer(nn.Module):
    """Graph convolution with bonds (Kipf and Welling 2016, in OGB's form).

    With y = W x, e the embedding of the bond and d = 1 + neighbours:
    x_i' = sum over neighbours j of relu(y_j + e_ij) / sqrt(d_i d_j)  +  relu(y_i + root) / d_i
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        from torch_geometric.nn import SumAggregation  # only the graph networks need the package

        self.linear = nn.Linear(width, width)
        self.bond = _bond_table(width)
        self.root = nn.Parameter(torch.randn(width))
        self.sum = SumAggregation()

    def forward(self, x: Tensor, graphs: PackedGraphs) -> Tensor:
        """(N, D) -> (N, D)."""
        source, target = graphs.edges
        x = self.linear(x)
        degree = 1 + torch.bincount(target, minlength=len(x)).to(x.dtype)[:, None]  # (N, 1)
        message = torch.relu(x[source] + self.bond(graphs.bonds.int()))
        message = message * (degree[source] * degree[target]).rsqrt()
        return self.sum(message, target, dim_size=len(x)) + torch.relu(x + self.root) / degree


class GINLayer(nn.Module):
    """Graph isomorphism convolution with bonds (Xu et al. 2018, Hu et al. 2020).

    x_i' = MLP((1 + epsilon) x_i + sum over neighbours j of relu(x_j + e_ij))
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        from torch_geometric.nn import GINEConv

        mlp = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.convolution = GINEConv(mlp, train_eps=True)
        self.bond = _bond_table(width)

    def forward(self, x: Tensor, graphs: PackedGraphs) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.convolution(x, graphs.edges, self.bond(graphs.bonds.int()))


LAYERS = {"gcn": GCNLayer, "gin": GINLayer}


class GraphNetwork(nn.Module):
    """GCN or GIN, with or without a virtual node, as OGB has them for PCQM4M (Hu et al. 2021).

    Batch norm and ReLU after each layer (no ReLU after the last), sum over the atoms, linear readout. Before
    each layer the virtual node is added to every atom, then takes up their sum (Gilmer et al. 2017).

    Args:
        kind: gcn or gin.
        size: layers, width D and dropout.
        virtual_node: whether there is one.
        targets: predicted numbers a molecule.

    Raises:
        StkdError: torch-geometric is not installed.
    """

    def __init__(self, kind: str, size: Size, virtual_node: bool, targets: int) -> None:
        super().__init__()
        try:
            from torch_geometric.nn import MeanAggregation, SumAggregation
        except ImportError as error:
            raise StkdError(f"{kind} needs torch-geometric: pip install 'stkd-screen[benchmarks]'") from error

        D = size.width
        self.atoms = nn.Embedding(sum(ATOM_FEATURES.values()), D)
        nn.init.xavier_uniform_(self.atoms.weight)
        self.layers = nn.ModuleList(LAYERS[kind](D) for _ in range(size.layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(D) for _ in range(size.layers))
        self.virtual = nn.Parameter(torch.zeros(D)) if virtual_node else None
        self.virtual_updates = nn.ModuleList(
            nn.Sequential(
                nn.Linear(D, D), nn.BatchNorm1d(D), nn.ReLU(), nn.Linear(D, D), nn.BatchNorm1d(D), nn.ReLU()
            )
            for _ in range(size.layers - 1 if virtual_node else 0)
        )
        self.dropout = nn.Dropout(size.dropout)
        self.sum, self.mean = SumAggregation(), MeanAggregation()
        self.readout = nn.Linear(D, targets)
        first = torch.tensor([0, *ATOM_FEATURES.values()][:-1]).cumsum(0)
        self.register_buffer("first_entry", first.int(), persistent=False)

    def forward(self, graphs: PackedGraphs, states: list[Tensor] | None = None) -> Tensor:
        """Predict; the states are the means over the atoms of each layer."""
        x = self.atoms(graphs.atoms.int() + cast(Tensor, self.first_entry)).sum(1)  # (N, D)
        virtual = None if self.virtual is None else self.virtual.expand(graphs.count, -1)  # (B, D)
        last = len(self.layers) - 1
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if virtual is not None:
                x = x + virtual[graphs.molecule]
                if i < last:
                    gathered = self.sum(x, graphs.molecule, dim_size=graphs.count) + virtual
                    virtual = self.dropout(self.virtual_updates[i](gathered))
            x = norm(layer(x, graphs))
            x = self.dropout(x if i == last else torch.relu(x))
            if states is not None:
                states.append(self.mean(x, graphs.molecule, dim_size=graphs.count))
        with torch.autocast(x.device.type, enabled=False):
            return self.readout(self.sum(x.float(), graphs.molecule, dim_size=graphs.count))
