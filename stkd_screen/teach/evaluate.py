"""How far predictions are from the labels."""

from collections.abc import Callable, Sequence

import numpy as np

from stkd_screen.errors import TrainingError
from stkd_screen.forward import ForwardPass
from stkd_screen.smiles import Molecules
from stkd_screen.student import Student
from stkd_screen.targets import Target, in_units
from stkd_screen.teach.labelled import SPLITS, LabelledMolecules

# level.target -> mae, rmse, r2 (numbers) or auc, log_loss (classes), and n, the molecules counted.
Metrics = dict[str, dict[str, float]]


def predict(
    student: Student, molecules: Molecules, rows: np.ndarray, precision: str = "float32"
) -> np.ndarray:
    """Standardised predictions (len(rows), targets) float32."""
    predicted = np.empty((len(molecules), student.config.targets), np.float32)
    for batch, _, prediction in ForwardPass(student, precision=precision).batches(molecules, rows):
        predicted[batch] = prediction
    return predicted[rows]


def split_metrics(
    predicted: np.ndarray,
    truth: np.ndarray,
    targets: Sequence[Target],
    half_widths: np.ndarray | None = None,
) -> Metrics:
    """Measures of each target that has labels.

    Args:
        predicted: (R, targets) in the units of the targets, probabilities for classes.
        truth: (R, targets) likewise, NaN where missing.
        half_widths: (R, targets) likewise, of intervals; where given, `covered` is the share of the labels
            inside, NaN for a target without intervals.
    """
    metrics = {}
    for k, target in enumerate(targets):
        known = np.isfinite(truth[:, k])
        if known.any():
            measure = class_measures if target.is_class else number_measures
            values = truth[known, k].astype(np.float64), predicted[known, k].astype(np.float64)
            metrics[target.full_name] = {**measure(*values), "n": int(known.sum())}
            if half_widths is not None:
                off = np.abs(values[1] - values[0])
                metrics[target.full_name]["covered"] = covered_share(off, half_widths[known, k])
    return metrics


def covered_share(off: np.ndarray, half_widths: np.ndarray) -> float:
    """The share of errors within their half-widths, of those that have one; NaN where none has."""
    known = np.isfinite(half_widths)
    return float((off <= half_widths)[known].mean()) if known.any() else float("nan")


def number_measures(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """MAE, RMSE and R2; the last is NaN where the labels do not differ."""
    error = predicted - truth
    spread = ((truth - truth.mean()) ** 2).sum()
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / spread) if spread > 0 else float("nan"),
    }


def class_measures(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve (from rank sums; NaN where one class is missing) and log loss."""
    positive = truth > 0.5
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    _, value, count = np.unique(predicted, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[value]  # equal values share the mean of their ranks
    wins = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    given = np.clip(np.where(positive, predicted, 1 - predicted), 1e-7, 1)
    return {
        "auc": float(wins / (n_positive * n_negative)) if n_positive and n_negative else float("nan"),
        "log_loss": float(-np.log(given).mean()),
    }


def valid_loss(metrics: Metrics, targets: Sequence[Target]) -> float:
    """What the best model is chosen by: the mean of standardised MAE and, for classes, log loss."""
    losses = [
        metrics[target.full_name]["log_loss"]
        if target.is_class
        else metrics[target.full_name]["mae"] / target.std
        for target in targets
        if target.full_name in metrics
    ]
    return float(np.mean(losses)) if losses else float("nan")


def predictions(
    predict: Callable[[np.ndarray], np.ndarray],
    targets: Sequence[Target],
    data: LabelledMolecules,
    splits: Sequence[str],
) -> np.ndarray:
    """(R, targets) float32 in the units of the targets, NaN for the molecules of other splits.

    Args:
        predict: rows of the data -> standardised predictions (len(rows), targets) float32.
        targets: of the model.
        data: R molecules; those without any label are left out.
        splits: those to predict.

    Raises:
        TrainingError: a split is unknown, model and data share no target, or their units differ.
    """
    check_splits(targets, data, splits)
    predicted = np.full((len(data.split), len(targets)), np.nan, np.float32)
    for split in splits:
        rows = data.labelled(split)
        if len(rows):
            predicted[rows] = in_units(predict(rows), targets)
    return predicted


def check_splits(targets: Sequence[Target], data: LabelledMolecules, splits: Sequence[str]) -> None:
    """Find what cannot be measured before a long computation.

    Raises:
        TrainingError: a split is unknown, model and data share no target, or their units differ.
    """
    labels_of(targets, data)
    unknown = set(splits) - set(SPLITS)
    if unknown:
        raise TrainingError(f"no split {', '.join(sorted(unknown))}; splits: {', '.join(SPLITS)}")


def evaluate_model(
    predicted: np.ndarray, targets: Sequence[Target], data: LabelledMolecules, splits: Sequence[str]
) -> dict[str, Metrics]:
    """split -> metrics, for the targets that a model and data share.

    Args:
        predicted: (R, targets), as `predictions` gives them.
        targets: of the model.
        data: R labelled molecules.
        splits: those to measure.

    Raises:
        TrainingError: they share no target, or their units differ.
    """
    truth = labels_of(targets, data)
    rows = {split: data.rows(split) for split in splits}
    measured = {split: split_metrics(predicted[of], truth[of], targets) for split, of in rows.items()}
    return {split: metrics for split, metrics in measured.items() if metrics}


def labels_of(targets: Sequence[Target], data: LabelledMolecules) -> np.ndarray:
    """(R, targets): the labels of the data in the columns of the model's targets, NaN where there is none.

    Raises:
        TrainingError: they share no target, or their units differ.
    """
    of_data = {column.full_name: k for k, column in enumerate(data.columns)}
    truth = np.full((len(data.split), len(targets)), np.nan, np.float32)
    for k, target in enumerate(targets):
        source = of_data.get(target.full_name)
        if source is None:
            continue
        unit = data.columns[source].output_unit
        if unit != target.unit:
            raise TrainingError(
                f"target {target.full_name}: the model predicts {target.unit}, the data hold {unit}; mend "
                "the unit in --target"
            )
        truth[:, k] = data.targets[:, source]
    if not np.isfinite(truth).any():
        names = ", ".join(target.full_name for target in targets)
        raise TrainingError(
            f"the data hold none of the model's targets ({names}); name columns with --target"
        )
    return truth
