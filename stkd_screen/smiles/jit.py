"""How the parser's functions are compiled."""

from functools import partial

from numba import njit

# Cached on disk, so that only the first call after an installation compiles. Without reference counts:
# these functions only borrow arrays and never allocate, and counting took half of the running time and two
# thirds of the compile time (numba refuses to compile a function that would need them).
compiled = partial(njit, cache=True, _nrt=False)

# For helpers called once an atom or bond, where passing the arrays on would cost more than the work.
inlined = partial(njit, cache=True, _nrt=False, forceinline=True)
