"""Noise that is correlated over rounds, against dense matrices in float64, and what it costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy.private import setting

from fljax.core.algorithm import Aggregate, blank_job
from fljax.privacy import accounting
from fljax.privacy.banded import banded_matrix, coefficients, prefix_sum_error
from fljax.privacy.mechanism import Setting
from fljax.privacy.trees import squared_sensitivities, tree_aggregation

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMS = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(2)}
SIZES = [2, 12]  # of the leaves, in their order
CLIP, NOISE, MEMBERS = 0.5, 1.5, 4.0


def separated(separation, num_rounds=100, **facts):
    run = setting(1000, 1000 / separation, "separated", num_rounds, separation=separation)
    return run._replace(**facts)


def key_of(round):
    return jax.random.fold_in(jax.random.key(3), round)


def fresh(round, *levels):
    """Draws what one round draws, as a vector of all leaves."""
    key = key_of(round)
    for level in levels:
        key = jax.random.fold_in(key, level)
    return np.concatenate(
        [np.asarray(jax.random.normal(jax.random.fold_in(key, n), (size,), jnp.float32), float)
         for n, size in enumerate(SIZES)]
    )  # fmt: skip


def released(mechanism, run, rounds):
    """Returns the noise of rounds whose sums are zero, in units of its standard deviation."""
    link = mechanism.link(mechanism.hparams, run)
    release, state = jax.jit(link.release), link.init_server(PARAMS)
    nothing = Aggregate(PARAMS, jnp.float32(0), jnp.float32(0))
    found = []
    for round in range(rounds):
        total, state = release(nothing, state, jnp.int32(round), key_of(round))
        assert float(total.count) == float(total.weight) == pytest.approx(run.clients_per_round)
        found.append(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(total.sum)]))
    return np.array(found, float) / (NOISE * CLIP)


def strategy(column, rounds):
    matrix = np.zeros((rounds, rounds))
    for band, value in enumerate(column):
        matrix += np.diag(np.full(rounds - band, value), -band)
    return matrix


@pytest.mark.parametrize("bands", [1, 2, 5, 12])
def test_banded_noise_is_that_of_the_inverse_strategy(bands):
    rounds = 40
    run = separated(12, rounds)
    found = released(banded_matrix(CLIP, NOISE, bands=bands), run, rounds)
    independent = np.array([fresh(round) for round in range(rounds)])
    expected = np.linalg.solve(strategy(coefficients(rounds, bands), rounds), independent)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_strategy_keeps_its_horizon():
    """A longer run of the same horizon has the same noise from the start."""
    short, long = separated(5, 10), separated(5, 20)
    own = released(banded_matrix(CLIP, NOISE, horizon=16), short, 10)
    np.testing.assert_array_equal(released(banded_matrix(CLIP, NOISE, horizon=16), long, 10), own)
    assert (released(banded_matrix(CLIP, NOISE), long, 10) != own).any()


def nodes(rounds, completed):
    """Returns the nodes of one tree: (first round, last round + 1, round that shows it)."""
    found, size = [], 1
    while size < 2 * rounds:
        for start in range(0, rounds, size):
            if start + size <= rounds:
                found.append((start, start + size, start + size - 1, size.bit_length() - 1))
            elif completed:
                found.append((start, rounds, rounds, 64 + size.bit_length() - 2))
        size *= 2
    return found


def best_estimate(observed, draws, start, stop):
    """Returns the error of the best unbiased estimate of a sum, from some nodes inside of it."""
    inside = [n for n, node in enumerate(observed) if start <= node[0] and node[1] <= stop]
    holds = np.array(
        [[a <= round < b for round in range(start, stop)] for a, b, *_ in observed], float
    )[inside]
    return np.linalg.pinv(holds).sum(0) @ draws[inside]


def tree_prefix_sums(rounds, restart_every, completion):
    """Returns the noise of all prefix sums, by least squares over the nodes of each tree."""
    total, found = 0.0, []
    for first in range(0, rounds, restart_every):
        observed = nodes(restart_every, completion)
        draws = np.array([fresh(first + shown, level) for *_, shown, level in observed])
        for place in range(1, min(restart_every, rounds - first) + 1):
            start, inner = 0, 0.0
            for level in reversed(range(place.bit_length())):
                if place >> level & 1:
                    stop = start + (1 << level)
                    complete = [n for n in observed if n[2] < place]
                    inner = inner + best_estimate(complete, draws[[n[2] < place for n in observed]],
                                                  start, stop)  # fmt: skip
                    start = stop
            found.append(total + inner)
        if completion and restart_every & (restart_every - 1):
            inner = best_estimate(observed, draws, 0, restart_every)
        total = total + inner
    return np.array(found)


@pytest.mark.parametrize("completion", [True, False])
@pytest.mark.parametrize("restart_every", [1, 4, 6, 7, 50])
def test_tree_noise_is_the_best_estimate_from_the_nodes_so_far(restart_every, completion):
    rounds = 23
    mechanism = tree_aggregation(CLIP, NOISE, restart_every=restart_every, completion=completion)
    found = released(mechanism, separated(5, rounds), rounds).cumsum(0)
    expected = tree_prefix_sums(rounds, restart_every, completion)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_errors_of_prefix_sums_are_those_of_the_dense_matrices():
    for rounds, bands in ((1, 1), (9, 4), (60, 20)):
        column = coefficients(rounds, bands)
        noise = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(strategy(column, rounds))
        assert prefix_sum_error(column, rounds, 3) == pytest.approx(
            math.sqrt((noise**2).sum() / rounds * 3), rel=1e-9
        )


def test_banded_noise_is_as_small_as_published():
    """32 participations that are 32 rounds apart, of 1,024 rounds: 28.03 instead of 128.06."""
    assert prefix_sum_error(np.ones(1), 1024, 32) == pytest.approx(128.06, rel=1e-4)
    assert prefix_sum_error(coefficients(1024, 32), 1024, 32) == pytest.approx(28.03, rel=2e-3)


@pytest.mark.parametrize(("rounds", "bands"), [(1, 1), (10, 1), (10, 3), (7, 20), (500, 16)])
def test_no_step_away_from_the_coefficients_makes_errors_smaller(rounds, bands):
    column = coefficients(rounds, bands)
    assert len(column) == min(rounds, bands) and (column > 0).all()
    assert column @ column == pytest.approx(1, abs=1e-12)
    generator, least = np.random.default_rng(0), prefix_sum_error(column, rounds)
    for size in (1e-3, 1e-1):
        for _ in range(20):
            other = column + size * generator.standard_normal(len(column)) / math.sqrt(len(column))
            assert prefix_sum_error(other / np.linalg.norm(other), rounds) >= least * (1 - 1e-9)


@given(st.data())
def test_a_client_moves_a_banded_strategy_by_its_turns(data):
    """Turns at least `bands` apart share no row, so that no client exceeds their root."""
    bands, rounds = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    matrix = strategy(coefficients(rounds, bands), rounds)
    turns, round = [], data.draw(st.integers(0, bands))
    while round < rounds:
        turns.append(round)
        round += bands + data.draw(st.integers(0, 3))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    added = np.zeros((rounds, 5))
    for turn in turns:
        added[turn] = generator.standard_normal(5)
        added[turn] /= np.linalg.norm(added[turn])
    assert np.linalg.norm(matrix @ added) <= math.sqrt(len(turns)) + 1e-9


@settings(max_examples=50)
@given(
    st.integers(1, 40), st.integers(1, 20), st.integers(1, 9), st.booleans()
)  # fmt: skip
def test_a_client_moves_the_nodes_of_trees_by_its_turns(
    rounds, restart_every, separation, completion
):
    found = squared_sensitivities(rounds, restart_every, separation, completion)
    for last in range(rounds + 1):
        moved = []
        for client in range(separation):
            takes_part = np.arange(rounds) % separation == client
            moved.append(0)
            for first in range(0, last, restart_every):
                for start, stop, shown, _ in nodes(restart_every, completion):
                    if first + shown < last:
                        moved[-1] += takes_part[first + start : first + stop].sum() ** 2
        assert found[last] == max(moved)


# In github.com/google-research/DP-FTRL: python -c "from privacy import compute_epsilon_tree as e;
# print(e(100, [20] * 5, 46.3, 1e-5, True), e(16, [1] * 4, 4.0, 1e-5, True))"
@pytest.mark.parametrize(
    ("separation", "restart_every", "rounds", "noise", "epsilon"),
    [(100, 2000, 10_000, 46.3, 6.9222), (16, 16, 64, 4.0, 5.3777)],
)
def test_epsilon_of_dp_ftrl_is_that_of_its_authors(
    separation, restart_every, rounds, noise, epsilon
):
    mechanism = tree_aggregation(0.3, noise, restart_every=restart_every, delta=1e-5)
    run = separated(separation, rounds)
    guarantee = mechanism.guarantee(mechanism.hparams, run)
    spent = guarantee.epsilon(rounds)
    assert spent["rdp"] == pytest.approx(epsilon, abs=1e-4)
    moved = squared_sensitivities(rounds, restart_every, separation)[-1]
    exact = accounting.epsilon_of_gaussian(noise / math.sqrt(moved), 1e-5)
    assert spent["pld"] == pytest.approx(exact, rel=1e-3)
    assert guarantee.quick(rounds) == spent["rdp"] and guarantee.epsilon(0)["rdp"] == 0
    assert (guarantee.relation, guarantee.unit) == ("replace_special", "user")
    every = [guarantee.quick(round) for round in range(0, rounds, max(1, rounds // 50))]
    assert every == sorted(every)


def test_epsilon_of_a_banded_strategy_counts_turns():
    """60 rounds 20 apart are 3 turns; where a client is drawn at its turn, 3 Poisson samples."""
    mechanism = banded_matrix(0.3, 2.0, delta=1e-4)
    alone = mechanism.guarantee(mechanism.hparams, separated(20, 60))
    exact = accounting.epsilon_of_gaussian(2.0 / math.sqrt(3), 1e-4)
    assert alone.epsilon(60)["pld"] == pytest.approx(exact, rel=1e-3)
    assert alone.quick(41) == alone.quick(60) and alone.quick(40) < alone.quick(41)
    drawn = mechanism.guarantee(mechanism.hparams, separated(20, 60, clients_per_round=10.0))
    sample = accounting.poisson_gaussian(2.0, 0.2)
    assert drawn.epsilon(60) == pytest.approx(accounting.epsilons([(sample, 3)], 1e-4), rel=1e-6)
    assert drawn.epsilon(60)["pld"] < alone.epsilon(60)["pld"] / 2
    assert "probability 0.2" in drawn.sampling and "20 rounds" in alone.sampling


def test_a_sampler_of_ones_own_is_taken_at_its_word():
    """Its distance is counted on, and no chance."""
    mechanism = banded_matrix(0.3, 2.0, bands=8, delta=1e-4)
    run = separated(10, 60, sampler="", clients_per_round=10.0)
    found = mechanism.guarantee(mechanism.hparams, run).epsilon(60)["pld"]
    assert found == pytest.approx(accounting.epsilon_of_gaussian(2.0 / math.sqrt(6), 1e-4))


def test_without_correlation_a_poisson_sample_is_as_good():
    mechanism = banded_matrix(0.3, 2.0, bands=1, delta=1e-4)
    run = setting(num_clients=1000, clients_per_round=100.0)
    found = mechanism.guarantee(mechanism.hparams, run).epsilon(50)
    sample = accounting.poisson_gaussian(2.0, 0.1)
    assert found == pytest.approx(accounting.epsilons([(sample, 50)], 1e-4), rel=1e-6)


REFUSED = {
    "bands = 4 needs 4 rounds .* sampler='poisson' keeps 1": (banded_matrix(bands=4), setting()),
    "separation=30 and clients_per_round=33 or fewer": (banded_matrix(bands=30), separated(20)),
    "sampler='poisson' may let a client": (tree_aggregation(), setting()),
    "sampler='a function of your own' may let": (tree_aggregation(), setting(sampler="")),
    "weighting='examples'": (banded_matrix(), separated(5, weighting="examples")),
    "client_weights": (tree_aggregation(), separated(5, weighting="own")),
    "below 1/N": (banded_matrix(delta=1e-3), separated(5)),
    "must be below 1/N": (tree_aggregation(delta=0.1), separated(5)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_runs_without_a_theorem_are_refused(message):
    mechanism, run = REFUSED[message]
    with pytest.raises(ValueError, match=message):
        mechanism.guarantee(mechanism.hparams, run)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (banded_matrix, {"bands": 0}),
        (banded_matrix, {"horizon": 0}),
        (banded_matrix, {"clip_norm": 0.0}),
        (tree_aggregation, {"noise_multiplier": -1.0}),
        (tree_aggregation, {"restart_every": 2.5}),
    ],
)
def test_numbers_out_of_range_are_refused(make, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        make(**wrong)


@pytest.mark.parametrize("make", [tree_aggregation, banded_matrix])
def test_a_client_that_is_drawn_twice_in_a_round_counts_once(make):
    mechanism = make(0.5, 1.0)
    zeros = np.zeros(1000, int)
    run = Setting(1000, 50, "separated", 16, 0, *[zeros] * 3, separation=16)
    link = mechanism.link(mechanism.hparams, run)
    job = blank_job(jax.random.key(0))
    for occurrence, norm in ((0, 0.5), (1, 0.0), (2, 0.0)):
        again = job._replace(occurrence=jnp.int32(occurrence))
        sent, _ = link.encode({"w": jnp.array([3.0, 4.0])}, (), again, None)
        assert float(jnp.linalg.norm(sent["w"])) == pytest.approx(norm)
