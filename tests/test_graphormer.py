"""The teacher against Graphormer's equations, written out one molecule, one head and one pair at a time."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from rdkit import Chem
from test_graphs import floyd_warshall, no_fingerprints, read

from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.teach.graphormer import PRESETS, Graphormer, GraphormerConfig, StructureBias
from stkd_screen.teach.graphs import ATOM_FEATURES, BOND_FEATURES, Graphs
from stkd_screen.teach.structure import DISTANCES, PATH_BONDS, GraphBatch, graph_batch

CONFIG = GraphormerConfig(layers=2, width=12, heads=3, feed_forward=20, targets=2)
# Trees and rings whose shortest paths are unique (but for the four-membered one), fragments, ions.
SMILES = [
    "C",
    "CCO",
    "[Na+].[Cl-]",
    "CC(=O)NC1CC1",
    "CCCCCCCO",
    "c1c[nH]cc1.CN",
    "C1CCC1",
]


def teacher(config: GraphormerConfig = CONFIG, seed: int = 0) -> Graphormer:
    """In float64, all parameters random: some are zero or one at first, and would hide mistakes."""
    torch.manual_seed(seed)
    model = Graphormer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def batch_of(smiles: list[str], rows: list[int] | None = None) -> GraphBatch:
    molecules, graphs, failures = read(smiles)
    assert not failures
    return graph_batch(molecules, graphs, np.arange(len(smiles)) if rows is None else np.array(rows))


# The literal teacher


def shortest_path_bonds(batch: GraphBatch, b: int, i: int, j: int) -> list[int]:
    return [code - 1 for code in batch.path[b, i, j].tolist() if code]


def literal_bias(
    bias: StructureBias, batch: GraphBatch, b: int, steps: np.ndarray, head: int
) -> torch.Tensor:
    """(n + 1, n + 1) for one molecule and head: Ying et al. eq. 6 and 7, and the virtual node's own bias.

    Args:
        steps: (n, n) bonds on the shortest path, infinite between fragments.
    """
    n = len(steps)
    out = torch.empty(n + 1, n + 1, dtype=torch.float64)
    for i in range(n + 1):
        for j in range(n + 1):
            if i == 0 or j == 0:
                out[i, j] = bias.virtual[head]
                continue
            length = steps[i - 1, j - 1]
            entry = 33 if np.isinf(length) else min(int(length), 32)
            value = bias.distance[entry, head]
            bonds = shortest_path_bonds(batch, b, i - 1, j - 1)
            assert len(bonds) == (0 if np.isinf(length) else min(length, 5))
            for k, bond in enumerate(bonds):
                value = value + bias.bond[bond + 1] @ bias.place[k][:, head] / len(bonds)
            out[i, j] = value
    return out


def literal_norm(norm: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias


def literal_gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def literal_teacher(model: Graphormer, smiles: list[str], batch: GraphBatch):
    """Prediction, and by layer the state of the virtual node and the attention, each by molecule."""
    config = model.config
    D, H = config.width, config.heads
    K = D // H
    predictions, states, attention = [], [], []
    for b, text in enumerate(smiles):
        molecules = pretransform(*pack_smiles([text]))
        n = len(molecules.element)
        steps = floyd_warshall(n, molecules.bond_atoms.tolist())
        tokens = [model.virtual]
        for i in range(n):
            token, first = torch.zeros(D, dtype=torch.float64), 0
            for value, size in zip(batch.atom_features[b, i].tolist(), ATOM_FEATURES.values(), strict=True):
                token = token + model.atoms[first + value]
                first += size
            tokens.append(token)
        x = torch.stack(tokens)
        biases = [literal_bias(model.bias, batch, b, steps, head) for head in range(H)]
        states.append([])
        attention.append([])
        for layer in model.layers:
            normed = torch.stack([literal_norm(layer.attention_norm, token) for token in x])
            weight, offset = layer.attention.project.weight, layer.attention.project.bias
            heads, weights = [], []
            for h in range(H):
                q, k, v = (
                    normed @ weight[part * D + h * K : part * D + (h + 1) * K].T
                    + offset[part * D + h * K : part * D + (h + 1) * K]
                    for part in range(3)
                )
                rows = []
                for i in range(n + 1):
                    scores = torch.stack(
                        [(q[i] @ k[j]) / math.sqrt(K) + biases[h][i, j] for j in range(n + 1)]
                    )
                    rows.append(torch.exp(scores) / torch.exp(scores).sum())
                weights.append(torch.stack(rows))
                heads.append(weights[-1] @ v)
            attention[-1].append(torch.stack(weights))
            x = x + torch.cat(heads, dim=1) @ layer.attention.out.weight.T + layer.attention.out.bias
            normed = torch.stack([literal_norm(layer.feed_forward_norm, token) for token in x])
            first, _, second = layer.feed_forward
            hidden = literal_gelu(normed @ first.weight.T + first.bias)
            x = x + hidden @ second.weight.T + second.bias
            states[-1].append(x[0])
        predictions.append(model.readout.weight @ literal_norm(model.norm, x[0]) + model.readout.bias)
    return torch.stack(predictions), states, attention


def close(ours: torch.Tensor, literal: torch.Tensor) -> None:
    torch.testing.assert_close(ours, literal, rtol=0, atol=1e-10)


# Against it


def test_structure_bias_equals_the_literal_one():
    bias = teacher().bias
    smiles = ["C", "C.CCCCCCO", "C1CC1=O"]
    batch = batch_of(smiles)
    ours = bias(batch)
    literal_sum = torch.zeros((), dtype=torch.float64)
    weights = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    T = ours.shape[-1]
    for b, text in enumerate(smiles):
        molecules = pretransform(*pack_smiles([text]))
        n = len(molecules.element)
        steps = floyd_warshall(n, molecules.bond_atoms.tolist())
        for head in range(CONFIG.heads):
            literal = literal_bias(bias, batch, b, steps, head)
            close(ours[b, head, : n + 1, : n + 1], literal)
            literal_sum = literal_sum + (literal * weights[b, head, : n + 1, : n + 1]).sum()
        assert (ours[b, :, :, n + 1 :] == -math.inf).all()
        assert torch.isfinite(ours[b, :, : n + 1, : n + 1]).all()
    assert T == 9
    gradients = []
    real = torch.zeros_like(ours, dtype=torch.bool)
    for b, n in enumerate(batch.n_atoms.tolist()):
        real[b, :, : n + 1, : n + 1] = True
    for total in ((ours.where(real, 0.0) * weights).sum(), literal_sum):
        bias.zero_grad()
        total.backward(retain_graph=True)
        gradients.append([parameter.grad.clone() for parameter in bias.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 0.1
        close(mine, theirs)


def test_forward_and_gradients_equal_the_literal_teacher():
    model = teacher()
    batch = batch_of(SMILES)
    prediction, states, attention = literal_teacher(model, SMILES, batch)
    for with_attention in (False, True):
        taught = model(batch, with_attention=with_attention)
        close(taught.prediction, prediction)
        assert len(taught.states) == 2 and len(taught.attention) == 2 * with_attention
        ours_total, literal_total = taught.prediction.square().sum(), prediction.square().sum()
        for layer in range(2):
            state = torch.stack([of_molecule[layer] for of_molecule in states])
            close(taught.states[layer], state)
            ours_total = ours_total + (taught.states[layer] ** 3).sum()
            literal_total = literal_total + (state**3).sum()
            for b, n in enumerate(batch.n_atoms.tolist() if with_attention else []):
                ours, literal = taught.attention[layer][b, :, : n + 1, : n + 1], attention[b][layer]
                close(ours, literal)
                ours_total = ours_total + 9 * ours.square().sum()
                literal_total = literal_total + 9 * literal.square().sum()
        gradients = []
        for total in (ours_total, literal_total):
            model.zero_grad()
            total.backward(retain_graph=True)
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        for name, gradient in gradients[0].items():
            scale = gradients[1][name].abs().max().clamp(min=1)
            close(gradient / scale, gradients[1][name] / scale)
            assert gradient.abs().max() > 0, name


def test_dropout_acts_in_training_only():
    model = teacher(replace(CONFIG, dropout=0.3))
    batch = batch_of(SMILES[:3])
    literal = literal_teacher(model, SMILES[:3], batch)[0]
    for with_attention in (False, True):
        close(model(batch, with_attention).prediction, literal)
        trained = model.train()(batch, with_attention).prediction
        assert (trained - literal).abs().max() > 1e-3
        model.eval()


# Batches and padding


@pytest.mark.parametrize("with_attention", [False, True])
def test_a_prediction_does_not_depend_on_batch_mates(with_attention):
    model = teacher(seed=3)
    smiles = [*SMILES, "C" * 40, "[Na+]"]
    order = [len(smiles) - 1, 3, 3, 1]
    together = model(batch_of(smiles), with_attention)
    shuffled = model(batch_of(smiles, order), with_attention)
    for b, text in enumerate(smiles):
        alone = model(batch_of([text]), with_attention)
        close(together.prediction[b], alone.prediction[0])
        for layer in range(CONFIG.layers):
            close(together.states[layer][b], alone.states[layer][0])
            if with_attention:
                T = alone.attention[layer].shape[-1]
                close(together.attention[layer][b, :, :T, :T], alone.attention[layer][0])
    close(shuffled.prediction, together.prediction[order])


def numbers_of_chains(sizes: list[int]) -> tuple[GraphBatch, np.ndarray]:
    """Chains with arbitrary features, for sizes where RDKit's would take long."""
    molecules = pretransform(*pack_smiles(["C" * n for n in sizes]))
    generator = np.random.default_rng(0)
    atoms = np.stack(
        [generator.integers(0, size, molecules.atom_offsets[-1]) for size in ATOM_FEATURES.values()], 1
    )
    bonds = generator.integers(0, BOND_FEATURES, molecules.bond_offsets[-1]).astype(np.uint8)
    graphs = Graphs(atoms.astype(np.uint8), bonds, bonds, *no_fingerprints(sizes))
    return graph_batch(molecules, graphs, np.arange(len(sizes))), np.array(sizes)


