"""Memory that a forward pass uses again and again."""

import math

import torch
from torch import Tensor


class Space:
    """Tensors by name, which grow when they must and otherwise stay where they are."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor holding anything; a name has the same dtype at all times."""
        size = math.prod(shape)
        tensor = self._tensors.get(name)
        if tensor is None or len(tensor) < size:
            tensor = self._tensors[name] = torch.empty(size, dtype=dtype)
        return tensor[:size].view(shape)
