"""Asynchronous schedules equal a simulation of arrivals by hand; staleness and draws are right."""

import math

import jax
import numpy as np
import pytest
from scipy import stats
from systems import reference_schedules as by_hand
from systems.test_synchronous import world

from fljax.core.schedule import FATES
from fljax.systems import asynchronous
from fljax.systems.online import bernoulli


def steps_of(schedule, num_rounds, state=None, start=0):
    """Returns (the arrivals of each round, the states behind them)."""
    state, found, states = schedule.init() if state is None else state, [], []
    for round in range(start, start + num_rounds):
        arrivals, state = schedule.draw(state, round)
        found.append(arrivals)
        states.append(state)
    return found, states


def fates_of(arrivals, fate):
    return arrivals.spans.client[arrivals.spans.fate == FATES.index(fate)].tolist()


CASES = {
    # buffer, concurrency, the latest that arrives, of 12 clients with data among 15
    "buffer": (3, 7, None),
    "all": (4, 12, None),
    "buffer of all": (12, 12, None),
    "one by one": (1, 5, None),
    "alone": (1, 1, None),
    "two late": (3, 9, 2),
    "fresh": (3, 9, 0),
}


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize(("spread", "dropout"), [(0.0, 0.0), (0.0, 0.4), (1.0, 0.4)])
@pytest.mark.parametrize("case", CASES)
def test_rounds_equal_a_simulation_by_hand(case, spread, dropout, windows):
    buffer, concurrency, bound = CASES[case]
    for seed in range(2):
        # times in eighths of a second: many things happen at the same moment
        place = world(seed, spread, dropout, windows, n=15)._replace(sends=0.0, receives=0.0)
        steps = np.maximum(place.steps, 1)
        steps[[2, 5, 11]] = 0
        place = place._replace(steps=steps.tolist())
        rounds = 6 if windows else 25
        schedule = asynchronous.fedbuff(
            place.fleet(), buffer, rounds, concurrency, max_staleness=bound
        )
        found, states = steps_of(schedule, rounds)
        expected = by_hand.asynchronous(
            place, buffer, concurrency, rounds, math.inf if bound is None else bound
        )
        before, ring = 0.0, {}
        played = zip(found, states, expected, strict=True)
        for round, (arrivals, state, step) in enumerate(played):
            assert arrivals.clients.tolist() == step.clients
            assert arrivals.version.tolist() == step.staleness
            assert fates_of(arrivals, "lost") == step.lost
            assert sorted(fates_of(arrivals, "late")) == step.given_up
            assert float(state.seconds) == pytest.approx(step.seconds, rel=1e-12)
            assert arrivals.record == {
                "time/simulated_seconds": float(state.seconds),
                "systems/round_seconds": float(state.seconds) - before,
                "systems/staleness_mean": np.mean(step.staleness),
                "systems/staleness_max": max(step.staleness),
                "systems/clients_late": len(step.given_up),
                "systems/clients_lost": len(step.lost),
            }
            np.testing.assert_array_equal(arrivals.scale, (1.0 + arrivals.version) ** -0.5)
            spans = arrivals.spans
            assert (spans.begin <= spans.end).all() and (spans.end <= state.seconds).all()
            before = float(state.seconds)
            # each finds the version that it began from where it was put
            ring[arrivals.newest] = round
            assert [ring[place] for place in arrivals.place] == (round - arrivals.version).tolist()
        kept = max(step.kept for step in expected)
        if bound is None:
            assert schedule.num_versions == kept
        else:
            assert kept <= schedule.num_versions == min(bound + 1, concurrency)
        assert max(ring) < schedule.num_versions


