"""Write the paper's table 1 from trained models: errors of each on the same data and the same split.

    python benchmarks/results.py out/mlp-ecfp out/gin-vn slim-teacher small -o docs/results.md

A model is a folder of `train_baseline.py`, of `stkd-screen train`, `distill` or `teach`, or a shipped model
by name. All figures are those of its config.json, measured when its training ended.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from stkd_screen.errors import StkdError
from stkd_screen.files import whole
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
    "st-kd": "ST-KD (student)",
}
PAGE = """# Results

The paper's table 1 ([ST-KD](../README.md#sources)) with models trained here: mean absolute errors in eV,
against density functional theory, on molecules of the test split, which took no part in training or choice.
All models learned from the same {train:,} labelled molecules ({tables}),
with the same targets, split and evaluation; the student also from molecules without labels, which its teacher
answered for.{missing}

Written by `benchmarks/results.py`; how to train the models: [benchmarks](../benchmarks/README.md).

{test}

On the molecules that they learned from, where that was measured:

{train_table}

How long they learned, on one core of a CPU, and what the paper says of models of that name. Its sizes and
data are others: the 3.8M molecules of PCQM4M-LSC, of whose labels none of ours saw one.

{training}
"""


def kind_of(config: dict[str, Any]) -> str:
    """The key of a model in PAPER."""
    if config["kind"] == "baseline":
        return config["model"]
    return "graphormer" if config["kind"] == "teacher" else "st-kd"


def row_of(config: dict[str, Any], split: str) -> list[str]:
    measured = config["metrics"].get(split, {})
    errors = [measured.get(target, {}).get("mae") for target in TARGETS]
    return [NAMES[kind_of(config)], *("" if error is None else f"{error:.3f}" for error in errors)]


def training_of(config: dict[str, Any], parameters: int) -> list[str]:
    training = config["training"]
    millions, train, valid = PAPER[kind_of(config)]
    before = " more, from earlier weights" if training["options"].get("start") else ""
    return [
        NAMES[kind_of(config)],
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
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in folders]
    tables = [labelled_tables(config) for config in configs]
    for folder, other in zip(folders, tables, strict=True):
        if other != tables[0]:
            raise StkdError(f"{folder} did not learn from the tables of {folders[0]}: {other}, {tables[0]}")
    sizes = [parameters_of(folder, config) for folder, config in zip(folders, configs, strict=True)]
    names = list(TARGETS.values())
    fewest = min(
        config["training"]["molecules"]["train"] for config in configs
    )  # others have unlabelled ones
    with_train = [config for config in configs if config["metrics"].get("train")]
    heads = ["model", "parameters", "epochs", "minutes", "paper: parameters", "gap, train", "gap, valid"]
    missing = [NAMES[kind] for kind in PAPER if kind not in map(kind_of, configs)]
    return PAGE.format(
        missing=f" Of the paper's models {', '.join(missing)} are missing here." if missing else "",
        train=fewest,
        tables=", ".join(f"`{name}`" for name in sorted(tables[0])),
        test=table(["test", *names], [row_of(config, "test") for config in configs]),
        train_table=table(["train", *names], [row_of(config, "train") for config in with_train]),
        training=table(heads, list(map(training_of, configs, sizes))),
    )


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
    options = parser.parse_args()
    text = page([find_weights(model) for model in options.models])
    with whole(options.output) as file:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except StkdError as error:
        sys.exit(f"error: {error}")
