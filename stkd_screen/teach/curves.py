"""Learning curves of a run: curves.csv with every figure, curves.png to look at."""

import csv
from pathlib import Path


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """Write curves.csv and curves.png.

    Args:
        folder: the folder of the model.
        history: one line an evaluation: step, epoch, seconds, learning_rate, "loss TERM" of the training and
            "LEVEL.TARGET MEASURE" of the valid split.
    """
    from matplotlib.figure import Figure  # slow to import, and needed once a run

    names = [*dict.fromkeys(name for line in history for name in line)]
    with open(folder / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)

    losses = [name for name in names if name.startswith("loss ")]
    errors = [name for name in names if name.endswith((" mae", " auc"))]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, shown, label in ((left, losses, "training loss"), (right, errors, "valid MAE or AUC")):
        for name in shown:
            points = [(line["epoch"], line[name]) for line in history if name in line]
            axes.plot(*zip(*points, strict=True), label=name.removeprefix("loss "), marker=".")
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        for text in axes.legend().get_texts():
            text.set_parse_math(False)  # a $ in a name is no formula
    figure.savefig(folder / "curves.png", dpi=120)
