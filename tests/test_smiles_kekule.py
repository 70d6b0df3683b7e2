"""Aromatic rings: which can be written with alternating bonds, by hand and against every possible pairing."""

import random
from itertools import pairwise

import numpy as np
import pytest

from stkd_screen.smiles import ParseError, describe_error, pack_smiles, pretransform

C60 = (
    "c12c3c4c5c1c1c6c7c2c2c8c3c3c9c4c4c%10c5c5c1c1c6c6c%11c7c2c2c7c8c3c3c8c9c4c4c9c%10c5c5c1c1c6c6c%11c2c2"
    "c7c3c3c8c4c4c9c5c1c1c6c2c3c41"
)


def outcome(smiles: str, **options: bool) -> tuple[ParseError, int]:
    molecules = pretransform(*pack_smiles([smiles]), **options)
    return ParseError(molecules.error[0]), int(molecules.error_column[0])


@pytest.mark.parametrize(
    "smiles",
    [
        "c1ccccc1",
        "[nH]1cccc1",
        "Cn1cccc1",
        "o1cccc1",
        "c1cccc2cccc2c1",  # azulene: a five-membered and a seven-membered ring
        "c1nc(N)sc1C",  # pairing in the order of writing goes wrong
        "c1cc2ccc3cccc4ccc(c1)c2c34",  # pyrene
        "c1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51",  # corannulene: five six-membered rings round one of five
        C60,
        "c1ccccc1c1ccccc1",
        "c1ccccc1n1cccc1",
        "c1cc[cH-]c1",
        "c1cc[cH+]cc[cH]1",
        "O=c1cc[nH]cc1",
        "O=n1ccccc1",  # five-valent nitrogen, as RDKit mends it
        "[O-][n+]1ccccc1",
        "Cs1ccccc1",
        "[se]1cccc1",
        "b1ccccc1",
        "*1ccccc1",  # the wildcard takes a double bond
        "*1cccc1",  # and here it takes none
        "c1cc*cc1",
        "C:1:C:C:C:C:C1",
        "C:C",  # not in a ring: no alternation is asked of it
        "c1[c]cccc1",  # a bracket atom may lack a hydrogen
        "C1CC=sC1",  # aromatic mark in a ring without aromatic bonds
    ],
)
def test_alternates(smiles: str) -> None:
    assert outcome(smiles) == (ParseError.OK, 0)


@pytest.mark.parametrize(
    ("smiles", "column"),
    [
        ("n1cccc1", 1),
        ("c1cccc1", 1),
        ("Cc1ccnc1", 6),  # the nitrogen that wants a hydrogen, wherever it stands
        ("c1ccc2nccc2c1", 7),
        ("c1cccc1c1cccc1", 1),  # the bond between the rings is not aromatic
        ("c1cc2c3c(c1)cccc3ccc2", 3),  # phenalene, 13 atoms
        ("[Na+].c1cccc1", 7),
        ("c1ccccc1Cc1cccc1", 10),
        ("c1nc2cncnc2n1", 3),
        ("c1cccnc1.n1cccc1", 10),
        ("c1cc[nH]cc1", 1),
    ],
)
def test_does_not_alternate(smiles: str, column: int) -> None:
    assert outcome(smiles) == (ParseError.KEKULE, column)


def test_the_message_says_what_to_do() -> None:
    assert describe_error(*outcome("n1cccc1"), "n1cccc1") == (
        "aromatic ring cannot be written with alternating bonds (often an n that should be [nH]) at column 1"
    )


@pytest.mark.parametrize(
    ("smiles", "column"),
    [("c", 1), ("cc", 1), ("CcC", 2), ("c1ccccc1cc1ccccc1", 9), ("c1ccccc1.cccc", 10), ("[nH]", 1)],
)
def test_aromatic_atoms_are_in_rings(smiles: str, column: int) -> None:
    assert outcome(smiles) == (ParseError.AROMATIC_OUTSIDE_RING, column)


