"""Write a library of drug-like molecules of any size, to have something to screen.

    python enumerate_library.py --count 1000000 --seed 7 -o library.smi.gz

Every molecule is a fused bicycle (the core) with two arms; an arm is a linker and a cap. No arm holds a fused
bicycle, so a molecule can be taken apart in one way only: different parts give different molecules. A seed
fixes the order, a walk in equal steps through all combinations that meets each of them once. There are about
8 billion. Needs RDKit.
"""

import argparse
import functools
import gzip
import itertools
import math
import random
from collections.abc import Iterator
from typing import TextIO

try:
    from rdkit import Chem
except ImportError:
    raise SystemExit("this script needs RDKit: pip install rdkit") from None

BICYCLES = """
    c1ccc2ccccc2c1 c1ccc2ncccc2c1 c1ccc2cnccc2c1 c1ccc2ncncc2c1 c1ccc2nccnc2c1 c1ccc2nnccc2c1 c1ccc2cnncc2c1
    c1cnc2cccnc2c1 c1ccc2[nH]ccc2c1 c1ccc2[nH]ncc2c1 c1ccc2[nH]cnc2c1 c1ccc2occc2c1 c1ccc2sccc2c1
    c1ccc2ocnc2c1 c1ccc2scnc2c1 c1ccc2nccn2c1 c1cnc2ccnn2c1 c1ncc2sccc2n1 c1ncc2cc[nH]c2n1 c1ncc2nc[nH]c2n1
    c1cnc2[nH]ccc2c1 c1cnc2occc2c1 c1ccc2c(c1)CCC2 c1ccc2c(c1)CCO2 c1ccc2c(c1)OCO2 c1ccc2c(c1)CCCO2
    c1ccc2c(c1)CNC2=O c1ccc2c(c1)CC(=O)N2 O=c1ccc2ccccc2o1 O=c1ccoc2ccccc12
    O=c1[nH]cnc2ccccc12 O=c1cc[nH]c2ccccc12
""".split()  # noqa: SIM905

# Both ends of a linker: the core is on the left, the cap follows on the right.
LINKERS_TO_ANY_CAP = ["C", "CC", "C(C)", "CCC", "C(=O)", "OCC", "NCC", "C(=O)NCC", "NC(=O)C", "SCC"]
LINKERS_TO_CARBON = ["", "O", "N", "S", "N(C)", "CO", "CN", "C(=O)N", "C(=O)N(C)", "NC(=O)", "S(=O)(=O)N"]
LINKERS_TO_CARBON += ["NS(=O)(=O)", "NC(=O)N", "OC(=O)N", "C(=O)O", "C#C", "OC", "NC", "CS", "C(=O)NC"]

RINGS = ["c3ccc({})cc3", "c3cccc({})c3", "c3ccccc3{}", "c3ccc({})nc3", "c3cncc({})c3", "c3ncc({})cn3"]
RINGS += [
    "c3ccc({})s3",
    "c3ccc({})o3",
    "c3nnc({})o3",
    "c3nc({})cs3",
    "c3cn({})nc3",
    "C3CCC({})CC3",
    "C3CC3{}",
]
DECORATIONS = ["C", "CC", "OC", "C#N", "C(F)(F)F", "C(C)C", "C(N)=O", "CO", "OC(F)F", "NC(C)=O"]  # on C or N
HALOGENS = ["F", "Cl", "Br"]  # on C only
PLAIN_CAPS_ON_CARBON = [
    "C(C)C",
    "C(C)(C)C",
    "C(F)(F)F",
    "CC#N",
    "CCOC",
    "C3CCC3",
    "C3CCCC3",
    "C3CCOCC3",
    "C3COC3",
]
PLAIN_CAPS_ON_CARBON += [
    "C3CCN(C)CC3",
    "C3CCCO3",
    "CC(F)F",
    "CCS(C)(=O)=O",
    "c3ccncc3",
    "c3ccn[nH]3",
    "C3CCS(=O)(=O)C3",
]
PLAIN_CAPS_ON_NITROGEN = [
    "N3CCOCC3",
    "N3CCCC3",
    "N3CCCCC3",
    "N3CCN(C)CC3",
    "N(C)C",
    "N3CCC(F)(F)C3",
    "N3CCC(O)CC3",
]
PLAIN_CAPS_ON_NITROGEN += ["n3ccnc3", "n3cccn3", "N3CCSCC3", "N3CC(OC)C3", "N3CCN(C(C)=O)CC3"]

ARM_ATOMS = range(3, 13)  # heavy atoms; with cores of 9 to 12 this gives molecules of 15 to 36


