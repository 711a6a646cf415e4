"""Synthetic(alpha, beta): the same rows in every form, and the distributions of the paper."""

import numpy as np
import pytest

from fljax.data import synthetic
from fljax.data.sources.synthetic import _client_models


def test_lazy_rows_equal_materialized_rows():
    lazy = synthetic(0.5, 0.5, num_clients=12, seed=3, max_size=300, materialize=False)
    stored = synthetic(0.5, 0.5, num_clients=12, seed=3, max_size=300)
    assert lazy.train.examples.arrays is None and stored.train.examples.arrays is not None
    for role in ("train", "test"):
        ours, theirs = getattr(lazy, role), getattr(stored, role)
        rows = np.random.default_rng(0).permutation(ours.num_rows)[:200]
        for name in ("x", "y"):
            alone = ours.examples.take(rows)[name]
            assert np.array_equal(alone, theirs.examples.take(rows)[name])
            assert ours.examples.spec[name] == theirs.examples.spec[name]


def test_rows_do_not_depend_on_their_company():
    examples = synthetic(num_clients=50, materialize=False).train.examples
    rows = np.array([4000, 17, 17, 900])
    together = examples.take(rows)
    for place, row in enumerate(rows):
        alone = examples.take(np.array([row]))
        assert np.array_equal(alone["x"][0], together["x"][place])
        assert alone["y"][0] == together["y"][place]


def test_a_client_is_the_same_in_a_larger_population():
    small, large = (synthetic(num_clients=n, materialize=False) for n in (5, 500))
    rows = small.train.partition.num_rows
    a, b = (d.train.examples.take(np.arange(rows - 50, rows)) for d in (small, large))
    assert np.array_equal(a["x"], b["x"]) and np.array_equal(a["y"], b["y"])


def test_a_million_clients():
    dataset = synthetic(num_clients=1_000_000, max_size=5000)
    clients = np.array([0, 999_999, 123_456])
    partition = dataset.train.partition
    assert partition.index is None and dataset.train.examples.arrays is None
    batch = dataset.train.examples.take(partition.row_at(clients, np.zeros(3, int)))
    assert batch["x"].shape == (3, 60) and np.isfinite(batch["x"]).all()
    assert partition.sizes.max() == int(0.9 * 5000)


def test_sizes_are_the_paper_s():
    dataset = synthetic(num_clients=20_000, materialize=False)
    sizes = dataset.train.partition.sizes + dataset.test.partition.sizes
    assert sizes.min() >= 50
    assert np.array_equal(dataset.train.partition.sizes, (0.9 * sizes).astype(int))
    logs = np.log(sizes[sizes > 60] - 49.5)
    assert abs(np.median(sizes - 50) - np.exp(4)) < 3
    assert logs.max() < 4 + 2 * 5.5


def test_features_have_the_covariance_of_the_paper():
    train = synthetic(num_clients=400, materialize=False).train
    rows = train.partition.rows(int(train.partition.sizes.argmax()))[:20_000]
    x = train.examples.take(rows)["x"]
    assert len(rows) > 5000
    np.testing.assert_allclose(x.var(axis=0), np.arange(1, 61) ** -1.2, rtol=0.12)
    correlation = np.corrcoef(x.T) - np.eye(60)
    assert np.abs(correlation).max() < 0.08


def test_labels_are_those_of_the_client_s_model():
    dataset = synthetic(0.7, 0.3, num_clients=6, seed=5, max_size=200)
    mean, weights, bias = _client_models(np.arange(6), 5, 0.7, 0.3, False)
    for client in range(6):
        batch = dataset.train.examples.take(dataset.train.partition.rows(client))
        logits = batch["x"].astype(np.float64) @ weights[client] + bias[client]
        assert np.array_equal(batch["y"], logits.argmax(axis=1))
        assert np.abs(batch["x"].mean(axis=0) - mean[client]).max() < 0.6


def test_alpha_and_beta_are_standard_deviations_between_clients():
    mean, weights, bias = _client_models(np.arange(4000), 0, 3.0, 2.0, False)
    # The mean of 60 unit normals around B_k: variance beta^2 + 1 / 60.
    assert abs(mean.mean(axis=1).std() - np.sqrt(4 + 1 / 60)) < 0.1
    assert abs(weights.mean(axis=(1, 2)).std() - np.sqrt(9 + 1 / 600)) < 0.12
    # One u_k moves weights and bias alike.
    assert np.corrcoef(weights.mean(axis=(1, 2)), bias.mean(axis=1))[0, 1] > 0.98
    assert abs((weights - weights.mean(axis=(1, 2), keepdims=True)).std() - 1) < 0.01


def test_iid_clients_share_one_model_and_mean():
    mean, weights, bias = _client_models(np.array([3, 9]), 0, 1.0, 1.0, True)
    assert not mean.any()
    assert np.array_equal(weights[0], weights[1]) and np.array_equal(bias[0], bias[1])
    assert synthetic(num_clients=3, iid=True).name == "synthetic_iid"


def test_validation_rows_of_lazy_examples():
    dataset = synthetic(num_clients=20, max_size=100, materialize=False, val_fraction=0.1)
    assert dataset.val.examples is dataset.train.examples
    assert not np.intersect1d(dataset.val.rows(), dataset.train.rows()).size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clients": 0}, "num_clients"),
        ({"alpha": -1.0}, "alpha"),
        ({"beta": float("nan")}, "beta"),
        ({"max_size": 1}, "max_size"),
        ({"partition": "dirichlet"}, "clients of their own"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic(**arguments)
