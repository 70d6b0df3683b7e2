"""stkd-screen: screening molecule libraries with a SMILES Transformer distilled from a graph Transformer.

import stkd_screen
stkd_screen.load("small").embed(["CCO", "c1ccccc1"])
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from stkd_screen.encoder import load


def __getattr__(name: str) -> object:
    # torch loads when a model is first asked for, so that `stkd-screen --help` answers at once.
    if name == "load":
        from stkd_screen.encoder import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
