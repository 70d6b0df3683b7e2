"""What surrounds an atom: against RDKit, and alike for all writings of a molecule."""

import gzip

import numpy as np
import pytest
from conftest import SHARED_DATA
from rdkit import Chem

from stkd_screen.smiles import AROMATIC_FLAG, Molecules, pack_smiles, pretransform
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
    ELEMENT,
    ENVIRONMENT_1,
    ENVIRONMENT_2,
    NOTHING,
    SHAPED_BONDS,
    VIRTUAL,
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
    "c1ccc[cH+]cc1",
    "Cb1cccccc1",
]


def surroundings(molecules: Molecules, row: int) -> tuple[np.ndarray, np.ndarray, list[dict[int, int]]]:
    """Shapes (n,) of the atoms, environments (n, 2), and of each atom {neighbour: shape of the bond}."""
    tokens, n_atoms, pairs = (part[0] for part in lay_out(molecules, np.array([row]), surroundings=True))
    assert len(tokens) == 1 + n_atoms
    assert tokens[0].tolist() == [VIRTUAL] + [NOTHING] * (tokens.shape[1] - 1)
    atoms, ways = tokens[1:].astype(int), pairs[1:, 1:].astype(int)
    bonds = [{j: way[j] % BOND_SHAPES for j in np.flatnonzero(way // BOND_SHAPES == 1)} for way in ways]
    for entries, named in zip(atoms[:, 6:], bonds, strict=True):
        shapes = sorted(entries[entries != NOTHING] - BOND_SHAPE)
        assert shapes == sorted(named.values()) if len(named) <= SHAPED_BONDS else len(shapes) == SHAPED_BONDS
    return atoms[:, 3] - ATOM_SHAPE, atoms[:, 4:6] - [ENVIRONMENT_1, ENVIRONMENT_2], bonds


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
    assert (atoms % 2).tolist() == [atom.IsInRing() for atom in molecule.GetAtoms()]
    assert (atoms // 8).tolist() == [min(atom.GetDegree(), 7) for atom in molecule.GetAtoms()]
    for atom, named in zip(molecule.GetAtoms(), bonds, strict=True):
        in_ring = {bond.GetOtherAtomIdx(atom.GetIdx()): bond.IsInRing() for bond in atom.GetBonds()}
        assert {neighbour: bool(shape // 2) for neighbour, shape in named.items()} == in_ring


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
            shapes = [sorted(named.values()) for named in bonds]
            seen.add(str(sorted(zip(atoms.tolist(), environments.tolist(), shapes, strict=True))))
        assert len(seen) == 1, smiles


@pytest.mark.parametrize(
    ("aromatic", "kekule"),
    [
        ("O=n1ccccc1", "O=N1=CC=CC=C1"),
        ("Cb1cccccc1", "CB1C=CC=CC=C1"),
        ("c1ccc[cH+]cc1", "C1=CC=C[CH+]C=C1"),
    ],
)
def test_forms_that_rdkit_would_rewrite(aromatic, kekule):
    """RDKit draws the charges of n(=O) apart, and finds no ring with boron aromatic."""
    molecules = pretransform(*pack_smiles([aromatic, kekule]))
    for ours, theirs in zip(surroundings(molecules, 0), surroundings(molecules, 1), strict=True):
        assert np.array_equal(ours, theirs)


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
        assert all(0 <= shape < BOND_SHAPES for named in bonds for shape in named.values())
        tokens, *_ = lay_out(molecules, np.array([row]), surroundings=True)
        assert tokens.max() < VOCABULARY_SIZE_SURROUNDED


def test_elements_charges_and_hydrogens_are_the_papers_but_for_aromaticity():
    molecules = pretransform(*pack_smiles(MOLECULES))
    for row in range(len(MOLECULES)):
        plain, n_atoms, _ = lay_out(molecules, np.array([row]))
        plain = plain[:, : 1 + n_atoms[0], :3]
        plain[..., 0] -= AROMATIC_FLAG * (plain[..., 0] >= ELEMENT + AROMATIC_FLAG)
        surrounded, *_ = lay_out(molecules, np.array([row]), surroundings=True)
        assert (surrounded[:, :, :3] == plain).all()


def test_an_atom_of_many_bonds_has_the_shapes_of_the_first_ones():
    molecules = pretransform(*pack_smiles(["[U](F)(F)(F)(F)(F)(F)(F)F"]))
    _, _, bonds = surroundings(molecules, 0)
    assert bonds == [dict.fromkeys(range(1, 9), 0)] + [{0: 0}] * 8


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
