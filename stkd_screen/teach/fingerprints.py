"""The second teacher: ECFP4, whose principal components an embedding learns to reproduce.

Cosines of the components rank molecules as fingerprints do, and the leading ones alone nearly as well, so
that an embedding can be cut short. Components of small variance are made larger, to the square root of their
standard deviation: rare substructures are what tells close relatives from the rest.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stkd_screen.teach.graphs import FINGERPRINT_BITS, Graphs
from stkd_screen.weights import FingerprintBasis

MOST = 50_000  # molecules that the components are fitted to
_CHUNK = 4096


def fit_fingerprint_basis(graphs: Graphs, rows: np.ndarray, width: int, seed: int = 0) -> FingerprintBasis:
    """The principal components of the fingerprints of some molecules.

    Args:
        graphs: with the fingerprints.
        rows: of molecules like those whose similarity will matter; a random choice of `MOST` of them is used.
        width: E, number of components.
        seed: of the choice.

    Returns:
        The basis, scaled so that the squared length of a molecule's target is 1 on average.
    """
    rows = np.random.default_rng(seed).permutation(rows)[:MOST]
    products = np.zeros((FINGERPRINT_BITS, FINGERPRINT_BITS))
    for start in range(0, len(rows), _CHUNK):
        bits = graphs.fingerprints(rows[start : start + _CHUNK])
        products += bits.T @ bits
    mean = products.diagonal() / len(rows)
    variance, components = np.linalg.eigh(products / len(rows) - np.outer(mean, mean))
    variance, components = variance[::-1][:width], components[:, ::-1][:, :width]
    # The sign of a component is arbitrary; its largest entry is made positive.
    components = components * np.sign(components[np.abs(components).argmax(0), np.arange(width)])
    known = variance > 1e-6 * variance[0]  # beyond the rank of few molecules there is nothing to learn
    deviation = np.sqrt(np.where(known, variance, 0))
    scale = np.where(known, 1 / np.sqrt(np.where(known, deviation, 1) * deviation.sum()), 0)
    return FingerprintBasis(torch.from_numpy(mean).half(), torch.from_numpy(components * scale).half())


def fingerprint_targets(basis: FingerprintBasis, bits: Tensor, offsets: Tensor) -> Tensor:
    """What the embeddings of B molecules should be, (B, E) float32.

    Args:
        bits: (K,) set bits of all of them; row i has those from offsets[i] on.
        offsets: (B,).
    """
    mean, components = (part.to(bits.device, torch.float32) for part in (basis.mean, basis.components))
    with torch.autocast(bits.device.type, enabled=False):  # bfloat16 would round the mean
        return F.embedding_bag(bits, components, offsets, mode="sum") - mean @ components


def fingerprint_loss(embedding: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of (B, E) embeddings to their targets: the share that is not explained."""
    return (embedding - target).square().sum(1).mean()
