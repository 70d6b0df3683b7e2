"""What training minimises: the task, and what a student takes over from its teacher (ST-KD, section 3.3)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def task_loss(prediction: Tensor, target: Tensor, classes: list[int]) -> Tensor:
    """L1 for numbers, cross entropy for classes: over the targets a molecule has, then over molecules.

    Args:
        prediction: (B, targets), standardised; the logit of a class.
        target: (B, targets), standardised, NaN where missing.
        classes: the columns that are classes.
    """
    known = torch.isfinite(target)
    target = torch.where(known, target, prediction.detach())
    loss = (prediction - target).abs()
    if classes:
        labels = torch.where(known, target, 0.0)[:, classes]
        entropy = F.binary_cross_entropy_with_logits(prediction[:, classes], labels, reduction="none")
        loss = loss.index_copy(1, torch.tensor(classes, device=loss.device), entropy * known[:, classes])
    return (loss.sum(1) / known.sum(1).clamp(min=1)).mean()


def feature_loss(teacher: Tensor, student: Tensor, W_feat: Tensor) -> Tensor:
    """Eq. 8: mean squared difference of the virtual nodes, over molecules and width.

    Args:
        teacher: (B, D_V) x_0, as it leaves layer p.
        student: (B, D) h_0, as it leaves layer q.
        W_feat: (D, D_V).
    """
    return F.mse_loss(student @ W_feat, teacher)


def attention_loss(teacher: Tensor, bias: Tensor, n_atoms: Tensor, W_attn: Tensor) -> Tensor:
    """Eq. 14 and 15: mean squared difference of M * A and softmax(W_attn (M * B)), where M is 1.

    The mask M keeps the rows of atoms and the columns of atoms and the virtual node. Beyond the atoms of a
    molecule the softmax sees -inf. Entries that M hides have nothing to learn and do not enter the mean.

    Args:
        teacher: (B, H', T, T) attention weights A of layer p, T = 1 + atoms of the largest molecule.
        bias: (B, H, T, T) attention biases of layer q, unmasked.
        n_atoms: (B,) atoms of each molecule.
        W_attn: (H', H).
    """
    T = bias.shape[-1]
    token = torch.arange(T, device=bias.device)
    column = token <= n_atoms[:, None]  # (B, T)
    mask = ((column & (token > 0))[:, :, None] & column[:, None, :])[:, None]  # (B, 1, T, T), eq. 13
    mixed = torch.einsum("gh,bhij->bgij", W_attn, bias * mask)
    mixed = mixed.to(torch.promote_types(mixed.dtype, torch.float32))  # under autocast it is bfloat16
    predicted = torch.softmax(mixed.masked_fill(~column[:, None, None, :], -math.inf), dim=-1)
    squared = (teacher - predicted).square() * mask
    return squared.sum() / (mask.sum() * len(W_attn))


def knowledge_mixing(states: list[Tensor]) -> Tensor:
    """Layer-to-layer knowledge mixing: mean absolute difference of consecutive layers' molecule embeddings.

    Our reading of LKM (arXiv 2510.20236), which gives no equations.

    Args:
        states: L x (B, D), the virtual node, or the pooled atoms, of each layer.
    """
    if len(states) < 2:
        return torch.zeros((), device=states[0].device)
    stacked = torch.stack(states)
    return (stacked[1:] - stacked[:-1]).abs().mean()
