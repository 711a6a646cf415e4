"""Invariant 5: special cases that must coincide."""

import chex
import jax
import numpy as np
import pytest
import reference
import toy

from fljax import algorithms

pytestmark = pytest.mark.usefixtures("quick_compilation")

EVERYONE = [list(range(len(toy.SIZES)))] * 3


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def params_after(spec, **options):
    federation, _ = toy.run_rounds(toy.clients(), spec, EVERYONE, **options)
    return toy.params_of(federation)


def centralized_steps(lr):
    params = toy.initial_params()
    x, y = (np.concatenate(column) for column in zip(*toy.clients(), strict=True))
    for _ in EVERYONE:
        gradient = reference.loss_and_gradient(params, x, y)[1]
        params = reference.combine(lambda p, g: p - lr * g, params, gradient)
    return params


def test_full_batch_fedavg_is_centralized_sgd():
    toy.assert_close(
        params_after(algorithms.fedavg(0.3), batch_size=0), centralized_steps(0.3), 1e-9
    )


def test_fedsgd_is_centralized_sgd():
    toy.assert_close(params_after(algorithms.fedsgd(0.3)), centralized_steps(0.3), 1e-9)


def test_fedprox_without_pull_is_fedavg():
    got = params_after(algorithms.fedprox(0.0, 0.2), local_epochs=2)
    expected = params_after(algorithms.fedavg(0.2), local_epochs=2)
    toy.assert_close(got, expected, 1e-12)


def test_fedopt_sgd_is_fedavg():
    got = params_after(algorithms.fedopt("sgd", 0.2, 1.0))
    chex.assert_trees_all_equal(got, params_after(algorithms.fedavg(0.2, 1.0)))


def test_one_epoch_is_so_many_steps():
    """Clients of equal size: an epoch of batches and that number of local steps are one thing."""
    parts = toy.clients([12] * 4)
    runs = [
        toy.run_rounds(parts, algorithms.fedavg(0.2), [[0, 1, 2, 3]], shuffle=True, **work)[0]
        for work in ({"local_epochs": 2}, {"local_epochs": None, "local_steps": 6})
    ]
    toy.assert_close(toy.params_of(runs[0]), toy.params_of(runs[1]), 1e-12)


def test_a_constant_schedule_is_no_schedule():
    got = params_after(algorithms.fedavg(0.2), client_lr_schedule=lambda round: 1.0 + 0 * round)
    toy.assert_close(got, params_after(algorithms.fedavg(0.2)), 1e-12)


def test_schedules_scale_both_sides():
    """Round r trains at client_lr / (r + 1), and the server steps at server_lr / (r + 1)."""
    cohorts = [[0, 2, 3], [5, 6], [7, 8]]
    federation, _ = toy.run_rounds(
        toy.clients(), algorithms.fedavg(0.3, 0.8), cohorts,
        client_lr_schedule=lambda round: 1 / (round + 1.0),
        server_lr_schedule=lambda round: 1 / (round + 1.0),
    )  # fmt: skip
    params = toy.initial_params()
    for number, cohort in enumerate(cohorts):
        server = reference.Server(params, lr=0.8 / (number + 1))
        params, _ = reference.federated(
            params, toy.clients(), [cohort], lr=0.3 / (number + 1), batch_size=4, server=server
        )
    toy.assert_close(toy.params_of(federation), params, 1e-9)
