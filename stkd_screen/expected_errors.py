"""How far off a prediction may be, and how far a molecule is from what the labels cover.

Of each level of theory: the half-width of the interval that holds 90% of the labels, log-linear in what the
forward pass has given anyway, calibrated on the valid split (teach/calibrate.py). Errors are those against
the labels of the level, that is against density functional theory, not against experiment.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from stkd_screen.errors import WeightsError
from stkd_screen.files import whole
from stkd_screen.targets import Target

FILE = "errors.safetensors"
N_MEASURES = 6  # of a molecule, beside the direction of its embedding
_SMALLEST_DISAGREEMENT = 0.04  # standard deviations of the target; what is below says nothing


@dataclass(frozen=True)
class ExpectedErrors:
    """Of one level of theory. E is the width of the embedding, C the number of regions.

    Products are torch's: the threads of NumPy's BLAS turn on the spot for some 10 ms after one, on the cores
    that the forward pass wants.
    """

    regions: np.ndarray  # (C, E) float32 centres of the labelled training molecules, as embeddings
    # () float32 distance to the nearest centre that 95% of the valid molecules keep
    radius: np.ndarray | np.floating
    size: np.ndarray | np.floating  # () float32 heavy atoms that 95% of the valid molecules do not exceed
    few: np.ndarray | np.floating  # () float32 heavy atoms; with so few, or fewer, labelled ones are rare
    coefficients: np.ndarray  # (6 + E,) float32 of `measures`, in the logarithm of the half-width
    factors: np.ndarray  # (targets of the level,) float32 half-width where all measures are 0, or NaN

    def domain(self, embedding: np.ndarray) -> np.ndarray:
        """(R, E) -> (R,): distance from the labelled molecules of the level, 95% of the valid ones being at
        most 1 away."""
        states, regions = torch.from_numpy(embedding), torch.from_numpy(self.regions)
        squared = torch.addmm(regions.square().sum(1), states, regions.T, alpha=-2).amin(1)
        squared += states.square().sum(1)
        return (squared.clamp_min(0).sqrt() / float(self.radius)).numpy()

    def half_widths(self, measures: np.ndarray) -> np.ndarray:
        """(R, 6 + E) -> (R, targets of the level): of the 90% intervals, in their units, NaN where no label
        calibrates them."""
        logarithms = torch.from_numpy(measures) @ torch.from_numpy(self.coefficients)
        return logarithms.exp().numpy()[:, None] * self.factors


def measures(
    errors: ExpectedErrors,
    level: str,
    targets: Sequence[Target],
    embedding: np.ndarray,
    domain: np.ndarray,
    prediction: np.ndarray,
    heavy_atoms: np.ndarray,
    ionic: np.ndarray,
    unpaired: np.ndarray,
) -> np.ndarray:
    """What the width of an interval depends on, of R molecules.

    Args:
        errors: of the level.
        level: of theory.
        targets: of the model.
        embedding: (R, E) float32, whole.
        domain: (R,), as `ExpectedErrors.domain` gives it.
        prediction: (R, targets) float32 in their units.
        heavy_atoms: (R,).
        ionic, unpaired: (R,) bool, as `Molecules` has them.

    Returns:
        (R, 6 + E) float32: the logarithms of how many times the molecule is as large as those of the level,
        and as far away, both 0 within it, and of the disagreement between levels; of 10 for an ion or a
        zwitterion, of 10 for a radical, and of 10 for one of very few atoms, else 0; then the embedding at
        unit length.
    """
    given = np.empty((len(embedding), N_MEASURES + embedding.shape[1]), np.float32)
    given[:, 0] = np.log(np.maximum(heavy_atoms / errors.size, 1))
    given[:, 1] = np.log(np.maximum(domain, 1))
    given[:, 2] = np.log(disagreement(level, targets, prediction) + _SMALLEST_DISAGREEMENT)
    for k, odd in enumerate((ionic, unpaired, heavy_atoms <= errors.few)):
        given[:, 3 + k] = np.log(10) * odd
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        np.divide(embedding, np.maximum(length, 1e-12), out=given[:, N_MEASURES:])
    return given


def disagreement(level: str, targets: Sequence[Target], prediction: np.ndarray) -> np.ndarray:
    """(R,): how far the predictions of a property at this level and at others lie apart, in its standard
    deviations, in the mean over those that there are at several levels; 0 where there are none."""
    apart = [
        np.abs(prediction[:, k] - prediction[:, other]) / target.std
        for k, target in enumerate(targets)
        for other in same_property(targets, k)
        if target.level == level
    ]
    return np.mean(apart, axis=0) if apart else np.zeros(len(prediction), np.float32)


def same_property(targets: Sequence[Target], k: int) -> list[int]:
    """The targets that are the same property as target k, in the same unit, at other levels."""
    wanted = (targets[k].name, targets[k].unit)
    return [j for j, other in enumerate(targets) if j != k and (other.name, other.unit) == wanted]


def save_errors(errors: dict[str, ExpectedErrors], model_sha256: str, folder: Path) -> None:
    """Write errors.safetensors beside the weights that it belongs to, whole or not at all."""
    tensors = {
        f"{level}/{name}": np.asarray(array, np.float32, order="C")
        for level, of_level in errors.items()
        for name, array in asdict(of_level).items()
    }
    with whole(folder / FILE) as file:
        file.write_bytes(serialize(tensors, {"model_sha256": model_sha256}))


def load_errors(folder: Path, model_sha256: str) -> dict[str, ExpectedErrors]:
    """Level -> expected errors; none where the folder has none.

    Raises:
        WeightsError: the file is damaged, or belongs to other weights.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "np") as file:
            belongs_to = (file.metadata() or {}).get("model_sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if belongs_to != model_sha256:
            raise WeightsError(
                f"{path} belongs to other weights than those beside it; calibrate them anew "
                "(stkd-screen calibrate), or remove it"
            )
        by_level: dict[str, dict[str, np.ndarray]] = {}
        for name, tensor in tensors.items():
            level, _, key = name.rpartition("/")
            by_level.setdefault(level, {})[key] = tensor
        errors = {level: ExpectedErrors(**arrays) for level, arrays in by_level.items()}
        if any(len(one.coefficients) != N_MEASURES + one.regions.shape[1] for one in errors.values()):
            raise WeightsError(
                f"{path} was written by another version of this program; calibrate the weights anew "
                "(stkd-screen calibrate), or remove it"
            )
        return errors
    except (SafetensorError, TypeError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; copy the folder anew") from error
