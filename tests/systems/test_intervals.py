"""Availability from intervals: equal to a loop over all of them, for any client and moment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import reference_online as reference

from fljax.systems.intervals import intervals

GAPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6)


def csr(rows: list[list[tuple[float, float]]]):
    flat = [span for spans in rows for span in spans]
    offsets = np.concatenate([[0], np.cumsum([len(spans) for spans in rows])]).astype(np.int64)
    starts, ends = np.array(flat, np.float64).reshape(-1, 2).T
    return starts, ends, offsets


def spans_of(gaps) -> list[tuple[float, float]]:
    """Returns ascending spans; some touch, some are empty."""
    spans, now = [], 0
    for before, lasts in gaps:
        spans.append((float(now + before), float(now + before + lasts)))
        now += before + lasts
    return spans


def check(found, client: int, expected, moments: np.ndarray) -> None:
    who = np.full(len(moments), client)
    answers = found.online(who, moments), found.until(who, moments), found.since(who, moments)
    wanted = zip(*(reference.at(expected, moment) for moment in moments), strict=True)
    for name, got, want in zip(("online", "until", "since"), answers, wanted, strict=True):
        assert got.tolist() == list(want), name


@settings(max_examples=60, deadline=None)
@given(st.lists(GAPS, min_size=1, max_size=4))
def test_intervals_are_found_as_by_looking_at_all(rows):
    rows = [spans_of(gaps) for gaps in rows]
    found = intervals(*csr(rows))
    for client, spans in enumerate(rows):
        check(found, client, reference.merged(spans), np.arange(-1, 40, 0.5))


@settings(max_examples=60, deadline=None)
@given(st.lists(GAPS, min_size=1, max_size=4), st.integers(0, 3), st.integers(-3, 7))
def test_intervals_that_repeat_go_on_over_the_seam(rows, beyond, origin):
    rows = [spans_of(gaps) for gaps in rows]
    periods = np.array([max([1.0, *(end for _, end in spans)]) + beyond for spans in rows])
    found = intervals(*csr(rows), periods, origin)
    for client, spans in enumerate(rows):
        horizon = 4 * periods[client] + 20
        expected = reference.repeated(spans, periods[client], origin, horizon + 200)
        moments = np.arange(0, 40, 0.5)
        if spans and reference.merged(spans) == [(0.0, periods[client])]:
            who = np.full(len(moments), client)
            assert found.online(who, moments).all() and np.isinf(found.until(who, moments)).all()
        else:
            check(found, client, expected, moments)


def test_moments_named_are_moments_of_change():
    """Whatever the numbers: online at `since`, offline at `until`, hundreds of periods later."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        edges = np.sort(rng.uniform(0, 0.9, 8))
        rows.append([*zip(edges[::2], edges[1::2], strict=True)])
    found = intervals(*csr(rows), period=rng.uniform(1, 1.1, 200), origin=rng.uniform(0, 1, 200))
    who, moments = np.arange(200), rng.uniform(0, 1e5, 200)
    since = found.since(who, moments)
    assert (since >= moments).all() and found.online(who, since).all()
    until = found.until(who, since)
    assert (until > since).all() and not found.online(who, until).any()
    assert np.array_equal(found.online(who, moments), since == moments)


def test_clients_share_rows():
    found = intervals(*csr([[(0, 1)], [(2, 3)]]), period=4, row=np.array([1, 1, 0]))
    assert found.since(np.array([0, 1, 2]), 0.0).tolist() == [2.0, 2.0, 0.0]


@pytest.mark.parametrize("period", [None, 10.0])
def test_nobody_is_ever_online(period):
    found = intervals(np.zeros(0), np.zeros(0), np.zeros(4, np.int64), period)
    who = np.array([0, 2])
    assert found.online(who, 5.0).tolist() == [False, False]
    assert found.until(who, 5.0).tolist() == [5.0, 5.0]
    assert found.since(who, 5.0).tolist() == [np.inf, np.inf]
    nobody = np.zeros(0, np.int64)
    assert not len(found.online(nobody, 0.0)) and not len(found.since(nobody, np.zeros(0)))


@pytest.mark.parametrize(
    ("starts", "ends", "offsets", "period", "message"),
    [
        ([0, 2], [3, 4], [0, 2], None, "row 0: the interval 2 to 4 starts before"),
        ([1], [0], [0, 0, 1], None, "row 1: the interval 1 to 0 ends before"),
        ([0], [5], [0, 1], 4, "row 0: the interval 0 to 5 leaves its period"),
        ([-1], [1], [0, 1], 4, "leaves its period"),
        ([0], [1], [0, 1], 0, "period"),
        ([0], [1], [0, 1], np.inf, "period"),
        ([0], [np.inf], [0, 1], None, "finite"),
        ([0], [1], [0, 2], None, "offsets"),
        ([0, 1], [1, 2], [0, 2, 1, 2], None, "ascending"),
    ],
)
def test_what_are_no_intervals_is_refused(starts, ends, offsets, period, message):
    arrays = np.array(starts, float), np.array(ends, float), np.array(offsets)
    with pytest.raises(ValueError, match=message):
        intervals(*arrays, period)
