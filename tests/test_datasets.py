"""Data sets by name and by their columns, and what is said about bad labels."""

import json

import numpy as np
import polars as pl
import pytest
from conftest import SHARED_DATA
from typer.testing import CliRunner

from stkd_screen.cli import app
from stkd_screen.errors import StkdError, TrainingError
from stkd_screen.teach.datasets import LAYOUTS, NAMED, find_table, known_layout
from stkd_screen.teach.tables import read_labelled
from stkd_screen.teach.targets import HARTREE_IN_EV, TargetColumn, joint_targets, unit_note

needs_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no labelled tables at {SHARED_DATA}")

# The first lines of the published files, as far as they are needed.
PUBLISHED = {
    "qm7.csv": "smiles,u0_atom\n[H]C([H])([H])[H],-417.96\nCC,-712.42\n",
    "qm8.csv": "smiles,E1-CC2,E2-CC2,f1-CC2,f2-CC2,E1-PBE0,E2-PBE0,f1-PBE0,f2-PBE0,E1-PBE0,E2-PBE0,f1-PBE0,"
    "f2-PBE0,E1-CAM,E2-CAM,f1-CAM,f2-CAM\nC" + ",0.3" * 16 + "\n",
    "qm9.csv": "mol_id,smiles,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,"
    "h298_atom,g298_atom\ngdb_1,C,157.7118,157.70997,157.70699,0,13.21,-0.3877,0.1171,0.5048,35.3641,0.044749,"
    "-40.47893,-40.476062,-40.475117,-40.498597,6.469,-395.999,-398.643,-401.014,-372.471\n",
    "delaney-processed.csv": "Compound ID,ESOL predicted log solubility in mols per litre,Minimum Degree,"
    "Molecular Weight,Number of H-Bond Donors,Number of Rings,Number of Rotatable Bonds,Polar Surface Area,"
    "measured log solubility in mols per litre,smiles\nThiophene,-2.232,2,84.143,0,1,0,0.0,-1.33,c1ccsc1\n",
    "SAMPL.csv": "iupac,smiles,expt,calc\nmethanesulfonyl chloride,CS(=O)(=O)Cl,-4.87,-6.219\n",
    "Lipophilicity.csv": "CMPD_CHEMBLID,exp,smiles\nCHEMBL1771,3.69,COC(=O)C(N1CCc2sccc2C1)c3ccccc3Cl\n",
    "HIV.csv": "smiles,activity,HIV_active\nCCO,CI,0\nCCN,CA,1\n",
    "bace.csv": "mol,CID,Class,Model,pIC50,MW\nCCOC,BACE_1,1,Train,9.15,431\nCCNC,BACE_2,0,Test,5.1,300\n",
    "BBBP.csv": "num,name,p_np,smiles\n1,Propanolol,1,CC(C)NCC(O)COc1cccc2ccccc12\n",
}
TARGETS = {
    "qm7": ["qm7.u0_atom in kcal/mol"],
    "qm9": ["homo", "lumo", "gap", "zpve", "u0", "u298", "h298", "g298", "mu", "alpha", "r2", "cv"],
    "esol": ["esol.log_solubility in none"],
    "freesolv": ["freesolv.hydration in kcal/mol"],
    "lipophilicity": ["lipophilicity.logd in none"],
    "hiv": ["hiv.HIV_active in class"],
    "bace": ["bace.inhibitor in class"],
    "bbbp": ["bbbp.p_np in class"],
}


def described(columns):
    return [f"{column.full_name} in {column.output_unit}" for column in columns]


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    for name, text in PUBLISHED.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("STKD_SCREEN_DATA", str(tmp_path))
    return tmp_path


# Known tables


@pytest.mark.parametrize("name", [name for name in NAMED if not name.startswith("pcqm")])
def test_a_data_set_is_found_by_its_name_and_known_by_its_columns(data_folder, name):
    data = read_labelled([name], split="hash")
    assert len(data.columns) == {"qm8": 12, "qm9": 12}.get(name, 1)
    if len(data.columns) == 1:
        assert described(data.columns) == TARGETS[name]
    assert np.isfinite(data.targets).all() and not data.left_out and not data.notes
    assert data.files[0]["citation"]


