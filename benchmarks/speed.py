"""How long inference takes beside the paper's other models and beside what users would take instead.

    python benchmarks/speed.py library.smi.gz [--molecules 4096] [--device cpu] [--chemprop]

The paper's table 3 on this machine: milliseconds a molecule from ready inputs, from raw SMILES with one
process that builds graphs, fingerprints or tokens, and with as many processes as threads. Then
`stkd-screen embed` and, with --chemprop, `chemprop predict`, from file to file. The last line is JSON.
docs/performance.md says what is timed.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distributions
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import torch
from contenders import Contender, contender, read_molecules
from parser import processor
from rdkit import Chem, rdBase
from rich import box
from rich.console import Console
from rich.table import Table

from stkd_screen import __version__
from stkd_screen.encoder import choose_device
from stkd_screen.errors import InputError, StkdError
from stkd_screen.records import RecordReader
from stkd_screen.teach.processes import usable_cores

# Milliseconds a molecule from raw SMILES, ZINC on one RTX 3090 (ST-KD, table 3).
PAPER = {
    "graphormer:base": 4.035,
    "gin-vn:paper": 0.913,
    "gcn-vn:paper": 0.906,
    "mlp-ecfp:paper": 0.467,
    "st-base:paper": 0.230,
    "st-kd:paper": 0.271,
}
MODELS = (*PAPER, "graphormer:slim-teacher", "st-kd:large", "st-kd:small", "morgan", "embed")
COLUMNS = ("ready", "one_process", "all_cores")
# Parameters; the columns in milliseconds a molecule; molecules a second by the last of them; how many times
# as long it takes as what it is compared with (`ratio`); and the paper's figures.
TITLES = ("M params", "ready", "one process", "all cores", "mol/s", "ratio", "paper, ms", "paper, ratio")
PACKAGES = ("torch", "torch-geometric", "rdkit", "numba", "numpy")
# Molecules a model is timed with, however slow it is: with fewer, batches of one length would be too small.
FEWEST = 256


def usable_molecules(library: Path, count: int) -> list[str]:
    """The first SMILES of a library that both RDKit and the student can read.

    Raises:
        InputError: the library cannot be read, or has none.
    """
    smiles: list[str] = []
    for records in RecordReader([library]):
        texts = records.smiles.to_pylist()
        atoms = np.diff(read_molecules(texts).atom_offsets)
        with rdBase.BlockLogs():
            smiles += [text for text, n in zip(texts, atoms, strict=True) if n and Chem.MolFromSmiles(text)]
        if len(smiles) >= count:
            break
    if not smiles:
        raise InputError(f"{library} has no molecule that can be read; give another file")
    return smiles[:count]


def spread(smiles: list[str], count: int) -> list[str]:
    """So many of the molecules, evenly over their lengths, in their order."""
    by_length = np.argsort([len(text) for text in smiles], kind="stable")
    places = np.linspace(0, len(smiles) - 1, min(count, len(smiles))).astype(int)
    return [smiles[row] for row in np.sort(by_length[places])]


def as_many_as_take(
    seconds: float, contender: Contender, smiles: list[str], pool: ProcessPoolExecutor
) -> list[str]:
    """As many of the molecules as a pass of so many seconds does; finding that out warms the model up."""
    contender.seconds(spread(smiles, 8), pool)  # compiles
    count = min(FEWEST, len(smiles))
    while True:
        taken = sum(contender.seconds(spread(smiles, count), pool))
        if taken > seconds / 4 or count == len(smiles):
            break
        count = min(4 * count, len(smiles))
    return spread(smiles, max(FEWEST, int(count * seconds / taken)))


def time_models(
    smiles: list[str], names: list[str], device: torch.device, options: argparse.Namespace
) -> dict:
    """Milliseconds a molecule of each model, medians over repeats in which the models take turns."""
    models = {name: contender(name, smiles, device) for name in names}
    context = get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(options.threads, context, torch.set_num_threads, (1,)) as pool:
        samples = {
            name: as_many_as_take(options.seconds, model, smiles, pool) for name, model in models.items()
        }
        passes: dict[str, list] = {name: [] for name in models}
        for _ in range(options.repeats):
            for name, model in models.items():
                passes[name].append(model.seconds(samples[name], pool))
    figures = {}
    for name, seconds in passes.items():
        forward, by_one, by_all = 1000 * np.array(seconds).T / len(samples[name])
        columns = {"ready": forward, "one_process": by_one + forward, "all_cores": by_all + forward}
        model = models[name].model
        if model is None:
            del columns["ready"]
        figures[name] = {
            "parameters": sum(p.numel() for p in model.parameters()) if model else 0,
            "molecules": len(samples[name]),
            "ms": {column: float(np.median(times)) for column, times in columns.items()},
        }
    return figures


def time_programs(smiles: list[str], device: torch.device, options: argparse.Namespace) -> dict:
    """Milliseconds a molecule of whole programs, from file to file, net of what they take to start.

    That is the difference between all molecules and an eighth of them, each the median of repeats in turns.
    """
    sizes = (-(-len(smiles) // 8), len(smiles))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in sizes:
            rows = spread(smiles, size)
            (folder / f"{size}.smi").write_text("\n".join(rows) + "\n")
            pl.DataFrame({"smiles": rows}).write_csv(folder / f"{size}.csv")
        programs = {}
        if "embed" in options.models:
            embed = f"embed SIZE.smi -o SIZE.parquet --overwrite --device {device}"
            programs["embed"] = [sys.executable, "-m", "stkd_screen", *embed.split()]
        if options.chemprop:
            train_chemprop(options.chemprop, smiles, folder, options.threads)
            accelerator = "gpu" if device.type == "cuda" else "cpu"
            predict = f"predict -i SIZE.csv -o SIZE.out.csv --accelerator {accelerator} --model-paths"
            programs["chemprop"] = [options.chemprop, *predict.split(), "chemprop/model_0/best.pt"]
            programs["chemprop, cuik"] = [*programs["chemprop"], "--use-cuikmolmaker-featurization"]
        seconds = {(program, size): [] for program in programs for size in sizes}
        for turn in range(1 + options.repeats):  # the first is to warm up: caches of files and of compilers
            for (program, size), times in seconds.items():
                command = [word.replace("SIZE", str(size)) for word in programs[program]]
                start, spent = time.perf_counter(), cpu_of_children()
                execute(command, folder, options.threads)
                if turn:
                    times.append((time.perf_counter() - start, cpu_of_children() - spent))
        written = {path: len(pl.read_parquet(path)) for path in folder.glob("*.parquet")}
        written |= {path: len(pl.read_csv(path)) for path in folder.glob("*.out.csv")}
        for path, rows in written.items():
            if rows != int(path.name.partition(".")[0]):
                raise StkdError(f"{path.name} has {rows:,} rows, not one for each molecule")
    figures = {}
    for program in programs:
        few, all_ = (np.median(seconds[program, size], axis=0) for size in sizes)
        net, cpu = 1000 * (all_ - few) / max(1, sizes[1] - sizes[0])
        figures[program] = {
            "molecules": len(smiles),
            "seconds": {str(sizes[0]): float(few[0]), str(sizes[1]): float(all_[0])},
            "cpu_ms": float(cpu),  # of all cores, net: other work on the machine does not count
            "ms": {"all_cores": float(net)} if net > 0 else {},  # too few molecules to tell from the start
        }
    return figures


def cpu_of_children() -> float:
    """CPU seconds of the programs that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def train_chemprop(program: str, smiles: list[str], folder: Path, threads: int) -> None:
    """A model of chemprop's usual size in `folder`/chemprop, trained for an epoch on lengths of SMILES."""
    few = spread(smiles, 200)
    pl.DataFrame({"smiles": few, "y": [len(text) for text in few]}).write_csv(folder / "train.csv")
    train = "train -i train.csv -o chemprop -t regression --epochs 1 --warmup-epochs 0 --accelerator cpu"
    execute([program, *train.split()], folder, threads)


