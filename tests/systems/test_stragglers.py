"""Stragglers by decree are as many as was said, and do as much as was drawn."""

import numpy as np
import pytest

from fljax.core.sampler import uniform
from fljax.core.schedule import FATES
from fljax.systems.availability import Availability
from fljax.systems.devices import equal
from fljax.systems.fleet import Fleet
from fljax.systems.online import bernoulli
from fljax.systems.stragglers import stragglers
from fljax.systems.synchronous import wait_for_all

STEPS = np.array([40, 20, 200, 60, 100, 20, 0, 400])


def fleet(seed=0):
    return Fleet(equal(8, 0.5), None, STEPS, 0.0, 0.0, 0.0, seed)


def rounds(schedule, number):
    state, found = schedule.init(), []
    for round in range(number):
        arrivals, state = schedule.draw(state, round)
        found.append(arrivals)
    return found


def sampler_of(clients_per_round):
    return uniform(8, clients_per_round, 3)


@pytest.mark.parametrize(("share", "stragglers_of_5"), [(0.0, 0), (0.5, 2), (0.9, 4), (1.0, 5)])
def test_a_share_of_each_cohort_straggles(share, stragglers_of_5):
    late = FATES.index("late")
    for arrivals in rounds(stragglers(fleet(), sampler_of, 5, share), 20):
        assert (arrivals.spans.fate == late).sum() == stragglers_of_5
        assert (arrivals.accepted == (arrivals.spans.fate != late)).all()
        assert arrivals.record["systems/clients_late"] == stragglers_of_5


def test_what_stragglers_have_done_is_uniform_over_epochs():
    done = np.concatenate([
        20 * arrivals.steps[arrivals.clients == 7] // STEPS[7]
        for arrivals in rounds(stragglers(fleet(), sampler_of, 5, 1.0, "partial"), 4000)
    ])  # fmt: skip
    counts = np.bincount(done, minlength=21)
    assert counts[0] == counts[20] == 0
    expected = len(done) / 19
    # chi-squared with 18 degrees of freedom exceeds 42.3 once in a thousand
    assert ((counts[1:20] - expected) ** 2 / expected).sum() < 42.3


def test_the_cohorts_are_the_samplers():
    dropped = rounds(stragglers(fleet(), sampler_of, 5, 0.9), 4)
    partial = rounds(stragglers(fleet(), sampler_of, 5, 0.9, "partial"), 4)
    for round, (one, other) in enumerate(zip(dropped, partial, strict=True)):
        expected, _ = sampler_of(5).select((), round)
        assert (one.clients == expected).all() and (other.clients == expected).all()
        # the same clients straggle, whatever becomes of them
        assert (one.accepted == (other.spans.fate == 0)).all()


def test_a_round_lasts_as_long_as_those_who_do_all():
    for arrivals in rounds(stragglers(fleet(), sampler_of, 5, 0.5, "partial"), 10):
        whole = arrivals.spans.fate == 0
        assert arrivals.record["systems/round_seconds"] == pytest.approx(
            0.5 * STEPS[arrivals.clients[whole]].max(initial=0)
        )
        assert (arrivals.steps[whole] == STEPS[arrivals.clients[whole]]).all()
        assert (arrivals.steps <= STEPS[arrivals.clients]).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("late", ["drop", "partial"])
def test_stragglers_are_lost_as_others_are(share, late):
    lossy = fleet()._replace(dropout=np.full(8, 0.9))
    found = rounds(stragglers(lossy, sampler_of, 5, share, late), 200)
    lost = np.concatenate([each.spans.fate == FATES.index("lost") for each in found])
    works = np.concatenate([STEPS[each.clients] > 0 for each in found])
    # of stragglers, a loss behind the end of the round is never heard of
    assert lost[works].mean() == pytest.approx(0.9, abs=0.03) if share == 0 else 0.3 < lost.mean()
    assert not lost[~works].any()
    for each in found:
        assert not each.accepted[each.spans.fate >= FATES.index("late")].any()
        assert each.record["systems/clients_lost"] == (each.spans.fate == FATES.index("lost")).sum()
        assert (each.spans.end <= each.record["time/simulated_seconds"]).all()


def test_without_stragglers_it_is_as_if_the_server_waited_for_all():
    lossy = fleet()._replace(dropout=0.4, availability=bernoulli(p=0.5, slot_seconds=30.0))
    ours = rounds(stragglers(lossy, sampler_of, 5, 0.0), 30)
    for one, other in zip(ours, rounds(wait_for_all(lossy, sampler_of, 5), 30), strict=True):
        assert dict(one.record) == dict(other.record)
        for name in ("clients", "accepted", "steps"):
            assert (getattr(one, name) == getattr(other, name)).all()
        for column, expected in zip(one.spans, other.spans, strict=True):
            assert (column == expected).all()


def test_stragglers_are_drawn_among_those_online():
    odd = Availability(
        lambda clients, seconds: clients % 2 == 1,
        lambda clients, seconds: np.full(len(clients), np.inf),
        lambda clients, seconds: np.where(clients % 2 == 1, seconds, np.inf),
    )
    for arrivals in rounds(stragglers(fleet()._replace(availability=odd), sampler_of, 4, 0.5), 20):
        assert sorted(arrivals.clients) == [1, 3, 5, 7]
        assert (arrivals.spans.fate == FATES.index("late")).sum() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, "share = 1.5"),
        ({"late": "wait"}, "late = 'wait'"),
        ({"epochs": 1}, "nobody does a part of one epoch"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        stragglers(fleet(), sampler_of, 5, **arguments)
