"""The model card: README.md of a weights folder, written by the run that made it."""

from pathlib import Path

from stkd_screen.weights import Weights, shipped_names

LEVELS = {
    "qm9": "B3LYP/6-31G(2df,p) on molecules of QM9 (Ramakrishnan et al., Sci. Data 1, 140022, 2014)",
    "pcqm": "B3LYP/6-31G(d) on PubChem molecules, the level of PCQM4M "
    "(Nakata and Shimazaki, J. Chem. Inf. Model. 57, 1300, 2017; Hu et al., OGB-LSC, 2021)",
}


def write_card(weights: Weights, folder: Path) -> None:
    """Write the model card of the weights in `folder`."""
    (folder / "README.md").write_text(model_card(weights), encoding="utf-8")


def model_card(weights: Weights) -> str:
    """Data, level of theory, splits, measured errors, domain and limits, from what the weights store."""
    training, config = weights.training, weights.student.config
    parameters = sum(parameter.numel() for parameter in weights.student.parameters())
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    molecules = ", ".join(f"{count:,} {split}" for split, count in training["molecules"].items())
    known = all(level in LEVELS for level in weights.levels)
    options = ", ".join(f"{name} {value}" for name, value in training["options"].items())
    lines = [
        f"# {weights.name}",
        "",
        f"A SMILES Transformer student of {parameters:,} parameters ({config.standard_layers} standard and "
        f"{config.biased_layers} biased layers, width {config.width}, {config.heads} heads, feed-forward "
        f"{config.feed_forward}). Use it with `stkd-screen embed --model` and the path of this folder"
        + (f", or by its name, `{weights.name}`." if weights.name in shipped_names() else "."),
        f"SHA-256 of model.safetensors: `{weights.sha256}`.",
        "",
        "## Errors",
        "",
        "Against the labels"
        + (", that is against density functional theory, not against experiment" if known else "")
        + ". The weights were chosen on the valid split; the test split took no part in training or choice.",
        "",
        "| target | split | MAE | RMSE | unit | R2 | molecules |",
        "|---|---|---|---|---|---|---|",
        *_error_rows(weights),
        "",
        "## Levels and domain",
        "",
        *_level_rows(weights),
        "",
        "Outside this domain the figures are extrapolation; `embed` marks such rows in the column `warning`. "
        "Stereo, isotopes and atom maps are not seen by the model.",
        "",
        "## Training",
        "",
        f"Molecules: {molecules}. Data:",
        "",
        *(f"- `{f['name']}`, {f['rows']:,} rows, SHA-256 `{f['sha256']}`" for f in training["data"]),
        *(f"- left out: {reason}" for reason in training["left_out"]),
        "",
        f"{training['steps']:,} steps, {training['epochs']} epochs, {training['seconds'] / 60:.0f} minutes "
        f"on {training['machine']}; {versions}.",
        f"Options: {options}.",
        "",
    ]
    return "\n".join(lines)


def _error_rows(weights: Weights) -> list[str]:
    units = {f"{target.level}.{target.name}": target.unit for target in weights.targets}
    return [
        f"| {name} | {split} | {m['mae']:.4f} | {m['rmse']:.4f} | {units[name]} "
        f"| {m['r2']:.4f} | {m['n']:,} |"
        for split, by_target in weights.metrics.items()
        for name, m in by_target.items()
    ]


def _level_rows(weights: Weights) -> list[str]:
    return [
        f"- `{level}`: {LEVELS.get(level, 'as in the training data')}. Targets: "
        f"{', '.join(target.name for target in weights.targets if target.level == level)}. Labelled training "
        f"molecules have at most {weights.max_heavy_atoms[level]} heavy atoms and "
        f"{len(weights.atom_types[level])} types of atom (element, aromaticity, charge, hydrogens)."
        for level in weights.levels
    ]
