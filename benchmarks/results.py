"""Write the paper's tables 1, 2 and 9 from trained models, and the figure of time against accuracy.

    python benchmarks/results.py out/mlp-ecfp out/gin-vn slim-teacher small --fine-tuned out/fine-tuned \\
        --speed speed.json -o docs/results.md

A model is a folder of `train_baseline.py`, of `stkd-screen train`, `distill` or `teach`, or a shipped model
by name; `--fine-tuned` takes the folder that `fine_tune.py` wrote, `--speed` what `speed.py` printed. All
errors are those of a model's config.json, measured when its training ended.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stkd_screen.errors import StkdError
from stkd_screen.files import whole
from stkd_screen.teach.targets import HARTREE_IN_EV
from stkd_screen.teach.teacher import load_teacher
from stkd_screen.weights import find_weights, load_weights

TARGETS = {"qm9.homo": "HOMO", "qm9.lumo": "LUMO", "qm9.gap": "QM9 gap", "pcqm.gap": "PCQM-level gap"}
# ST-KD, table 1: millions of parameters, MAE of the gap on the train and the valid split of PCQM4M-LSC, eV.
PAPER = {
    "gcn": (2.0, 0.1522, 0.1702),
    "gin": (3.8, 0.1379, 0.1533),
    "gcn-vn": (4.9, 0.1317, 0.1542),
    "gin-vn": (6.7, 0.1206, 0.1421),
    "graphormer": (47.1, 0.0590, 0.1274),
    "mlp-ecfp": (15.8, 0.1032, 0.2113),
    "st-base": (19.1, 0.1483, 0.2031),
    "st-kd": (20.4, 0.0877, 0.1379),
}
NAMES = {
    "gcn": "GCN",
    "gin": "GIN",
    "gcn-vn": "GCN-VN",
    "gin-vn": "GIN-VN",
    "graphormer": "Graphormer (teacher)",
    "mlp-ecfp": "MLP-ECFP",
    "st-base": "ST-BASE",
    "st-kd": "ST-KD",
}
# Table 2: the measure of each data set, and how it is called. Energies of QM8 are in hartree, as elsewhere.
FINE_TUNED = {
    "qm7": ("mae", "MAE, kcal/mol"),
    "qm8": ("mae", "MAE, mean of 12 targets, hartree or none"),
    "freesolv": ("rmse", "RMSE, kcal/mol"),
    "hiv": ("auc", "area under the ROC curve"),
}
MLP, SMALL = "MLP-ECFP", "ST-KD small"
# ST-KD, table 9: MAE of the twelve targets of QM9, energies in hartree.
TWELVE = "qm9_12_targets"
PAPER_TWELVE = {
    "mu": 0.3548,
    "alpha": 0.2563,
    "homo": 2.390e-3,
    "lumo": 2.426e-3,
    "gap": 3.232e-3,
    "r2": 15.73,
    "zpve": 4.518e-4,
    "u0": 0.2534,
    "u298": 0.2497,
    "h298": 0.2564,
    "g298": 0.2631,
    "cv": 0.1146,
}
PAGE = """# Results

The paper's table 1 ([ST-KD](../README.md#sources)) with models trained here: mean absolute errors in eV,
against density functional theory, on molecules of the test split, which took no part in training or choice.
All models learned from the same {train:,} labelled molecules ({tables}),
with the same targets, split and evaluation; the students also from molecules without labels, which their
teachers answered for.{teacher}{missing}

Written by `benchmarks/results.py`; how to train the models: [benchmarks](../benchmarks/README.md). What each
loss brings, the paper's table 4: [distill](distill.md#what-is-learned).

{test}

On the molecules that they learned from, where that was measured:

{train_table}

How long they learned, on one or two cores of a CPU, and what the paper says of models of that name. Its
sizes and data are others: the 3.8M molecules of PCQM4M-LSC, of whose labels none of ours saw one.