def check_masks(model: Graphormer, sizes: list[int]) -> None:
    batch, _ = numbers_of_chains(sizes)
    with torch.no_grad():
        taught = model(batch, with_attention=True)
        plain = model(batch).prediction
    assert torch.isfinite(taught.prediction).all()
    close(plain, taught.prediction)
    T = max(sizes) + 1
    for weights in taught.attention:
        assert weights.shape == (len(sizes), model.config.heads, T, T)
        # Rows of padding, too: they must not become NaN.
        close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        for b, n in enumerate(sizes):
            assert (weights[b, :, :, n + 1 :] == 0).all()
            assert (weights[b, :, :, : n + 1] > 0).all()


NARROW = GraphormerConfig(layers=1, width=4, heads=2, feed_forward=4)


def test_masks_follow_each_molecule_of_a_mixed_batch():
    check_masks(teacher(NARROW), [256, 1, 2, 65, 255])
    check_masks(teacher(NARROW), [1])
    check_masks(teacher(NARROW), [3, 2, 1, 17])


@pytest.mark.slow
def test_masks_of_every_size_from_1_to_256():
    model = teacher(NARROW)
    for n in range(1, 129):
        check_masks(model, [n, 257 - n])


def test_a_batch_has_the_gradients_of_its_molecules_alone():
    """No gradient through padding: what a padded atom's features are makes no difference."""
    model = teacher(seed=4)
    gradients = []
    for batches in ([batch_of(SMILES)], [batch_of([text]) for text in SMILES]):
        model.zero_grad()
        for batch in batches:
            model(batch).prediction.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for together, alone in zip(*gradients, strict=True):
        scale = alone.abs().max().clamp(min=1)
        close(together / scale, alone / scale)


