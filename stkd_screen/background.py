"""Work done ahead of its use, by threads of its own."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar, cast

import torch

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R]:
    """`function` of each item, in their order, by so many threads, each of which computes with a single one.

    Many small tensors go through torch faster this way than one after another with all threads on each.
    """
    before = torch.get_num_threads()
    ahead: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
            torch.set_num_threads(before)  # threads made later take the number that was set last


def in_background(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """The same items, made by a thread of their own at most `depth` ahead of their use.

    Close it (`contextlib.closing`) where the loop may end early: that waits for the thread, which must not
    be in the middle of a computation when the program ends.
    """
    ready: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
    abandoned = Event()

    def put(item: T | None, fault: BaseException | None) -> bool:
        while not abandoned.is_set():
            try:
                ready.put((item, fault), timeout=0.2)
                return True
            except Full:
                pass
        return False

    def make() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as fault:
            put(None, fault)
        finally:
            if isinstance(source, Generator):
                source.close()

    thread = Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, fault = ready.get()
            if isinstance(fault, StopIteration):
                return
            if fault is not None:
                raise fault
            yield cast(T, item)
    finally:
        abandoned.set()
        thread.join()
