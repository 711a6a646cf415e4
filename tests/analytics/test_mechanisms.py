"""Noise of clients, of cohorts, of secure sums, and of a budget: what answers tell of each."""

import math

import numpy as np
import populations
import pytest

import fljax

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIENTS = 400
X = (np.random.default_rng(5).permutation(CLIENTS).astype(np.float32) + 0.5) / CLIENTS
PRIVATE = {"privacy": "gaussian", "noise_multiplier": 2.0, "delta": 1e-4, "devices": 1}


@pytest.fixture(scope="module")
def clients():
    return populations.singles(X)


@pytest.mark.parametrize("name", ["local_gaussian", "discrete_gaussian"])
def test_noise_of_clients_is_told_as_well(clients, name):
    """Each cohort of 100 has noise of its own, or each of the 400 clients."""
    private = PRIVATE | {"privacy": name}
    query = "histogram(0, 1, 2, weight_cap=1)"
    reply = fljax.ask(clients, query, column="x", clients_per_round=100, seeds=range(12), **private)
    gaps = np.array([answer.value for answer in reply.answers]) - 200
    theory = 2.0 * math.sqrt(400 if name == "local_gaussian" else 4)
    assert reply.answer.standard_error[0] == pytest.approx(theory)
    assert theory / 1.6 < np.sqrt(np.mean(gaps**2)) < 1.6 * theory
    # everybody is asked once, so that cohorts do not add up
    z = {"local_gaussian": 1.0, "discrete_gaussian": 2.0}[name]
    zcdp = 1 / (2 * z**2)
    assert reply.privacy["epsilon"]["rdp"] < zcdp + 2 * math.sqrt(zcdp * math.log(1e4))


def test_the_noise_is_chosen_for_a_budget(clients):
    options = {"privacy": "gaussian", "target_epsilon": 2.0, "delta": 1e-4, "devices": 1}
    reply = fljax.ask(clients, "mean(0, 1, weight_cap=1)", column="x", **options)
    assert 1.9 < min(reply.privacy["epsilon"].values()) <= 2.0


def test_seeds_are_runs_of_their_own(clients):
    query, options = "mean(0, 1, weight_cap=1)", PRIVATE | {"column": "x"}
    both = fljax.ask(clients, query, seeds=(3, 8), **options)
    alone = fljax.ask(clients, query, seeds=(8,), **options)
    assert both.answers[1].value == pytest.approx(alone.answer.value, rel=1e-12)


def test_secure_sums_and_noise_go_together():
    clients = populations.singles(X[:40])
    query, options = "mean(0, 1, weight_cap=1)", PRIVATE | {"delta": 1e-3}
    secure = fljax.ask(clients, query, secure_aggregation="secure_aggregation", **options)
    plain = fljax.ask(clients, query, **options)
    assert secure.answer.standard_error == pytest.approx(plain.answer.standard_error, rel=0.05)
    # the same noise, but for what is rounded, and for the room that this needs in the norm
    assert secure.answer.value == pytest.approx(plain.answer.value, abs=2e-3)