@functools.cache
def arms() -> list[str]:
    """Distinct arms as SMILES that start at the atom bound to the core."""
    on_nitrogen = {ring for ring in RINGS if "n({})" in ring}
    decorated = [
        ring.format(decoration)
        for ring in RINGS
        for decoration in DECORATIONS + ([] if ring in on_nitrogen else HALOGENS)
    ]
    carbon_caps = decorated + PLAIN_CAPS_ON_CARBON
    pairs = itertools.chain(
        itertools.product(LINKERS_TO_CARBON + LINKERS_TO_ANY_CAP, carbon_caps),
        itertools.product(LINKERS_TO_ANY_CAP, PLAIN_CAPS_ON_NITROGEN),
    )
    found = {}  # canonical SMILES -> arm
    for linker, cap in pairs:
        molecule = Chem.MolFromSmiles(f"*{linker}{cap}")
        if molecule.GetNumAtoms() - 1 in ARM_ATOMS:
            found.setdefault(Chem.MolToSmiles(molecule), linker + cap)
    return list(found.values())


@functools.cache
def cores() -> list[tuple[str, str, str]]:
    """Distinct cores as (text before one arm, between the arms, after the other).

    The arms sit on two aromatic carbons that symmetry does not exchange: swapped arms are another molecule.
    """
    found = {}  # canonical SMILES -> core
    for bicycle in map(Chem.MolFromSmiles, BICYCLES):
        carbons = [
            atom.GetIdx()
            for atom in bicycle.GetAtoms()
            if atom.GetSymbol() == "C" and atom.GetTotalNumHs() == 1
        ]
        for places in itertools.combinations(carbons, 2):
            one, other = (Chem.MolToSmiles(_marked(bicycle, order)) for order in (places, places[::-1]))
            if one != other and one not in found and other not in found:
                found[one] = _split(bicycle, places)
    return list(found.values())


def _marked(bicycle: Chem.Mol, places: tuple[int, ...]) -> Chem.Mol:
    """The bicycle with atoms [1*] and [2*] at the two places."""
    molecule = Chem.RWMol(bicycle)
    for label, place in enumerate(places, 1):
        arm = Chem.Atom(0)
        arm.SetIsotope(label)
        molecule.AddBond(place, molecule.AddAtom(arm), Chem.BondType.SINGLE)
    Chem.SanitizeMol(molecule)
    return molecule.GetMol()


def _split(bicycle: Chem.Mol, places: tuple[int, ...]) -> tuple[str, str, str]:
    # Written from another atom, both marks follow the atom they are bound to, as the arms will.
    start = next(i for i in range(bicycle.GetNumAtoms()) if i not in places)
    smiles = Chem.MolToSmiles(_marked(bicycle, places), rootedAtAtom=start)
    before, between, after = smiles.replace("[1*]", "[2*]").split("[2*]")
    return before, between, after


def molecules(count: int, seed: int) -> Iterator[str]:
    """`count` distinct SMILES in the order of the seed.

    Raises:
        ValueError: there are fewer combinations than that.
    """
    all_cores, all_arms = cores(), arms()
    total = len(all_cores) * len(all_arms) ** 2
    if count > total:
        raise ValueError(f"{count:,} molecules asked for, {total:,} possible; lower --count")
    draw = random.Random(seed)
    place, step = draw.randrange(total), draw.randrange(total)
    while math.gcd(step, total) != 1:  # else the walk would come back before it has seen everything
        step = draw.randrange(total)
    for _ in range(count):
        rest, core = divmod(place, len(all_cores))
        first, second = divmod(rest, len(all_arms))
        before, between, after = all_cores[core]
        yield f"{before}{all_arms[first]}{between}{all_arms[second]}{after}"
        place = (place + step) % total


def check(smiles: str) -> None:
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not 15 <= molecule.GetNumAtoms() <= 36:
        raise AssertionError(f"not a molecule as intended: {smiles}")


def open_output(path: str) -> TextIO:
    if path.endswith(".gz"):
        return gzip.open(path, "wt", compresslevel=4)
    return open(path, "w")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="molecules to write (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another order (default 0)")
    parser.add_argument("-o", "--output", default="library.smi", help=".smi or .smi.gz (default library.smi)")
    options = parser.parse_args()
    check_every = max(1, options.count // 1000)  # all would take RDKit most of an hour for ten million
    with open_output(options.output) as output:
        for number, smiles in enumerate(molecules(options.count, options.seed), 1):
            if number % check_every == 0:
                check(smiles)
            output.write(f"{smiles}\tL{number:07d}\n")
    print(f"{options.count:,} molecules in {options.output}")


if __name__ == "__main__":
    main()
