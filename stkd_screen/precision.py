"""The number format that matrix products are computed in."""

import torch

from stkd_screen.errors import StkdError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def choose_precision(precision: str, device: torch.device, *, int8: bool = False) -> str:
    """The format by its name; auto is bfloat16 where a device is faster in it, or else int8, or else float32.

    Args:
        precision: auto or a format.
        device: that computes.
        int8: whether int8 will do: for the forward pass of a trained student on a CPU, not compiled.

    Raises:
        StkdError: an unknown name, or int8 where it will not do or where sums would overflow.
    """
    int8 = int8 and device.type == "cpu"
    if precision == "auto":
        if device.type == "cuda" or cpu_multiplies_bfloat16():
            return "bfloat16"
        return "int8" if int8 and cpu_multiplies_int8() else "float32"
    if precision not in DTYPES:
        known = "auto, float32, bfloat16 or int8" if int8 else "auto, float32 or bfloat16"
        raise StkdError(f"unknown precision {precision!r}; give {known}")
    if precision == "int8" and not int8:
        raise StkdError(
            "int8 is there for a student's forward pass on a CPU alone, not for training, teachers, GPUs and "
            "torch.compile; give auto, float32 or bfloat16"
        )
    if precision == "int8" and not int8_products_are_exact():
        raise StkdError(
            "there are no instructions for int8 that may be used here (AVX512_VNNI or AVX_VNNI), and without "
            "them sums overflow; give --precision auto or float32"
        )
    return precision


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it: AVX512_BF16 or AMX (from Zen 4, Sapphire Rapids on)."""
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def cpu_multiplies_int8() -> bool:
    """Whether this processor has instructions for it: AVX512_VNNI (from Cascade Lake, Zen 4 on)."""
    return bool(torch.cpu._is_vnni_supported()) and int8_products_are_exact()


def int8_products_are_exact() -> bool:
    """Whether sums have room: without such instructions oneDNN adds each two products in 16 bits."""
    largest = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest) == 64 * 127**2).all())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute matrix products in that precision; what needs more stays in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=DTYPES[precision] == torch.bfloat16)
