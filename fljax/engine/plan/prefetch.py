"""Work in a thread: an iterator one step ahead, a single call beside others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def prefetch(
    items: Iterable[T], depth: int = 1, wake: Callable[[], None] = lambda: None
) -> Generator[T, None, None]:
    """Yields the items of an iterable that is evaluated in a thread, `depth` items ahead.

    While the consumer holds an item, the `depth` next ones are made, and no more: a plan may hold
    the staged rows of a cohort. An exception of the iterable is raised to the consumer at the place
    of its item. Closing the generator stops the thread, and calls `wake` first, which ends whatever
    the iterable waits for.
    """
    ready: queue.SimpleQueue = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def work():
        iterator = iter(items)
        try:
            while room.acquire() and not stopped.is_set():
                ready.put((next(iterator, _END), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is awaited
            ready.put((None, error))

    thread = threading.Thread(target=work, name="fljax-planner", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            room.release()
            yield item
    finally:
        stopped.set()
        room.release()
        wake()
        thread.join()


def in_thread(function: Callable[[], T]) -> Callable[[], T]:
    """Calls a function in a thread; returns what waits for its result, or raises its exception."""
    ended: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work():
        try:
            ended.put((function(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is awaited
            ended.put((None, error))

    threading.Thread(target=work, name="fljax-call").start()

    def wait() -> T:
        result, error = ended.get()
        if error is not None:
            raise error
        return result

    return wait
