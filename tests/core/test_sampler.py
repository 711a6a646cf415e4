"""Cohorts: drawn as the sampler says, keyed by (seed, round) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.core import sampler as samplers
from fljax.selection import names

ROUNDS = 2000
# those that look at nothing of a client
EQUAL = {name: names.SAMPLERS[name] for name in ("uniform", "poisson", "separated")}


def cohorts(sampler, rounds=ROUNDS):
    state, found = sampler.init(), []
    for round in range(rounds):
        clients, state = sampler.select(state, round)
        found.append(np.asarray(clients))
    return found


def counts(found, num_clients):
    return np.bincount(np.concatenate(found), minlength=num_clients)


def assert_equally_likely(found, num_clients, rate):
    """Each client's number of rounds is binomial: within 4 standard deviations, 1 in 16,000."""
    sigma = np.sqrt(len(found) * rate * (1 - rate))
    assert np.abs(counts(found, num_clients) - len(found) * rate).max() < 4 * sigma


def test_uniform_draws_every_client_equally_often():
    found = cohorts(samplers.uniform(30, 6, seed=3))
    assert_equally_likely(found, 30, 6 / 30)
    for cohort in found:
        assert len(set(cohort.tolist())) == 6


def test_uniform_draws_pairs_equally_often():
    """Cohorts, not only clients, are equally likely: each pair in 2 of 2 x 15 places."""
    found = cohorts(samplers.uniform(6, 2, seed=0))
    pairs = np.bincount([min(pair) * 6 + max(pair) for pair in found], minlength=36)
    pairs = pairs[pairs > 0]
    assert len(pairs) == 15
    sigma = np.sqrt(ROUNDS * (1 / 15) * (14 / 15))
    assert np.abs(pairs - ROUNDS / 15).max() < 4 * sigma


@pytest.mark.parametrize("name", EQUAL)
def test_a_cohort_depends_on_seed_and_round_alone(name):
    make = EQUAL[name]
    first, again, other = (make(200, 20, seed) for seed in (5, 5, 6))
    forward = cohorts(first, 20)
    for round in reversed(range(20)):
        np.testing.assert_array_equal(again.select(again.init(), round)[0], forward[round])
    assert not any(map(np.array_equal, forward, forward[1:]))
    assert not any(map(np.array_equal, forward, cohorts(other, 20)))


@pytest.mark.parametrize("name", EQUAL)
def test_numbers_that_do_not_fit_are_refused(name):
    for cohort in (0, -1, 11):
        with pytest.raises(ValueError, match=f"clients_per_round = {cohort}.*10 clients"):
            EQUAL[name](10, cohort, 0)
    everybody = EQUAL[name](10, 10, 0)
    whole, _ = everybody.select(everybody.init(), 0)
    assert sorted(whole) == list(range(10))


def test_poisson_draws_clients_independently():
    """Cohort sizes have the binomial mean and variance, and members are equally likely."""
    num_clients, mean = 50, 5
    found = cohorts(samplers.poisson(num_clients, mean, seed=1))
    rate = mean / num_clients
    variance = num_clients * rate * (1 - rate)
    sizes = np.array([len(cohort) for cohort in found])
    assert abs(sizes.mean() - mean) < 4 * np.sqrt(variance / ROUNDS)
    # the variance of a sample variance is about 2 variance^2 / ROUNDS
    assert abs(sizes.var() - variance) < 4 * variance * np.sqrt(2 / ROUNDS)
    assert_equally_likely(found, num_clients, rate)
    for cohort in found:
        assert len(set(cohort.tolist())) == len(cohort)


def test_poisson_cohorts_may_be_empty():
    found = cohorts(samplers.poisson(100, 1, seed=0))
    empty = sum(len(cohort) == 0 for cohort in found)
    chance = 0.99**100
    assert abs(empty - ROUNDS * chance) < 4 * np.sqrt(ROUNDS * chance * (1 - chance))


@given(st.integers(1, 1000), st.data())
def test_no_cohort_exceeds_what_the_sampler_promises(num_clients, data):
    cohort = data.draw(st.integers(1, num_clients))
    for make in EQUAL.values():
        sampler = make(num_clients, cohort, data.draw(st.integers(0, 99)))
        assert max(map(len, cohorts(sampler, 5))) <= sampler.max_cohort <= num_clients


