"""The student against the paper's equations, written out literally."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from students import student_of

from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.smiles.tokens import (
    ENVIRONMENT_1,
    ENVIRONMENT_ENTRIES,
    NOTHING,
    VIRTUAL,
    lay_out,
    token_counts,
)
from stkd_screen.student import PRESETS, Attention, Student, StudentConfig

CONFIG = StudentConfig(width=48, heads=3, feed_forward=96, standard_layers=2, biased_layers=2)
BEYOND_THE_PAPER = replace(CONFIG, surroundings=True, fingerprint=20)


def literal_attention(
    attention: Attention, x: torch.Tensor, n_atoms: torch.Tensor, pair_bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Eq. 1-3 and 9-13, one molecule and one head at a time.

    Args:
        pair_bias: (B, T, T, H) what else is added to the scores.
    """
    T, D = x.shape[1:]
    K = D // attention.heads
    weights = attention.project.weight.split(D)
    out = torch.empty_like(x)
    for b, n in enumerate(n_atoms.tolist()):
        mask = torch.zeros(T, T, dtype=x.dtype)
        mask[1 : n + 1, 0 : n + 1] = 1
        heads = []
        for h in range(attention.heads):
            rows = slice(h * K, (h + 1) * K)
            q, k, v = (x[b] @ w[rows].T for w in weights[:3])
            scores = q @ k.T / math.sqrt(K)
            if attention.biased:
                q_bias, k_bias = (x[b] @ w[rows].T for w in weights[3:])
                scores = scores + mask * (q_bias @ k_bias.T)
            if pair_bias is not None:
                scores = scores + pair_bias[b, :, :, h]
            heads.append(torch.softmax(scores, dim=-1) @ v)
        out[b] = torch.cat(heads, dim=-1) @ attention.out.weight.T
    return out


def literal_forward(student: Student, tokens: torch.Tensor, n_atoms: torch.Tensor, pairs: torch.Tensor):
    x = (student.table[tokens.long()] * (tokens != NOTHING)[..., None]).sum(2)
    pair_bias = student.pair_bias[pairs.long()] if student.config.surroundings else None
    for layer in student.layers:
        x = x + literal_attention(layer.attention, layer.attention_norm(x), n_atoms, pair_bias)
        hidden = F.gelu(layer.feed_forward[0](layer.feed_forward_norm(x)))
        x = x + layer.feed_forward[2](hidden)
        if layer is student.layers[-2]:
            before_the_last = x
    summary = student.norm(x[:, 0])
    if student.fingerprint is None:
        return summary, student.readout(summary)
    head = student.fingerprint
    codes = [F.gelu(head.token(head.norm(token))) for token in before_the_last.unbind(1)]
    return head.molecule(sum(codes) / 16), student.readout(summary)


def with_a_head(student: Student) -> Student:
    """The head begins at zero, which would hide what leads to it, as pairs do."""
    if student.pair_bias is not None:
        torch.nn.init.normal_(student.pair_bias)
    if student.fingerprint is not None:
        torch.nn.init.normal_(student.fingerprint.molecule.weight, std=0.1)
    torch.nn.init.normal_(student.table[1:], std=0.5)
    return student


def mixed_batch(surroundings: bool = False):
    """Molecules of one token count, of the paper's tokens with different numbers of atoms."""
    molecules = pretransform(*pack_smiles(["CCCCCC", "C1CC2C1C2", "OC=CC#N"]))
    assert token_counts(molecules).tolist() == [12, 12, 10]
    assert token_counts(molecules, surroundings=True).tolist() == [7, 6, 6]
    rows = np.array([1, 2] if surroundings else [0, 1])
    tokens, n_atoms, pairs = lay_out(molecules, rows, surroundings=surroundings)
    assert n_atoms.tolist() == ([5, 5] if surroundings else [6, 5])
    return torch.from_numpy(tokens), torch.from_numpy(n_atoms), torch.from_numpy(pairs)


@pytest.mark.parametrize("config", [CONFIG, BEYOND_THE_PAPER], ids=["paper", "beyond"])
@pytest.mark.parametrize("molecule", ["C", "CCO", "c1ccc2ccccc2c1", "C" * 256])
def test_forward_equals_the_literal_equations(molecule, config):
    torch.manual_seed(0)
    student = with_a_head(Student(config)).double()
    molecules = pretransform(*pack_smiles([molecule] * 2))
    arrays = lay_out(molecules, np.array([0, 1]), surroundings=config.surroundings)
    batch = [torch.from_numpy(a) for a in arrays]
    for ours, literal in zip(student(*batch), literal_forward(student, *batch), strict=True):
        torch.testing.assert_close(ours, literal, rtol=0, atol=1e-12)


