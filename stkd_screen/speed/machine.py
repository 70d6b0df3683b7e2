"""What a measurement has to name: the machine, and the versions of what it ran."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from stkd_screen import __version__
from stkd_screen.teach.processes import usable_cores


def machine(device: torch.device) -> dict[str, str | int | float | None]:
    """Processor, cores, threads of torch, memory in GB and GPU; None for what there is not."""
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError):  # Windows
        memory = None
    return {
        "cpu": _processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": memory,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torch", "numpy", "numba")}
    return {"stkd-screen": __version__, "python": platform.python_version(), **libraries}


def peak_memory_mb() -> float | None:
    """The most memory this process has had so far, in MB (10^6 bytes); None on Windows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_gpu_memory_mb(device: torch.device) -> float | None:
    """The most memory that tensors have had on a CUDA device so far, in MB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
