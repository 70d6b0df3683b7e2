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
        rounded, scales = self._rounded(x, N, space)
        sums = space("sums", len(x), self.outputs, dtype=torch.int32)
        torch._int_mm(rounded, self.weight, out=sums)
        from_int8(sums[:N], scales, self.scales, out[:N])
        return out

    def transposed(self, x: Tensor, N: int, space: Space, out: Tensor) -> None:
        """The same with a column for each row of x: changes `out`, (outputs, M or more)."""
        M = len(x)
        if self.weight.dtype != torch.int8:
            torch.mm(self.weight.T, x.T, out=out[:, :M])
            return
        rounded, scales = self._rounded(x, N, space)
        sums = space("sums", self.outputs, M, dtype=torch.int32)
        torch._int_mm(self.weight.T, rounded.T, out=sums)
        from_int8(sums, self.scales, scales, out)

    @staticmethod
    def _rounded(x: Tensor, N: int, space: Space) -> tuple[Tensor, Tensor]:
        """x as int8 and the scale of each of its first N rows."""
        rounded = space("rounded", *x.shape, dtype=torch.int8)
        scales = space("scales", N)
        to_int8(x[:N], scales, rounded[:N])
        return rounded, scales
