"""FedCS and DivFL against loops of their papers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import reference_selection as reference

from fljax.core import random
from fljax.selection.divfl import divfl
from fljax.selection.fedcs import fedcs, in_time

SECONDS = st.integers(0, 12)


@given(st.lists(st.tuples(SECONDS, st.integers(1, 6)), max_size=12), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_those_in_time_are_the_ones_of_the_paper(clients, deadline):
    """Whole seconds make ties and equal times; the paper's order takes the first of them."""
    compute = np.array([client[0] for client in clients], float)
    upload = np.array([client[1] for client in clients], float)
    found = in_time(compute, upload, deadline)
    assert found.tolist() == reference.fedcs(compute, upload, deadline)


def test_those_in_time_at_random_speeds():
    generator = np.random.default_rng(0)
    compute, upload = generator.lognormal(1, 1, 200), generator.lognormal(-2, 1, 200)
    found = in_time(compute, upload, 20.0)
    assert found.tolist() == reference.fedcs(compute, upload, 20.0)
    assert 20 < len(found) < 200


def test_clients_that_send_at_once():
    assert sorted(in_time(np.zeros(3), np.zeros(3), 1.0).tolist()) == [0, 1, 2]
    assert in_time(np.zeros(0), np.zeros(0), 1.0).tolist() == []


def test_fedcs_asks_at_random_and_keeps_to_the_deadline():
    compute, upload = np.arange(20.0), np.full(20, 0.5)
    sampler = fedcs(20, 6, 3, compute, upload, deadline=12.0, overhead=2.0)
    for round in range(50):
        asked = random.generator(3, "sampler/fedcs", round).choice(20, 6, replace=False)
        expected = asked[reference.fedcs(compute[asked], upload[asked], 10.0)]
        assert sampler.select((), round)[0].tolist() == expected.tolist()
    none = fedcs(20, 6, 3, compute + 9, upload, deadline=9.0)
    assert none.select((), 0)[0].tolist() == [] and none.max_cohort == 6


@pytest.mark.parametrize("shares", [False, True])
def test_divfl_with_everybody_drawn_is_the_greedy_algorithm(shares):
    """Ties are frequent, as of two that are nearest to each other: any of them is the best."""
    vectors = np.random.default_rng(1).random((15, 4))
    chosen = divfl(15, 5, 0, vectors, drawn=15, shares=shares).select((), 0)[0].tolist()
    if shares:
        vectors /= vectors.sum(1, keepdims=True)
    for number in range(5):
        costs = [reference.cover(vectors, [*chosen[:number], i]) for i in range(15)]
        assert costs[chosen[number]] == pytest.approx(min(costs), rel=1e-6)


@pytest.mark.parametrize(("drawn", "represented"), [(1, 4), (3, 100), (30, 7)])
def test_divfl_draws_different_clients(drawn, represented):
    labels = np.random.default_rng(2).integers(0, 5, (12, 3))  # one without any rows at all
    labels[4] = 0
    cohorts = set()
    for seed in range(3):
        sampler = divfl(12, 12, seed, labels, drawn, represented)
        assert sorted(sampler.select((), 0)[0].tolist()) == list(range(12))
        few = divfl(12, 4, seed, labels, drawn, represented)
        for round in range(10):
            cohort = few.select((), round)[0]
            np.testing.assert_array_equal(few.select((), round)[0], cohort)
            assert len(set(cohort.tolist())) == 4
            cohorts.add(tuple(cohort.tolist()))
    assert len(cohorts) > 10


REFUSED = [
    (lambda: fedcs(3, 2, 0, np.ones(3), np.ones(3), 0.0), "deadline = 0"),
    (lambda: fedcs(3, 2, 0, np.ones(2), np.ones(3), 1.0), "compute_seconds has 2 entries"),
    (lambda: fedcs(3, 2, 0, np.ones(3), -np.ones(3), 1.0), r"upload_seconds\[0\] = -1"),
    (lambda: fedcs(3, 2, 0, np.ones(3), np.ones(3), 1.0, -1.0), "overhead = -1"),
    (lambda: divfl(3, 2, 0, np.ones(3)), r"shape \[3\]"),
    (lambda: divfl(3, 2, 0, np.full((3, 2), np.nan)), "finite numbers"),
    (lambda: divfl(3, 2, 0, np.ones((3, 2)), drawn=0), "drawn = 0"),
]


@pytest.mark.parametrize(("call", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_arguments_that_do_not_fit_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
