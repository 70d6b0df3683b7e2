"""Work done by other threads, ahead of its use."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, Full, Queue
from threading import Condition, Event, Thread
from typing import TypeVar, cast

_PATIENCE = 2.0  # seconds for a thread that may be waiting for its input, when an end was asked for
_TICK = 0.2  # seconds between two questions whether one was

T = TypeVar("T")
R = TypeVar("R")


def in_background(
    items: Iterable[T], depth: int = 2, *, should_stop: Callable[[], bool] | None = None
) -> Generator[T]:
    """The same items, made by a thread of their own at most `depth` ahead of their use.

    Close it (`contextlib.closing`) where the loop may end early: that waits for the thread, which must not
    be in the middle of a computation when the program ends.

    Args:
        should_stop: for items that may not come, such as those of standard input: asked while none does, and
            when it says so, the items end if none comes soon. A thread that still waits for its input then is
            left to itself.
    """
    ready: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
    abandoned = Event()

    def put(item: T | None, fault: BaseException | None) -> bool:
        while not abandoned.is_set():
            try:
                ready.put((item, fault), timeout=_TICK)
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
    patience = _PATIENCE
    try:
        while True:
            try:
                item, fault = ready.get(timeout=None if should_stop is None else _TICK)
            except Empty:
                if should_stop is not None and should_stop():
                    patience -= _TICK
                    if patience <= 0:
                        return
                continue
            if isinstance(fault, StopIteration):
                return
            if fault is not None:
                raise fault
            yield cast(T, item)
    finally:
        abandoned.set()
        thread.join(None if should_stop is None else max(0.0, patience))


def by_threads(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    *,
    ahead: int,
    initializer: Callable[[], None] | None = None,
) -> Generator[R]:
    """`function` of each item, in their order, by so many threads.

    The items are taken by a thread of their own, so that no result waits for the next of them. What fails,
    `function` or the items themselves, is raised after all results before it.

    Args:
        ahead: items, 1 or more, that are begun beyond the two or three at hand.
        initializer: called in each thread before it begins.
    """
    pool = ThreadPoolExecutor(threads, initializer=initializer)
    begun = in_background((pool.submit(function, item) for item in items), depth=ahead)
    try:
        for future in begun:
            yield future.result()
    finally:
        begun.close()
        pool.shutdown(cancel_futures=True)


class Turns:
    """Who may work now: any number of threads, or a single one that asked to be alone."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._at_work = 0
        self._want_to_be_alone = 0

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Wait until nobody is alone or wants to be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._want_to_be_alone)
            self._at_work += 1
        try:
            yield
        finally:
            self._done()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody is at work; nobody begins meanwhile."""
        with self._changed:
            self._want_to_be_alone += 1
            self._changed.wait_for(lambda: not self._at_work)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._want_to_be_alone -= 1
            self._done()

    def _done(self) -> None:
        with self._changed:
            self._at_work -= 1
            self._changed.notify_all()
