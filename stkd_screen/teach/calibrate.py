"""Expected errors from the valid split, and how well they keep what they promise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stkd_screen.errors import TrainingError
from stkd_screen.expected_errors import N_MEASURES, ExpectedErrors, measures, same_property
from stkd_screen.forward import ForwardPass
from stkd_screen.targets import Target, in_units, of_level
from stkd_screen.teach.evaluate import check_splits, covered_share, labels_of
from stkd_screen.teach.labelled import LabelledMolecules
from stkd_screen.weights import Weights

COVERAGE = 0.9
FEWEST = 100  # labels in the valid split, below which a 90% interval, or what goes into it, is a guess
FEWEST_ODD = 4  # valid molecules of a kind, below which its intervals are those of other molecules
REGIONS = 256
MOST_FOR_REGIONS = 30_000  # labelled training molecules of a level that its regions are found from
RARE, MOST_RARE = 0.03, 500  # share, and number, of training molecules of few atoms that make them rare
AT_ONCE = 16_384  # molecules whose embeddings are held in memory where their half-widths alone are kept
FOLDS = 5
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # on the direction of the embedding; chosen by cross-validation


@dataclass(frozen=True)
class _Answers:
    """What a model says of M labelled molecules, those left out for which it has no finite value."""

    rows: np.ndarray  # (M,) of the data
    truth: np.ndarray  # (M, targets) labels, NaN where there is none
    embedding: np.ndarray  # (M, E)
    prediction: np.ndarray  # (M, targets) in their units
    heavy_atoms: np.ndarray  # (M,)
    ionic: np.ndarray  # (M,) bool
    unpaired: np.ndarray  # (M,) bool

    def measures(self, errors: ExpectedErrors, level: str, weights: Weights) -> np.ndarray:
        targets, domain = weights.targets, errors.domain(self.embedding)
        of_molecules = self.heavy_atoms, self.ionic, self.unpaired
        return measures(errors, level, targets, self.embedding, domain, self.prediction, *of_molecules)

    def off(self, k: int, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Which molecules have the label, and how far off the prediction of target k is from it."""
        known = np.flatnonzero(np.isfinite(self.truth[:, label]))
        return known, np.abs(self.prediction[known, k] - self.truth[known, label]).astype(np.float64)


def calibrate(weights: Weights, data: LabelledMolecules, seed: int = 0) -> dict[str, ExpectedErrors]:
    """Expected errors of each level that has enough labels.

    The shape of the interval (which molecules are less sure, and by how much) is that of a Laplace
    distribution whose scale is log-linear in `measures`, fitted to all targets of a level at once. Molecules
    larger than the level's that have a label of the same property at another level count too: drug-sized
    ones, where the level is that of QM9. The width is then set for each target so that 90% of the level's
    own valid molecules lie inside, each judged by coefficients fitted without it: in the manner of
    cross-conformal prediction (Vovk, Ann. Math. Artif. Intell. 74, 9, 2015), without its guarantee, since
    the intervals that are used come from a fit to all.

    Raises:
        TrainingError: no level has enough.
    """
    truth = labels_of(weights.targets, data)
    rng = np.random.default_rng(seed)
    valid = _answers(weights, data, truth, data.labelled("valid"))
    train = data.rows("train")
    calibrated = {}
    for level in weights.levels:
        numbers = [k for k in of_level(weights.targets, level) if not weights.targets[k].is_class]
        own = [k for k in numbers if np.isfinite(valid.truth[:, k]).sum() >= FEWEST]
        labelled = rng.permutation(train[np.isfinite(truth[train][:, own]).any(1)])
        if len(labelled):
            near = _answers(weights, data, truth, labelled[:MOST_FOR_REGIONS])
            heavy = np.sort(data.molecules.heavy_atoms()[labelled])
            few = heavy[int(min(MOST_RARE, RARE * len(heavy)))] - 1
            calibrated[level] = _fitted(level, own, weights, valid, _regions(near.embedding, rng), few, rng)
    if not calibrated:
        labels = np.isfinite(valid.truth).sum(0)
        counts = ", ".join(f"{t.full_name} {n:,}" for t, n in zip(weights.targets, labels, strict=True))
        raise TrainingError(
            f"expected errors need a target that is a number, with {FEWEST} labels in the valid split and "
            f"some in the train split; labels in the valid split: {counts}; --split-by random, for train and "
            f"here, takes a tenth of a table for it: that is enough from {10 * FEWEST:,} labels on"
        )
    return calibrated


