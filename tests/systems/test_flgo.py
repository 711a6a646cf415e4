"""FLGo's four axes: each client's frequencies are the published chances."""

from __future__ import annotations

import numpy as np
import pytest
from systems import reference_flgo as reference

from fljax.systems import flgo_availability as availability
from fljax.systems import flgo_work as work

SIZES = [1, 40, 0, 700, 25]
LABELS = np.array([[3, 0, 0, 1], [0, 2, 2, 0], [0, 0, 0, 5], [1, 1, 1, 1], [0, 0, 0, 0]])
SLOTS = 6000
WHO = np.arange(100_000)


def frequencies(found, slots: np.ndarray) -> np.ndarray:
    """Returns float64[5] the share of slots of an hour in which each of five clients is online."""
    clients, moments = np.repeat(np.arange(5), len(slots)), np.tile(3600.0 * slots, 5)
    return found.online(clients, moments).reshape(5, -1).mean(axis=1)


def check(found, chances, slots=None) -> None:
    slots = np.arange(SLOTS) if slots is None else slots
    chances = np.array(chances)
    near = 4.5 * (chances * (1 - chances) / len(slots)) ** 0.5 + 1e-12
    assert (np.abs(frequencies(found, slots) - chances) <= near).all()


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0, 3.0])
def test_chances_by_size(beta):
    sizes = np.array(SIZES)
    check(availability.more_data_first(sizes, 1, beta), reference.by_size(SIZES, beta))
    check(availability.less_data_first(sizes, 1, beta), reference.by_size(SIZES, -beta))


def test_large_powers_and_nobody_with_data():
    huge = availability.more_data_first(np.array([10**9, 10**9 - 1, 1]), beta=1000.0)
    assert huge.online(np.array([0, 2]), 0.0).tolist() == [True, False]
    assert not availability.less_data_first(np.zeros(3, int)).online(np.arange(3), 0.0).any()


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_chances_by_labels(beta):
    largest = availability.largest_label_first(LABELS, 2, beta)
    check(largest, reference.largest_label_first(LABELS, beta))
    fewer = availability.fewer_labels_first(LABELS, 2, beta)
    check(fewer, reference.fewer_labels_first(LABELS, beta))
    cycle = availability.label_cycle(LABELS, 2, beta, slots=5)
    for slot in range(5):
        expected = reference.label_cycle(LABELS, beta, 5, slot)
        check(cycle, expected, np.arange(slot, 5 * SLOTS // 2, 5))


def test_log_normal_chances_and_their_tide():
    found, tide = (
        make(5, 3, 0.6) for make in (availability.log_normal, availability.sine_log_normal)
    )
    chances = frequencies(found, np.arange(SLOTS))
    assert chances.max() == 1
    for slot in (0, 5, 11, 17, 23):
        check(tide, reference.tide(24, slot) * chances, np.arange(slot, 24 * 1500, 24))
    many = availability.log_normal(4000, 3, 0.3)
    shares = np.mean([many.online(np.arange(4000), 3600.0 * slot) for slot in range(400)], axis=0)
    # of a normal distribution, what lies between its 25th and 75th percentile
    spread = np.subtract(*np.quantile(np.log(shares), [0.75, 0.25])) / 1.349
    assert abs(spread + np.log(1 - 0.3)) < 0.03
    assert availability.log_normal(5, 3, 0.0).online(np.arange(5), 7.0).all()


def test_chances_of_loss():
    assert work.same_loss(WHO[:3], 0.2).tolist() == [0.2] * 3
    chances = work.uniform_loss(WHO, 1, 0.3)
    assert abs((chances > 0).mean() - 0.3) < 0.01 and abs(chances[chances > 0].mean() - 0.5) < 0.01
    assert np.array_equal(work.uniform_loss(WHO[5:9], 1, 0.3), chances[5:9])
    lost = work.lost(np.full(len(WHO), 0.2), WHO, 1, 4)
    assert abs(lost.mean() - 0.2) < 0.01
    assert not np.array_equal(lost, work.lost(np.full(len(WHO), 0.2), WHO, 1, 5))


def test_shares_of_work():
    partial = work.part_dynamic_uniform(WHO, 1, 0, 0.4)
    cut = partial < 1
    assert abs(cut.mean() - 0.4) < 0.01 and abs(partial[cut].mean() - 0.5) < 0.01
    assert not np.array_equal(partial, work.part_dynamic_uniform(WHO, 1, 1, 0.4))
    static = work.full_static_uniform(WHO, 1)
    assert abs(static.mean() - 0.5) < 0.01 and abs(static.var() - 1 / 12) < 0.002
    dynamic = work.arbitrary_dynamic_uniform(WHO, 1, 3, 2, 5)
    values, counts = np.unique(dynamic, return_counts=True)
    assert values.tolist() == [0.4, 0.6, 0.8, 1.0]
    assert np.allclose(counts / len(WHO), 0.25, atol=0.01)
    everybody = work.arbitrary_static_uniform(WHO, 1)
    assert np.array_equal(work.arbitrary_static_uniform(WHO[9:], 1), everybody[9:])


def test_steps_of_shares():
    for most in range(1, 40):
        shares = work.arbitrary_static_uniform(WHO[:200], 1, 1, most)
        steps = work.steps_done(shares, 7 * most)
        assert (steps % 7 == 0).all() and (steps >= 7).all() and (steps <= 7 * most).all()
    assert work.steps_done(np.array([0.01, 0.5, 1.0]), np.array([0, 1, 9])).tolist() == [0, 1, 9]


def test_seconds_until_answers():
    seconds = work.log_normal_response(WHO, 1, 30, 90)
    assert abs(seconds.mean() - 30) < 0.15 and abs(seconds.var() - 90) < 3
    assert abs(np.log(seconds).var() - np.log1p(90 / 900)) < 0.002
    assert np.allclose(work.log_normal_response(WHO[:3], 1, 30, 0), 30)
    even = work.uniform_response(WHO, 1, 2, 6)
    assert even.min() > 2 and even.max() < 6 and abs(even.mean() - 4) < 0.02
    assert work.uniform_response(WHO[:2], 1, 3, 3).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (availability.more_data_first, {"sizes": np.array([1]), "beta": -1}, "beta = -1"),
        (availability.more_data_first, {"sizes": np.array([-1])}, "sizes"),
        (availability.largest_label_first, {"labels": LABELS, "beta": 2}, "beta = 2"),
        (availability.fewer_labels_first, {"labels": LABELS, "beta": -1}, "beta"),
        (availability.label_cycle, {"labels": LABELS, "slots": 0}, "slots"),
        (availability.log_normal, {"num_clients": 3, "beta": 1.0}, "beta = 1"),
        (availability.log_normal, {"num_clients": 3, "slot_seconds": 0}, "slot_seconds"),
        (work.same_loss, {"gamma": 1.5}, "gamma"),
        (work.uniform_loss, {"gamma": -1}, "gamma"),
        (work.part_dynamic_uniform, {"p": 2}, "p = 2"),
        (work.arbitrary_dynamic_uniform, {"least": 4, "most": 3}, "least = 4 is above"),
        (work.arbitrary_static_uniform, {"least": 0}, "least"),
        (work.log_normal_response, {"mean": 0}, "mean"),
        (work.uniform_response, {"least": 4, "most": 3}, "least = 4 is above"),
    ],
)
def test_what_is_out_of_range_is_refused(make, arguments, message):
    given = {"clients": WHO[:3], **arguments} if make.__module__.endswith("work") else arguments
    with pytest.raises(ValueError, match=message):
        make(**given)
