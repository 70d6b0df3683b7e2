"""Work on many SMILES in processes, since RDKit's Python interface keeps the interpreter's lock."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from stkd_screen.errors import TrainingError

T = TypeVar("T")

CHUNK = 2500  # molecules a task; two tasks are not worth the start of the processes


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    work: Callable[[Sequence[str]], list[T]], smiles: Sequence[str], workers: int | None = None
) -> Iterator[T]:
    """The results of `work` for each SMILES, in order.

    Args:
        work: a function of a module, from SMILES to as many results.
        smiles: R SMILES.
        workers: processes; by default one for each usable core.

    Raises:
        TrainingError: a process ended early.
    """
    chunks = [smiles[start : start + CHUNK] for start in range(0, len(smiles), CHUNK)]
    workers = min(workers or usable_cores(), len(chunks))
    if workers < 2 or len(chunks) <= 2:
        for chunk in chunks:
            yield from work(chunk)
        return
    # Spawned, not forked: a fork of a process with threads can hang.
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for results in pool.map(work, chunks):
                yield from results
    except BrokenProcessPool as error:
        raise TrainingError(
            "a worker process that read molecules has ended: memory ran out, or the calling script lacks "
            '`if __name__ == "__main__":` before what it does'
        ) from error
