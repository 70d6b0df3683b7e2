"""Tables that are known: by their header what their columns mean, by a name where they lie."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stkd_screen.errors import TrainingError
from stkd_screen.teach.targets import TargetColumn

QM9 = "Ramakrishnan et al., Sci. Data 1, 140022 (2014)"
PUBCHEMQC = "Nakata and Shimazaki, J. Chem. Inf. Model. 57, 1300 (2017)"
PCQM4M = f"{PUBCHEMQC}; Hu et al., OGB-LSC (2021)"
FREESOLV = "Mobley and Guthrie, J. Comput. Aided Mol. Des. 28, 711 (2014)"


@dataclass(frozen=True)
class Layout:
    """A table that is known by its columns, whatever the name of its file."""

    name: str
    targets: tuple[TargetColumn, ...]
    citation: str
    smiles: str = "smiles"
    marks: tuple[str, ...] = ()  # further columns, where those of the targets could be anybody's
    index: str | None = None  # the column that OGB's split dictionary counts rows by

    @property
    def columns(self) -> set[str]:
        return {self.smiles, *self.marks, *(target.column for target in self.targets)}


def _targets(*texts: str) -> tuple[TargetColumn, ...]:
    return tuple(TargetColumn.parse(text) for text in texts)


def _of_unit(level: str, unit: str, *columns: str) -> tuple[TargetColumn, ...]:
    """Targets that are named as their columns."""
    return tuple(TargetColumn(name=column, level=level, column=column, unit=unit) for column in columns)


LAYOUTS = (
    Layout(
        "QM9 orbital energies",
        _targets(
            "qm9.homo=homo_hartree:hartree", "qm9.lumo=lumo_hartree:hartree", "qm9.gap=gap_hartree:hartree"
        ),
        QM9,
    ),
    Layout("gaps at the level of PCQM4M", _targets("pcqm.gap=gap_ev:eV"), PCQM4M),
    # A level of its own: this table must not train the level of PCQM4M unnoticed.
    Layout(
        "PubChem orbital energies",
        _targets("pubchem.homo=homo_ev:eV", "pubchem.lumo=lumo_ev:eV", "pubchem.gap=gap_ev:eV"),
        "DFT on PubChem molecules; method and geometries are not verified",
    ),
    Layout("PCQM4M", _targets("pcqm.gap=homolumogap:eV"), PCQM4M, index="idx", marks=("idx",)),
    Layout(
        "QM9",
        _of_unit("qm9", "hartree", "homo", "lumo", "gap", "zpve", "u0", "u298", "h298", "g298")
        + _targets("qm9.mu=mu:D", "qm9.alpha=alpha:a0^3", "qm9.r2=r2:a0^2", "qm9.cv=cv:cal/mol/K"),
        QM9,
    ),
    Layout(
        "QM8",
        _of_unit("qm8", "hartree", "E1-CC2", "E2-CC2", "E1-PBE0", "E2-PBE0", "E1-CAM", "E2-CAM")
        + _of_unit("qm8", "none", "f1-CC2", "f2-CC2", "f1-PBE0", "f2-PBE0", "f1-CAM", "f2-CAM"),
        "Ramakrishnan et al., J. Chem. Phys. 143, 084111 (2015)",
    ),
    Layout(
        "QM7",
        _targets("qm7.u0_atom=u0_atom:kcal/mol"),
        "Rupp et al., Phys. Rev. Lett. 108, 058301 (2012)",
    ),
    # As DeepChem ships it, and as chemprop and GROVER do.
    Layout("FreeSolv", _targets("freesolv.hydration=expt:kcal/mol"), FREESOLV, marks=("iupac", "calc")),
    Layout("FreeSolv", _targets("freesolv.hydration=freesolv:kcal/mol"), FREESOLV),
    Layout(
        "ESOL",
        _targets("esol.log_solubility=measured log solubility in mols per litre:none"),
        "Delaney, J. Chem. Inf. Comput. Sci. 44, 1000 (2004)",
    ),
    Layout(
        "Lipophilicity",
        _targets("lipophilicity.logd=exp:none"),
        "ChEMBL; Wu et al., MoleculeNet, Chem. Sci. 9, 513 (2018)",
        marks=("CMPD_CHEMBLID",),
    ),
    Layout(
        "HIV",
        _of_unit("hiv", "class", "HIV_active"),
        "NIH AIDS Antiviral Screen; Wu et al., MoleculeNet, Chem. Sci. 9, 513 (2018)",
    ),
    Layout(
        "BACE",
        _targets("bace.inhibitor=Class:class"),
        "Subramanian et al., J. Chem. Inf. Model. 56, 1936 (2016)",
        smiles="mol",
        marks=("CID", "Model", "pIC50"),
    ),
    Layout("BBBP", _of_unit("bbbp", "class", "p_np"), "Martins et al., J. Chem. Inf. Model. 52, 1686 (2012)"),
)


def known_layout(header: Iterable[str]) -> Layout | None:
    """The layout that finds the most columns in a header; None where none finds all that it needs."""
    names = set(header)
    fitting = [layout for layout in LAYOUTS if layout.columns <= names]
    return max(fitting, key=lambda layout: len(layout.columns), default=None)


DATA_FOLDER = "STKD_SCREEN_DATA"  # the environment variable
DEEPCHEM = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/"
OGB = "https://dgl-data.s3-accelerate.amazonaws.com/dataset/OGB-LSC/"

# Name of a data set: its file in the data folder, with or without .gz, and where it is to be had.
NAMED = {
    "qm7": ("qm7.csv", DEEPCHEM + "qm7.csv"),
    "qm8": ("qm8.csv", DEEPCHEM + "qm8.csv"),
    "qm9": ("qm9.csv", DEEPCHEM + "qm9.csv"),
    "esol": ("delaney-processed.csv", DEEPCHEM + "delaney-processed.csv"),
    "freesolv": ("SAMPL.csv", DEEPCHEM + "SAMPL.csv"),
    "lipophilicity": ("Lipophilicity.csv", DEEPCHEM + "Lipophilicity.csv"),
    "hiv": ("HIV.csv", DEEPCHEM + "HIV.csv"),
    "bace": ("bace.csv", DEEPCHEM + "bace.csv"),
    "bbbp": ("BBBP.csv", DEEPCHEM + "BBBP.csv"),
    "pcqm4m": ("pcqm4m_kddcup2021/raw/data.csv", OGB + "pcqm4m_kddcup2021.zip"),
    "pcqm4m-v2": ("pcqm4m-v2/raw/data.csv", OGB + "pcqm4m-v2.zip"),
}


def find_table(data: str | Path) -> Path:
    """The file of a path or of the name of a data set. Nothing is ever downloaded.

    Raises:
        TrainingError: it is neither, or the file of the named data set is not there.
    """
    if Path(data).is_file():
        return Path(data)
    name = str(data).lower()
    if name not in NAMED:
        raise TrainingError(f"no such file: {data}; data sets known by name: {', '.join(NAMED)}")
    file, source = NAMED[name]
    folder = Path(os.environ.get(DATA_FOLDER) or "data")
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    what = f"unpack it in {folder}" if source.endswith(".zip") else f"put it in {folder}"
    raise TrainingError(
        f"data set {name}: there is no {folder / file} and no {folder / file}.gz; get {source} and {what}, "
        f"or name another folder in the environment variable {DATA_FOLDER}"
    )
