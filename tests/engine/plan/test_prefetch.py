"""Prefetching changes when items are made, never what the consumer sees."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.engine.plan.prefetch import prefetch


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


@pytest.fixture
def running():
    """A function () -> how many threads run besides those that ran before the test."""
    before = threading.active_count()
    return lambda: threading.active_count() - before


@given(st.lists(st.integers()), st.integers(1, 4))
def test_items_come_in_order(items, depth):
    before = threading.active_count()
    assert list(prefetch(items, depth)) == items
    assert threading.active_count() == before


@pytest.mark.parametrize("depth", [1, 3])
def test_so_many_items_are_made_ahead_and_no_more(depth):
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    stream = prefetch(items(), depth)
    for held in range(5):
        assert next(stream) == held
        # the thread goes on while the consumer holds its item
        assert wait_until(lambda held=held: len(made) == held + 1 + depth)
        time.sleep(0.02)
        assert len(made) == held + 1 + depth
    stream.close()


def test_items_are_made_in_another_thread():
    (thread,) = prefetch(threading.current_thread() for _ in range(1))
    assert thread is not threading.current_thread()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_is_raised_at_its_place(error, running):
    def items():
        yield 0
        yield 1
        raise error("no third cohort")

    seen = []
    with pytest.raises(error, match="no third cohort"):
        for item in prefetch(items()):
            seen.append(item)
    assert seen == [0, 1]
    assert running() == 0


def test_closing_stops_the_thread(running):
    made = []

    def endless():
        while True:
            made.append(None)
            yield len(made)

    stream = prefetch(endless())
    assert [next(stream), next(stream)] == [1, 2]
    assert running() == 1
    stream.close()
    assert running() == 0
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count


def test_leaving_a_loop_early_stops_the_thread(running):
    for _ in (stream := prefetch(range(100))):
        break
    stream.close()
    assert running() == 0
    assert list(stream) == []
