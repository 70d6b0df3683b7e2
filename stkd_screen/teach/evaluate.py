"""How far a student's predictions are from the labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from stkd_screen.batching import equal_length_batches
from stkd_screen.errors import TrainingError
from stkd_screen.smiles.tokens import lay_out, token_counts
from stkd_screen.student import Student
from stkd_screen.teach.tables import SPLITS, LabelledMolecules, TargetColumn
from stkd_screen.weights import Target, Weights

BATCH_TOKENS = 8192


@torch.inference_mode()
def predict(student: Student, data: LabelledMolecules, rows: np.ndarray) -> np.ndarray:
    """Standardised predictions (len(rows), targets) float32."""
    device = student.table.device
    counts = token_counts(data.molecules)
    predicted = np.empty((len(data.split), student.config.targets), np.float32)
    for batch in equal_length_batches(counts, rows, lambda T: max(1, BATCH_TOKENS // T)):
        tokens, n_atoms = lay_out(data.molecules, batch)
        _, prediction = student(torch.from_numpy(tokens).to(device), torch.from_numpy(n_atoms).to(device))
        predicted[batch] = prediction.float().cpu().numpy()
    return predicted[rows]


def evaluate_split(
    student: Student, targets: list[Target], data: LabelledMolecules, split: str
) -> tuple[dict[str, dict[str, float]], float]:
    """MAE, RMSE (in the unit of the target), R2 and count of each target, and the mean standardised MAE."""
    rows = data.rows(split)
    mean, std = (np.array([getattr(t, key) for t in targets], np.float32) for key in ("mean", "std"))
    predicted = predict(student, data, rows) * std + mean
    metrics = {}
    standardised = []
    for k, target in enumerate(targets):
        known = np.isfinite(data.targets[rows, k])
        if not known.any():
            continue
        truth = data.targets[rows, k][known].astype(np.float64)
        error = predicted[known, k].astype(np.float64) - truth
        mae = float(np.abs(error).mean())
        metrics[f"{target.level}.{target.name}"] = {
            "mae": mae,
            "rmse": float(np.sqrt((error**2).mean())),
            "r2": float(1 - (error**2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-30)),
            "n": int(known.sum()),
        }
        standardised.append(mae / target.std)
    return metrics, float(np.mean(standardised)) if standardised else float("nan")


def evaluate_weights(
    weights: Weights,
    data: LabelledMolecules,
    columns: list[TargetColumn],
    splits: Sequence[str] | None,
    device: torch.device,
) -> dict[str, dict[str, dict[str, float]]]:
    """split -> level.target -> mae, rmse, r2, n, for the targets that weights and data share.

    Raises:
        TrainingError: they share none, their units differ, or a split is unknown.
    """
    unknown = set(splits or ()) - set(SPLITS)
    if unknown:
        raise TrainingError(f"no split {', '.join(sorted(unknown))}; splits: {', '.join(SPLITS)}")
    of_data = {(column.level, column.name): k for k, column in enumerate(columns)}
    matched = np.full((len(data.split), len(weights.targets)), np.nan, np.float32)
    for k, target in enumerate(weights.targets):
        source = of_data.get((target.level, target.name))
        if source is None:
            continue
        if columns[source].output_unit != target.unit:
            raise TrainingError(
                f"target {target.level}.{target.name}: the weights predict {target.unit}, the data hold "
                f"{columns[source].output_unit}; mend the unit in --target"
            )
        matched[:, k] = data.targets[:, source]
    if not np.isfinite(matched).any():
        names = ", ".join(f"{target.level}.{target.name}" for target in weights.targets)
        raise TrainingError(
            f"the data hold none of the weights' targets ({names}); name columns with --target"
        )
    student = weights.student.to(device)
    matched_data = replace(data, targets=matched)
    measured = {
        split: evaluate_split(student, weights.targets, matched_data, split)[0]
        for split in splits or SPLITS
        if len(data.rows(split))
    }
    return {split: metrics for split, metrics in measured.items() if metrics}
