"""Contributions of clients: coalitions train as if alone, and shares add up."""

import dataclasses
import itertools

import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, tasks
from fljax.training.contributions import (
    _among,
    gtg_shapley,
    leave_one_out,
    shapley,
    shapley_of,
    values_of,
)
from fljax.training.options import RoundOptions

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

OPTIONS = RoundOptions(num_rounds=2, clients_per_round=3, batch_size=10)
SPEC = algorithms.fedavg(0.3)
HOW = {"rows": "test", "side_by_side": 2}


def dataset_of():
    """Returns three clients, the last of which has wrong labels."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((150, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    clients = np.repeat([0, 1, 2], 50)
    held = data.from_arrays(x[:30], y[:30], num_clients=1)
    wrong = np.where(clients == 2, 1 - y, y)
    dataset = data.from_arrays(x, wrong, client_ids=clients)
    return dataclasses.replace(dataset, test=held.train.unowned())


def task():
    return tasks.classification(models.softmax_regression(4, 2), 2)


def permutations_mean(value, clients):
    """Returns the Shapley values as the mean over all orders."""
    total, orders = np.zeros(clients), list(itertools.permutations(range(clients)))
    for order in orders:
        members = np.zeros(clients, bool)
        for client in order:
            before = value(members)
            members[client] = True
            total[client] += value(members) - before
    return total / len(orders)


def test_shapley_values_are_means_over_orders():
    generator = np.random.default_rng(1)
    table = {number: generator.standard_normal() for number in range(16)}
    value = lambda members: table[int(members @ 2 ** np.arange(4))]  # noqa: E731
    np.testing.assert_allclose(shapley_of(value, 4), permutations_mean(value, 4), rtol=1e-12)


def test_coalitions_train_as_runs_without_the_others():
    dataset = dataset_of()
    coalitions = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    values = values_of(coalitions, dataset, task(), SPEC, OPTIONS, **HOW)
    partition = _among(dataset.train.partition, coalitions[1])
    alone = dataclasses.replace(
        dataset, train=dataclasses.replace(dataset.train, partition=partition)
    )
    run = fljax.simulate(
        alone, task(), SPEC, num_rounds=2, clients_per_round=3, batch_size=10, progress=False
    )
    assert values[1] == run.curves["eval/test/accuracy"][-1]
    everybody = values[0]
    without = leave_one_out(dataset, task(), SPEC, OPTIONS, **HOW)
    assert without[2] == everybody - values[1]
    shares = shapley(dataset, task(), SPEC, OPTIONS, **HOW)
    assert shares.sum() == pytest.approx(everybody - values[3], abs=1e-12)
    assert shares[2] < min(shares[:2])


def test_gtg_shapley_is_the_mean_over_orders_of_each_round():
    exact = {"round_truncation": 0.0, "truncation": 0.0, "tolerance": 0.0, "max_sweeps": 60}
    dataset = dataset_of()
    found = gtg_shapley(dataset, task(), SPEC, OPTIONS, rows="test", **exact)
    everybody, nobody = values_of(
        np.array([[1, 1, 1], [0, 0, 0]], bool), dataset, task(), SPEC, OPTIONS, **HOW
    )
    assert found.values.sum() == pytest.approx(everybody - nobody, abs=1e-12)
    # in the first round, coalitions of one round's updates are coalitions that train for one round
    first = shapley(dataset, task(), SPEC, dataclasses.replace(OPTIONS, num_rounds=1), rows="test")
    np.testing.assert_allclose(found.by_round[0], first, atol=0.02)
    assert found.evaluations <= 1 + 2 * (1 + 2**3)
    cut = gtg_shapley(dataset, task(), SPEC, OPTIONS, rows="test", round_truncation=2.0)
    assert cut.evaluations == 3 and not cut.values.any()


def test_what_has_no_contributions_is_refused():
    dataset = dataset_of()
    with pytest.raises(ValueError, match="scaffold makes something else"):
        gtg_shapley(dataset, task(), algorithms.scaffold(0.1), OPTIONS, rows="test")
    with pytest.raises(ValueError, match="not the mean"):
        gtg_shapley(dataset, task(), algorithms.fedopt("adam", 0.3), OPTIONS, rows="test")
    with pytest.raises(ValueError, match="val_fraction"):
        leave_one_out(dataset, task(), SPEC, OPTIONS)
