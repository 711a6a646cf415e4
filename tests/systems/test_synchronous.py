"""Synchronous rounds equal a simulation of events by hand, and ask clients uniformly."""

import numpy as np
import pytest
from scipy import stats
from systems import reference_schedules as by_hand

from fljax.core.sampler import Sampler, Selection, replay, uniform
from fljax.core.schedule import FATES
from fljax.systems import synchronous
from fljax.systems.devices import equal
from fljax.systems.fleet import Fleet
from fljax.systems.intervals import intervals
from fljax.systems.online import bernoulli

N = 40
RULES = {
    "wait_for_all": {},
    "retries": {"retries": 2},
    "drop": {"seconds": 14.0},
    "partial": {"seconds": 9.0, "partial": True},
    "partial_retries": {"seconds": 14.0, "partial": True, "retries": 1},
    "over_selection": {"needed": 4},
    "over_selection_seconds": {"needed": 4, "seconds": 11.0},
}


def world(seed=0, spread=0.0, dropout=0.0, windows=False, n=N, **fields):
    """Returns clients that differ; some of them have nothing to train on."""
    draw = np.random.default_rng(seed)
    spans = None
    if windows:
        lengths = draw.integers(1, 400, (n, 60)) / 8  # exact in floats, so that moments meet
        edges = np.cumsum(lengths, axis=1)
        spans = [list(zip(own[::2].tolist(), own[1::2].tolist(), strict=True)) for own in edges]
    return by_hand.World(
        steps=draw.integers(0, 9, n).tolist(),
        step_seconds=(draw.integers(1, 16, n) / 8).tolist(),
        uplink=(2.0 ** draw.integers(0, 4, n)).tolist(),
        downlink=(2.0 ** draw.integers(1, 5, n)).tolist(),
        sends=1e6,
        receives=5e5,
        spread=spread,
        dropout=dropout,
        windows=spans,
        seed=seed,
    )._replace(**fields)


def schedule_of(world, rule, sampler_of):
    rule = dict(RULES[rule]) if isinstance(rule, str) else dict(rule)
    fleet, asked = world.fleet(), 12
    if "needed" in rule:
        needed = rule.pop("needed")
        return synchronous.over_selection(fleet, sampler_of, needed, asked / needed, **rule)
    if "seconds" in rule:
        late = "partial" if rule.pop("partial", False) else "drop"
        return synchronous.deadline(fleet, sampler_of, asked, late=late, **rule)
    return synchronous.wait_for_all(fleet, sampler_of, asked, **rule)


def rounds_of(schedule, num_rounds):
    """Yields (arrivals, seconds before, seconds behind) of each round."""
    state = schedule.init()
    for round in range(num_rounds):
        before = float(state.seconds)
        arrivals, state = schedule.draw(state, round)
        yield arrivals, before, float(state.seconds)


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize(("spread", "dropout"), [(0.0, 0.0), (0.0, 0.3), (1.0, 0.3)])
@pytest.mark.parametrize("rule", RULES)
def test_rounds_equal_a_simulation_by_hand(rule, spread, dropout, windows):
    seen = set()
    for seed in range(2):
        place = world(seed, spread, dropout, windows)
        sampler_of = lambda count, seed=seed: uniform(N, int(count), seed)  # noqa: E731
        schedule = schedule_of(place, rule, sampler_of)
        for round, (found, before, after) in enumerate(rounds_of(schedule, 12)):
            clients = found.clients.tolist()
            # where nobody is online, the round begins as somebody is
            begin = min(place.comes(client, before) for client in range(N))
            asked = uniform(N, 12, seed).select((), round)[0].tolist()
            check_cohort(place, clients, asked, before, begin)
            expected, end, again = by_hand.synchronous(place, clients, round, begin, **RULES[rule])
            fates = [FATES[fate] for fate in found.spans.fate]
            fates, attempts = fates[: len(clients)], fates[len(clients) :]
            assert fates == [job.fate for job in expected], (seed, round)
            check_attempts(found, attempts, again, place.receives)
            seen |= set(fates)
            taken = [job.fate in ("arrived", "partial") for job in expected]
            assert np.broadcast_to(found.accepted, len(clients)).tolist() == taken
            if found.steps is not None:
                # what does not arrive takes one step, if it has any
                steps = [
                    job.steps if ok else min(place.steps[job.client], 1)
                    for job, ok in zip(expected, taken, strict=True)
                ]
                assert found.steps.tolist() == steps
            assert after == pytest.approx(end, rel=1e-12)
            assert found.record["time/simulated_seconds"] == after
            assert found.record["systems/round_seconds"] == after - before
            for fate in ("partial", "late", "lost"):
                assert found.record[f"systems/clients_{fate}"] == fates.count(fate)
            spans = found.spans
            assert (spans.begin <= spans.end).all() and (spans.end <= after).all()
    assert ("lost" in seen) == bool(dropout or windows) and ("partial" in seen) == (
        "partial" in rule
    )
    assert "late" in seen or rule in ("wait_for_all", "retries", "partial_retries")


