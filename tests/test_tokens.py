"""Token sequences: what stands where, and that every legal atom has a token."""

import numpy as np

from stkd_screen.batching import equal_length_batches
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.smiles.tokens import (
    BOND,
    CHARGE,
    ELEMENT,
    HYDROGENS,
    MAX_CHARGE,
    NOTHING,
    POSITION,
    VIRTUAL,
    VOCABULARY_SIZE,
    atom_types,
    lay_out,
    token_counts,
)


def test_tokens_of_acetate_by_hand():
    molecules = pretransform(*pack_smiles(["CC(=O)[O-]"]))
    tokens, n_atoms, _ = lay_out(molecules, np.array([0]))
    neutral = CHARGE + MAX_CHARGE
    assert n_atoms.tolist() == [4]
    assert tokens[0].tolist() == [
        [VIRTUAL, NOTHING, NOTHING, NOTHING],
        [ELEMENT + 6, neutral, HYDROGENS + 3, POSITION + 0],
        [ELEMENT + 6, neutral, HYDROGENS + 0, POSITION + 1],
        [ELEMENT + 8, neutral, HYDROGENS + 0, POSITION + 2],
        [ELEMENT + 8, neutral - 1, HYDROGENS + 0, POSITION + 3],
        [BOND + 1, POSITION + 0, POSITION + 1, NOTHING],
        [BOND + 2, POSITION + 1, POSITION + 2, NOTHING],
        [BOND + 1, POSITION + 1, POSITION + 3, NOTHING],
    ]


def test_every_factor_has_a_place_in_the_vocabulary():
    extremes = ["[Og]", "[U+15]", "[W-15]", "c1ccccc1", "[UH9]", "*", "C" * 256]
    molecules = pretransform(*pack_smiles(extremes), fold_hydrogens=False)
    assert not molecules.error.any()
    for row in range(len(extremes)):
        tokens, *_ = lay_out(molecules, np.array([row]))
        assert (tokens >= 0).all() and (tokens < VOCABULARY_SIZE).all()


def test_a_row_with_an_error_has_no_tokens():
    molecules = pretransform(*pack_smiles(["CC", "C(", "C"]))
    assert token_counts(molecules).tolist() == [4, 0, 2]


def test_mirror_images_have_the_same_tokens():
    molecules = pretransform(*pack_smiles(["C[C@H](N)O", "C[C@@H](N)O", r"F/C=C/F", r"F/C=C\F"]))
    for pair in ([0, 1], [2, 3]):
        tokens, *_ = lay_out(molecules, np.array(pair))
        assert (tokens[0] == tokens[1]).all()


def test_atom_types_tell_charge_hydrogens_and_aromaticity_apart():
    molecules = pretransform(*pack_smiles(["C", "[CH3-]", "[CH3+]", "c1ccccc1", "C1CCCCC1"]))
    first_atoms = atom_types(molecules)[molecules.atom_offsets[:-1]]
    assert len(set(first_atoms.tolist())) == 5


def test_batches_hold_one_length_and_every_row_once():
    generator = np.random.default_rng(0)
    counts = generator.integers(3, 9, 500)
    rows = generator.permutation(500)[:400]
    batches = list(equal_length_batches(counts, rows, lambda T: 100 // T))
    assert sorted(np.concatenate(batches)) == sorted(rows)
    for batch in batches:
        lengths = set(counts[batch])
        assert len(lengths) == 1 and len(batch) <= 100 // lengths.pop()


def test_no_rows_make_no_batches():
    assert list(equal_length_batches(np.array([3]), np.empty(0, np.int64), lambda T: 1)) == []
