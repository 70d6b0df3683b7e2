"""Products of all tokens with a matrix of weights, in the number format that a processor is fast in."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stkd_screen.cpu.rows import LARGEST, SMALLEST
from stkd_screen.cpu.space import NO_STEPS, Matrix, Space


class Sums(NamedTuple):
    """What a product gives, as compiled functions read it (rows.py)."""

    array: np.ndarray  # (N, outputs); int32 of int8
    row_steps: np.ndarray  # (N,) float32 of int8; else (0,)
    column_steps: np.ndarray  # (outputs,) float32 of int8; else (0,)


class Product:
    """x @ weight.

    Args:
        weight: (inputs, outputs), float32.
        dtype: float32, bfloat16 or int8; that of x, too.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.inputs, self.outputs = weight.shape
        self.dtype, self._steps = dtype, NO_STEPS
        if dtype == torch.int8:
            steps = weight.abs().amax(0).clamp_min(SMALLEST) / LARGEST
            weight, self._steps = (weight / steps).round(), steps.numpy()
        self._weight = weight.to(dtype)

    def __call__(self, x: Matrix, space: Space, name: str) -> Sums:
        """In the work space by that name."""
        multiply, dtype = (torch._int_mm, torch.int32) if self.dtype == torch.int8 else (torch.mm, self.dtype)
        sums = space.matrix(name, len(x.array), self.outputs, dtype)
        multiply(x.tensor, self._weight, out=sums.tensor)
        return Sums(sums.array, x.steps, self._steps)