def execute(command: list[str], folder: Path, threads: int) -> None:
    """Run a program to its end.

    Raises:
        StkdError: it is not there, or it fails.
    """
    try:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    except OSError as error:
        raise StkdError(f"{command[0]} cannot be run: {error}; give the path of the program") from error
    except subprocess.CalledProcessError as error:
        raise StkdError(f"{' '.join(command)} failed:\n{error.stderr[-2000:]}") from error


def ratio(name: str, figures: dict) -> float | None:
    """How many times as long a model takes as st-kd:paper, from SMILES with one process; a program as embed.

    None where one of the two was not timed.
    """
    column, base = (
        ("one_process", "st-kd:paper") if "seconds" not in figures[name] else ("all_cores", "embed")
    )
    ours, theirs = (figures.get(one, {}).get("ms", {}).get(column) for one in (name, base))
    return ours / theirs if ours and theirs else None


def table_of(figures: dict, markdown: bool) -> Table:
    """A row for each model and program."""
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE)
    table.add_column("model", no_wrap=True)
    for title in TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in figures.items():
        ms, paper = row["ms"], PAPER.get(name)
        numbers = (
            (row.get("parameters", 0) / 1e6, ".1f"),
            *((ms.get(column), ".3f") for column in COLUMNS),
            (1000 / ms["all_cores"] if ms else None, ",.0f"),
            (row["ratio"], ".2f"),
            (paper, ".3f"),
            (paper / PAPER["st-kd:paper"] if paper else None, ".2f"),
        )
        table.add_row(name, *(format(number, style) if number else "" for number, style in numbers))
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add, models = parser.add_argument, " ".join(MODELS)
    add("library", type=Path, help="any file that stkd-screen embed reads")
    add("--molecules", type=int, default=4096, help="the first so many (default %(default)s)")
    add("--device", default="auto", help="auto, cpu or cuda (default %(default)s)")
    add("--threads", type=int, default=usable_cores(), help="and processes (default: all usable cores)")
    add("--models", nargs="+", default=MODELS, metavar="MODEL", help=f"default: {models}")
    add("--chemprop", nargs="?", const="chemprop", metavar="PATH", help="time chemprop, too (2.3)")
    add("--seconds", type=float, default=3.0, help="of one pass of a model (default %(default)s)")
    add("--repeats", type=int, default=3, help="passes of each (default %(default)s)")
    add("--markdown", action="store_true", help="print the table in Markdown")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.chemprop:
        options.chemprop = str(Path(shutil.which(options.chemprop) or options.chemprop).absolute())
    device = choose_device(options.device)
    torch.set_num_threads(options.threads)
    smiles = usable_molecules(options.library, options.molecules)
    names = [name for name in options.models if name != "embed"]
    figures = time_models(smiles, names, device, options) | time_programs(smiles, device, options)
    for name, row in figures.items():
        row["ratio"] = ratio(name, figures)
    Console(width=150).print(table_of(figures, options.markdown))
    result = {
        "benchmark": "speed",
        "library": options.library.name,
        "molecules": len(smiles),
        "machine": {
            "processor": processor(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": options.threads,
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": {one.name: one.version for one in distributions() if one.name in PACKAGES}
        | {"stkd_screen": __version__},
        "paper_ms": PAPER,
        "figures": figures,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        main()
    except StkdError as error:
        sys.exit(f"error: {error}")
