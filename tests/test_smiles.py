"""The SMILES pre-transformation by hand: atoms, bonds, hydrogens, errors, folding, fragments, limits."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from stkd_screen.smiles import (
    AROMATIC_FLAG,
    ELEMENT_SYMBOLS,
    BondType,
    Molecules,
    ParseError,
    describe_error,
    error_class,
    pack_smiles,
    pretransform,
)

MARK = {
    BondType.SINGLE: "-",
    BondType.DOUBLE: "=",
    BondType.TRIPLE: "#",
    BondType.QUADRUPLE: "$",
    BondType.AROMATIC: ":",
    BondType.OTHER: "~",
}


def read(smiles: str, **options: bool) -> tuple[str, str]:
    """Atoms such as "CH3 N+ c", bonds such as "0-1 1=2"."""
    molecules = pretransform(*pack_smiles([smiles]), **options)
    assert molecules.error[0] == ParseError.OK, describe_error(
        molecules.error[0], molecules.error_column[0], smiles
    )
    atoms = []
    for element, charge, hydrogens in zip(
        molecules.element.tolist(), molecules.charge.tolist(), molecules.hydrogens.tolist(), strict=True
    ):
        symbol = ELEMENT_SYMBOLS[element % AROMATIC_FLAG]
        atom = symbol.lower() if element >= AROMATIC_FLAG else symbol
        atom += f"H{hydrogens if hydrogens > 1 else ''}" if hydrogens else ""
        atom += f"{charge:+d}" if charge else ""
        atoms.append(atom)
    bonds = sorted(zip(molecules.bond_atoms.tolist(), molecules.bond_type.tolist(), strict=True))
    return " ".join(atoms), " ".join(f"{a}{MARK[BondType(kind)]}{b}" for (a, b), kind in bonds)


def error_of(smiles: str | bytes) -> tuple[ParseError, int]:
    data = np.frombuffer(smiles if isinstance(smiles, bytes) else smiles.encode(), dtype=np.uint8)
    molecules = pretransform(data, np.array([0, len(data)]))
    return ParseError(molecules.error[0]), int(molecules.error_column[0])


@pytest.mark.parametrize(
    ("smiles", "atoms", "bonds"),
    [
        ("C", "CH4", ""),
        ("CCO", "CH3 CH2 OH", "0-1 1-2"),
        ("C=C", "CH2 CH2", "0=1"),
        ("C#N", "CH N", "0#1"),
        ("C$C", "C C", "0$1"),
        ("[NH4+]", "NH4+1", ""),
        ("[OH-]", "OH-1", ""),
        ("[Fe++]", "Fe+2", ""),
        ("[Fe+3]", "Fe+3", ""),
        ("[O--]", "O-2", ""),
        ("[13CH4]", "CH4", ""),
        ("[CH3:7]C", "CH3 CH3", "0-1"),
        ("ClBr", "Cl Br", "0-1"),
        ("BrB(Cl)I", "Br B Cl I", "0-1 1-2 1-3"),
        ("CC(=O)O", "CH3 C O OH", "0-1 1=2 1-3"),
        ("C(C)(C)C", "CH CH3 CH3 CH3", "0-1 0-2 0-3"),
        ("C1CC1", "CH2 CH2 CH2", "0-1 0-2 1-2"),
        ("C=1CC1", "CH CH2 CH", "0-1 0=2 1-2"),
        ("C1CC=1", "CH CH2 CH", "0-1 0=2 1-2"),
        ("C=1CC-1", "CH CH2 CH", "0-1 0=2 1-2"),  # the first of two symbols counts, as in RDKit
        ("C%12CC%12", "CH2 CH2 CH2", "0-1 0-2 1-2"),
        ("C%(123)CC%(123)", "CH2 CH2 CH2", "0-1 0-2 1-2"),
        ("C1CC1C1CC1", "CH2 CH2 CH CH CH2 CH2", "0-1 0-2 1-2 2-3 3-4 3-5 4-5"),
        ("C1.C1", "CH3 CH3", "0-1"),
        ("C(CC1)1", "CH2 CH2 CH2", "0-1 0-2 1-2"),  # closed at the atom that was written first
        ("[Na+].[Cl-]", "Na+1 Cl-1", ""),
        ("C(C.N)O", "CH2 CH3 NH3 OH", "0-1 0-3"),
        ("F/C=C/F", "F CH CH F", "0-1 1=2 2-3"),
        ("F/C=C\\\\F", "F CH CH F", "0-1 1=2 2-3"),
        ("c1ccccc1", "cH cH cH cH cH cH", "0:1 0:5 1:2 2:3 3:4 4:5"),
        ("c1ccncc1", "cH cH cH n cH cH", "0:1 0:5 1:2 2:3 3:4 4:5"),
        ("[nH]1cccc1", "nH cH cH cH cH", "0:1 0:4 1:2 2:3 3:4"),
        ("o1cccc1", "o cH cH cH cH", "0:1 0:4 1:2 2:3 3:4"),
        ("s1cccc1", "s cH cH cH cH", "0:1 0:4 1:2 2:3 3:4"),
        ("[se]1cccc1", "se cH cH cH cH", "0:1 0:4 1:2 2:3 3:4"),
        ("Cn1cccc1", "CH3 n cH cH cH cH", "0-1 1:2 1:5 2:3 3:4 4:5"),
        ("O=c1cc[nH]cc1", "O c cH cH nH cH cH", "0=1 1:2 1:6 2:3 3:4 4:5 5:6"),
        ("Cc1ccccc1", "CH3 c cH cH cH cH cH", "0-1 1:2 1:6 2:3 3:4 4:5 5:6"),
        ("CN(=O)=O", "CH3 N+1 O-1 O", "0-1 1-2 1=3"),
        ("C[N+](=O)[O-]", "CH3 N+1 O O-1", "0-1 1=2 1-3"),
        ("CN=N#N", "CH3 N N+1 N-1", "0-1 1=2 2=3"),
        ("CN=[N+]=[N-]", "CH3 N N+1 N-1", "0-1 1=2 2=3"),
        ("OI(=O)=O.CN(=O)=O", "OH I O O CH3 N+1 O-1 O", "0-1 1=2 1=3 4-5 5-6 5=7"),
        ("OI(=O)(=O)=O", "OH I+3 O-1 O-1 O-1", "0-1 1-2 1-3 1-4"),
        ("O=n1ccccc1", "O-1 n+1 cH cH cH cH cH", "0-1 1:2 1:6 2:3 3:4 4:5 5:6"),
        ("OCl(=O)(=O)=O", "OH Cl+3 O-1 O-1 O-1", "0-1 1-2 1-3 1-4"),
        ("CS(=O)(=O)C", "CH3 S O O CH3", "0-1 1=2 1=3 1-4"),
        ("CS", "CH3 SH", "0-1"),
        ("CS(C)C", "CH3 SH CH3 CH3", "0-1 1-2 1-3"),
        ("P(C)(C)(C)C", "PH CH3 CH3 CH3 CH3", "0-1 0-2 0-3 0-4"),
        ("FS(F)(F)(F)(F)F", "F S F F F F F", "0-1 1-2 1-3 1-4 1-5 1-6"),
        ("F[P-](F)(F)(F)(F)F", "F P-1 F F F F F", "0-1 1-2 1-3 1-4 1-5 1-6"),
        ("[B-](F)(F)(F)F", "B-1 F F F F", "0-1 0-2 0-3 0-4"),
        ("CN(C)(C)[Fe]", "CH3 N CH3 CH3 Fe", "0-1 1-2 1-3 1-4"),  # RDKit makes the last bond dative
        ("CN(C)(C)->[Fe]", "CH3 N CH3 CH3 Fe", "0-1 1-2 1-3 1~4"),
        ("[Fe]<-O", "Fe OH2", "0~1"),
        ("C~C", "CH4 CH4", "0~1"),
        ("*C", "* CH3", "0-1"),
        ("[*]C", "* CH3", "0-1"),
        ("[Og]", "Og", ""),
        ("[H+]", "H+1", ""),
        ("[HH]", "HH", ""),
    ],
)
def test_reads(smiles: str, atoms: str, bonds: str) -> None:
    assert read(smiles) == (atoms, bonds)


@pytest.mark.parametrize(
    ("smiles", "error", "column"),
    [
        ("", ParseError.EMPTY, 1),
        ("CqC", ParseError.CHARACTER, 2),
        ("CC ", ParseError.CHARACTER, 3),
        ("C<C", ParseError.CHARACTER, 2),
        ("C]", ParseError.CHARACTER, 2),
        ("Cé", ParseError.NOT_ASCII, 2),
        ("CC\t1", ParseError.NOT_ASCII, 3),
        (b"C\x00", ParseError.NOT_ASCII, 2),
        ("(C)C", ParseError.ATOM_EXPECTED, 1),
        ("1CC1", ParseError.ATOM_EXPECTED, 1),
        ("-C", ParseError.ATOM_EXPECTED, 1),
        (".C", ParseError.ATOM_EXPECTED, 1),
        ("C.", ParseError.ATOM_EXPECTED, 3),
        ("C..C", ParseError.ATOM_EXPECTED, 3),
        ("C.=C", ParseError.ATOM_EXPECTED, 3),
        ("C=.C", ParseError.ATOM_EXPECTED, 3),
        ("C=", ParseError.ATOM_EXPECTED, 3),
        ("C==C", ParseError.ATOM_EXPECTED, 3),
        ("C((C))C", ParseError.ATOM_EXPECTED, 3),
        ("C(.C)", ParseError.ATOM_EXPECTED, 3),
        ("C(1)CC1", ParseError.ATOM_EXPECTED, 3),
        ("C(=)C", ParseError.ATOM_EXPECTED, 4),
        ("C(C.)C", ParseError.ATOM_EXPECTED, 5),
        ("C=(C)C", ParseError.ATOM_EXPECTED, 3),
        ("C(", ParseError.ATOM_EXPECTED, 3),
        ("C[C", ParseError.BRACKET_UNCLOSED, 2),
        ("[", ParseError.BRACKET_UNCLOSED, 1),
        ("[C:", ParseError.BRACKET_UNCLOSED, 1),
        ("[CHH]", ParseError.BRACKET_CHARACTER, 4),
        ("[C;H]", ParseError.BRACKET_CHARACTER, 3),
        ("[C:]", ParseError.BRACKET_CHARACTER, 4),
        ("[C+++]", ParseError.BRACKET_CHARACTER, 5),
        ("[C@@@]", ParseError.BRACKET_CHARACTER, 5),
        ("[H@]", ParseError.BRACKET_CHARACTER, 3),
        ("C[]C", ParseError.ELEMENT, 3),
        ("C[Xy]", ParseError.ELEMENT, 3),
        ("[013C]", ParseError.ELEMENT, 3),
        ("[C@TH3]", ParseError.CHIRALITY, 3),
        ("[C@OH31]", ParseError.CHIRALITY, 3),
        ("[FeH256]", ParseError.HYDROGENS, 4),
        ("[O-16]", ParseError.CHARGE, 3),
        ("[C:9999999999]", ParseError.NUMBER, 13),
        ("C()C", ParseError.BRANCH_EMPTY, 3),
        ("CC(C", ParseError.BRANCH_UNCLOSED, 3),
        ("CC)C", ParseError.BRANCH_UNOPENED, 3),
        ("C%1CC%1", ParseError.RING_NUMBER, 2),
        ("C%01CC1", ParseError.RING_NUMBER, 2),
        ("C%()C", ParseError.RING_NUMBER, 2),
        ("C%(123456)C", ParseError.RING_NUMBER, 2),
        ("CC1C2CC2", ParseError.RING_UNCLOSED, 3),
        ("C11", ParseError.RING_TO_ITSELF, 3),
        ("C1C1", ParseError.RING_DUPLICATE, 4),
        ("C12CC12", ParseError.RING_DUPLICATE, 7),
        ("C1(CC12)2", ParseError.RING_DUPLICATE, 9),
        ("C(C1)1", ParseError.RING_DUPLICATE, 6),
        ("C123CC1(C2)3", ParseError.RING_DUPLICATE, 12),
        ("CC(C)(C)(C)C", ParseError.VALENCE, 2),
        ("[CH5]", ParseError.VALENCE, 1),
        ("CN(C)(C)C", ParseError.VALENCE, 2),
        ("C[O](C)C", ParseError.VALENCE, 2),
        ("C=[N+](C)(C)C", ParseError.VALENCE, 3),
        ("FCl(=O)(=O)=O", ParseError.VALENCE, 2),
        ("C" * 257, ParseError.TOO_MANY_ATOMS, 257),
        ("C" * 1_000_001, ParseError.TOO_LONG, 1_000_001),
    ],
)
def test_errors(smiles: str | bytes, error: ParseError, column: int) -> None:
    assert error_of(smiles) == (error, column)
    message = describe_error(error, column, smiles)
    assert re.search(rf"at column {column}$", message), message


def test_every_error_is_described() -> None:
    assert describe_error(ParseError.RING_UNCLOSED, 3, "CC%12C") == "unclosed ring bond 12 at column 3"
    assert describe_error(ParseError.RING_UNCLOSED, 2, "C%(7)C") == "unclosed ring bond 7 at column 2"
    assert describe_error(ParseError.ATOM_EXPECTED, 3, "C=") == "an atom is expected, not the end at column 3"
    for error in ParseError:
        assert describe_error(error, 1, "C1")


@pytest.mark.parametrize(
    ("smiles", "found"),
    [
        ("C?C", "'?'"),
        ("Cé", "'é'"),
        ("Cé".encode(), "'é'"),
        ("C中", "'中'"),
        ("C C", "a blank"),
        ("C\tC", "a tab"),
        ("C\x00", "U+0000"),
        ("C\u200b", "U+200B"),
        ("C\U000e0001", "U+E0001"),
        (b"C\xc3", "byte 0xc3"),
    ],
)
def test_errors_name_the_character(smiles: str | bytes, found: str) -> None:
    assert describe_error(*error_of(smiles), smiles).startswith(f"{found} is not ")


def test_error_classes_are_one_for_each_code() -> None:
    classes = [error_class(error) for error in ParseError]
    assert len(set(classes)) == len(classes)
    assert not any("{" in text for text in classes)
    assert error_class(ParseError.RING_UNCLOSED) == "unclosed ring bond"


def test_every_error_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "smiles.md").read_text()
    for error in ParseError:
        assert error == ParseError.OK or f"| {error.value} | {error.name} |" in page


def test_explicit_hydrogens_fold_into_their_neighbour() -> None:
    assert read("[H]C([H])([H])O[2H]") == ("CH3 OH", "0-1")
    assert read("[H]O[H]") == ("OH2", "")
    assert read("[H]O[H]", fold_hydrogens=False) == ("H O H", "0-1 1-2")


@pytest.mark.parametrize("smiles", ["[H][H]", "[H+]", "[H-]", "[H]*", "[H]~C", "[H]", "C.[H]", "C[H]->[Fe]"])
def test_other_hydrogens_stay(smiles: str) -> None:
    atoms = read(smiles)[0].split()
    assert "H" in [atom.rstrip("+-1") for atom in atoms]


def test_too_many_hydrogens_to_fold() -> None:
    assert error_of("[Fe]" + "([H])" * 256) == (ParseError.HYDROGENS, 1)


def test_unwritten_bond_between_rings_is_single() -> None:
    assert read("c1ccccc1c1ccccc1") == read("c1ccccc1-c1ccccc1")
    assert read("c1ccc(cc1)c1cccnc1") == read("c1ccc(cc1)-c1cccnc1")
    assert read("c1ccccc1c(cc2)ccc2") == read("c1ccccc1-c(cc2)ccc2")
    assert read("c1ccccc1n1cccc1") == read("c1ccccc1-n1cccc1")
    assert "5:6" in read("c1ccccc1c1ccccc1", single_between_rings=False)[1]
    assert "-" not in read("c1ccc2ccccc2c1")[1]
    assert "-" not in read("c1cc2ccc3cccc4ccc(c1)c2c34")[1]


def test_chirality_is_read() -> None:
    marks = pretransform(
        *pack_smiles(["C[C@H](F)O", "C[C@@H](F)O", "[C@TH2](F)(Cl)(Br)I", "[Co@OH5]", "[Pt@SP1]", "[C@AL1]"])
    )
    assert marks.chirality[marks.chirality > 0].tolist() == [1, 2, 2, 3, 3, 3]


def test_fragments() -> None:
    smiles = ["CCO", "[Na+].CC(=O)[O-]", "CC.NN", "C1.C1", "[H][H].[H][H].C", "CC.O1.C1CC"]
    assert pretransform(*pack_smiles(smiles)).fragments.tolist() == [1, 2, 2, 1, 3, 2]
    assert read("[Na+].CC(=O)[O-]", largest_fragment=True) == ("CH3 C O O-1", "0-1 1=2 1-3")
    assert read("CC.NN", largest_fragment=True) == ("CH3 CH3", "0-1")
    assert read("[H][H].[H][H].C", largest_fragment=True) == ("CH4", "")
    assert read("O1.N.C1C.CC", largest_fragment=True) == ("OH CH2 CH3", "0-1 1-2")
    assert read(".".join(["C"] * 300) + ".CC", largest_fragment=True) == ("CH3 CH3", "0-1")


def test_rows_are_packed_and_bad_ones_hold_nothing() -> None:
    molecules = pretransform(*pack_smiles(["CC", "C1", "", "c1ccccc1", "C(", "O"]))
    assert len(molecules) == 6
    assert np.diff(molecules.atom_offsets).tolist() == [2, 0, 0, 6, 0, 1]
    assert np.diff(molecules.bond_offsets).tolist() == [1, 0, 0, 6, 0, 0]
    assert (molecules.error > 0).tolist() == [False, True, True, False, True, False]
    assert molecules.element.dtype == np.uint8
    assert molecules.bond_atoms.shape == (7, 2)
    assert molecules.fragments.tolist() == [1, 0, 0, 1, 0, 1]


def test_heavy_atoms() -> None:
    molecules = pretransform(*pack_smiles(["CCO", "C1", "[H][H]", "*C[NH]", "*", "c1ccccc1", "[2H+].[Fe]"]))
    heavy = molecules.heavy_atoms()
    assert heavy.tolist() == [3, 0, 0, 2, 0, 6, 1]
    assert heavy.dtype == np.int64
    assert pretransform(*pack_smiles([])).heavy_atoms().shape == (0,)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    smiles = ["C1CC", "CC1", "C1CC1", "C%(99999)C", "C%(99999)CC%(99999)", "c1ccccc1"] * 3
    together = pretransform(*pack_smiles(smiles))
    for i, text in enumerate(smiles):
        assert (together.error[i], together.error_column[i]) == error_of(text)


def test_slices_of_a_buffer_are_read_in_place() -> None:
    data, offsets = pack_smiles(["CCO", "c1ccccc1", "[Na+].[Cl-]"])
    data.setflags(write=False)
    part = pretransform(data, offsets[1:])
    assert len(part) == 2
    assert part.atom_offsets.tolist() == [0, 6, 8]


def test_no_rows() -> None:
    molecules = pretransform(*pack_smiles([]))
    assert len(molecules) == 0
    assert molecules.atom_offsets.tolist() == [0]


def test_malformed_arrays_are_refused() -> None:
    data, offsets = pack_smiles(["CC", "CC"])
    with pytest.raises(ValueError, match="uint8"):
        pretransform(data.astype(np.int8), offsets)
    with pytest.raises(ValueError, match="int64"):
        pretransform(data, offsets.astype(np.int32))
    for bad in ([0, 5], [0, 3, 2], [-1, 2]):
        with pytest.raises(ValueError, match="offsets must rise"):
            pretransform(data, np.array(bad))


def complete_graph(atom: str, size: int, bond: str = "") -> str:
    """Every atom bonded to every other, over ring bonds."""
    numbers = iter(range(size * size))
    opened = {(i, j): next(numbers) for j in range(size) for i in range(j - 1)}
    rows = []
    for k in range(size):
        closures = [f"{bond}%({n})" for pair, n in opened.items() if k in pair]
        rows.append(atom + "".join(closures))
    return bond.join(rows)


def ladder(rungs: int) -> str:
    """A row of aromatic six-membered rings, each sharing a bond with the next: 4 atoms a rung and 6."""
    one_side = "".join(f"c%({k})c" for k in range(rungs))
    other_side = "".join(f"cc%({k})" for k in reversed(range(rungs)))
    return f"c1c{one_side}cc{other_side}cc1"


@pytest.mark.parametrize(
    ("smiles", "error"),
    [
        ("C" * 10_000, ParseError.TOO_MANY_ATOMS),
        ("C(" * 10_000 + "C" + ")" * 10_000, ParseError.TOO_MANY_ATOMS),
        ("C(" * 10_000, ParseError.ATOM_EXPECTED),
        ("C" + "".join(f"%({n})" for n in range(9_999)), ParseError.RING_UNCLOSED),
        ("".join(f"C%({n})" for n in range(9_999)) * 2, ParseError.TOO_MANY_ATOMS),
        ("".join(f"[Fe]%({n})" for n in range(9_999)) + "[Fe]" * 2, ParseError.RING_UNCLOSED),
        ("N(=O)(=O)" * 30_000, ParseError.VALENCE),
        ("c1ccccc1" * 30_000, ParseError.TOO_MANY_ATOMS),
        ("[" * 100_000, ParseError.ELEMENT),
        ("1" * 100_000, ParseError.ATOM_EXPECTED),
        ("C." * 100_000 + "C", ParseError.TOO_MANY_ATOMS),
        ("c" * 10_000, ParseError.TOO_MANY_ATOMS),
        ("c" * 200, ParseError.AROMATIC_OUTSIDE_RING),
        ("c1cccc1" * 100_000, ParseError.TOO_MANY_ATOMS),
        ("C(" * 10_000 + "C", ParseError.BRANCH_UNCLOSED),
        ("C1" + "C" * 999_997 + "1", ParseError.TOO_MANY_ATOMS),
        (complete_graph("C", 6), ParseError.VALENCE),
        (complete_graph("[Fe]", 250), ParseError.OK),
        (complete_graph("[U]", 300), ParseError.TOO_MANY_ATOMS),
        (complete_graph("*", 200, bond=":") + ".c1cccc1", ParseError.KEKULE),
        (ladder(60), ParseError.OK),
        (ladder(60) + "." + "c1cccc1", ParseError.KEKULE),
    ],
)
def test_hostile_rows_end_in_an_error(smiles: str, error: ParseError) -> None:
    assert error_of(smiles)[0] == error


def test_threads_do_not_share_memory() -> None:
    smiles = ["C1CC1", "c1ccccc1c1ccccc1", "CC(C", "C%12CC%12", "[H]OC"] * 500
    expected = pretransform(*pack_smiles(smiles))
    results: list = [None] * 4

    def work(k: int) -> None:
        results[k] = pretransform(*pack_smiles(smiles))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(getattr(result, name), array)


def packed(smiles: list[str]) -> Molecules:
    return pretransform(*pack_smiles(smiles))


def test_ions_zwitterions_and_salts():
    ionic = ["C[NH3+]", "[NH3+]CC(=O)[O-]", "[Na+].[Cl-]", "[O-][N+](=O)[O-]", "[N-]=[N+]=[N-]"]
    assert packed(ionic).ionic.all()
    assert not packed(["C[N+](=O)[O-]", "CN=[N+]=[N-]", "C[N+]#[C-]", "CC", "", "C("]).ionic.any()


def test_unpaired_electrons_are_those_of_rdkit():
    radicals = [
        "[CH3]",
        "C[CH]C",
        "CN(C)[O]",
        "[O][O]",
        "[N]=O",
        "c1ccccc1[CH2]",
        "C[S]",
        "[H]",
        "[c]1ccccc1",
        "[c]1ccncc1",
        "*[CH2]",
    ]
    others = ["C", "CS(C)=O", "OP(=O)(O)O", "c1cc[nH]c1", "[Fe]", "O=[O+][O-]", "FS(F)(F)(F)(F)F", "CB(O)O"]
    others += [
        "[NH3][Pt]([NH3])(Cl)Cl",
        "O=c1cc[nH]cc1",
        "c1cc[cH-]c1.[Na+]",
        "c1ccoc1",
    ]
    assert packed(radicals).unpaired.all()
    assert not packed([*others, "C[P](C)(C)[Pd](Cl)Cl", "", "C("]).unpaired.any()
    for smiles in radicals + others:
        atoms = Chem.MolFromSmiles(smiles).GetAtoms()
        odd = any(atom.GetNumRadicalElectrons() % 2 for atom in atoms)
        assert odd == (smiles in radicals)
