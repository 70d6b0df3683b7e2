"""Molecules as RDKit reads them, for what is no forward pass: similarity, depictions, training."""

from typing import Any

from rdkit import Chem


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
