"""The forward pass on a CPU."""

from stkd_screen.cpu.student import CpuStudent

__all__ = ["CpuStudent"]
