"""Work done ahead of its use, by other threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


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


def by_threads(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    *,
    ahead: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[R]:
    """`function` of each item, in their order, by so many threads.

    What fails, `function` or the items themselves, is raised after all results before it.

    Args:
        ahead: most items that are begun before the result of the first is taken.
        initializer: called in each thread before it begins.
    """
    begun: deque[Future[R]] = deque()
    fault: Exception | None = None
    source = iter(items)
    with ThreadPoolExecutor(threads, initializer=initializer) as pool:
        try:
            while fault is None:
                try:
                    begun.append(pool.submit(function, next(source)))
                except StopIteration:
                    break
                except Exception as error:
                    fault = error
                if len(begun) > ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
            if fault is not None:
                raise fault
        finally:
            for future in begun:
                future.cancel()