{training}
"""

TABLE_2 = """
## Fine-tuned: the paper's table 2

`small` after fine-tuning on small tables by `benchmarks/fine_tune.py`, beside MLP-ECFP trained on the same
rows, from scratch, with the same options: mean and standard deviation of {seeds} runs on the test split.
`hash`: a tenth of the molecules, none of which took part in training `small`; `scaffold`: the tenth with the
rarest scaffolds. The weights are the best by the valid split. The paper splits all but HIV at random.{start}

{table}
"""

TABLE_9 = """
## Twelve targets at once: the paper's table 9

`small` fine-tuned, and MLP-ECFP trained, on {train:,} training molecules of QM9, those for which all twelve
targets could be had; the paper had 107,000. Mean absolute errors on {test:,} test molecules, none of which
took part in training `small`; {runs}.{start}

{table}
"""

FIGURE = """
## Time against accuracy

![error against time of each model]({picture})

Milliseconds a molecule from raw SMILES, graphs and fingerprints made by one process, on {device}, {threads}
threads; up to {molecules:,} molecules of `{library}`, all models in one run of `benchmarks/speed.py`; errors
as in the tables above. Down and to the left is better.{missing}
"""


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def kind_of(config: dict[str, Any]) -> str:
    """The key of a model in PAPER."""
    if config["kind"] == "baseline":
        return config["model"]
    return "graphormer" if config["kind"] == "teacher" else "st-kd"


def name_of(folder: Path, config: dict[str, Any]) -> str:
    """What a model is called; students, of which there may be several, after their folder."""
    kind = kind_of(config)
    return f"{NAMES[kind]} {folder.name}" if kind == "st-kd" else NAMES[kind]


def errors_of(metrics: dict[str, Any], split: str) -> list[str]:
    errors = [metrics.get(split, {}).get(target, {}).get("mae") for target in TARGETS]
    return ["" if error is None else f"{error:.3f}" for error in errors]


def training_of(folder: Path, config: dict[str, Any]) -> list[str]:
    training, parameters = config["training"], parameters_of(folder, config)
    millions, train, valid = PAPER[kind_of(config)]
    before = " more, from earlier weights" if training["options"].get("start") else ""
    return [
        name_of(folder, config),
        f"{parameters / 1e6:.1f}M",
        f"{training['epochs']:.1f}{before}",
        f"{training['seconds'] / 60:.0f}",
        f"{millions}M",
        f"{train:.3f}",
        f"{valid:.3f}",
    ]


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(folders: list[Path]) -> str:
    """The page, models in the order in which they were given.

    Raises:
        StkdError: models that did not learn from the same labelled rows.
    """
    configs = [config_of(folder) for folder in folders]
    tables = [labelled_tables(config) for config in configs]
    for folder, other in zip(folders, tables, strict=True):
        if other != tables[0]:
            raise StkdError(f"{folder} did not learn from the tables of {folders[0]}: {other}, {tables[0]}")
    models = list(zip(folders, configs, strict=True))
    names = list(TARGETS.values())
    fewest = min(
        config["training"]["molecules"]["train"] for config in configs
    )  # others have unlabelled ones

    def row(folder: Path, config: dict[str, Any], split: str) -> list[str]:
        return [name_of(folder, config), *errors_of(config["metrics"], split)]

    with_train = [model for model in models if model[1]["metrics"].get("train")]
    heads = ["model", "parameters", "epochs", "minutes", "paper: parameters", "gap, train", "gap, valid"]
    missing = [NAMES[kind] for kind in PAPER if kind not in map(kind_of, configs)]
    return PAGE.format(
        teacher=other_teachers(models),
        missing=f" Of the paper's models {', '.join(missing)} are missing here." if missing else "",
        train=fewest,
        tables=", ".join(f"`{name}`" for name in sorted(tables[0])),
        test=table(["test", *names], [row(*model, "test") for model in models]),
        train_table=table(["train", *names], [row(*model, "train") for model in with_train]),
        training=table(heads, [training_of(*model) for model in models]),
    )


def other_teachers(models: list[tuple[Path, dict[str, Any]]]) -> str:
    """What the teacher of a student was like, where it is none of the models."""
    there = {config.get("sha256") for _, config in models}
    text = ""
    for folder, config in models:
        teacher = config["training"].get("teacher")
        if teacher is not None and teacher["sha256"] not in there:
            errors = ", ".join(errors_of(teacher["metrics"], "test"))
            text += (
                f" The teacher of {name_of(folder, config)} was not the one below, but another "
                f"({errors} eV on the test split)."
            )
    return text


def fine_tuned_pages(folder: Path) -> str:
    """Tables 2 and 9, as far as `fine_tune.py` has come with them.

    Raises:
        StkdError: runs on one table that did not learn from the same rows.
    """
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}  # table -> model -> configurations
    for path in sorted(folder.glob("*/*-*/config.json")):
        config = config_of(path.parent)
        if "test" in config["metrics"]:
            model = MLP if config["kind"] == "baseline" else SMALL
            of_table = runs.setdefault(path.parents[1].name, {MLP: [], SMALL: []})
            of_table[model].append(config)
    for name, of_table in runs.items():
        counts = {str(config["training"]["molecules"]) for of in of_table.values() for config in of}
        if len(counts) > 1:
            raise StkdError(f"{folder / name}: runs on different rows, {' and '.join(sorted(counts))}")
    small_tables = {name: runs[name] for name in FINE_TUNED if name in runs}
    text = table_2(small_tables) if small_tables else ""
    return text + (table_9(runs[TWELVE]) if TWELVE in runs else "")


def table_2(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    rows = []
    for name, of_table in runs.items():
        measure, meaning = FINE_TUNED[name]
        training = any_of(of_table)["training"]
        ways = ", ".join(file["split"].partition(" ")[0] for file in training["data"])
        counts = [f"{training['molecules'][split]:,}" for split in ("train", "test")]
        figures = [mean_and_deviation([overall(run, measure) for run in of]) for of in of_table.values()]
        rows.append([name, meaning, ways, *counts, *figures])
    heads = ["data", "measure", "split", "train", "test", MLP, SMALL]
    counted = {len(of) for of_table in runs.values() for of in of_table.values() if of}
    start = started_from(run for of_table in runs.values() for run in of_table[SMALL])
    return TABLE_2.format(seeds=numbers(counted), start=start, table=table(heads, rows))


def any_of(of_table: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The configuration of one of the runs on a table."""
    return next(config for of in of_table.values() for config in of)


