"""Write molecules that are one or two edits away from those of a table: more of the same chemistry.

    python variants.py qm9.csv pcqm.csv.gz --per-molecule 3 --seed 7 -o variants.smi.gz
    stkd-screen distill qm9.csv --unlabelled variants.smi.gz ...

A teacher can say of them what it says of any molecule, so a student that is distilled has more to learn from
than there are labels. An edit changes an element or the order of a bond, adds or takes off an atom, closes or
opens a ring. A variant is kept where RDKit accepts it, each of its atoms has neighbours that some atom of the
table has as well (same elements, bonds, hydrogens, rings), and it is no molecule of the tables and no larger
than the largest of its table. Needs RDKit and Polars.
"""

import argparse
import gzip
import random
from collections.abc import Iterator
from pathlib import Path

try:
    from rdkit import Chem, RDLogger
    from rdkit.Chem import rdFingerprintGenerator
except ImportError:
    raise SystemExit("this script needs RDKit: pip install rdkit") from None
import polars as pl

BONDS = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE]
NEIGHBOURHOODS = rdFingerprintGenerator.GetMorganGenerator(radius=1)


def variants(table: Path, smiles_column: str, per_molecule: int, seed: int) -> Iterator[str]:
    """Distinct canonical SMILES, without stereo, of the variants of a table."""
    generator = random.Random(seed)
    RDLogger.DisableLog("rdApp.*")
    known: dict[str, Chem.Mol] = {}
    for smiles in pl.read_csv(table, columns=[smiles_column])[smiles_column].drop_nulls():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is not None:
            Chem.RemoveStereochemistry(molecule)
            known.setdefault(Chem.MolToSmiles(molecule), molecule)
    atoms = [atom for molecule in known.values() for atom in molecule.GetAtoms()]
    elements = [atom.GetAtomicNum() for atom in atoms]  # as often as the table has them
    largest = max(molecule.GetNumAtoms() for molecule in known.values())
    allowed = {code for molecule in known.values() for code in neighbourhoods(molecule)}

    found = set(known)
    for molecule in known.values():
        for _ in range(per_molecule):
            edited = Chem.RWMol(molecule)
            Chem.Kekulize(edited, clearAromaticFlags=True)
            for _ in range(generator.choice([1, 2])):
                edit(edited, elements, generator)
            variant = sanitised(edited)
            if variant is None or variant.GetNumAtoms() > largest or not neighbourhoods(variant) <= allowed:
                continue
            smiles = Chem.MolToSmiles(variant)
            if smiles not in found and "." not in smiles:
                found.add(smiles)
                yield smiles


def neighbourhoods(molecule: Chem.Mol) -> set[int]:
    """Codes of each atom with its neighbours (Morgan, radius 1, counts of neither)."""
    return set(NEIGHBOURHOODS.GetSparseCountFingerprint(molecule).GetNonzeroElements())


def edit(molecule: Chem.RWMol, elements: list[int], generator: random.Random) -> None:
    """One random edit, in place; what it leaves may be no molecule."""
    atom = generator.choice(list(molecule.GetAtoms()))
    kind = generator.choice(["element", "order", "add", "take", "close", "open"])
    if kind == "element":
        atom.SetAtomicNum(generator.choice(elements))
    elif kind == "add":
        molecule.AddBond(
            atom.GetIdx(), molecule.AddAtom(Chem.Atom(generator.choice(elements))), generator.choice(BONDS)
        )
    elif kind == "take" and atom.GetDegree() == 1:
        molecule.RemoveAtom(atom.GetIdx())
    elif kind == "close":
        other = generator.randrange(molecule.GetNumAtoms())
        if other != atom.GetIdx() and molecule.GetBondBetweenAtoms(atom.GetIdx(), other) is None:
            molecule.AddBond(atom.GetIdx(), other, Chem.BondType.SINGLE)
    elif molecule.GetNumBonds():
        bond = generator.choice(list(molecule.GetBonds()))
        if kind == "order":
            bond.SetBondType(generator.choice(BONDS))
        elif kind == "open":
            molecule.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())


def sanitised(edited: Chem.RWMol) -> Chem.Mol | None:
    """The molecule with hydrogens to fill the valences of all atoms without charge; None if there is none."""
    for atom in edited.GetAtoms():
        if not atom.GetFormalCharge():
            atom.SetNoImplicit(False)
            atom.SetNumExplicitHs(0)
    molecule = edited.GetMol()
    if Chem.SanitizeMol(molecule, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    return molecule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, help="CSV files")
    parser.add_argument("--smiles-column", default="smiles", help="default: smiles")
    parser.add_argument("--per-molecule", type=int, default=3, help="variants tried of each (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (default 0)")
    parser.add_argument("-o", "--output", required=True, type=Path, help=".smi or .smi.gz")
    options = parser.parse_args()
    opened = gzip.open if options.output.suffix == ".gz" else open
    with opened(options.output, "wt", encoding="utf-8") as file:
        for table in options.tables:
            written = 0
            for smiles in variants(table, options.smiles_column, options.per_molecule, options.seed):
                file.write(smiles + "\n")
                written += 1
            print(f"{table}: {written:,} variants")


if __name__ == "__main__":
    main()