# Renumbering


@pytest.mark.parametrize(
    "smiles", ["CC(=O)NCC(C)(C)C#N", "OCC(O)C(F)CN.CC[NH3+]", "C1CC1C(Cl)C2CCCC2", "CC(N)=C=CC(=O)OCC#C"]
)
def test_the_order_of_the_atoms_makes_no_difference(smiles):
    model = teacher(seed=5)
    expected = model(batch_of([smiles])).prediction
    random.seed(1)
    texts = {Chem.MolToSmiles(Chem.MolFromSmiles(smiles), doRandom=True) for _ in range(12)} - {smiles}
    assert len(texts) > 5
    for text in texts:
        close(model(batch_of([text])).prediction, expected)


def test_every_part_of_the_structure_makes_a_difference():
    """Degree, distance, bonds on the way, charge, hydrogens, ring: molecules that differ in one only."""
    model = teacher(seed=6)
    pairs = [("CCC", "CC=C"), ("CCCC", "CC(C)C"), ("C=CCC", "CC=CC"), ("CC[O-]", "CCO"), ("CC.C", "CCC")]
    pairs += [("CCCCCCO", "CCCCCOC"), ("[CH3]", "C"), ("C1CC1", "CCC")]
    for one, other in pairs:
        a, b = model(batch_of([one, other])).prediction
        assert (a - b).abs().max() > 1e-4, (one, other)


# Sizes


def test_base_preset_has_the_size_of_the_paper():
    config = PRESETS["base"]
    assert (config.layers, config.width, config.heads, config.feed_forward) == (12, 768, 32, 768)
    layer = Graphormer(replace(config, layers=1)).layers[0]  # all are alike
    matrices = config.layers * sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    layers = config.layers * sum(p.numel() for p in layer.parameters())
    print(f"base: {matrices:,} in the matrices of the layers, {layers:,} with biases and norms")
    assert matrices == 12 * (4 * 768**2 + 2 * 768**2) == 42_467_328
    # Biases of Q, K, V and output, of the feed-forward block; scale and shift of two norms.
    assert layers == matrices + 12 * (4 * 768 + 2 * 768 + 2 * 2 * 768) == 42_559_488  # 42.6M


def test_tables_have_a_row_for_every_value():
    model = Graphormer(CONFIG)
    assert len(model.atoms) == sum(ATOM_FEATURES.values()) == 128 + 16 + 32 + 16 + 5 + 9 + 2 + 2
    # The atom itself, 1 to 32 bonds, another fragment, padding.
    assert DISTANCES == 1 + 32 + 1 + 1 == len(model.bias.distance)
    assert model.bias.place.shape == (PATH_BONDS, 3, 3) and len(model.bias.bond) == 28 + 1


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        GraphormerConfig(layers=1, width=10, heads=4, feed_forward=8)
