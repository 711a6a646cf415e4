"""Invariant 4: an independent float64 NumPy loop over ragged clients gives the same rounds."""

import itertools

import chex
import jax
import numpy as np
import pytest
import reference
import toy

from fljax import algorithms
from fljax.core.contradictions import ONLY_WITH

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# ragged cohorts with an empty client (1), one of a single row (4), and an empty cohort
COHORTS = [[0, 1, 2, 3], [3, 4, 8], [5, 6, 7, 0, 4], [], [8, 2]]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def check(spec, expected, *, rtol=1e-9, **options):
    federation, stats = toy.run_rounds(toy.clients(), spec, COHORTS, **options)
    toy.assert_close(toy.params_of(federation), expected, rtol)
    return federation, stats


@pytest.mark.parametrize(("weighting", "momentum"), [("examples", None), ("uniform", 0.9)])
def test_fedavg(weighting, momentum):
    expected, losses = reference.federated(
        toy.initial_params(), toy.clients(), COHORTS, lr=0.2, batch_size=4, epochs=3,
        weighting=weighting, momentum=momentum or 0.0,
    )  # fmt: skip
    spec = algorithms.fedavg(0.2, weighting=weighting, client_momentum=momentum)
    _, stats = check(spec, expected, local_epochs=3)
    got = [
        round_stats[-1]["loss"].sum() / round_stats[-1]["weight"].sum()
        for round_stats in stats
        if round_stats[-1]["jobs"].any()
    ]
    np.testing.assert_allclose(got, losses, rtol=1e-9)


def test_fedprox():
    expected, _ = reference.federated(
        toy.initial_params(), toy.clients(), COHORTS, lr=0.2, batch_size=4, epochs=2, mu=0.7
    )
    check(algorithms.fedprox(0.7, 0.2), expected, local_epochs=2)


@pytest.mark.parametrize(
    ("kind", "bias_correction"),
    [("momentum", False), *itertools.product(["adagrad", "adam", "yogi"], [False, True])],
)
def test_fedopt(kind, bias_correction):
    numbers = {"beta1": 0.8, "beta2": 0.95, "tau": 1e-2, "bias_correction": bias_correction}
    server = reference.Server(toy.initial_params(), kind, lr=0.3, momentum=0.9, **numbers)
    expected, _ = reference.federated(
        toy.initial_params(), toy.clients(), COHORTS, lr=0.2, batch_size=4, server=server
    )
    used = {name: number for name, number in numbers.items() if kind in ONLY_WITH[name][1]}
    check(algorithms.fedopt(kind, 0.2, 0.3, **used), expected)


def test_fedsgd():
    expected = reference.fedsgd(
        toy.initial_params(), toy.clients(), [c for c in COHORTS if c], server_lr=0.4
    )
    check(algorithms.fedsgd(0.4), expected)


def test_scaffold():
    expected, own, control = reference.scaffold(
        toy.initial_params(), toy.clients(), [c for c in COHORTS if c],
        lr=0.2, server_lr=0.9, batch_size=4, epochs=2,
    )  # fmt: skip
    federation, _ = check(algorithms.scaffold(0.2, 0.9), expected, local_epochs=2)
    server = jax.tree.map(lambda leaf: np.asarray(leaf[0]), federation.state.server)
    toy.assert_close(server.control, control, 1e-9)
    rows = jax.device_get(federation.store.rows_of(np.arange(len(own))).algorithm)
    for client, expected_control in enumerate(own):
        mine = jax.tree.map(lambda leaf, i=client: leaf[i], rows)
        for name, value in expected_control.items():
            np.testing.assert_allclose(mine[name], value, rtol=1e-9, atol=1e-12)


def test_scaffold_divides_by_the_clients_that_can_take_part():
    """Not by those without rows, nor by those whose rows are less than a batch."""
    sizes = [12, 0, 0, 3, 4, 0, 1, 8, 0, 0, 2, 4]
    parts = toy.clients(sizes)
    able = [(x[: len(y) // 4 * 4], y[: len(y) // 4 * 4]) for x, y in parts]
    everyone = [list(range(len(sizes)))] * 3
    expected, own, control = reference.scaffold(
        toy.initial_params(), able, everyone, lr=0.2, server_lr=0.9, batch_size=4
    )
    for name, leaf in control.items():  # so c is the mean of the c_i, as it should be
        mean = np.sum([tree[name] for tree in own], axis=0) / 4
        np.testing.assert_allclose(leaf, mean, rtol=1e-9)
    spec = algorithms.scaffold(0.2, 0.9)
    federation, _ = toy.run_rounds(parts, spec, everyone, remainder="drop")
    toy.assert_close(toy.params_of(federation), expected, 1e-9)
    server = jax.tree.map(lambda leaf: np.asarray(leaf[0]), federation.state.server)
    toy.assert_close(server.control, control, 1e-9)


def test_scaffold_learns_no_control_at_a_learning_rate_of_zero():
    """A schedule that ends at 0: models and control variates stay as they are, and finite."""
    halt = lambda round: 1.0 * (round < 2)  # noqa: E731
    spec = algorithms.scaffold(0.2)
    short, _ = toy.run_rounds(toy.clients(), spec, COHORTS[:2])
    long, _ = toy.run_rounds(toy.clients(), spec, COHORTS, client_lr_schedule=halt)
    chex.assert_tree_all_finite(long.state.server)
    chex.assert_trees_all_close(long.state.server, short.state.server, rtol=1e-12)
    everyone = np.arange(len(toy.SIZES))
    rows = [run.store.rows_of(everyone).algorithm for run in (long, short)]
    chex.assert_trees_all_close(*rows, rtol=1e-12)


def test_local_only_continues_each_clients_own_model():
    federation, _ = toy.run_rounds(toy.clients(), algorithms.local_only(0.2), COHORTS)
    own = reference.local_only(toy.initial_params(), toy.clients(), COHORTS, lr=0.2, batch_size=4)
    rows = jax.device_get(federation.store.rows_of(np.arange(len(own))).algorithm)
    for client, expected in enumerate(own):
        mine = jax.tree.map(lambda leaf, i=client: leaf[i], rows.params)
        toy.assert_close(mine, expected, 1e-9)
    toy.assert_close(toy.params_of(federation), toy.initial_params(), 1e-15)