def predictions_with_half_widths(
    weights: Weights, data: LabelledMolecules, splits: Sequence[str], precision: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """What a student says of each molecule of some splits, and the half-widths of its 90% intervals.

    Returns:
        As `predictions` gives them, and the half-widths likewise, NaN where nothing calibrates them.

    Raises:
        TrainingError: as `predictions`.
    """
    check_splits(weights.targets, data, splits)
    truth = labels_of(weights.targets, data)
    predicted, half_widths = np.full((2, *truth.shape), np.nan, np.float32)
    rows = np.concatenate([data.labelled(split) for split in splits])
    for part in np.array_split(rows, 1 + len(rows) // AT_ONCE):
        answers = _answers(weights, data, truth, part, precision)
        predicted[answers.rows] = answers.prediction
        for level, errors in weights.errors.items():
            columns = of_level(weights.targets, level)
            widths = errors.half_widths(answers.measures(errors, level, weights))
            half_widths[answers.rows[:, None], columns] = widths
    half_widths[weights.with_unlabelled_element(data.molecules)] = np.nan
    return predicted, half_widths


def interval_metrics(
    predicted: np.ndarray,
    half_widths: np.ndarray,
    targets: Sequence[Target],
    data: LabelledMolecules,
    splits: Sequence[str],
) -> dict[str, dict[str, dict[str, float]]]:
    """split -> target -> how 90% intervals do: `covered`, the share of labels inside; `width`, the median
    half-width; and their mean interval score (Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359, 2007, lower
    is better), beside that of the half-width, the same for all, that would hold 90% of this very split.

    Args:
        predicted, half_widths: (R, targets), as `predictions_with_half_widths` gives them.
        targets: of the model.
        data: R labelled molecules.
        splits: those to be measured.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    off = np.abs(predicted - labels_of(targets, data))
    for split in splits:
        of_split = data.rows(split)
        for k, target in enumerate(targets):
            known = of_split[np.isfinite(off[of_split, k]) & np.isfinite(half_widths[of_split, k])]
            if len(known):
                width, error = half_widths[known, k], off[known, k].astype(np.float64)
                found.setdefault(split, {})[target.full_name] = {
                    "covered": covered_share(error, width),
                    "width": float(np.median(width)),
                    "score": interval_score(width, error),
                    "constant_score": interval_score(np.quantile(error, COVERAGE), error),
                    "n": len(known),
                }
    return found


def interval_score(half_width: np.ndarray, off: np.ndarray) -> float:
    """Mean over molecules: the width of the interval, and twenty times the distance of a label outside."""
    outside = np.maximum(off - half_width, 0)
    return float(np.mean(2 * half_width + 2 / (1 - COVERAGE) * outside))


def _answers(
    weights: Weights, data: LabelledMolecules, truth: np.ndarray, rows: np.ndarray, precision: str = "float32"
) -> _Answers:
    results = list(ForwardPass(weights.student, precision=precision).batches(data.molecules, rows))
    if not results:
        config = weights.student.config
        results = [(rows, np.empty((0, config.embedding_width)), np.empty((0, config.targets), np.float32))]
    order, embedding, standardised = (np.concatenate(part) for part in zip(*results, strict=True))
    finite = np.isfinite(standardised).all(1) & np.isfinite(embedding).all(1)
    order = order[finite]
    prediction = in_units(standardised[finite], weights.targets)
    m = data.molecules
    of_molecules = m.heavy_atoms()[order], m.ionic[order], m.unpaired[order]
    return _Answers(order, truth[order], embedding[finite], prediction, *of_molecules)


def _regions(embedding: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(C, E) centres of the embeddings (N, E), by Lloyd's algorithm."""
    points = torch.from_numpy(embedding)
    centres = points[torch.from_numpy(rng.permutation(len(points))[:REGIONS])]
    for _ in range(15):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres.numpy()


def _fitted(
    level: str,
    own: list[int],
    weights: Weights,
    valid: _Answers,
    regions: np.ndarray,
    few: int,
    rng: np.random.Generator,
) -> ExpectedErrors:
    """The expected errors of one level, from the targets `own` of it that have enough labels."""
    columns = of_level(weights.targets, level)
    labelled = np.isfinite(valid.truth[:, own]).any(1)
    errors = ExpectedErrors(
        regions=regions,
        radius=np.float32(1),
        size=np.float32(max(1.0, np.quantile(valid.heavy_atoms[labelled], 0.95))),
        few=np.float32(few),
        coefficients=np.zeros(N_MEASURES + regions.shape[1], np.float32),
        factors=np.full(len(columns), np.nan, np.float32),
    )
    radius = np.quantile(errors.domain(valid.embedding[labelled]), 0.95)
    errors = replace(errors, radius=np.float32(max(radius, 1e-6)))
    given = valid.measures(errors, level, weights).astype(np.float64)
    lines = _lines(own, weights.targets, valid, errors.size, given)
    ridge, log_scale = _cross_validated(lines, rng.integers(0, FOLDS, len(valid.truth))[lines.rows])
    coefficients, constant = _fit(lines, np.ones(len(lines.rows), bool), ridge)
    start = 0
    for k in own:
        off = valid.off(k, k)[1]
        scale = np.exp(log_scale[start : start + len(off)])
        start += len(off)
        share = min(1.0, COVERAGE * (1 + 1 / len(off)))
        quantile = np.quantile(off / scale, share, method="higher")
        errors.factors[columns.index(k)] = quantile * np.exp(constant)
    return replace(errors, coefficients=coefficients.astype(np.float32))


@dataclass(frozen=True)
class _Lines:
    """What a scale is fitted to: a line for each label, those of the level itself first."""

    rows: np.ndarray  # (L,) its molecule, a row of the valid ones
    given: np.ndarray  # (L, 6 + E) measures of that
    known: np.ndarray  # (6,) bool, measures that enough molecules have
    off: np.ndarray  # (L,) how far off the prediction is, in mean errors of the target
    is_own: np.ndarray  # (L,) bool, of the level itself
    weight: np.ndarray  # (L,)


def _lines(
    own: list[int],
    targets: Sequence[Target],
    valid: _Answers,
    size: np.ndarray | np.floating,
    given: np.ndarray,
) -> _Lines:
    """The labels of the targets `own`, and what larger molecules have of the same property elsewhere."""
    parts = [valid.off(k, k) for k in own]
    parts = [(rows, off / off.mean()) for rows, off in parts]
    count = sum(len(rows) for rows, _ in parts)
    for k in own:
        mean = valid.off(k, k)[1].mean()
        for other in same_property(targets, k):
            rows, off = valid.off(k, other)
            larger = valid.heavy_atoms[rows] > size
            if larger.sum() >= FEWEST:
                parts.append((rows[larger], off[larger] / mean))
    rows, off = (np.concatenate(part) for part in zip(*parts, strict=True))
    is_own = np.arange(len(rows)) < count
    weight = np.where(is_own, 1.0, count / max(len(rows) - count, 1))  # as much as the own ones together
    known = (given[np.unique(rows), :N_MEASURES] != 0).sum(0) >= FEWEST_ODD
    return _Lines(rows, given[rows], known, off, is_own, weight)


def _cross_validated(lines: _Lines, fold: np.ndarray) -> tuple[float, np.ndarray]:
    """The ridge under which folds left out are likeliest, and the log of the scale without them, (L,)."""
    attempts = []
    for ridge in RIDGES:
        log_scale = np.empty(len(lines.rows))
        for one in range(FOLDS):
            coefficients, constant = _fit(lines, fold != one, ridge)
            log_scale[fold == one] = lines.given[fold == one] @ coefficients + constant
        unlikely = np.average(lines.off * np.exp(-log_scale) + log_scale, weights=lines.weight)
        attempts.append((unlikely, ridge, log_scale))
    _, ridge, log_scale = min(attempts, key=lambda attempt: attempt[0])
    return ridge, log_scale


def _fit(lines: _Lines, seen: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Coefficients of the logarithm of the scale, and the constant that suits the level's own molecules.

    Args:
        lines: L labels.
        seen: (L,) bool, the labels to fit to.
        ridge: see `_log_linear_scale`.
    """
    coefficients = _log_linear_scale(
        lines.given[seen], lines.off[seen], lines.weight[seen], ridge, lines.known
    )
    ours = seen & lines.is_own
    mean = np.mean(lines.off[ours] * np.exp(-lines.given[ours] @ coefficients))
    return coefficients, float(np.log(mean))


def _log_linear_scale(
    given: np.ndarray, off: np.ndarray, weight: np.ndarray, ridge: float, known: np.ndarray
) -> np.ndarray:
    """Coefficients (6 + E,) of the logarithm of the scale at which errors `off` are likeliest, if they are
    Laplace-distributed.

    What makes a molecule unusual cannot make its interval narrower, and the interval grows in proportion to
    it at most: the coefficients of the six measures, which are logarithms, lie between 0 and 1. Few valid
    molecules are unusual; without bounds the fit to them would run away where there are none.

    Args:
        given: (lines, 6 + E) measures of the molecule of each label.
        off: (lines,) errors.
        weight: (lines,) of each label.
        ridge: on the direction of the embedding.
        known: (6,) bool, measures that enough molecules have; the others get no coefficient, since one odd
            molecule would decide for all to come.
    """
    x, r, w = (torch.from_numpy(array) for array in (given - given.mean(0), off.astype(np.float64), weight))
    free = torch.zeros(given.shape[1], dtype=torch.float64)
    free[:N_MEASURES] = -2.0
    shift = torch.tensor(np.log(np.average(off, weights=weight)))
    parameters = [free.requires_grad_(), shift.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=300, line_search_fn="strong_wolfe")

    def coefficients() -> Tensor:
        return torch.cat([free[:N_MEASURES].sigmoid() * torch.from_numpy(known), free[N_MEASURES:]])

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_scale = x @ coefficients() + shift
        total = (w * (r * torch.exp(-log_scale) + log_scale)).sum() / w.sum()
        total = total + ridge * (free[N_MEASURES:] ** 2).sum()
        total.backward()
        return total.detach()

    optimizer.step(loss)
    return coefficients().detach().numpy()
