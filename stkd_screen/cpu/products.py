"""Products of all tokens with a matrix of weights, in the number format that a processor is fast in."""

import torch
from torch import Tensor

from stkd_screen.cpu.kernels import LARGEST, SMALLEST, from_int8, to_int8
from stkd_screen.cpu.space import Space


class Product:
    """x @ weight, for M rows of x of which N count; what the others hold and become is noise.

    In float32 and bfloat16 x and the result are of that format. In int8 both are float32: each row of x and
    each column of the weights are rounded to steps of their own, so no row depends on its neighbours.

    Args:
        weight: (inputs, outputs), float32.
        dtype: float32, bfloat16 or int8.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.inputs, self.outputs = weight.shape
        if dtype == torch.int8:
            self.scales = weight.abs().amax(0).clamp_min(SMALLEST) / LARGEST
            weight = (weight / self.scales).round()
        self.weight = weight.to(dtype)

    def __call__(self, x: Tensor, N: int, space: Space, name: str) -> Tensor:
        """(M, outputs) of x (M, inputs), in the work space by that name."""
        out = space(name, len(x), self.outputs, dtype=x.dtype)
        if self.weight.dtype != torch.int8:
            return torch.mm(x, self.weight, out=out)
        rounded, scales = space("rounded", *x.shape, dtype=torch.int8), space("scales", N)
        to_int8(x[:N], scales, rounded[:N])
        sums = space("sums", len(x), self.outputs, dtype=torch.int32)
        torch._int_mm(rounded, self.weight, out=sums)
        from_int8(sums[:N], scales, self.scales, out[:N])
        return out
