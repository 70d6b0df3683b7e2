"""What surrounds an atom: against RDKit, and alike for all writings of a molecule."""

import gzip

import numpy as np
import pytest
from conftest import SHARED_DATA
from rdkit import Chem

from stkd_screen.smiles import Molecules, pack_smiles, pretransform
from stkd_screen.smiles.surroundings import (
    ATOM_SHAPES,
    BOND_SHAPES,
    DOUBLE,
    ENVIRONMENTS,
    LONE_PAIR,
    SATURATED,
    TRIPLE,
)
from stkd_screen.smiles.tokens import (
    ATOM_SHAPE,
    BOND_SHAPE,
    ENVIRONMENT_1,
    ENVIRONMENT_2,
    VOCABULARY_SIZE_SURROUNDED,
    lay_out,
    token_counts,
)

MOLECULES = [
    "C",
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C1CC2CCC1C2",
    "c1ccc(-c2ccccc2)cc1",
    "C1CCCCC1C1CCCCC1",
    "C#CC=CC#N",
    "c1ccoc1",
    "c1cc[nH]c1",
    "Cn1ccnc1",
    "c1ccc2[nH]ccc2c1",
    "O=c1cc[nH]c(=O)[nH]1",
    "CS(=O)(=O)N",
    "C[N+](C)(C)C.[Cl-]",
    "c1ccc2c(c1)Cc1ccccc1-2",
    "C12C3C4C1C5C2C3C45",
    "[cH-]1cccc1",
    "c1ccc[s+]c1",
    "C1=CC=C2C=CC=CC2=C1",
    "CC(C)(C)c1ccc2c(c1)C(=O)c1ccccc1C2=O",
]


