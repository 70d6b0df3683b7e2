"""Memory that a forward pass uses again and again."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# oneDNN, which multiplies bfloat16 and int8, compiles a kernel for each shape and keeps a thousand of them:
# 400 MB. With rows in such multiples there are few shapes.
ROWS_OF_A_PRODUCT = {torch.float32: 1, torch.bfloat16: 64, torch.int8: 64, torch.int32: 64}
NO_STEPS = np.empty(0, np.float32)  # of what is in no steps
MOST_VIEWS = 100  # kept: those of some batches


class Matrix(NamedTuple):
    """What a product reads or gives: N rows that count, M >= N in all. What the others hold is noise."""

    array: np.ndarray  # (N, W) for compiled functions; int16 for bfloat16, which NumPy lacks
    steps: np.ndarray  # (N,) float32 of int8, how much one is in each row; else (0,)
    tensor: Tensor  # (M, W) the same memory


class Space:
    """Memory by name, which grows when it must and otherwise stays where it is. It may hold anything."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        # To make one takes some microseconds.
        self._arrays: dict[tuple, np.ndarray] = {}
        self._matrices: dict[tuple, Matrix] = {}

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Of float32."""
        key = (name, *shape)
        if key not in self._arrays:
            self._arrays[key] = self._tensor(name, shape, torch.float32).numpy()
        return self._arrays[key]

    def matrix(self, name: str, N: int, W: int, dtype: torch.dtype) -> Matrix:
        """Of float32, bfloat16, int8, or int32; always the same for a name."""
        key = (name, N, W, dtype)
        if key not in self._matrices:
            rows = ROWS_OF_A_PRODUCT[dtype]
            tensor = self._tensor(name, (math.ceil(N / rows) * rows, W), dtype)
            array = tensor.view(torch.int16) if dtype == torch.bfloat16 else tensor
            steps = self.array(f"steps of {name}", N) if dtype == torch.int8 else NO_STEPS
            self._matrices[key] = Matrix(array.numpy()[:N], steps, tensor)
        return self._matrices[key]

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape)
        tensor = self._tensors.get(name)
        grows = tensor is None or len(tensor) < size
        if grows or len(self._arrays) + len(self._matrices) > MOST_VIEWS:
            self._arrays.clear()  # of a smaller one, which they would keep
            self._matrices.clear()
        if tensor is None or grows:
            tensor = self._tensors[name] = torch.empty(size, dtype=dtype)
        assert tensor.dtype == dtype, f"{name!r} is of {tensor.dtype}"
        return tensor[:size].view(shape)
