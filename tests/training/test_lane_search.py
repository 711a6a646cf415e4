"""Lanes on accelerators: a fit of two timings finds what trying all numbers would find."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import Machine

from fljax.engine.devices.execution import clients_of_size
from fljax.engine.devices.memory import DoesNotFit
from fljax.training import autotuning, lane_search
from fljax.training.autotuning import Allowance
from fljax.training.execution import exchange_size_of, exchange_steps
from fljax.training.lane_fit import lane_counts, line, most_promising

pytestmark = pytest.mark.usefixtures("few_objects")

EQUAL = np.full(50, 5)
RAGGED = np.sort(np.random.default_rng(0).pareto(1.35, 1000) * 2 + 1).astype(np.int64)
WRITERS = np.random.default_rng(1).integers(5, 25, 100)


@given(
    st.dictionaries(st.integers(1, 1000), st.floats(1e-5, 1.0), min_size=2, max_size=4),
)
def test_the_line_is_the_nearest_one_that_never_falls(timings):
    a, b = line(timings)
    assert a >= 0 and b >= 0
    lanes, taken = np.array(list(timings)), np.array(list(timings.values()))

    def distance(a, b):
        return np.square((a + b * lanes) / taken - 1).sum()

    near = distance(a, b)
    for factor_a, factor_b in ((0.99, 1), (1.01, 1), (1, 0.99), (1, 1.01), (1.01, 0.99)):
        assert near <= distance(factor_a * a, factor_b * b) * (1 + 1e-9) + 1e-12
    least = taken.min() / lanes.max() / 100
    assert near <= distance(a + least, b) + 1e-9 and near <= distance(a, b + least) + 1e-9


@pytest.mark.parametrize("jobs", [1, 2, 7, 50, 1000])
def test_counts_leave_no_lane_idle(jobs):
    counts = lane_counts(jobs)
    assert counts[0] == jobs and counts[-1] == 1
    for count in counts[1:]:
        turns = -(-jobs // count)
        assert -(-jobs // turns) == count


def test_a_timing_counts_more_than_the_line():
    steps = {10: 10, 20: 5, 40: 3}
    seconds = {10: 1.0, 40: 1.0}
    assert most_promising(seconds, [10, 20, 40], steps.__getitem__, 0.5) == (40, 3.5)
    slow = {10: 1.0, 40: 9.0}
    assert most_promising(slow, [10, 20, 40], steps.__getitem__, 0.0)[0] == 10


@pytest.mark.parametrize("steps", [EQUAL, RAGGED, WRITERS], ids=["equal", "ragged", "writers"])
@pytest.mark.parametrize(
    ("start", "each"), [(1e-3, 1e-7), (1e-3, 1e-5), (1e-3, 3e-5), (1e-4, 1e-4), (1e-6, 1e-3)]
)
def test_the_best_number_of_lanes_is_found_in_a_few_timings(monkeypatch, steps, start, each):
    machine = Machine(steps, start, each)
    lanes = machine.search(monkeypatch).lanes
    best = min(map(machine.seconds, range(1, len(steps) + 1)))
    assert machine.seconds(lanes) <= 1.06 * best
    assert len(machine.tried) <= 3 and len(set(machine.tried)) == len(machine.tried)


def test_what_the_line_promises_wrongly_is_not_taken(monkeypatch):
    machine = Machine(np.full(1000, 5), 1e-3, 1e-6)
    straight = machine.seconds
    # beyond 200 lanes nothing fits into some cache
    machine.seconds = lambda lanes, forms: straight(lanes, forms) * (30 if lanes > 200 else 1)
    assert machine.search(monkeypatch).lanes <= 200
    assert 1000 in machine.tried and len(machine.tried) <= 5


@pytest.mark.parametrize(("most", "expected"), [(40, 32), (20, 16), (1, 1)])
def test_what_does_not_fit_is_tried_on_half_the_lanes(monkeypatch, most, expected):
    machine = Machine(np.full(1000, 5), 1e-3, 1e-7, most_lanes=most)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lanes = machine.search(monkeypatch).lanes
    # then as many as promise more, and fit
    assert expected <= lanes <= most
    assert str(said[0].message).startswith("64 lanes do not fit")
    machine.most_lanes = 0
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(DoesNotFit, match="lanes = 1 with waves of 1 do not fit"),
    ):
        machine.search(monkeypatch)


def test_the_bytes_of_two_programs_tell_which_third_one_fits(monkeypatch):
    machine = Machine(np.full(1000, 5), 1e-3, 1e-7)
    timed = machine.timed
    machine.timed = lambda *args: (found := timed(*args))._replace(
        needed=10**6 + 10**6 * found.federation.execution.lanes
    )
    monkeypatch.setattr(lane_search, "room_of", lambda federation: 130 * 10**6)
    assert 100 < machine.search(monkeypatch).lanes < 130
    assert max(machine.tried) < 130


def test_the_clock_starts_after_the_first_timing_and_what_it_cuts_short_is_no_end(
    monkeypatch, tmp_path
):
    machine, memory = Machine(np.full(1000, 5), 1e-3, 1e-7), tmp_path / "layouts.json"
    now = [0.0]
    timed, cost = machine.timed, [7.0]

    def slow(*args):
        now[0] += cost[0]
        return timed(*args)

    machine.timed = slow
    monkeypatch.setattr(autotuning.time, "perf_counter", lambda: now[0])
    allowed = Allowance(60, asked=True)
    monkeypatch.setattr(Allowance, "seconds", lambda self, round_seconds: 8.0)
    # the first program takes 7 s, the second one as well, a third one would be too much
    assert machine.search(monkeypatch, allowed, memory).lanes == 64 and len(machine.tried) == 2
    assert list(json.loads(memory.read_text()).values())[0][4] == 7000
    # its programs are in the cache now: the next run gets further, and to the end
    machine.tried, cost[0] = [], 1.0
    machine.search(monkeypatch, allowed, memory)
    assert len(machine.tried) == 3
    assert list(json.loads(memory.read_text()).values())[0][4] == 0
    # and the one after that searches no more
    machine.tried = []
    monkeypatch.setattr(autotuning, "proven", lambda federation: federation)
    machine.search(monkeypatch, allowed, memory)
    assert machine.tried == []


@pytest.mark.parametrize(("param_bytes", "least"), [(31_400, 25), (4_800_000, 2)])
def test_large_models_exchange_fewer_lanes_at_once(param_bytes, least):
    """Their steps hide what the launches of exchanges cost, so nobody has to wait for others."""
    steps = exchange_steps(clients_of_size(param_bytes), 50)
    size = exchange_size_of(WRITERS, 1, 50, steps)
    assert least <= size <= (50 if least > 2 else 12)