@given(st.integers(1, 300), st.data())
def test_separated_cohorts_keep_their_distance(num_clients, data):
    """No client comes back before `separation` rounds are over, whatever the sizes are."""
    cohort = data.draw(st.integers(1, num_clients))
    separation = data.draw(st.none() | st.integers(1, -(-num_clients // cohort)))
    sampler = samplers.separated(num_clients, cohort, data.draw(st.integers(0, 99)), separation)
    last = np.full(num_clients, -num_clients)
    for round, clients in enumerate(cohorts(sampler, 3 * sampler.separation)):
        assert len(set(clients.tolist())) == len(clients)
        assert (round - last[clients] >= sampler.separation).all()
        last[clients] = round
    if separation is None:
        assert (last >= 2 * sampler.separation).all()  # each pass reaches everybody


def test_separated_draws_independently_within_groups():
    num_clients, mean, separation = 60, 5, 4
    found = cohorts(samplers.separated(num_clients, mean, 1, separation))
    sizes = np.array([len(cohort) for cohort in found])
    rate = mean * separation / num_clients
    variance = num_clients / separation * rate * (1 - rate)
    assert abs(sizes.mean() - mean) < 4 * np.sqrt(variance / ROUNDS)
    assert abs(sizes.var() - variance) < 4 * variance * np.sqrt(2 / ROUNDS)
    for group in range(separation):
        members = np.unique(np.concatenate(found[group::separation]))
        assert len(members) == num_clients / separation
        drawn = counts(found[group::separation], num_clients)[members]
        sigma = np.sqrt(ROUNDS / separation * rate * (1 - rate))
        assert np.abs(drawn - ROUNDS / separation * rate).max() < 4 * sigma


def test_separated_goes_on_from_its_state_and_from_no_other():
    """A checkpoint's state goes on; a state of later rounds is no start for earlier ones."""
    sampler = samplers.separated(20, 4, seed=3, separation=3)
    whole, state = cohorts(sampler, 8), sampler.init()
    for round in range(5):
        _, state = sampler.select(state, round)
    before = state.copy()
    np.testing.assert_array_equal(sampler.select(state, 5)[0], whole[5])
    np.testing.assert_array_equal(state, before)
    with pytest.raises(RuntimeError, match=r"rounds \d and 1, but separation = 3"):
        sampler.select(state, 1)


def test_separation_longer_than_a_pass_is_refused():
    for wrong in (6, 100):
        with pytest.raises(ValueError, match=f"separation = {wrong}.*Choose 5 or less"):
            samplers.separated(539, 108, 0, separation=wrong)
    with pytest.raises(ValueError, match="separation = 0"):
        samplers.separated(539, 108, 0, separation=0)
    with pytest.raises(ValueError, match="no argument.*separation|separation.*uniform"):
        names.make("uniform", 10, 2, 0, np.ones(10, int), separation=3)
    with pytest.raises(ValueError, match="twice|set here"):
        names.make("separated(separation=2)", 10, 2, 0, np.ones(10, int), separation=3)
    own = names.make("separated", 10, 2, 0, np.ones(10, int), separation=3)
    assert own.separation == 3


def test_replay_repeats_the_list():
    sampler = samplers.replay([[3, 1], [], [2, 2, 0]], num_clients=4)
    found = [cohort.tolist() for cohort in cohorts(sampler, 5)]
    assert found == [[3, 1], [], [2, 2, 0], [3, 1], []]
    assert sampler.max_cohort == 3


@pytest.mark.parametrize("wrong", [4, -1])
def test_replay_refuses_clients_that_do_not_exist(wrong):
    with pytest.raises(ValueError, match=rf"cohorts\[1\] names client {wrong}.*0 to 3"):
        samplers.replay([[0], [2, wrong]], num_clients=4)


def test_replay_needs_a_cohort():
    with pytest.raises(ValueError, match="empty list"):
        samplers.replay([], num_clients=4)


@pytest.mark.parametrize(
    ("rounds", "broken"),
    [
        (([0, 1], [2, 3], [0, 1], [3, 2]), None),
        (([0, 1], [2, 3], [0, 1], [3, 0]), "client 0 takes part in round 2 and again in round 3"),
        (([0, 1], [2, 2]), "client 2 takes part in round 1 and again in round 1"),
    ],
)
def test_what_a_sampler_promises_is_checked_as_it_draws(rounds, broken):
    promised = samplers.Sampler(
        lambda: 7, lambda state, round: (np.array(rounds[round]), state + 1), 2, separation=2
    )
    careful = samplers.keeping_apart(promised, num_clients=4)
    state, drawn = careful.init(), []

    def draw(state):
        for round in range(len(rounds)):
            clients, state = careful.select(state, round)
            drawn.append(clients.tolist())
        return state

    if broken is None:
        state = draw(state)
        assert drawn == [list(clients) for clients in rounds]
        assert state[0] == 11 and state[1].tolist() == [2, 2, 3, 3]
    else:
        with pytest.raises(ValueError, match=broken):
            draw(state)


def test_selections_are_watched_as_cohorts_are():
    def select(state, round):
        return samplers.Selection(np.array([round % 3]), np.array([0.5])), state

    promised = samplers.Sampler(lambda: (), select, 1, separation=4, has_scale=True)
    careful = samplers.keeping_apart(promised, num_clients=4)
    state = careful.init()
    for round in range(3):
        selected, state = careful.select(state, round)
        assert selected.clients.tolist() == [round] and selected.scale.tolist() == [0.5]
    with pytest.raises(ValueError, match="client 0 takes part in round 0 and again in round 3"):
        careful.select(state, 3)
