"""How the parser's functions are compiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

# numba recompiles a cached function when its own file changes, but not when a function it calls does. So
# every function here carries the stamp of all the files.
_FILES = [path.stat() for path in Path(__file__).parent.glob("*.py")]
_STAMP = (max(file.st_mtime for file in _FILES), sum(file.st_size for file in _FILES))


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile a function on its first call, and cache it on disk for the next process.

    Without reference counts: the functions only borrow arrays and never allocate, and counting took half
    of the running time and two thirds of the compile time (numba refuses to compile one that needs them).
    """
    dispatcher = njit(function, cache=True, _nrt=False, **options)
    if hasattr(dispatcher._cache, "_cache_file"):
        dispatcher._cache._cache_file._source_stamp = _STAMP
    return dispatcher


def inlined(function: Callable) -> Callable:
    """The same for a helper called once an atom or bond, where handing on the arrays would cost most."""
    return compiled(function, forceinline=True)


def releasing_gil(function: Callable) -> Callable:
    """The same for a function called from Python."""
    return compiled(function, nogil=True)
