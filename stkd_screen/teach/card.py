"""The model card: README.md of a model's folder, written by the run that made it."""

import math
from collections import Counter
from typing import Any

from torch import nn

from stkd_screen.targets import Target
from stkd_screen.teach.coverage import Coverage
from stkd_screen.teach.evaluate import Metrics
from stkd_screen.teach.teacher import Teacher
from stkd_screen.weights import Weights, shipped_names

LEVELS = {
    "qm9": "B3LYP/6-31G(2df,p) on molecules of QM9 (Ramakrishnan et al., Sci. Data 1, 140022, 2014)",
    "pcqm": "B3LYP/6-31G(d) on PubChem molecules, the level of PCQM4M "
    "(Nakata and Shimazaki, J. Chem. Inf. Model. 57, 1300, 2017; Hu et al., OGB-LSC, 2021)",
}


def student_card(weights: Weights) -> str:
    """Data, level of theory, splits, measured errors, domain and limits, from what the weights store."""
    config = weights.student.config
    use = f", or by its name, `{weights.name}`" if weights.name in shipped_names() else ""
    lines = [
        f"# {weights.name}",
        "",
        f"A SMILES Transformer student of {_parameters(weights.student)} parameters "
        f"({config.standard_layers} standard and {config.biased_layers} biased layers, width {config.width}, "
        f"{config.heads} heads, feed-forward {config.feed_forward}). Use it with "
        f"`stkd-screen embed --model` and the path of this folder{use}. SHA-256 of model.safetensors: "
        f"`{weights.sha256}`.",
        "",
        *_embedding(weights),
        *_errors(weights.metrics, weights.targets, weights.training),
        *_kinds(weights.kinds, weights.targets),
        "## Levels and domain",
        "",
        *_levels(weights.targets, Coverage(weights.atom_types, weights.max_heavy_atoms)),
        "",
        "Outside this domain the figures are extrapolation; `embed` marks such rows in the column `warning`. "
        "Stereo, isotopes and atom maps are not seen by the model.",
        "",
        *_training(weights.training),
    ]
    return "\n".join(lines)


def _embedding(weights: Weights) -> list[str]:
    width = f"The embedding of a molecule has {weights.student.config.embedding_width} dimensions"
    if weights.fingerprints is None:
        return [f"{width}: the final state of its virtual token.", ""]
    return [
        f"{width}. It was taught the leading principal components of ECFP4 (Morgan, radius 2, 2,048 bits), "
        "for similarity search; the first 64 or 128 of them serve alone. Embeddings of other weights are not "
        "comparable with it.",
        "",
    ]


def teacher_card(teacher: Teacher) -> str:
    """The same for a teacher."""
    config = teacher.model.config
    lines = [
        f"# {teacher.name}",
        "",
        f"A Graphormer teacher (Ying et al., NeurIPS 2021) of {_parameters(teacher.model)} parameters "
        f"({config.layers} layers, width {config.width}, {config.heads} heads, feed-forward "
        f"{config.feed_forward}). It reads molecular graphs and serves to teach students: "
        "`stkd-screen distill --teacher` and the path of this folder. SHA-256 of model.safetensors: "
        f"`{teacher.sha256}`.",
        "",
        *_errors(teacher.metrics, teacher.targets, teacher.training),
        "## Levels and domain",
        "",
        *_levels(teacher.targets, teacher.coverage),
        "",
        *_training(teacher.training),
    ]
    return "\n".join(lines)


def _parameters(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()):,}"


def _errors(metrics: dict[str, Metrics], targets: list[Target], training: dict[str, Any]) -> list[str]:
    if training.get("judge"):
        against = f"Against the predictions of the teacher {training['judge']}, for want of labels"
    elif all(target.level in LEVELS for target in targets):
        against = "Against the labels, that is against density functional theory, not against experiment"
    else:
        against = "Against the labels"
    units = {target.full_name: target.unit for target in targets}
    return [
        "## Errors",
        "",
        f"{against}. The weights were chosen on the valid split; the test split took no part in training or "
        "choice.",
        "",
        "| target | split | unit | molecules | measures |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {split} | {units[name]} | {measures['n']:,} | {_measures(measures)} |"
            for split, by_target in metrics.items()
            for name, measures in by_target.items()
        ),
        "",
    ]


