"""2D depictions as SVG, with the part that a hit shares with its query highlighted."""

import re
from functools import lru_cache

from rdkit import Chem
from rdkit.Chem import rdFMCS
from rdkit.Chem.Draw import rdMolDraw2D

from stkd_screen.chem import read_molecule

WIDTH, HEIGHT = 260, 180  # pixels
MOST_ATOMS = 250  # more could not be told apart, and the time to draw them grows with their cube
MCS_SECONDS = 1  # most time for the substructure of one pair
# RDKit writes these into the picture, as bytes that must come out whole; the page sets the colours for light
# and for dark by name.
_COLOURS = {
    "atom": (0.0, 0.0, 0.0),
    "nitrogen": (0.0, 0.0, 1.0),
    "oxygen": (1.0, 0.0, 0.0),
    "sulfur": (0.8, 0.6, 0.0),
    "halogen": (0.0, 0.6, 0.0),
    "shared": (1.0, 0.8, 0.4),
}
# Half of what RDKit writes says what holds anyway.
_SUPERFLUOUS = re.compile(
    r"<!--.*?-->| class='[^']*'|fill-rule:evenodd;|(fill|stroke)-opacity:1;"
    r"|stroke-linecap:butt;|stroke-linejoin:miter;|stroke-miterlimit:10;"
)
_PALETTE = {-1: "atom", 7: "nitrogen", 8: "oxygen", 16: "sulfur"} | dict.fromkeys((9, 17, 35, 53), "halogen")


def depict(smiles: str, query_smiles: str | None = None) -> str | None:
    """An `<svg>` element whose colours are CSS variables; None where RDKit cannot read the SMILES or
    there are more than `MOST_ATOMS`.

    Args:
        smiles: the molecule to draw.
        query_smiles: highlight the largest substructure shared with this molecule.
    """
    molecule = read_molecule(smiles)
    if isinstance(molecule, str) or molecule.GetNumAtoms() > MOST_ATOMS:
        return None
    atoms, bonds = _shared_part(molecule, query_smiles) if query_smiles else ([], [])
    drawing = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    options = drawing.drawOptions()
    options.clearBackground = False  # type: ignore[assignment]
    options.fixedBondLength = 24  # type: ignore[assignment]
    options.setAtomPalette({element: _COLOURS[name] for element, name in _PALETTE.items()})
    options.setHighlightColour(_COLOURS["shared"])
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, molecule, highlightAtoms=atoms, highlightBonds=bonds)
    drawing.FinishDrawing()
    return _with_page_colours(drawing.GetDrawingText())


def _shared_part(molecule: Chem.Mol, query_smiles: str) -> tuple[list[int], list[int]]:
    """Atoms and bonds of the largest substructure that is also in the query."""
    query = _query_molecule(query_smiles)
    if isinstance(query, str) or query.GetNumAtoms() > MOST_ATOMS:
        return [], []
    shared = rdFMCS.FindMCS(
        [query, molecule], timeout=MCS_SECONDS, ringMatchesRingOnly=True, completeRingsOnly=True
    )
    if shared.numAtoms < 3:  # a bond or two are in common with anything
        return [], []
    pattern = Chem.MolFromSmarts(shared.smartsString)
    atoms = list(molecule.GetSubstructMatch(pattern))
    bonds = (
        [
            molecule.GetBondBetweenAtoms(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()]).GetIdx()
            for bond in pattern.GetBonds()
        ]
        if atoms
        else []
    )
    return atoms, bonds


@lru_cache(maxsize=1)  # the hits of one query come one after another
def _query_molecule(smiles: str) -> Chem.Mol | str:
    return read_molecule(smiles)


def _with_page_colours(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    for name, rgb in _COLOURS.items():
        code = "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
        svg = svg.replace(code, f"var(--{name})")
    return _SUPERFLUOUS.sub("", svg)