def check_attempts(found, fates, again, bytes_each):
    """Lost attempts behind which there is another one stand behind the jobs, and are received."""
    spans, several = found.spans, len(found.clients)
    assert fates == ["lost"] * len(again)
    columns = (column[several:].tolist() for column in (spans.client, spans.begin, spans.end))
    rows = sorted(zip(*columns, strict=True))
    np.testing.assert_allclose(np.array(rows), np.array(sorted(again)), rtol=1e-12)
    assert found.downlink_bytes == bytes_each * len(again)


def check_cohort(place, clients, asked, before, begin):
    """Those asked who are online stay; others who are come in the place of the rest."""
    online = [client for client in range(N) if place.online(client, begin)]
    assert all(client in online for client in clients)
    assert len(set(clients)) == len(clients) == min(len(asked), len(online))
    kept = [client for client in asked if place.online(client, before)]
    assert clients[: len(kept)] == kept


def test_online_clients_are_asked_uniformly():
    n, asked = 60, 8
    availability = bernoulli(seed=3, p=0.4, slot_seconds=1.0)
    place = world(0, n=n)._replace(step_seconds=[1.0] * n, steps=[1] * n)
    fleet = place.fleet()._replace(availability=availability)
    schedule = synchronous.wait_for_all(fleet, lambda count: uniform(n, int(count), 5), asked)
    drawn, chances = np.zeros(n), np.zeros(n)
    for round in range(3000):
        state = schedule.init()._replace(seconds=np.float64(round))
        found, _ = schedule.draw(state, round)
        here = availability.online(np.arange(n), float(round))
        assert here[found.clients].all()
        drawn[found.clients] += 1
        chances[here] += min(asked, here.sum()) / here.sum()
    # a draw without replacement varies less than the statistic supposes
    assert stats.chi2.sf(((drawn - chances) ** 2 / chances).sum(), n - 1) > 0.01