def started_from(runs: Iterable[dict[str, Any]]) -> str:
    """Which weights were fine-tuned, as far as the runs say so."""
    known = sorted({run["training"]["start"][:12] for run in runs if "start" in run["training"]})
    return f" Fine-tuned were the weights with SHA-256 `{'` and `'.join(known)}`." if known else ""


def numbers(counted: set[int]) -> str:
    """3, or 1 or 3."""
    return " or ".join(map(str, sorted(counted)))


def overall(config: dict[str, Any], measure: str) -> float:
    """Mean over the targets, energies in hartree."""
    units = {f"{target['level']}.{target['name']}": target["unit"] for target in config["targets"]}
    measured = config["metrics"]["test"].items()
    in_hartree = {"eV": HARTREE_IN_EV}
    return float(np.mean([values[measure] / in_hartree.get(units[name], 1) for name, values in measured]))


def mean_and_deviation(values: list[float]) -> str:
    if not values:
        return ""
    digits = 4 if max(values) < 0.1 else 3 if max(values) < 10 else 1
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def table_9(of_table: dict[str, list[dict[str, Any]]]) -> str:
    one, rows = any_of(of_table), []
    for target in one["targets"]:
        name, unit = target["name"], target["unit"]
        full_name = f"{target['level']}.{name}"
        measured = [[run["metrics"]["test"][full_name]["mae"] for run in of] for of in of_table.values()]
        ours = [f"{np.mean(of):.4g}" if of else "" for of in measured]
        paper = PAPER_TWELVE[name] * (HARTREE_IN_EV if unit == "eV" else 1)
        rows.append([name, unit, *ours, f"{paper:.4g}"])
    counts = {split: one["training"]["molecules"][split] for split in ("train", "test")}
    counted = {len(of) for of in of_table.values() if of}
    heads = ["target", "unit", MLP, SMALL, "paper"]
    start = started_from(of_table[SMALL])
    runs = "one run each" if counted == {1} else f"mean of {numbers(counted)} runs"
    return TABLE_9.format(**counts, runs=runs, start=start, table=table(heads, rows))