def test_the_units_of_qm9_and_qm8(data_folder):
    data = read_labelled(["qm9"])
    units = {column.name: column.output_unit for column in data.columns}
    assert list(units) == TARGETS["qm9"]
    assert (units["mu"], units["alpha"], units["r2"], units["cv"]) == ("D", "a0^3", "a0^2", "cal/mol/K")
    value = dict(zip(units, data.targets[0], strict=True))
    assert value["gap"] == pytest.approx(0.5048 * HARTREE_IN_EV, rel=1e-6)
    assert value["u0"] == pytest.approx(-40.47893 * HARTREE_IN_EV, rel=1e-6)
    assert value["mu"] == 0
    qm8 = read_labelled(["QM8"])
    assert {c.output_unit for c in qm8.columns if c.name.startswith("E")} == {"eV"}
    assert {c.output_unit for c in qm8.columns if c.name.startswith("f")} == {"none"}


@pytest.mark.parametrize(
    ("header", "targets"),
    [
        ("gdb_index,smiles,homo_hartree,lumo_hartree,gap_hartree,split", ["qm9.homo", "qm9.lumo", "qm9.gap"]),
        ("smiles,gap_ev,source,split", ["pcqm.gap"]),
        ("cid,smiles,homo_ev,lumo_ev,gap_ev,split", ["pubchem.homo", "pubchem.lumo", "pubchem.gap"]),
        ("idx,smiles,homolumogap", ["pcqm.gap"]),
        ("smiles,freesolv", ["freesolv.hydration"]),
    ],
)
def test_a_table_is_known_by_its_header(header, targets):
    assert [target.full_name for target in known_layout(header.split(",")).targets] == targets


@pytest.mark.parametrize("header", ["smiles,homo,lumo,gap", "smiles,exp", "smiles,Class", "name,gap_ev"])
def test_columns_that_could_be_anybodys_are_not_guessed_at(header):
    assert known_layout(header.split(",")) is None


def test_layouts_agree_on_units():
    joint_targets([target for layout in LAYOUTS for target in layout.targets])
    with pytest.raises(TrainingError, match="a.y is in eV in column 'y' and in D in column 'z'"):
        joint_targets([TargetColumn.parse("a.y=y:hartree"), TargetColumn.parse("a.y=z:D")])


def test_tables_of_different_columns_give_one_target(data_folder):
    table = "smiles,homo_hartree,lumo_hartree,gap_hartree\nN,-0.257,0.0829,0.3399\n"
    (data_folder / "own.csv").write_text(table)
    data = read_labelled(["qm9", data_folder / "own.csv", "hiv"], split="hash")
    assert len(data.columns) == 13 and data.columns[2].full_name == "qm9.gap"
    np.testing.assert_allclose(data.targets[:2, 2], np.array([0.5048, 0.3399]) * HARTREE_IN_EV, rtol=1e-6)
    assert np.isfinite(data.targets).sum(axis=1).tolist() == [12, 3, 1, 1]


def test_preferred_columns_come_before_the_layout(data_folder):
    mine = [TargetColumn.parse("lab.u=u0_atom:kcal/mol"), TargetColumn.parse("lab.x=x:D")]
    data = read_labelled(["qm7", "hiv"], preferred=mine, split="hash")
    assert described(data.columns) == ["lab.u in kcal/mol", "hiv.HIV_active in class"]


def test_a_data_set_that_is_not_there_says_where_from_and_where_to(tmp_path, monkeypatch):
    monkeypatch.setenv("STKD_SCREEN_DATA", str(tmp_path))
    with pytest.raises(
        TrainingError, match=r"no .*qm7\.csv and no .*qm7\.csv\.gz; get https://.*qm7\.csv and "
    ):
        find_table("qm7")
    with pytest.raises(TrainingError, match=r"pcqm4m-v2\.zip and unpack it in .*STKD_SCREEN_DATA"):
        find_table("PCQM4M-v2")
    with pytest.raises(TrainingError, match="no such file: qm10; data sets known by name: qm7, qm8, qm9"):
        find_table("qm10")


