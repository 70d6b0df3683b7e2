"""The number format that matrix products are computed in."""

import torch

from stkd_screen.errors import StkdError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_precision(precision: str, device: torch.device) -> str:
    """The format for auto, float32 or bfloat16: auto is bfloat16 where a device multiplies in it faster.

    Raises:
        StkdError: an unknown name.
    """
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" or cpu_multiplies_bfloat16() else "float32"
    if precision not in DTYPES:
        raise StkdError(f"unknown precision {precision!r}; give auto, {' or '.join(DTYPES)}")
    return precision


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it: AVX512_BF16 or AMX (from Zen 4, Sapphire Rapids on)."""
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute matrix products in that precision; what needs more stays in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=DTYPES[precision] == torch.bfloat16)