@pytest.mark.parametrize("windows", [False, True])
def test_a_round_depends_on_the_state_before_it_alone(windows):
    place = world(3, 1.0, 0.2, windows, n=30)
    schedule = asynchronous.fedbuff(place.fleet(), 2, 12, 6)
    whole, states = steps_of(schedule, 12)
    for start in (
        7,
        3,
    ):  # another one, which has drawn nothing yet, and one that knows later rounds
        other = asynchronous.fedbuff(place.fleet(), 2, start, 6)
        for one in (other, schedule):
            copied = jax.tree.map(np.array, states[start - 1])
            again, _ = steps_of(one, 12 - start, copied, start)
            for a, b in zip(again, whole[start:], strict=True):
                jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(("concurrency", "buffer"), [(100, 10), (20, 5), (30, 1), (10, 10)])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_mean_staleness_is_that_of_the_paper(concurrency, buffer, spread):
    """Between the begin and the end of a job all the others end once, on average."""
    n = 1000
    place = world(0, spread, n=n)._replace(steps=[5] * n, step_seconds=[1.0] * n, seed=buffer)
    if buffer > 1:
        schedule = asynchronous.fedbuff(place.fleet(), buffer, 0, concurrency)
    else:
        schedule = asynchronous.fedasync(place.fleet(), concurrency, 0)
    settled = 4 * concurrency // buffer
    found, _ = steps_of(schedule, settled + 4000 // buffer)
    mean = np.mean([arrivals.version for arrivals in found[settled:]])
    assert mean == pytest.approx((concurrency - 1) / buffer, rel=0.1)


def test_idle_clients_begin_uniformly():
    n, seeds = 12, 150
    drawn, chances = np.zeros(n), np.zeros(n)
    for seed in range(seeds):
        place = world(0, 0.5, n=n)._replace(steps=[2] * n, step_seconds=[1.0] * n, seed=seed)
        schedule = asynchronous.fedbuff(place.fleet(), 1, 0, 6)
        found, states = steps_of(schedule, 8)
        for before, after, arrivals in zip(states, states[1:], found[1:], strict=False):
            # at the begin of this round one client has begun, beside those who worked
            idle = np.setdiff1d(np.arange(n), before.client)  # -1 is nobody
            (begun,) = np.setdiff1d([*after.client, *arrivals.clients], before.client)[:1]
            chances[idle] += 1 / len(idle)
            drawn[begun] += 1
    assert drawn.sum() == pytest.approx(chances.sum())
    assert stats.chi2.sf(((drawn - chances) ** 2 / chances).sum(), n - 1) > 0.01


@pytest.mark.parametrize("n", [20, 2000])
def test_idle_clients_that_are_online_begin_uniformly(n):
    """Few of the many are online, so that all are looked at; of 20 clients 10 are."""
    online = np.arange(0, n, n // 10)
    drawn = np.zeros(10)
    windows = [[(0.0, 9e9)] if client % (n // 10) == 0 else [] for client in range(n)]
    fleet = world(0, n=n)._replace(steps=[1] * n, windows=windows).fleet()
    for seed in range(300):
        schedule = asynchronous.fedbuff(fleet._replace(seed=seed), 1, 0, 3)
        found, states = steps_of(schedule, 1)
        at_work = [*found[0].clients, *states[0].client[states[0].client >= 0]]
        assert len(set(at_work)) == 3 and np.isin(at_work, online).all()
        drawn[np.searchsorted(online, at_work)] += 1
    assert stats.chisquare(drawn).pvalue > 0.01


def test_so_many_work_at_a_time_even_if_that_is_everybody():
    n = 300
    place = world(1, 1.0, n=n)._replace(steps=[3] * n, sends=0.0, receives=0.0)
    schedule = asynchronous.fedbuff(place.fleet(), 2, 0, n)
    for state in steps_of(schedule, 20)[1]:
        # those whose updates are in the buffer begin again behind the step
        assert (state.client >= 0).sum() == n - 2
        assert len(set(state.client.tolist())) == n - 2 + 1


def test_equal_times_and_a_buffer_of_all_are_synchronous_rounds():
    n = 50
    place = world(2, n=n)._replace(steps=[4] * n, step_seconds=[0.1] * n, sends=0, receives=0)
    schedule = asynchronous.fedbuff(place.fleet(), 8, 20, 8)
    assert schedule.num_versions == 1
    for arrivals in steps_of(schedule, 20)[0]:
        assert not arrivals.version.any() and (arrivals.scale == 1).all()
        assert (np.diff(arrivals.clients) > 0).all()


def test_places_are_taken_as_soon_as_somebody_is_online():
    place = world(0, n=4)._replace(
        steps=[1, 1, 1, 1], step_seconds=[100.0, 1.0, 1.0, 1.0], sends=0.0, receives=0.0,
        windows=[[(0.0, 900.0)], [(5.0, 9.0)], [(20.0, 20.5)], []],
    )  # fmt: skip
    found, states = steps_of(asynchronous.fedbuff(place.fleet(), 1, 0, 2), 5)
    assert [arrivals.clients.tolist() for arrivals in found] == [[1], [1], [1], [1], [0]]
    assert [float(state.seconds) for state in states] == [6.0, 7.0, 8.0, 9.0, 100.0]
    (lost,) = np.flatnonzero(found[4].spans.fate == FATES.index("lost"))
    spans = found[4].spans
    assert (spans.client[lost], spans.begin[lost], spans.end[lost]) == (2, 20.0, 20.5)


def test_a_server_whom_nobody_answers_any_more_says_so():
    # client 0 waits in the buffer for a second one, and is online for ever
    place = world(0, n=3)._replace(
        steps=[1, 1, 1], windows=[[(0.0, 1e12)], [(5.0, 5.1)], []], seed=0
    )
    schedule = asynchronous.fedbuff(place.fleet(), 2, 0, 2)
    with pytest.raises(ValueError, match=r"Round 0 waits at .* ever online again"):
        steps_of(schedule, 1)
    nobody = place._replace(windows=[[], [], []])
    with pytest.raises(ValueError, match=r"Round 0 waits at 0 simulated seconds"):
        steps_of(asynchronous.fedasync(nobody.fleet(), 1, 0), 1)


def test_nearly_all_are_lost_and_the_server_goes_on():
    place = world(0, 1.0, 0.995, n=10)._replace(steps=[2] * 10)
    found, states = steps_of(asynchronous.fedbuff(place.fleet(), 2, 0, 4), 3)
    assert all(len(arrivals.clients) == 2 for arrivals in found)
    assert sum(arrivals.record["systems/clients_lost"] for arrivals in found) > 100


def test_one_client_alone_is_never_late():
    place = world(0, n=1)._replace(steps=[3], step_seconds=[2.0], sends=0.0, receives=0.0)
    schedule = asynchronous.fedasync(place.fleet(), 1, 5, alpha=0.25)
    found, states = steps_of(schedule, 5)
    assert schedule.num_versions == 1 and schedule.rebased and schedule.max_cohort == 1
    assert [float(state.seconds) for state in states] == [6.0, 12.0, 18.0, 24.0, 30.0]
    assert all(arrivals.scale.tolist() == [0.25] for arrivals in found)


def test_discounts_are_those_of_the_papers():
    place = world(0, 1.0, n=60)._replace(steps=[2] * 60)
    late = lambda t, a=10.0, b=4.0: 1 / (a * (t - b) + 1) if t > b else 1.0  # noqa: E731
    for text, formula in {
        "constant": lambda t: 1.0,
        "polynomial(0.5)": lambda t: 1 / math.sqrt(1 + t),
        "polynomial(2)": lambda t: (t + 1) ** -2.0,
        "hinge": late,
        "hinge(0.5, 1)": lambda t: late(t, 0.5, 1.0),
    }.items():
        schedule = asynchronous.fedasync(place.fleet(), 12, 0, alpha=0.9, staleness=text)
        for arrivals in steps_of(schedule, 30)[0]:
            expected = [0.9 * formula(t) for t in arrivals.version.tolist()]
            np.testing.assert_allclose(arrivals.scale, expected, rtol=1e-12)


def test_clients_work_while_they_are_online():
    n = 200
    availability = bernoulli(seed=1, p=0.3, slot_seconds=7.0)
    place = world(4, 0.5, n=n)
    fleet = place.fleet()._replace(availability=availability)
    found, _ = steps_of(asynchronous.fedbuff(fleet, 5, 0, 20), 60)
    for arrivals in found:
        spans = arrivals.spans
        assert availability.online(spans.client, spans.begin).all()
        leaves = availability.until(spans.client, spans.begin)
        lost = spans.fate == FATES.index("lost")
        np.testing.assert_array_equal(spans.end[lost], leaves[lost])
        assert (spans.end[~lost] <= leaves[~lost]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fleet: asynchronous.fedbuff(fleet, 5, 9, 4), "concurrency = 4 .* Raise the one"),
        (lambda fleet: asynchronous.fedbuff(fleet, 5, 9, 16), "16 clients .* but 15 have data"),
        (lambda fleet: asynchronous.fedbuff(fleet, 0, 9, 4), "clients_per_round = 0"),
        (lambda fleet: asynchronous.fedbuff(fleet, 2, 9, 4, max_staleness=-1), "max_staleness"),
        (lambda fleet: asynchronous.fedbuff(fleet, 2, 9, 4, "linear"), "there is no 'linear'"),
        (lambda fleet: asynchronous.fedasync(fleet, 3, 9, alpha=0), "alpha = 0"),
        (lambda fleet: asynchronous.fedasync(fleet, 3, 9, 0.5, "hinge(0)"), "a = 0"),
        (lambda fleet: asynchronous.fedasync(fleet, 3, 9, 0.5, "polynomial(-1)"), "a = -1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    place = world(n=16)._replace(steps=[0] + [2] * 15)
    with pytest.raises(ValueError, match=message):
        call(place.fleet())
