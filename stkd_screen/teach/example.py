"""The shipped library without labels, for a first try of distillation and of speed."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "_examples"
_CHECKOUT = Path(__file__).parents[2] / "examples"
EXAMPLE_LIBRARY = (_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT) / "library.smi.gz"
