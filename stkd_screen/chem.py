"""Molecules as RDKit reads them, for what is no forward pass: similarity, depictions, training."""

from typing import Any

from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

# ECFP4: RDKit's Morgan fingerprint of radius 2; D. Rogers, M. Hahn, J. Chem. Inf. Model. 50, 742 (2010).
ECFP4 = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


def read_molecule(smiles: str, *parameters: Any) -> Chem.Mol | str:
    """A molecule, or why RDKit has none of it.

    Args:
        smiles: a SMILES.
        parameters: RDKit's `SmilesParserParams`, if other than its own.
    """
    try:
        molecule = Chem.MolFromSmiles(smiles, *parameters)
    except RuntimeError as error:  # raised instead of returning None on a few malformed stereo marks
        return f"not accepted by RDKit: {error}"
    return "not accepted by RDKit" if molecule is None else molecule
