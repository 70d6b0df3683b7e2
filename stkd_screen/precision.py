"""The number format that matrix products are computed in."""

import torch

from stkd_screen.errors import StkdError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def choose_precision(precision: str, device: torch.device) -> str:
    """The format for auto, float32 or bfloat16: auto is bfloat16 where a device multiplies in it faster.

    Raises:
        StkdError: an unknown name, or int8, which is for the forward pass of a student on a CPU alone.
    """
    if precision == "int8":
        raise StkdError(
            "int8 is there for a student's forward pass on a CPU alone, not for training, teachers and GPUs; "
            "give auto, float32 or bfloat16"
        )
    if precision not in ("auto", "float32", "bfloat16"):
        raise StkdError(f"unknown precision {precision!r}; give auto, {', '.join(DTYPES)}")
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" or cpu_multiplies_bfloat16() else "float32"
    return precision


def choose_student_precision(precision: str, device: torch.device) -> str:
    """The same for a trained student, which may be int8 on a CPU: auto is, where that is what is fast.

    Raises:
        StkdError: an unknown name, or int8 on a GPU or on a processor that would overflow.
    """
    if device.type == "cpu":
        if precision == "int8":
            if not int8_products_are_exact():
                raise StkdError(
                    "this processor has no instructions for int8 (AVX512_VNNI or AVX_VNNI), and without them "
                    "products overflow; give --precision auto or float32"
                )
            return precision
        if precision == "auto" and cpu_multiplies_int8() and not cpu_multiplies_bfloat16():
            return "int8"
    return choose_precision(precision, device)


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it: AVX512_BF16 or AMX (from Zen 4, Sapphire Rapids on)."""
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def cpu_multiplies_int8() -> bool:
    """Whether this processor has instructions for it: AVX512_VNNI (from Cascade Lake, Zen 4 on)."""
    return bool(torch.cpu._is_vnni_supported())


def int8_products_are_exact() -> bool:
    """Whether sums have room: without such instructions oneDNN adds each two products in 16 bits."""
    largest = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest) == 64 * 127**2).all())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute matrix products in that precision; what needs more stays in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=DTYPES[precision] == torch.bfloat16)