def test_masks_follow_each_molecule_of_a_mixed_batch():
    torch.manual_seed(1)
    student = Student(CONFIG).double()
    batch = mixed_batch()
    for ours, literal in zip(student(*batch), literal_forward(student, *batch), strict=True):
        torch.testing.assert_close(ours, literal, rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [CONFIG, BEYOND_THE_PAPER], ids=["paper", "beyond"])
def test_gradients_equal_those_of_the_literal_equations(config):
    torch.manual_seed(2)
    student = with_a_head(Student(config)).double()
    batch = mixed_batch(config.surroundings)
    gradients = []
    for forward in (student, lambda *batch: literal_forward(student, *batch)):
        student.zero_grad()
        embedding, prediction = forward(*batch)
        (embedding.square().sum() + prediction.sum()).backward()
        gradients.append([p.grad.clone() for p in student.parameters()])
    for ours, literal in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, literal, rtol=0, atol=1e-10)


def test_bias_is_equation_9():
    torch.manual_seed(3)
    attention = Attention(CONFIG, biased=True).double()
    x = torch.randn(2, 7, CONFIG.width, dtype=torch.float64)
    K = CONFIG.width // CONFIG.heads
    q_weight, k_weight = attention.project.weight[3 * CONFIG.width :].chunk(2)
    for h in range(CONFIG.heads):
        rows = slice(h * K, (h + 1) * K)
        literal = (x @ q_weight[rows].T) @ (x @ k_weight[rows].T).transpose(1, 2)
        torch.testing.assert_close(attention.bias(x)[:, h], literal, rtol=0, atol=1e-12)


def test_paper_preset_has_the_matrices_of_the_paper():
    config = PRESETS["paper"]
    student = Student(config)
    matrices = sum(p.numel() for layer in student.layers for p in layer.parameters() if p.ndim == 2)
    print(f"paper: {matrices:,} in the matrices of the layers")
    assert matrices == 20_447_232  # the 20.4M of tables 1 and 6
    assert (config.standard_layers, config.biased_layers, config.heads) == (3, 3, 16)


def test_small_preset_is_at_most_3_million_parameters():
    parameters = sum(p.numel() for p in Student(PRESETS["small"]).parameters())
    print(f"small: {parameters:,} parameters")
    assert parameters <= 3_000_000


def test_the_order_of_writing_only_moves_positions():
    """Attention does not see the order of tokens: permuted atoms with their positions change nothing."""
    torch.manual_seed(4)
    student = Student(CONFIG).double()
    molecules = pretransform(*pack_smiles(["CC(=O)Nc1ccc(O)cc1"]))
    tokens, n_atoms, _ = (torch.from_numpy(a) for a in lay_out(molecules, np.array([0])))
    n = int(n_atoms)
    shuffled = tokens.clone()
    shuffled[:, 1 : n + 1] = tokens[:, 1 : n + 1][:, torch.randperm(n)]
    torch.testing.assert_close(student(tokens, n_atoms), student(shuffled, n_atoms), rtol=0, atol=1e-12)


def test_a_hash_never_trained_says_nothing():
    """Environments that no training molecule had leave a token as it is."""
    student = Student(BEYOND_THE_PAPER)
    assert not student.table[ENVIRONMENT_1:].any()
    assert student.table[VIRTUAL:ENVIRONMENT_1].any(dim=1).all()
    assert not student.pair_bias.any()  # nor do pairs farther apart than any in training


def test_late_environments_are_for_the_embedding_alone():
    early, late = (replace(BEYOND_THE_PAPER, fingerprint=8, late_environments=late) for late in (False, True))
    batch = mixed_batch(surroundings=True)
    others = [part.clone() for part in batch]
    others[0][..., ENVIRONMENT_ENTRIES] = batch[0][..., ENVIRONMENT_ENTRIES].flip(1)
    for config in (early, late):
        student = student_of(config)
        (embedding, prediction), (other, moved) = student(*batch), student(*others)
        assert not torch.allclose(embedding, other)
        assert torch.equal(prediction, moved) == config.late_environments
    student = student_of(replace(late, fingerprint=0))  # for which they are left out
    assert all(map(torch.equal, student(*batch), student(*others)))
    with pytest.raises(ValueError, match="there are no environments"):
        replace(CONFIG, late_environments=True)


def test_pairs_are_added_in_the_type_of_the_linear_algebra():
    """Under autocast the whole bias would be cast anew in each layer."""
    student = Student(BEYOND_THE_PAPER)
    pairs = mixed_batch(surroundings=True)[2]
    assert student.bias_between(pairs).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert student.bias_between(pairs).dtype == torch.bfloat16


def test_old_weights_know_nothing_of_surroundings():
    """A configuration saved before there were any gives the paper's student."""
    saved = {
        name: value for name, value in CONFIG.to_dict().items() if name not in ("surroundings", "fingerprint")
    }
    assert StudentConfig(**saved) == CONFIG
