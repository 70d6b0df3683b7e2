"""How the loops between matrix products are compiled."""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.extending import overload

from stkd_screen.jit import cached

# Sums may be taken in any order, so that they fill vector registers; NaN and infinity stay what they are.
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}


def kernel(function: Callable) -> Callable[..., None]:
    """A compiled function of arrays; it changes those that it says."""
    return cached(nogil=True, **_OPTIONS)(function)


def helper(function: Callable) -> Callable:
    """A part of such functions, compiled into each of them. It has no cache of its own: that would name the
    classes of its types, and not be read any more when one of these is renamed."""
    return njit(function, forceinline=True, **_OPTIONS)


def helper_by_type(function: Callable) -> Callable:
    """The same, of which there is one for some types and another for others.

    `function` takes numba's types of the arguments and gives what is to be compiled for them.
    """

    def stub(*arguments: object) -> None:
        raise NotImplementedError("there is no such function but in compiled ones")

    overload(stub, jit_options={"forceinline": True, **_OPTIONS})(function)
    return stub
