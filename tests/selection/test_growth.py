"""Populations that grow and leave: who is a member when, and who of them is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.selection import growth, names
from fljax.selection.growth import NEVER, Membership


def joined_by(num_clients, round, start, over, shape):
    """The definition: how many have joined by a round."""
    passed = min(round / over, 1)
    if shape == "linear":
        share = start + (1 - start) * passed
    else:
        share = start ** (1 - passed)
    return max(1, int(np.floor(num_clients * share + 1e-6)))


@pytest.mark.parametrize("shape", growth.SHAPES)
@pytest.mark.parametrize(
    ("num_clients", "start", "over"), [(1000, 0.1, 40), (97, 0.03, 7), (5, 0.01, 100), (8, 1.0, 3)]
)
def test_so_many_have_joined_by_a_round(num_clients, start, over, shape):
    membership = growth.growing(num_clients, 3, start=start, over=over, shape=shape)
    for round in range(over + 3):
        expected = joined_by(num_clients, round, start, over, shape)
        assert len(membership.at(round)) == expected, round
    assert (membership.leaves == NEVER).all()


def test_who_joins_first_is_drawn_by_the_seed():
    joins = [growth.growing(400, seed, start=0.5, over=10).joins for seed in range(3)]
    assert not (joins[0] == joins[1]).all()
    np.testing.assert_array_equal(joins[2], growth.growing(400, 2, start=0.5, over=10).joins)
    early = [np.flatnonzero(join == 0).mean() for join in joins]
    assert np.abs(np.array(early) - 199.5).max() < 4 * 400 / 12**0.5 / 200**0.5


@pytest.mark.parametrize("lifetime", [1, 1.5, 30, 1000])
def test_members_stay_geometrically_long(lifetime):
    """Mean and variance, within 4 standard errors of a geometric distribution's."""
    membership = growth.growing(20000, 1, start=0.3, over=50, lifetime=lifetime)
    stays = membership.leaves - membership.joins
    variance = lifetime * (lifetime - 1)
    assert stays.min() >= 1
    assert abs(stays.mean() - lifetime) <= 4 * (variance / 20000) ** 0.5
    # the kurtosis of a geometric distribution is at most 9 + 1 / variance
    assert abs(stays.var() - variance) <= 4 * variance * (9 / 20000) ** 0.5 + 0.1 * (lifetime < 2)
    # who has stayed for long goes as likely as others
    long = stays[stays > 3 * lifetime] - int(3 * lifetime)
    if len(long):
        assert abs(long.mean() - lifetime) <= 4 * (variance / len(long)) ** 0.5 + 1


def test_a_lifetime_beyond_all_rounds_is_for_ever():
    assert (growth.growing(50, 0, lifetime=1e30).leaves == NEVER).all()


MEMBERSHIPS = st.lists(
    st.tuples(st.integers(0, 6), st.one_of(st.integers(0, 6), st.just(NEVER))), min_size=1,
    max_size=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(MEMBERSHIPS, st.integers(0, 14), st.integers(1, 12), st.integers(0, 99))
def test_a_cohort_has_different_members_of_its_round(times, round, size, seed):
    joins = np.array([join for join, _ in times])
    leaves = np.array([NEVER if stay == NEVER else join + stay for join, stay in times])
    membership = growth.given(joins, leaves)
    size = min(size, len(times))
    clients, _ = growth.among(membership, size, seed).select((), round)
    members = {c for c in range(len(times)) if joins[c] <= round < leaves[c]}
    assert set(membership.at(round).tolist()) == members
    assert set(clients.tolist()) <= members
    assert len(clients) == len(set(clients.tolist())) == min(size, len(members))
    holds = membership.holds(np.arange(len(times)), round)
    assert set(np.flatnonzero(holds).tolist()) == members


def test_members_are_drawn_equally_often():
    """Chi-square over 9 members of many rounds of joining: below the 0.9999 quantile, 31.8."""
    membership = growth.given([0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 9], [NEVER, 5, 7, 3, 9] + [NEVER] * 6)
    members = membership.at(4)
    assert members.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    counts = np.zeros(11)
    for seed in range(4000):
        counts[growth.among(membership, 3, seed).select((), 4)[0]] += 1
    expected = 4000 * 3 / 9
    chi_square = ((counts[members] - expected) ** 2 / (expected * (1 - 3 / 9))).sum() * 8 / 9
    assert chi_square < 31.8
    assert counts.sum() == 12000 == counts[members].sum()


def test_a_cohort_depends_on_seed_and_round_alone():
    first, again, other = (growth.grown(500, 20, seed, lifetime=30) for seed in (4, 4, 5))
    forward = [first.select(first.init(), round)[0] for round in range(0, 150, 10)]
    for round in reversed(range(0, 150, 10)):
        cohort = again.select(again.init(), round)[0]
        np.testing.assert_array_equal(cohort, forward[round // 10])
    assert not any(map(np.array_equal, forward, forward[1:]))
    assert not np.array_equal(other.select((), 50)[0], forward[5])
    assert first.max_cohort == 20 and first.separation == 1


def test_a_whole_population_is_drawn_as_ever():
    """If all are members at all times, cohorts are uniform ones of the population."""
    sampler = growth.grown(30, 6, 3, start=1.0)
    counts = np.zeros(30)
    for round in range(2000):
        counts[sampler.select((), round)[0]] += 1
    assert np.abs(counts - 400).max() < 4 * (2000 * 0.2 * 0.8) ** 0.5


def test_a_sampler_by_a_text_is_one():
    sampler = names.make("grown(0.5, over=4, lifetime=20)", 40, 5, 0, np.ones(40, int))
    again = growth.grown(40, 5, 0, 0.5, over=4, lifetime=20)
    np.testing.assert_array_equal(sampler.select((), 3)[0], again.select((), 3)[0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: growth.growing(10, 0, start=0), "start = 0.0 must be above 0 and at most 1"),
        (lambda: growth.growing(10, 0, over=0), "over = 0 must be at least 1"),
        (lambda: growth.growing(10, 0, shape="cubic"), "shape = 'cubic'"),
        (lambda: growth.growing(10, 0, lifetime=0.5), "lifetime = 0.5 must be at least 1"),
        (lambda: growth.given([0, 1], [2]), "joins has 2 clients and leaves 1"),
        (lambda: growth.given([0, 3], [2, 1]), "Client 1 joins in round 3 and leaves in round 1"),
        (lambda: growth.given([-1]), "Client 0 joins in round -1"),
        (lambda: growth.among(Membership(np.zeros(2, int), np.ones(2, int)), 3, 0), "2 clients"),
        (lambda: growth.grown(10, 0, 0), "clients_per_round = 0 must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
