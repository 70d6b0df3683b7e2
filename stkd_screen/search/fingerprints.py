"""ECFP4 and Tanimoto similarity, beside the cosine of embeddings."""

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect

from stkd_screen.chem import ECFP4, read_molecule

# What RDKit cannot read has no Tanimoto; a line on the terminal helps nobody.
RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]


def ecfp4(smiles: str) -> ExplicitBitVect | None:
    """The fingerprint of a molecule, None where RDKit cannot read it."""
    molecule = read_molecule(smiles)
    return None if isinstance(molecule, str) else ECFP4.GetFingerprint(molecule)


def tanimoto(query: ExplicitBitVect | None, fingerprints: Sequence[ExplicitBitVect | None]) -> np.ndarray:
    """(R,) float32 similarities of a query to R fingerprints, NaN where either is missing."""
    similarities = np.full(len(fingerprints), np.nan, np.float32)
    present = [i for i, fingerprint in enumerate(fingerprints) if fingerprint is not None]
    if query is not None and present:
        similarities[present] = BulkTanimotoSimilarity(query, [fingerprints[i] for i in present])
    return similarities


def without_stereo(smiles: str) -> str:
    """RDKit's canonical SMILES without stereo, one for all writings of a molecule; as given if unreadable."""
    molecule = read_molecule(smiles)
    return smiles if isinstance(molecule, str) else Chem.MolToSmiles(molecule, isomericSmiles=False)