def figure_page(folders: list[Path], speed: dict[str, Any], picture: Path) -> str:
    """The section of the figure, which is drawn; it names the models that were not timed."""
    from matplotlib.figure import Figure

    configs = [config_of(folder) for folder in folders]
    times = [
        speed["figures"].get(timed_as(folder, config), {}).get("ms", {}).get("one_process")
        for folder, config in zip(folders, configs, strict=True)
    ]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, target in zip(figure.subplots(1, 2), ("qm9.gap", "pcqm.gap"), strict=True):
        for folder, config, time in zip(folders, configs, times, strict=True):
            error = config["metrics"].get("test", {}).get(target, {}).get("mae")
            if time and error:
                kind = kind_of(config)
                marker, size = ("*", 14) if kind == "st-kd" else ("o", 7)
                axes.plot(time, error, marker, markersize=size, label=name_of(folder, config))
        axes.set(xlabel="ms a molecule, from SMILES", ylabel=f"MAE of {TARGETS[target]}, eV")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    with whole(picture) as file:
        figure.savefig(file, dpi=120, format="png")
    machine = speed["machine"]
    untimed = [name_of(*model) for *model, time in zip(folders, configs, times, strict=True) if not time]
    return FIGURE.format(
        picture=picture.name,
        device=machine["processor"] if machine["device"] == "cpu" else machine["device"],
        threads=machine["threads"],
        molecules=speed["molecules"],
        library=speed["library"],
        missing=f" Not timed: {', '.join(untimed)}." if untimed else "",
    )


def timed_as(folder: Path, config: dict[str, Any]) -> str:
    """The name of a model in what `speed.py` prints."""
    if config["kind"] == "baseline":
        return f"{config['model']}:{config['training']['options']['preset']}"
    return f"{'graphormer' if config['kind'] == 'teacher' else 'st-kd'}:{folder.name}"


def labelled_tables(config: dict[str, Any]) -> dict[str, str]:
    """Name -> SHA-256 of the tables with labels, which libraries do not have."""
    files = config["training"]["data"]
    return {file["name"]: file["sha256"] for file in files if ".smi" not in Path(file["name"]).suffixes}


def parameters_of(folder: Path, config: dict[str, Any]) -> int:
    if "parameters" in config:
        return config["parameters"]
    model = load_teacher(folder).model if config["kind"] == "teacher" else load_weights(folder).student
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--fine-tuned", type=Path, help="the folder that fine_tune.py wrote")
    parser.add_argument("--speed", type=Path, help="what speed.py printed: its last line is read")
    options = parser.parse_args()
    folders = [find_weights(model) for model in options.models]
    text = page(folders)
    if options.fine_tuned:
        text += fine_tuned_pages(options.fine_tuned)
    if options.speed:
        speed = json.loads(options.speed.read_text(encoding="utf-8").splitlines()[-1])
        text += figure_page(folders, speed, options.output.with_suffix(".png"))
    with whole(options.output) as file:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except StkdError as error:
        sys.exit(f"error: {error}")
