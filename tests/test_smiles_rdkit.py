"""The pre-transformation against RDKit, atom by atom and bond by bond, on real libraries.

The graph is compared with RDKit's molecule after its clean-up and before anything else of sanitisation, the
hydrogens with those of the sanitised one. The default
run takes a sample of every file; `-m slow` takes them whole. docs/smiles.md gives the counts.
"""

import gzip
import io
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from stkd_screen.smiles import AROMATIC_FLAG, ELEMENT_SYMBOLS, ParseError, pack_smiles, pretransform
from stkd_screen.smiles.valence import VALENCE_COUNT, VALENCES

Chem = pytest.importorskip("rdkit.Chem")
rdBase = pytest.importorskip("rdkit.rdBase")

DATA = Path(__file__).parents[2] / "shared" / "data"
TYPES = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4, "AROMATIC": 5}

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test libraries at {DATA}")


def unsanitised(smiles: str):
    parameters = Chem.SmilesParserParams()
    parameters.sanitize = parameters.removeHs = parameters.allowCXSMILES = parameters.parseName = False
    return Chem.MolFromSmiles(smiles, parameters)


def sanitised(smiles: str):
    parameters = Chem.SmilesParserParams()
    parameters.removeHs = parameters.allowCXSMILES = parameters.parseName = False
    try:
        return Chem.MolFromSmiles(smiles, parameters)
    except RuntimeError:  # RDKit raises instead of returning None on a few malformed stereo marks
        return None


def compare(smiles: list[str]) -> tuple[Counter, dict[str, list[str]]]:
    """How often each outcome occurs, and the SMILES of every disagreement.

    Disagreements: graph, hydrogens, "rejected alone" (RDKit accepts it), "accepted alone" (RDKit does not).
    """
    rdBase.DisableLog("rdApp.*")
    molecules = pretransform(*pack_smiles(smiles), fold_hydrogens=False, single_between_rings=False)
    counts: Counter = Counter()
    disagreements: dict[str, list[str]] = {}

    def disagree(how: str, text: str) -> None:
        counts[how] += 1
        disagreements.setdefault(how, []).append(text)

    for i, text in enumerate(smiles):
        graph, accepted = unsanitised(text), molecules.error[i] == ParseError.OK
        whole = None if graph is None else sanitised(text)
        if whole is None:
            counts["rejected by RDKit"] += 1
            if accepted:
                disagree("accepted alone", text)
            continue
        if not text:  # for RDKit a molecule without atoms
            counts["empty"] += int(molecules.error[i] == ParseError.EMPTY)
            continue
        if not accepted:
            disagree("rejected alone", text)
            continue
        atoms = slice(*molecules.atom_offsets[i : i + 2])
        bonds = slice(*molecules.bond_offsets[i : i + 2])
        ours = (
            molecules.element[atoms].tolist(),
            molecules.charge[atoms].tolist(),
            sorted(
                zip(molecules.bond_atoms[bonds].tolist(), molecules.bond_type[bonds].tolist(), strict=True)
            ),
        )
        Chem.Cleanup(graph)
        if ours != packed(graph):
            disagree("graph", text)
        elif molecules.hydrogens[atoms].tolist() != [a.GetTotalNumHs() for a in whole.GetAtoms()]:
            disagree("hydrogens", text)
        else:
            counts["same"] += 1
    return counts, disagreements


def packed(graph) -> tuple[list, list, list]:
    """Elements with the aromatic mark, charges, and bonds of an RDKit molecule."""
    return (
        [a.GetAtomicNum() + AROMATIC_FLAG * a.GetIsAromatic() for a in graph.GetAtoms()],
        [a.GetFormalCharge() for a in graph.GetAtoms()],
        sorted(
            (sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx())), TYPES.get(str(b.GetBondType()), 6))
            for b in graph.GetBonds()
        ),
    )


def load(name: str, column: int = 0, limit: int | None = None) -> list[str]:
    """SMILES of a shared file, up to `limit` of them evenly taken; the header of a table falls away."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="latin-1") as lines:
        rows = [re.split(r"[,\s]", line)[column] for line in lines if line.strip()]
    rows = rows[1:] if rows[0] == "smiles" else rows
    return rows if limit is None else rows[:: max(1, len(rows) // limit)]


FILES = {
    "smiles/chembl_47k.smi.gz": 0,
    "smiles/chembl_47k_as_cdk_2.0.smi.gz": 0,
    "smiles/chembl_47k_as_openbabel_dev4Aug17.smi.gz": 0,
    "smiles/chembl_47k_as_rdkit_2017.03.3.smi.gz": 0,
    "smiles/zinc_natural_products_50k.smi.gz": 0,
    "smiles/nci_5k.smi.gz": 0,
    "smiles/canon_smiles.smi.gz": 0,
    "moleculenet/hiv.csv.gz": 0,
    "qm9/qm9_homo_lumo_gap.csv.gz": 1,
    "pcqm/pcqm_level_gap.csv.gz": 0,
}


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_a_sample_agrees(name: str) -> None:
    counts, disagreements = compare(load(name, FILES[name], limit=300))
    assert not disagreements
    assert counts["same"] > 250


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_whole_files_agree(name: str) -> None:
    counts, disagreements = compare(load(name, FILES[name]))
    print(name, dict(counts))
    assert not disagreements


@needs_data
@pytest.mark.slow
def test_zinc_agrees() -> None:
    rows = []
    for path in sorted((DATA / "zinc").glob("*.smi.gz")):
        rows += load(f"zinc/{path.name}")[:2300]
    assert len(rows) >= 200_000
    counts, disagreements = compare(rows[:200_000])
    print("zinc", dict(counts))
    assert not disagreements


@needs_data
def test_invalid_smiles_are_rejected_where_rdkit_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unclosed bracket is reported at the bracket (RDKit: at the last byte); charges end at 15."""
    smiles = load("smiles/invalid_smiles.txt.gz")
    molecules = pretransform(*pack_smiles(smiles))
    assert (molecules.error > 0).all()
    ours_alone = {ParseError.BRACKET_UNCLOSED, ParseError.CHARGE}
    for text, error, column in zip(smiles, molecules.error, molecules.error_column, strict=True):
        if error not in ours_alone:
            assert column == rdkit_position(text, monkeypatch), text


def rdkit_position(smiles: str, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The column RDKit's syntax error names."""
    log = io.StringIO()
    rdBase.LogToPythonStderr()
    rdBase.EnableLog("rdApp.error")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", log)
        unsanitised(smiles)
    rdBase.LogToCppStreams()
    found = re.search(r"position (\d+)", log.getvalue())
    return int(found[1]) if found else None


def test_valence_table_is_rdkits() -> None:
    table = Chem.GetPeriodicTable()
    for z, symbol in enumerate(ELEMENT_SYMBOLS):
        assert VALENCES[z, : VALENCE_COUNT[z]].tolist() == list(table.GetValenceList(z)), symbol
