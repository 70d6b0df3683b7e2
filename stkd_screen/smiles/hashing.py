"""The hash behind what is the same however a molecule is written."""

# mypy: disable-error-code="no-untyped-def"
# (numbers where numba compiles it, arrays where NumPy runs it)

import numpy as np


def mix(x):
    """A bijection of 64 bits in which each bit of the result depends on all (splitmix64's finaliser).

    Args:
        x: a number, or an array of any shape, of unsigned 64-bit integers.
    """
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