def _kinds(kinds: dict[str, Metrics], targets: list[Target]) -> list[str]:
    names = [t.full_name for t in targets if any(t.full_name in metrics for metrics in kinds.values())]
    if not names:
        return []
    return [
        "By kind of molecule, test split: the mean absolute error (for a class the area under the ROC curve) "
        "and, in brackets, the molecules. Few molecules make a rough figure.",
        "",
        f"| molecules | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(
            f"| {kind} | {' | '.join(_of_kind(metrics.get(name)) for name in names)} |"
            for kind, metrics in kinds.items()
        ),
        "",
    ]


def _of_kind(measures: dict[str, float] | None) -> str:
    if measures is None:
        return ""
    value = measures.get("mae", measures.get("auc", math.nan))
    return f"{'-' if math.isnan(value) else f'{value:.4f}'} ({measures['n']:,})"


MEASURES = {"mae": "MAE", "rmse": "RMSE", "r2": "R2", "auc": "AUC", "log_loss": "log loss"}


def _measures(measures: dict[str, float]) -> str:
    known = {key: value for key, value in measures.items() if key in MEASURES and not math.isnan(value)}
    return ", ".join(f"{MEASURES[key]} {value:.4f}" for key, value in known.items())


def _levels(targets: list[Target], coverage: Coverage) -> list[str]:
    return [
        f"- `{level}`: {LEVELS.get(level, 'as in the training data')}. Targets: "
        f"{', '.join(target.name for target in targets if target.level == level)}. Labelled training "
        f"molecules have at most {coverage.max_heavy_atoms[level]} heavy atoms and "
        f"{len(coverage.atom_types[level])} types of atom (element, aromaticity, charge, hydrogens)."
        for level in dict.fromkeys(target.level for target in targets)
    ]


MOST_FILES = 8  # named one by one


def _data(files: list[dict[str, Any]]) -> list[str]:
    """The tables, and the files of a library of many as one."""
    ways = Counter(file["split"] for file in files)
    lines = []
    for way, count in ways.items():
        of_way = [file for file in files if file["split"] == way]
        if count > MOST_FILES:
            names = f"`{of_way[0]['name']}` to `{of_way[-1]['name']}`"
            rows = sum(file["rows"] for file in of_way)
            lines.append(f"- {count} files, {names}, {rows:,} rows; their SHA-256 are in config.json")
        else:
            lines += [f"- `{f['name']}`, {f['rows']:,} rows, SHA-256 `{f['sha256']}`" for f in of_way]
    return lines


def _training(training: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    molecules = ", ".join(f"{count:,} {split}" for split, count in training["molecules"].items())
    options = ", ".join(f"{name} {value}" for name, value in training["options"].items())
    lines = [
        "## Training",
        "",
        f"Molecules: {molecules}. Data:",
        "",
        *_data(training["data"]),
        *(f"- left out: {reason}" for reason in training["left_out"]),
        "",
        f"{training['steps']:,} steps, {training['epochs']} epochs, {training['seconds'] / 60:.0f} minutes "
        f"on {training['machine']}; {versions}.",
        f"Options: {options}.",
    ]
    if "teacher" in training:
        teachers = [training["teacher"], *training.get("further_teachers", [])]
        lines += [f"Teacher: `{teacher['name']}`, SHA-256 `{teacher['sha256']}`." for teacher in teachers]
    if "start" in training:
        lines.append(f"Went on from weights with SHA-256 `{training['start']}`.")
    return [*lines, "Learning curves: curves.csv, curves.png.", ""]
