"""Runs an iterator one step ahead, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """Yields the items of an iterable that is evaluated in a thread, `depth` items ahead.

    While the consumer holds an item, the `depth` next ones are made, and no more: a plan may hold
    the staged rows of a cohort. An exception of the iterable is raised to the consumer at the place
    of its item. Closing the generator stops the thread.
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
        thread.join()