def test_few_who_are_online_are_all_found_uniformly():
    n = 2000
    windows = [[(0.0, 9.0)] if client % 100 == 7 else [] for client in range(n)]
    place = world(1, n=n)._replace(windows=windows)
    drawn = np.zeros(20)
    for seed in range(400):
        fleet = place.fleet()._replace(seed=seed)
        draws = lambda count, seed=seed: uniform(n, int(count), seed)  # noqa: E731
        schedule = synchronous.wait_for_all(fleet, draws, 5)
        found, _ = schedule.draw(schedule.init(), 0)
        assert len(set(found.clients.tolist())) == 5 and (found.clients % 100 == 7).all()
        drawn[found.clients // 100] += 1
    assert stats.chisquare(drawn).pvalue > 0.01


def test_a_round_waits_for_somebody_and_fails_where_nobody_returns():
    place = world(2, n=3)._replace(windows=[[(50.0, 60.0)], [(70.0, 71.0)], []], steps=[1, 1, 1])
    schedule = synchronous.wait_for_all(place.fleet(), lambda count: uniform(3, 2, 0), 2)
    found, state = schedule.draw(schedule.init(), 0)
    assert found.clients.tolist() == [0]
    assert found.record["systems/round_seconds"] == state.seconds > 50
    found, state = schedule.draw(state._replace(seconds=np.float64(65)), 1)
    assert found.clients.tolist() == [1] and found.spans.begin.tolist() == [70.0]
    with pytest.raises(ValueError, match=r"Round 2 begins after 71 .* ever online again"):
        schedule.draw(state._replace(seconds=np.float64(71)), 2)


def test_cohorts_that_count_unequally_lose_who_is_offline():
    place = world(3, n=3)._replace(windows=[[(0.0, 900.0)], [], [(0.0, 900.0)]], steps=[1, 1, 1])
    chosen = Selection(np.array([2, 1, 0]), np.array([0.5, 2.0, 3.0]))
    sampler = Sampler(lambda: (), lambda state, round: (chosen, state), 3, has_scale=True)
    schedule = synchronous.wait_for_all(place.fleet(), lambda count: sampler, 3)
    assert schedule.has_scale
    found, _ = schedule.draw(schedule.init(), 0)
    assert found.clients.tolist() == [2, 0] and found.scale.tolist() == [0.5, 3.0]


def test_one_client_and_none():
    place = world(4, n=1)._replace(steps=[3], step_seconds=[2.0], sends=0.0, receives=0.0)
    schedule = synchronous.wait_for_all(place.fleet(), lambda count: uniform(1, 1, 0), 1)
    ends = [after for _, _, after in rounds_of(schedule, 3)]
    assert ends == [6.0, 12.0, 18.0] and not schedule.has_steps
    nobody = Sampler(lambda: (), lambda state, round: (np.zeros(0, int), state), 1)
    for rule in ({"seconds": 5.0}, {"seconds": 5.0, "partial": True}, {"needed": 1}, {}):
        schedule = schedule_of(place, rule, lambda count: nobody)
        (found, _, after), *_ = rounds_of(schedule, 1)
        assert after == 0 and len(found.clients) == len(found.spans.client) == 0


def test_rounds_in_which_all_are_lost_end_with_the_last_loss():
    place = world(5, dropout=0.999, spread=0.5)
    schedule = synchronous.wait_for_all(place.fleet(), lambda count: uniform(N, 12, 0), 12)
    for found, before, after in rounds_of(schedule, 5):
        working = np.array(place.steps)[found.clients] > 0
        assert not found.accepted[working].any() and found.accepted[~working].all()
        assert after == found.spans.end.max() > before
        assert found.steps[working].tolist() == [1] * working.sum()


def test_answers_at_the_same_moment_are_taken_by_client():
    place = world(6)._replace(steps=[2] * N, step_seconds=[1.0] * N, sends=0.0, receives=0.0)
    cohort = [9, 3, 30, 1, 7]
    sampler = replay([cohort], N)
    schedule = synchronous.over_selection(place.fleet(), lambda count: sampler, 3, 5 / 3)
    found, state = schedule.draw(schedule.init(), 0)
    assert sorted(np.array(cohort)[found.accepted].tolist()) == [1, 3, 7]
    assert float(state.seconds) == 2.0


def test_clients_without_a_batch_neither_answer_nor_take_time():
    steps, seconds = [0, 0, 0, 4, 2], [100.0] * 5
    place = world(7, n=5)._replace(steps=steps, step_seconds=seconds, dropout=0.9)
    sampler = replay([[0, 1, 2, 3, 4]] * 40, 5)
    schedule = synchronous.over_selection(place.fleet(), lambda count: sampler, 2, 2.5)
    for found, before, after in rounds_of(schedule, 40):
        assert found.accepted[:3].all() and found.spans.end[:3].tolist() == [before] * 3
        assert found.accepted[3:].all() == (found.record["systems/clients_lost"] == 0)
        assert after > before


def test_work_that_is_cut_may_end_before_its_client_leaves():
    place = world(8, n=1)._replace(
        steps=[10], step_seconds=[1.0], sends=0.0, receives=0.0, windows=[[(0.0, 6.0)]]
    )
    sampler = replay([[0]], 1)
    for late, fate, end in (("partial", 1, 4.0), ("drop", 2, 4.5)):
        schedule = synchronous.deadline(place.fleet(), lambda count: sampler, 1, 4.5, late=late)
        found, state = schedule.draw(schedule.init(), 0)
        assert found.spans.fate.tolist() == [fate] and float(state.seconds) == end
        assert found.steps.tolist() == [4 if late == "partial" else 1]


def test_a_deadline_that_steps_fill_exactly_is_kept():
    place = world(9, n=1)._replace(steps=[30], step_seconds=[0.1], sends=0.0, receives=0.0)
    sampler = replay([[0]] * 50, 1)
    schedule = synchronous.deadline(place.fleet(), lambda count: sampler, 1, 3.0, late="partial")
    for found, _, _ in rounds_of(schedule, 50):
        assert found.spans.fate.tolist() == [0] and found.steps.tolist() == [30]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *some: synchronous.deadline(*some, 3, seconds=0), "seconds = 0"),
        (lambda *some: synchronous.deadline(*some, 3, seconds=9, late="keep"), "late = 'keep'"),
        (lambda *some: synchronous.wait_for_all(*some, 3, retries=-1), "retries = -1"),
        (lambda *some: synchronous.over_selection(*some, 3, factor=0.5), "factor = 0.5"),
        (lambda *some: synchronous.over_selection(*some, 3, seconds=-1), "seconds = -1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(world().fleet(), lambda count: uniform(N, int(count), 0))


def test_everybody_is_online_with_intervals_that_never_end():
    """Availability in which all are online changes nothing but that clients may be lost."""
    place = world(10, spread=0.7)
    always = intervals(np.zeros(1), np.ones(1), np.array([0, 1]), 1.0, row=np.zeros(N, int))
    draws = lambda count: uniform(N, int(count), 1)  # noqa: E731
    without = synchronous.wait_for_all(place.fleet(), draws, 12)
    within = synchronous.wait_for_all(place.fleet()._replace(availability=always), draws, 12)
    for (a, *one), (b, *other) in zip(rounds_of(without, 5), rounds_of(within, 5), strict=True):
        assert a.clients.tolist() == b.clients.tolist() and one == other
        assert b.accepted.all()


def test_a_factor_that_asks_more_than_there_are_is_told():
    ten = Fleet(equal(10), None, np.full(10, 3), 0.0, 0.0, 0.0, 0)
    with pytest.raises(ValueError, match="are 13 clients, .* has 10. Lower clients_per_round to 7"):
        synchronous.over_selection(ten, lambda count: uniform(10, count, 0), 10)
    synchronous.over_selection(ten, lambda count: uniform(10, count, 0), 7)
