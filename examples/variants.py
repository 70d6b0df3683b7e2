"""Write molecules that are one or two edits away from those of some tables: more of the same chemistry.

    python variants.py qm9.csv pcqm.csv.gz --per-molecule 3 --seed 7 -o variants.smi.gz
    stkd-screen distill qm9.csv --unlabelled variants.smi.gz ...

A teacher can say of them what it says of any molecule, so a student that is distilled has more to learn from
than there are labels. An edit changes an element or the order of a bond, adds or takes off an atom, closes or
opens a ring. A variant is kept where RDKit accepts it, each of its atoms has neighbours that some atom of its
table has as well (same elements, bonds, hydrogens, rings), it is no larger than the largest molecule of its
table, and no molecule of any of the tables. Needs RDKit and Polars.
"""

import argparse
import gzip
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    from rdkit import Chem, RDLogger
    from rdkit.Chem import rdFingerprintGenerator
except ImportError:
    raise SystemExit("this script needs RDKit: pip install rdkit") from None
import polars as pl

BONDS = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE]
NEIGHBOURHOODS = rdFingerprintGenerator.GetMorganGenerator(radius=1)


def read_table(path: Path, smiles_column: str) -> list[str]:
    """Distinct canonical SMILES without stereo of the molecules of a table."""
    column = pl.read_csv(path, columns=[smiles_column])[smiles_column].drop_nulls()
    molecules = filter(None, map(Chem.MolFromSmiles, column))
    found = (Chem.MolToSmiles(m, isomericSmiles=False) for m in molecules if m.GetNumAtoms())
    return list(dict.fromkeys(found))


def variants(molecules: Sequence[str], known: set[str], per_molecule: int, seed: int) -> Iterator[str]:
    """Distinct canonical SMILES of variants.

    Args:
        molecules: canonical SMILES of a table.
        known: SMILES not to give; those that are given are added.
        per_molecule: variants to try of each molecule.
        seed: of the choices.
    """
    generator = random.Random(seed)
    elements: Counter[int] = Counter()
    allowed: set[int] = set()
    largest = 0
    for molecule in map(Chem.MolFromSmiles, molecules):
        elements.update(atom.GetAtomicNum() for atom in molecule.GetAtoms())
        allowed |= neighbourhoods(molecule)
        largest = max(largest, molecule.GetNumAtoms())

    for molecule in map(Chem.MolFromSmiles, molecules):
        for _ in range(per_molecule):
            variant = edited(molecule, elements, generator)
            if variant is None or variant.GetNumAtoms() > largest or not neighbourhoods(variant) <= allowed:
                continue
            smiles = Chem.MolToSmiles(variant)
            if smiles and smiles not in known and "." not in smiles:
                known.add(smiles)
                yield smiles


def neighbourhoods(molecule: Chem.Mol) -> set[int]:
    """Codes of each atom with its neighbours (Morgan, radius 1)."""
    return set(NEIGHBOURHOODS.GetSparseCountFingerprint(molecule).GetNonzeroElements())


def edited(molecule: Chem.Mol, elements: Counter[int], generator: random.Random) -> Chem.Mol | None:
    """The molecule after one or two random edits; None where that is none."""
    copy = Chem.RWMol(molecule)
    Chem.Kekulize(copy, clearAromaticFlags=True)
    for _ in range(generator.choice([1, 2])):
        if copy.GetNumAtoms():
            edit(copy, elements, generator)
    for atom in copy.GetAtoms():
        if not atom.GetFormalCharge():  # its hydrogens fill up its valence
            atom.SetNoImplicit(False)
            atom.SetNumExplicitHs(0)
    made = copy.GetMol()
    if Chem.SanitizeMol(made, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    return made


def edit(molecule: Chem.RWMol, elements: Counter[int], generator: random.Random) -> None:
    """One random edit, in place; elements come as often as the table has them."""
    atom = generator.choice(list(molecule.GetAtoms()))
    pair = generator.sample(range(molecule.GetNumAtoms()), 2) if molecule.GetNumAtoms() > 1 else None
    bond = molecule.GetBondBetweenAtoms(*pair) if pair else None
    element = generator.choices([*elements], [*elements.values()])[0]
    kind = generator.choice(["element", "add", "take", "ring", "bond"])
    if kind == "ring" and pair and bond is None:
        molecule.AddBond(*pair, Chem.BondType.SINGLE)
    elif kind in ("ring", "bond") and molecule.GetNumBonds():
        bond = generator.choice(list(molecule.GetBonds()))
        if kind == "bond":
            bond.SetBondType(generator.choice([order for order in BONDS if order != bond.GetBondType()]))
        else:
            molecule.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    elif kind == "take" and atom.GetDegree() == 1:
        molecule.RemoveAtom(atom.GetIdx())
    elif kind == "add":
        molecule.AddBond(atom.GetIdx(), molecule.AddAtom(Chem.Atom(element)), generator.choice(BONDS))
    else:
        atom.SetAtomicNum(element)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, help="CSV files")
    parser.add_argument("--smiles-column", default="smiles", help="default: smiles")
    parser.add_argument("--per-molecule", type=int, default=3, help="variants tried of each (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (default 0)")
    parser.add_argument("-o", "--output", required=True, type=Path, help=".smi or .smi.gz")
    options = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    try:
        tables = [read_table(path, options.smiles_column) for path in options.tables]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SystemExit(f"error: {error}") from None
    known = {smiles for table in tables for smiles in table}
    opened = gzip.open if options.output.suffix == ".gz" else open
    with opened(options.output, "wt", encoding="utf-8") as file:
        for path, table in zip(options.tables, tables, strict=True):
            written = 0
            for smiles in variants(table, known, options.per_molecule, options.seed):
                file.write(smiles + "\n")
                written += 1
            print(f"{path}: {written:,} variants")


if __name__ == "__main__":
    main()
