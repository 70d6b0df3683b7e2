"""How much the answer of a student depends on how a molecule is written, which it should not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem, rdBase

from stkd_screen.chem import read_molecule
from stkd_screen.errors import TrainingError
from stkd_screen.records import RecordReader
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.targets import in_units
from stkd_screen.teach.evaluate import predict
from stkd_screen.teach.processes import in_processes
from stkd_screen.teach.unlabelled import choose
from stkd_screen.weights import Weights

RANDOM_WRITINGS = 5


def spread_over_writings(
    weights: Weights,
    inputs: Sequence[str | Path],
    most: int,
    device: torch.device,
    precision: str = "float32",
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """level.target -> how far the predictions of one molecule lie apart, in the unit of the target.

    Args:
        weights: of the student.
        inputs: libraries, any input of `embed`.
        most: molecules to choose at random where there are more.
        device, precision: of the forward pass.
        seed: of the choice.

    Returns:
        For each target `random`, the standard deviation over RANDOM_WRITINGS with the atoms in random order,
        mean over the molecules; `random_95`, its 95th percentile; `kekule`, the mean absolute difference
        between the aromatic and the Kekulé form; `n`, the molecules.

    Raises:
        StkdError: an input cannot be read, or RDKit and the student read no molecule of it.
    """
    smiles, _ = choose(RecordReader([*inputs]), most, seed)
    written = [texts for texts in in_processes(_writings, smiles.to_list()) if texts]
    flat = [text for texts in written for text in texts]
    molecules = pretransform(*pack_smiles(flat))
    readable = (molecules.error == 0).reshape(len(written), -1).all(axis=1) if written else np.zeros(0, bool)
    if not readable.any():
        raise TrainingError(f"{inputs[0]}: no molecule that RDKit and the student read in all its writings")
    rows = np.flatnonzero(np.repeat(readable, 2 + RANDOM_WRITINGS))
    predicted = in_units(predict(weights.student.to(device), molecules, rows, precision), weights.targets)
    of_writings = predicted.reshape(readable.sum(), 2 + RANDOM_WRITINGS, -1)  # aromatic, Kekulé, random ones
    kekule = np.abs(of_writings[:, 1] - of_writings[:, 0])
    random = of_writings[:, 2:].astype(np.float64).std(axis=1)  # equal values have none, to the last bit
    return {
        target.full_name: {
            "random": float(random[:, k].mean()),
            "random_95": float(np.quantile(random[:, k], 0.95)),
            "kekule": float(kekule[:, k].mean()),
            "n": int(readable.sum()),
        }
        for k, target in enumerate(weights.targets)
    }


def _writings(smiles: Sequence[str]) -> list[list[str]]:
    """Of each molecule its canonical SMILES, the Kekulé form and random ones; none where RDKit reads none."""
    with rdBase.BlockLogs():
        return [_writings_of(text) for text in smiles]


def _writings_of(smiles: str) -> list[str]:
    molecule = read_molecule(smiles)
    if isinstance(molecule, str) or not molecule.GetNumAtoms():
        return []
    kekule = Chem.Mol(molecule)
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    random = Chem.MolToRandomSmilesVect(molecule, RANDOM_WRITINGS, randomSeed=1)
    return [Chem.MolToSmiles(molecule), Chem.MolToSmiles(kekule, kekuleSmiles=True), *random]
