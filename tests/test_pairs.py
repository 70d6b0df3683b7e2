"""What lies between two atoms: against RDKit's distances and a search over bonds of one shape alone."""

import numpy as np
import pytest
import torch
from rdkit import Chem
from students import student_of
from test_surroundings import MOLECULES

from stkd_screen.smiles import Molecules, pack_smiles, pretransform
from stkd_screen.smiles.pairs import FARTHEST, FROM_VIRTUAL, PAIRS, TO_VIRTUAL, VIRTUAL_ITSELF
from stkd_screen.smiles.surroundings import BOND_SHAPES
from stkd_screen.smiles.tokens import lay_out
from stkd_screen.student import PRESETS

MORE = [
    "C" * 60,
    "C=C" * 20,
    *("C" * n for n in (63, 64, 65, 128, 129)),  # a bit an atom, of words of 64
    "c1ccccc1" + "C=CC(C)" * 16 + "c1ccc2ccccc2c1",
    "C1CC1" + "C" * 50 + ".[Na+]." + "C=C" * 20,
    "c1ccc2cc3cc4cc5cc6ccccc6cc5cc4cc3cc2c1",  # all in rings, and farther apart than such are told
    "C1CCCCCCCCCCCCCCCCCCCCCCC1C=CC=CC=O",
    "CCO.C1CC1.[Na+].[Cl-]",
    "C1=CC=CCC1",  # opposite atoms with two shortest paths, of which one is conjugated
    "C1CC=CC=C1",
    "COc1ccc2nc(S(=O)Cc3ncc(C)c(OC)c3C)[nH]c2c1",
    "[U]1(F)(F)(F)(F)(F)OCCO1",  # more bonds than a token has entries for
]


def pairs_of(molecules: Molecules, row: int) -> np.ndarray:
    return lay_out(molecules, np.array([row]), surroundings=True)[2][0]


def distances(n: int, bonds: np.ndarray) -> np.ndarray:
    """(n, n) bonds between atoms, infinite in different fragments (Floyd and Warshall)."""
    found = np.full((n, n), np.inf)
    np.fill_diagonal(found, 0)
    found[bonds[:, 0], bonds[:, 1]] = found[bonds[:, 1], bonds[:, 0]] = 1
    for k in range(n):
        found = np.minimum(found, found[:, k : k + 1] + found[k : k + 1])
    return found


@pytest.mark.parametrize("smiles", MOLECULES + MORE)
def test_codes_are_distances_and_what_all_bonds_of_a_shortest_path_share(smiles):
    molecules = pretransform(*pack_smiles([smiles]))
    pairs, bonds = pairs_of(molecules, 0), molecules.bond_atoms
    assert pairs[0, 0] == VIRTUAL_ITSELF < PAIRS
    assert (pairs[0, 1:] == FROM_VIRTUAL).all() and (pairs[1:, 0] == TO_VIRTUAL).all()
    codes = pairs[1:, 1:].astype(int)
    of_bonds = codes[bonds[:, 0], bonds[:, 1]]
    assert (of_bonds // BOND_SHAPES == 1).all()
    away = distances(len(codes), bonds)
    shapes = (BOND_SHAPES - 1) * (away == 0)
    for shape in (1, 2):
        shapes |= shape * np.isfinite(away) * (distances(len(codes), bonds[of_bonds & shape > 0]) == away)
    assert np.array_equal(codes, BOND_SHAPES * np.minimum(away, np.take(FARTHEST, shapes)) + shapes)


def test_distances_are_rdkits():
    smiles = [*MOLECULES, *MORE]
    molecules = pretransform(*pack_smiles(smiles))
    for row, text in enumerate(smiles):
        codes = pairs_of(molecules, row)[1:, 1:]
        theirs = Chem.GetDistanceMatrix(Chem.MolFromSmiles(text))  # 1e8 between fragments
        assert (codes // BOND_SHAPES == np.minimum(theirs, np.take(FARTHEST, codes % BOND_SHAPES))).all()


def test_molecules_of_a_batch_are_as_each_alone():
    smiles = ["CC(=O)O", "C1CC1", "CCCC", "c1ccccc1", "C.C.C.C", "C1=CC1C", "CCC#N", "OC=C=O"]
    molecules = pretransform(*pack_smiles(smiles))
    rows = np.flatnonzero(np.diff(molecules.atom_offsets) == 4)
    assert len(rows) == 6
    for row, *together in zip(rows, *lay_out(molecules, rows, surroundings=True), strict=True):
        for ours, alone in zip(together, lay_out(molecules, np.array([row]), surroundings=True), strict=True):
            assert np.array_equal(ours, alone[0])


def test_one_answer_however_a_molecule_is_written():
    """Random orders, aromatic and Kekulé forms: the same but for rounding."""
    student = student_of(PRESETS["small"])
    for smiles in [*MOLECULES, *MORE]:
        molecule = Chem.MolFromSmiles(smiles)
        writings = [Chem.MolToSmiles(molecule, doRandom=True) for _ in range(10)] + [smiles]
        Chem.Kekulize(molecule, clearAromaticFlags=True)
        writings += [Chem.MolToSmiles(molecule, kekuleSmiles=True, doRandom=True) for _ in range(5)]
        molecules = pretransform(*pack_smiles(writings))
        batch = lay_out(molecules, np.arange(len(writings)), surroundings=True)
        with torch.inference_mode():
            for result in student(*map(torch.from_numpy, batch)):
                torch.testing.assert_close(result, result[:1].expand_as(result), rtol=1e-4, atol=1e-4)
