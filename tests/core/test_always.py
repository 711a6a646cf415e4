"""One client that takes part in every round: the sampler knows nothing of it."""

import numpy as np
import pytest

from fljax.core.always import always
from fljax.core.sampler import Sampler, Selection, poisson, uniform

N, ROOT = 20, 20


@pytest.mark.parametrize("kind", [uniform, poisson])
def test_the_others_are_drawn_as_without_it(kind):
    alone = kind(N, 4, seed=3)
    sampler = always(alone, ROOT)
    assert (sampler.max_cohort, sampler.separation) == (alone.max_cohort + 1, 1)
    for round in range(30):
        clients, _ = sampler.select(sampler.init(), round)
        np.testing.assert_array_equal(clients[:-1], alone.select((), round)[0])
        assert clients[-1] == ROOT


def test_the_one_counts_as_it_is_beside_others_that_do_not():
    def select(state, round):
        return Selection(np.array([3, 1]), np.array([0.5, 2.0])), state

    sampler = always(Sampler(lambda: (), select, 2, has_scale=True), ROOT)
    selected, _ = sampler.select((), 0)
    assert selected.clients.tolist() == [3, 1, ROOT] and selected.scale.tolist() == [0.5, 2, 1]
    assert sampler.has_scale


def test_a_sampler_is_told_of_the_others_alone():
    seen = []

    def observe(state, round, statistics):
        seen.append(statistics)
        return state

    own = Sampler(lambda: (), lambda state, round: (np.array([3, 1]), state), 2, observe, "delayed")
    sampler = always(own, ROOT)
    statistics = {"client": np.array([3, ROOT, 1]), "loss": np.array([0.5, 9.0, 0.25])}
    sampler.observe((), 0, statistics)
    assert {name: values.tolist() for name, values in seen[0].items()} == {
        "client": [3, 1],
        "loss": [0.5, 0.25],
    }
    assert sampler.feedback == "delayed"


def test_it_is_drawn_once():
    twice = Sampler(lambda: (), lambda state, round: (np.array([2, ROOT]), state), 2)
    with pytest.raises(ValueError, match="chose client 20 in round 4, which takes part in every"):
        always(twice, ROOT).select((), 4)
