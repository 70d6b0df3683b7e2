"""What RDKit calls a molecule and its scaffold: the keys by which rows are split.

Worker processes import this module, so it needs no torch.
"""

from collections.abc import Sequence

from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from stkd_screen.chem import read_molecule
from stkd_screen.teach.processes import in_processes


def molecule_keys(smiles: Sequence[str]) -> list[str]:
    """RDKit's canonical SMILES of each molecule without stereo; the text itself where RDKit reads none."""
    return [*in_processes(_molecule_keys, smiles)]


def scaffold_keys(smiles: Sequence[str]) -> list[str]:
    """Bemis-Murcko scaffold of each molecule as SMILES, empty where it has no ring; else as above."""
    return [*in_processes(_scaffold_keys, smiles)]


def _molecule_keys(smiles: Sequence[str]) -> list[str]:
    molecules = _read(smiles)
    return [m if isinstance(m, str) else Chem.MolToSmiles(m, isomericSmiles=False) for m in molecules]


def _scaffold_keys(smiles: Sequence[str]) -> list[str]:
    molecules = _read(smiles)
    return [m if isinstance(m, str) else MurckoScaffoldSmiles(mol=m) for m in molecules]


def _read(smiles: Sequence[str]) -> list[Chem.Mol | str]:
    """Molecules, and the text where there is none."""
    with rdBase.BlockLogs():
        read = map(read_molecule, smiles)
        return [text if isinstance(m, str) else m for m, text in zip(read, smiles, strict=True)]
