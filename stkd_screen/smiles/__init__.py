"""The SMILES pre-transformation: grammar, valence model and packed molecular graphs, without RDKit."""

from stkd_screen.smiles.elements import AROMATIC_FLAG, ELEMENT_SYMBOLS, BondType
from stkd_screen.smiles.errors import ParseError, describe_error, error_class
from stkd_screen.smiles.molecules import Molecules, pack_smiles, pretransform
from stkd_screen.smiles.rows import MAX_ATOMS, MAX_BYTES

__all__ = [
    "AROMATIC_FLAG",
    "ELEMENT_SYMBOLS",
    "MAX_ATOMS",
    "MAX_BYTES",
    "BondType",
    "Molecules",
    "ParseError",
    "describe_error",
    "error_class",
    "pack_smiles",
    "pretransform",
]