def test_without_the_variable_the_folder_is_data(tmp_path, monkeypatch):
    monkeypatch.delenv("STKD_SCREEN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "HIV.csv").write_text(PUBLISHED["HIV.csv"])
    assert read_labelled(["hiv"]).targets[:, 0].tolist() == [0, 1]


def test_evaluate_takes_names_and_ways_of_splitting(data_folder):
    run = CliRunner().invoke(app, ["evaluate", "small", "qm9", "--split-by", "hash", "--json"])
    assert run.exit_code == 0, run.output
    measured = json.loads(run.stdout)["train"]
    assert {name: m["n"] for name, m in measured.items()} == {"qm9.homo": 1, "qm9.lumo": 1, "qm9.gap": 1}


# Bad labels


@pytest.mark.parametrize(
    ("target", "values", "note"),
    [
        (
            "qm9.gap=gap:eV",
            [0.2, 0.25, 0.3],
            "qm9.gap: median size 0.25 eV looks like hartree: write gap:hartree",
        ),
        ("qm9.gap=gap:hartree", [4.0, 5.0], "looks like eV: write gap:eV"),
        ("qm9.homo=homo:hartree", [-5.0, -6.0], "looks like eV: write homo:eV"),
        ("qm9.homo=homo:eV", [-0.2, -0.25], "looks like hartree: write homo:hartree"),
        ("qm9.lumo=lumo:hartree", [-1.0, 1.2], "looks like eV: write lumo:eV"),
        ("qm9.lumo=lumo:eV", [-0.03, 0.04], "looks like hartree: write lumo:hartree"),
        ("qm9.gap=g:eV", [110.0, 120.0], "is not between 1 and 15 eV: check the unit of column 'g'"),
        ("qm9.gap=gap:hartree", [0.2, 0.25, float("nan")], None),
        ("qm9.gap=gap:EV", [4.0, 5.0], None),
        ("qm9.lumo=lumo:eV", [-1.0, 0.3, 1.2], None),
        ("qm9.mu=mu:D", [0.0, 100.0], None),
        ("qm9.gap=gap:kcal/mol", [110.0], None),
    ],
)
def test_units_that_look_wrong_are_noted(target, values, note):
    found = unit_note(TargetColumn.parse(target), np.array(values))
    assert found is None if note is None else note in found


@needs_data
@pytest.mark.parametrize(
    "table", ["qm9/qm9_12_targets.csv.gz", "pcqm/pcqm_level_gap.csv.gz", "pcqm/pubchem_homo_lumo_gap.csv.gz"]
)
def test_no_note_on_real_energies(table):
    frame = pl.read_csv(SHARED_DATA / table, infer_schema_length=None)
    for column in known_layout(frame.columns).targets:
        assert unit_note(column, frame[column.column].to_numpy()) is None
        if column.name in ("homo", "lumo", "gap"):
            other = TargetColumn(
                column.name, column.level, column.column, "eV" if column.factor > 1 else "hartree"
            )
            assert unit_note(other, frame[column.column].to_numpy())


def test_notes_name_the_table(tmp_path):
    (tmp_path / "t.csv").write_text("smiles,gap_ev\nC,0.5\nCC,0.4\n")
    (note,) = read_labelled([tmp_path / "t.csv"]).notes
    assert note.startswith(f"{tmp_path / 't.csv'}: pcqm.gap: median size 0.45 eV looks like hartree")


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        (
            "smiles,y\nC,\nCC,NaN\n",
            "a.y=y:eV",
            "column 'y' holds no number; name another one in --target a.y=",
        ),
        ("smiles,y\nC,1\nCC,2\n", "a.y=y:class", r"column 'y' row 2 holds 2; a class is 0, 1, or empty"),
        ("smiles,y\nC,0.5\n", "a.y=y:Class", "row 1 holds 0.5"),
        (
            "smiles,y\nC,1\n",
            None,
            r"no layout that is known \(columns: smiles, y\); say what to take with --target",
        ),
    ],
)
def test_bad_labels_get_fact_place_and_fix(tmp_path, rows, target, message):
    (tmp_path / "t.csv").write_text(rows)
    columns = [TargetColumn.parse(target)] if target else []
    with pytest.raises(StkdError, match=message):
        read_labelled([tmp_path / "t.csv"], columns)


def test_classes_that_are_not_known_stay_empty(tmp_path):
    (tmp_path / "t.csv").write_text("smiles,y,z\nC,1,1\nCC,,2\nCCC,0,3\n")
    targets = [TargetColumn.parse("a.y=y:class"), TargetColumn.parse("a.z=z:none")]
    data = read_labelled([tmp_path / "t.csv"], targets)
    np.testing.assert_array_equal(data.targets[:, 0], [1, np.nan, 0])
