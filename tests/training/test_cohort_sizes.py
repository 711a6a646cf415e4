"""Counts of updates that arrive in a round are what schedules plan, and 0 where nobody can tell."""

import numpy as np
import pytest

from fljax import data
from fljax.core.sampler import replay
from fljax.core.schedule import untimed
from fljax.systems.devices import equal
from fljax.systems.fleet import Fleet
from fljax.systems.names import OFFERED, make_schedule
from fljax.training.cohort_sizes import Sizes, arriving
from fljax.training.options import RoundOptions
from fljax.training.sampling import make_sampler

CLIENTS, COHORT, ROUNDS = 30, 12, 200
DATASET = data.from_arrays(
    np.zeros((CLIENTS, 1)), np.arange(CLIENTS) % 2, client_ids=np.arange(CLIENTS)
)
# three of ten have nothing to train on
WORKS = np.arange(CLIENTS) % 10 > 2


def options_of(**values):
    return RoundOptions(**{"num_rounds": ROUNDS, "clients_per_round": COHORT, **values})


def planned(options):
    """Returns int[rounds], how many updates of clients with work arrive in rounds as planned."""
    fleet = Fleet(equal(CLIENTS), None, 1 * WORKS, 0.0, 0.0, options.dropout or 0.0, 0)

    def sampler_of(asked):
        given = options_of(
            sampler=options.sampler, cohorts=options.cohorts, clients_per_round=asked
        )
        return make_sampler(DATASET, given, 0)

    offered = dict(zip(OFFERED, (fleet, sampler_of, COHORT, ROUNDS), strict=True))
    schedule = make_schedule(options.schedule or "wait_for_all", offered)
    state, sizes = schedule.init(), []
    for round in range(ROUNDS):
        arrivals, state = schedule.draw(state, round)
        sizes.append(int((arrivals.accepted & WORKS[arrivals.clients]).sum()))
    return np.array(sizes)


PLANNED = {
    "uniform": {},
    "poisson": {"sampler": "poisson"},
    "given": {"cohorts": [range(COHORT - round % 3) for round in range(ROUNDS)]},
    "dropout": {"dropout": 0.3},
    "poisson with dropout": {"dropout": 0.3, "sampler": "poisson"},
    "retries": {"dropout": 0.5, "schedule": "wait_for_all(retries=2)"},
    "over-selection": {"dropout": 0.2, "schedule": "over_selection(1.5)"},
    "stragglers": {"schedule": "stragglers(0.5)"},
    "partial": {"schedule": "stragglers(0.5, late='partial')"},
    "fedbuff": {"dropout": 0.3, "schedule": "fedbuff(concurrency=20)"},
    "fedasync": {"schedule": "fedasync"},
}


@pytest.mark.parametrize("case", PLANNED)
def test_as_many_arrive_as_are_planned(case):
    options = options_of(**PLANNED[case])
    found, sizes = arriving(DATASET, options, WORKS), planned(options)
    assert found.least <= sizes.min()
    if case != "given":
        assert abs(found.ordinary - sizes.mean()) < 1.2
    # no looser than rare events are
    assert found.least >= sizes.min() - 3


@pytest.mark.parametrize(
    ("values", "ordinary"),
    [
        ({"schedule": "deadline(3.0)"}, 8),
        ({"schedule": "over_selection(2.0, seconds=3)"}, COHORT),
        ({"availability": "bernoulli(0.5)"}, 8),
        ({"connectivity": "same_loss(0.5)"}, 8),
        ({"sampler": "fedcs(deadline=3.0)"}, 8),
        ({"sampler": "fljax.core.sampler:uniform"}, 8),
        ({"sampler": replay([[0, 1, 2]], num_clients=CLIENTS)}, 3),
        ({"schedule": "fljax.systems.synchronous:wait_for_all"}, 8),
        ({"schedule": untimed(replay([[0]], num_clients=CLIENTS))}, 1),
    ],
)
def test_nobody_can_tell_what_time_and_own_functions_decide(values, ordinary):
    assert arriving(DATASET, options_of(**values), WORKS) == Sizes(0, ordinary)
    always = arriving(DATASET, options_of(availability="always"), np.ones(CLIENTS, bool))
    assert always == Sizes(COHORT, COHORT)
