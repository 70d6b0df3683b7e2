"""How the package's functions are compiled.

A constant handed to a compiled function is a type of its own to numba, which compiles the function once more
for it: np.int64(0) or np.bool_(False) in such places saves a quarter of the compile time.

numba is used beyond its public interface in two places here, both only where it has them: `_nrt`, and the
stamp of the cache; and for vectors (cpu/vectors.py).
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numba.core.registry import cpu_target

# Without reference counts: the parser's functions only borrow arrays and never allocate, and counting took
# half of the running time and two thirds of the compile time (numba refuses to compile one that needs them).
_LEAN = {"_nrt": False} if hasattr(cpu_target.options, "_nrt") else {}

# numba lets a negative index count from the end, which costs a test at each use; an unsigned one needs none.
# Written where it is used once a byte, atom or bond.
index = np.uintp


@lru_cache
def stamp(folder: Path) -> tuple[float, int]:
    """What changes when this file or any Python file of a folder does.

    numba recompiles a cached function when its own file changes, but not when a function it calls does. So
    every function carries the stamp of all files beside its own. A constant of another folder must be handed
    in: it would stay in the cache as it was.
    """
    files = [path.stat() for path in (Path(__file__), *folder.glob("*.py"))]
    return max(file.st_mtime for file in files), sum(file.st_size for file in files)


def cached(**options: Any) -> Callable[[Callable], Callable]:
    """Compile a function on its first call, and cache it on disk for the next process.

    Where no folder can be written to, neither the package's nor the user's, each process compiles anew.
    """

    def decorate(function: Callable) -> Callable:
        try:
            dispatcher = njit(function, cache=True, **options)
        except RuntimeError:  # "cannot cache function: no locator available"
            return njit(function, **options)
        cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if hasattr(cache_file, "_source_stamp"):
            cache_file._source_stamp = stamp(Path(function.__code__.co_filename).parent)
        return dispatcher

    return decorate


def compiled(function: Callable, **options: Any) -> Callable:
    """The same for the parser's functions, which need no reference counts."""
    return cached(**_LEAN, **options)(function)


def inlined(function: Callable) -> Callable:
    """The same for a helper called once an atom or bond, where handing on the arrays would cost most."""
    return compiled(function, forceinline=True)


def releasing_gil(function: Callable) -> Callable:
    """The same for a function called from Python."""
    return compiled(function, nogil=True)
