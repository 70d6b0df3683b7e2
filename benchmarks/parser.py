"""SMILES per second of the pre-transformation beside RDKit's MolFromSmiles, on one core.

    python benchmarks/parser.py library.smi.gz [--rows 100000] [--runs 5]

Both read the same rows in the same process, after a warm-up reported apart. The figure is the median of the
runs by the thread's own CPU time, so that other work on the core does not count; the ratio is what carries
over between machines. Then the inputs that hang other programs, one row a call. The last line is JSON.
"""

import argparse
import gzip
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np

from stkd_screen import __version__
from stkd_screen.smiles import describe_error, error_class, pack_smiles, pretransform

WINDOW = 8192  # rows a call, as in a screening run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("library", type=Path, help=".smi or .smi.gz, SMILES in the first column")
    parser.add_argument("--rows", type=int, default=100_000, help="rows to read (default %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs (default %(default)s)")
    arguments = parser.parse_args()

    smiles = read_smiles(arguments.library, arguments.rows)
    data, offsets = pack_smiles(smiles)
    print(f"{len(smiles):,} SMILES, {len(data) / len(smiles):.1f} bytes each, from {arguments.library.name}")

    start = time.perf_counter()
    pretransform(data, offsets[:2])
    print(f"first call, compiled or from cache: {time.perf_counter() - start:.2f} s")
    molecules = pretransform(data, offsets)
    report_errors(molecules, smiles)

    figures = {
        "pretransform": rate(lambda: read_windows(data, offsets), len(smiles), arguments.runs),
        "without_single_between_rings": rate(
            lambda: read_windows(data, offsets, single_between_rings=False), len(smiles), arguments.runs
        ),
    }
    versions = {"stkd_screen": __version__, "numba": numba.__version__, "numpy": np.__version__}
    try:
        import rdkit
        from rdkit import Chem, RDLogger
    except ImportError:
        print("RDKit is not installed: no comparison")
    else:
        RDLogger.DisableLog("rdApp.*")
        versions["rdkit"] = rdkit.__version__
        sample = smiles[:: max(1, len(smiles) // 2000)]
        figures["rdkit"] = rate(lambda: [Chem.MolFromSmiles(text) for text in sample], len(sample), 3)
        figures["ratio"] = figures["pretransform"] / figures["rdkit"]

    for name, value in figures.items():
        print(f"{name:30s} {value:14,.1f}" + ("" if name == "ratio" else " SMILES/s"))
    figures["slowest_row_ms"] = max(time_worst_inputs())
    machine = {"processor": processor(), "python": platform.python_version(), "system": platform.system()}
    result = {"benchmark": "parser", "rows": len(smiles), "machine": machine, "versions": versions}
    print(json.dumps(result | {name: round(value, 1) for name, value in figures.items()}))


def read_smiles(path: Path, rows: int) -> list[str]:
    smiles = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            word = line.split(None, 1)
            if word and word[0].lower() != "smiles":
                smiles.append(word[0])
            if len(smiles) == rows:
                break
    return smiles


def read_windows(data: np.ndarray, offsets: np.ndarray, **options: bool) -> None:
    for start in range(0, len(offsets) - 1, WINDOW):
        pretransform(data, offsets[start : start + WINDOW + 1], **options)


def rate(work: Callable[[], object], rows: int, runs: int) -> float:
    """Rows a second, the median over `runs`."""
    seconds = []
    for _ in range(runs):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return rows / statistics.median(seconds)


def time_worst_inputs() -> Iterator[float]:
    """Milliseconds for each of the rows that are known to hang or crash programs, the best of three."""
    rings = [f"%({n})" for n in range(10_000)]
    worst = {
        "10,000 carbons": "C" * 10_000,
        "10,000 aromatic carbons": "c" * 10_000,
        "10,000 rings opened": "C" + "".join(rings),
        "10,000 rings closed": "C".join(["", *rings, *rings]),
        "10,000 branches, one in the other": "C(" * 10_000 + "C" + ")" * 10_000,
        "30 atoms, all bonded to each other": complete_graph("[Fe]", 30),
        "250 atoms, all bonded to each other": complete_graph("[Fe]", 250),
        "250 wildcards, all aromatic bonds, and c1cccc1": complete_graph("*", 250, ":") + ".c1cccc1",
        "a row of 62 aromatic rings": "c1c" + "".join(f"c{r}c" for r in rings[:61])
        + "cc" + "".join(f"cc{r}" for r in reversed(rings[:61])) + "cc1",
        "50 rings of five, aromatic": "-".join(["c1cccc1"] * 50),
        "a line of 1 MB": "C1" + "C" * 999_996 + "C1",
    }  # fmt: skip
    for name, text in worst.items():
        data, offsets = pack_smiles([text])
        seconds = []
        for _ in range(3):
            start = time.thread_time()
            molecules = pretransform(data, offsets)
            seconds.append(time.thread_time() - start)
        print(f"{name:46s} {1000 * min(seconds):8.2f} ms   {error_class(molecules.error[0])}")
        yield 1000 * min(seconds)


def complete_graph(atom: str, size: int, bond: str = "") -> str:
    """Every atom bonded to every other, the ones that are not neighbours in the text by ring bonds."""
    pairs = {pair: n for n, pair in enumerate((i, j) for j in range(size) for i in range(j - 1))}
    closures = ["".join(f"{bond}%({n})" for pair, n in pairs.items() if k in pair) for k in range(size)]
    return bond.join(atom + text for text in closures)


def report_errors(molecules, smiles: list[str]) -> None:
    bad = np.flatnonzero(molecules.error)
    print(f"{len(bad):,} rows with an error")
    for i in bad[:3]:
        print("   ", smiles[i], "-", describe_error(molecules.error[i], molecules.error_column[i], smiles[i]))


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