def test_what_is_dropped_is_not_looked_at() -> None:
    assert outcome("c1ccccc1.n1cccc1", largest_fragment=True) == (ParseError.OK, 0)
    assert outcome("CCO.cc", largest_fragment=True) == (ParseError.OK, 0)
    assert outcome("C.n1cccc1", largest_fragment=True) == (ParseError.KEKULE, 3)


def rings_upon_rings(rng: random.Random) -> list[tuple[int, int]]:
    """A graph of degrees 2 and 3 without bridges: a ring, then paths between free atoms."""
    size = rng.randint(3, 8)
    bonds = [(i, (i + 1) % size) for i in range(size)]
    for _ in range(rng.randint(0, 5)):
        degree = np.bincount(np.ravel(bonds))
        free = [int(i) for i in np.flatnonzero(degree == 2)]
        if len(free) < 2:
            break
        ends = rng.sample(free, 2)
        path = [ends[0], *range(len(degree), len(degree) + rng.randint(0, 4)), ends[1]]
        new = list(pairwise(path))
        if len(path) == 2 and any(set(ends) == set(bond) for bond in bonds):
            continue
        bonds += new
    return bonds


def write(bonds: list[tuple[int, int]], symbols: list[str], rng: random.Random) -> str:
    """The graph as SMILES, depth first from a random atom in random order."""
    neighbours: list[list[int]] = [[] for _ in symbols]
    for a, b in bonds:
        neighbours[a].append(b)
        neighbours[b].append(a)
    numbers: dict[frozenset[int], int] = {}
    seen: set[int] = set()
    below: dict[int, list[int]] = {}

    def span(atom: int, before: int) -> None:
        seen.add(atom)
        below[atom] = []
        for other in rng.sample(neighbours[atom], len(neighbours[atom])):
            if other not in seen:
                below[atom].append(other)
                span(other, atom)
            elif other != before:
                numbers.setdefault(frozenset((atom, other)), len(numbers) + 10)

    def text(atom: int) -> str:
        closures = "".join(f"%{n}" for bond, n in numbers.items() if atom in bond)
        branches = [text(other) for other in below[atom]]
        return symbols[atom] + closures + "".join(f"({b})" for b in branches[:-1]) + "".join(branches[-1:])

    start = rng.randrange(len(symbols))
    span(start, -1)
    return text(start)


def can_pair(atoms: frozenset[int], bonds: list[tuple[int, int]]) -> bool:
    """Whether bonds between these atoms can pair them all, by trying every way."""
    if not atoms:
        return True
    first = min(atoms)
    others = {b if a == first else a for a, b in bonds if first in (a, b)} & atoms
    return any(can_pair(atoms - {first, other}, bonds) for other in others)


def test_agrees_with_every_possible_pairing() -> None:
    """Odd and even rings upon each other, with some atoms that take no double bond."""
    rng = random.Random(0)
    smiles, expected = [], []
    for _ in range(3000):
        bonds = rings_upon_rings(rng)
        degree = np.bincount(np.ravel(bonds))
        spare = [degree[i] == 2 and rng.random() < 0.15 for i in range(len(degree))]
        symbols = [rng.choice(["o", "[nH]"]) if one else rng.choice("cccn") for one in spare]
        # A nitrogen with three aromatic bonds takes no double bond either.
        paired = [i for i, s in enumerate(symbols) if s == "c" or (s == "n" and degree[i] == 2)]
        smiles.append(write(bonds, symbols, rng))
        expected.append(can_pair(frozenset(paired), bonds))
    molecules = pretransform(*pack_smiles(smiles))
    assert set(molecules.error.tolist()) == {ParseError.OK, ParseError.KEKULE}
    assert 0.2 < np.mean(expected) < 0.8
    for text, error, alternates in zip(smiles, molecules.error, expected, strict=True):
        assert (error == ParseError.OK) == alternates, text