def surroundings(molecules: Molecules, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapes (n,) of the atoms, environments (n, 2), shapes (m,) of the bonds."""
    tokens, n_atoms = lay_out(molecules, np.array([row]), surroundings=True)
    atoms, bonds = tokens[0, 1 : 1 + n_atoms[0]].astype(int), tokens[0, 1 + n_atoms[0] :].astype(int)
    return atoms[:, 4] - ATOM_SHAPE, atoms[:, 5:] - [ENVIRONMENT_1, ENVIRONMENT_2], bonds[:, 4] - BOND_SHAPE


def unsaturation(smiles: str) -> list[int]:
    return (surroundings(pretransform(*pack_smiles([smiles])), 0)[0] // 2 % 4).tolist()


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CC=O", [SATURATED, DOUBLE, DOUBLE]),
        ("CC#N", [SATURATED, TRIPLE, TRIPLE]),
        ("C=C=C", [DOUBLE, TRIPLE, DOUBLE]),
        ("CC(=O)N", [SATURATED, DOUBLE, DOUBLE, LONE_PAIR]),  # an amide
        ("CCN", [SATURATED, SATURATED, SATURATED]),  # nothing to be conjugated with
        ("c1ccoc1", [DOUBLE, DOUBLE, DOUBLE, LONE_PAIR, DOUBLE]),
        ("C1=COC=C1", [DOUBLE, DOUBLE, LONE_PAIR, DOUBLE, DOUBLE]),
        ("c1ccncc1", [DOUBLE] * 6),
        ("Cn1ccnc1", [SATURATED, LONE_PAIR, DOUBLE, DOUBLE, DOUBLE, DOUBLE]),
    ],
)
def test_unsaturation_by_hand(smiles, expected):
    assert unsaturation(smiles) == expected


def check_against_rdkit(smiles: str, molecules: Molecules, row: int) -> None:
    molecule = Chem.RemoveHs(Chem.MolFromSmiles(smiles))
    atoms, _, bonds = surroundings(molecules, row)
    pairs = molecules.bond_atoms[molecules.bond_offsets[row] : molecules.bond_offsets[row + 1]].tolist()
    assert (atoms % 2).tolist() == [atom.IsInRing() for atom in molecule.GetAtoms()]
    assert (atoms // 8).tolist() == [min(atom.GetDegree(), 7) for atom in molecule.GetAtoms()]
    assert (bonds // 2).tolist() == [molecule.GetBondBetweenAtoms(*pair).IsInRing() for pair in pairs]


def test_rings_and_neighbours_are_rdkits():
    molecules = pretransform(*pack_smiles(MOLECULES))
    assert not molecules.error.any()
    for row, smiles in enumerate(MOLECULES):
        check_against_rdkit(smiles, molecules, row)


def test_every_writing_has_the_same_surroundings():
    """Random orders, aromatic and Kekulé: each atom keeps its shape and its environments."""
    for smiles in MOLECULES:
        molecule = Chem.MolFromSmiles(smiles)
        kekule = Chem.Mol(molecule)
        Chem.Kekulize(kekule, clearAromaticFlags=True)
        writings = [Chem.MolToSmiles(molecule, doRandom=True, canonical=False) for _ in range(5)]
        writings += [Chem.MolToSmiles(kekule, kekuleSmiles=True), smiles]
        molecules = pretransform(*pack_smiles(writings))
        assert not molecules.error.any()
        seen = set()
        for row in range(len(writings)):
            atoms, environments, bonds = surroundings(molecules, row)
            together = sorted(zip(atoms.tolist(), environments.tolist(), strict=True))
            seen.add((str(together), str(sorted(bonds.tolist()))))
        assert len(seen) == 1, smiles


def test_environments_see_as_far_as_they_should():
    """Atoms alike within one bond, or two, share a hash of that radius, and others do not."""
    molecules = pretransform(*pack_smiles(["CCCCCC", "CCCCCO"]))
    (_, hexane, _), (_, hexanol, _) = surroundings(molecules, 0), surroundings(molecules, 1)
    assert (hexane[:4, 0] == hexanol[:4, 0]).all() and hexane[4, 0] != hexanol[4, 0]
    assert (hexane[:3, 1] == hexanol[:3, 1]).all() and hexane[3, 1] != hexanol[3, 1]
    assert hexane[1, 0] == hexane[4, 0] != hexane[2, 0]


def test_values_fit_the_vocabulary():
    extremes = [
        "[Og]",
        "[U+15]",
        "[W-15]",
        "S(F)(F)(F)(F)(F)F",
        "[UH9]",
        "*",
        "C" * 256,
        "c1ccccc1",
        "[H][H]",
    ]
    molecules = pretransform(*pack_smiles(extremes), fold_hydrogens=False)
    for row in range(len(extremes)):
        atoms, environments, bonds = surroundings(molecules, row)
        assert (atoms >= 0).all() and (atoms < ATOM_SHAPES).all()
        assert (environments >= 0).all() and (environments < ENVIRONMENTS).all()
        assert (bonds >= 0).all() and (bonds < BOND_SHAPES).all()
        tokens, _ = lay_out(molecules, np.array([row]), surroundings=True)
        assert tokens.max() < VOCABULARY_SIZE_SURROUNDED


def test_the_papers_entries_are_the_same_with_surroundings():
    molecules = pretransform(*pack_smiles(MOLECULES))
    for row in range(len(MOLECULES)):
        plain, _ = lay_out(molecules, np.array([row]))
        surrounded, _ = lay_out(molecules, np.array([row]), surroundings=True)
        assert (surrounded[:, :, :4] == plain).all()


def test_rings_of_real_molecules_are_rdkits():
    path = SHARED_DATA / "smiles" / "chembl_47k.smi.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="latin-1") as lines:
        smiles = [line.split()[0] for line in lines][::50]
    molecules = pretransform(*pack_smiles(smiles))
    checked = 0
    for row in np.flatnonzero(token_counts(molecules)):
        if Chem.MolFromSmiles(smiles[row]) is not None and "[2H]" not in smiles[row]:
            check_against_rdkit(smiles[row], molecules, int(row))
            checked += 1
    assert checked > 900
