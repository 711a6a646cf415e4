"""Label noise: which rows go wrong, how, and that rows to be judged by never do."""

import numpy as np
import pytest

from fljax import data
from fljax.training.client_tables import identified

X = np.zeros((4000, 2), np.float32)
Y = np.arange(4000) % 5


def noisy(label_noise, **options):
    options = {"num_clients": 20, "own_test_fraction": 0.25, "seed": 3} | options
    return data.from_arrays(X, Y, label_noise=label_noise, **options)


def wrong_shares(dataset, split):
    """The share of wrong labels of each client, counted row by row."""
    y = split.examples.arrays["y"]
    rows = [split.partition.rows(client) for client in range(split.partition.num_clients)]
    return np.array([np.mean(y[own] != Y[own]) for own in rows])


def test_as_many_rows_of_each_client_go_wrong_as_asked_and_are_recorded():
    dataset = noisy("symmetric(0.3)", val_fraction=0.2)
    y = dataset.train.examples.arrays["y"]
    assert dataset.test.examples is dataset.train.examples is dataset.val.examples
    np.testing.assert_array_equal(y[dataset.test.rows()], Y[dataset.test.rows()])
    changed = np.flatnonzero(y != Y)
    np.testing.assert_array_equal(dataset.noisy_labels.rows, changed)
    np.testing.assert_array_equal(dataset.noisy_labels.labels, Y[changed])
    whole = noisy("symmetric(0.3)")
    shares = wrong_shares(whole, whole.train)
    np.testing.assert_allclose(shares, 0.3, atol=0.5 / whole.train.partition.sizes.min())
    # validation rows are as wrong as those that they were taken from
    assert 0.2 < np.mean(y[dataset.val.rows()] != Y[dataset.val.rows()]) < 0.4
    assert "wrong labels: 900 rows of those that clients train on" in whole.describe()
    assert np.bincount((y[changed] - Y[changed]) % 5)[1:].min() > 180  # all others alike
    again, other = noisy("symmetric(0.3)"), noisy("symmetric(0.3)", seed=4)
    np.testing.assert_array_equal(whole.noisy_labels.rows, again.noisy_labels.rows)
    assert not np.array_equal(whole.noisy_labels.rows, other.noisy_labels.rows)


def test_shares_are_drawn_client_by_client():
    uniform = noisy("symmetric(0.1, most=0.5)")
    shares = wrong_shares(uniform, uniform.train)
    np.testing.assert_allclose(shares, uniform.noisy_labels.shares, atol=0.01)
    assert shares.min() >= 0.09 and shares.max() <= 0.51 and shares.std() > 0.05
    beta = data.symmetric(beta=(2, 5)).shares(20_000, np.random.default_rng(0))
    np.testing.assert_allclose([beta.mean(), beta.var()], [2 / 7, 10 / 49 / 8], rtol=0.03)
    some = noisy("symmetric(0.5, clients=0.4)")
    assert np.count_nonzero(wrong_shares(some, some.train)) == 8


def test_pairs_of_classes_and_classes_of_a_mapping():
    pairs = noisy("pairwise(0.4)")
    rows, y = pairs.noisy_labels.rows, pairs.train.examples.arrays["y"]
    np.testing.assert_array_equal(y[rows], (Y[rows] + 1) % 5)
    mapped = noisy("asymmetric({0: 3, 1: 2}, 0.5)")
    rows, y = mapped.noisy_labels.rows, mapped.train.examples.arrays["y"]
    assert set(zip(Y[rows].tolist(), y[rows].tolist(), strict=True)) == {(0, 3), (1, 2)}
    could = np.isin(Y[mapped.train.rows()], (0, 1)).sum()
    assert abs(len(rows) - could / 2) <= 10


def test_held_out_clients_are_judged_by_right_labels():
    dataset = noisy("symmetric(0.5)", held_out_fraction=0.3)
    y = dataset.train.examples.arrays["y"]
    judged, adapts = dataset.held_out.rows(), dataset.held_out_train.rows()
    np.testing.assert_array_equal(y[judged], Y[judged])
    np.testing.assert_allclose(np.mean(y[adapts] != Y[adapts]), 0.5, atol=0.02)
    whole = noisy("symmetric(0.5)", held_out_fraction=0.3, own_test_fraction=0.0)
    judged = whole.held_out.rows()
    np.testing.assert_array_equal(whole.train.examples.arrays["y"][judged], Y[judged])


def test_results_of_clients_say_how_many_of_their_labels_are_wrong():
    dataset = noisy("symmetric(0.1, most=0.5)", held_out_fraction=0.3)
    of_training = identified({"client": np.array([5, 2])}, dataset, "training")
    y = dataset.train.examples.arrays["y"]
    rows = [dataset.train.partition.rows(client) for client in (5, 2)]
    expected = [np.mean(y[own] != Y[own]) for own in rows]
    np.testing.assert_allclose(of_training["wrong_labels"], expected)
    of_held_out = identified({"client": np.array([0, 3])}, dataset, "held_out")
    assert np.isnan(of_held_out["wrong_labels"]).all()
    assert "wrong_labels" not in identified({"client": np.zeros(1, int)}, noisy(None), "training")


@pytest.mark.parametrize(
    ("label_noise", "options", "message"),
    [
        ("symetric(0.2)", {}, "Did you mean 'symmetric'"),
        ("symmetric(1.2)", {}, "share = 1.2"),
        ("symmetric(0.5, most=0.2)", {}, "most = 0.2 is below share = 0.5"),
        ("symmetric(beta=(1, 0))", {}, "beta"),
        ("symmetric(most=0.3, beta=(1, 2))", {}, "both draw shares"),
        ("asymmetric({0: 7})", {}, "names class 7"),
        ("asymmetric([0, 1])", {}, "mapping"),
        ("symmetric(0.2)", {"kind": "targets"}, "is of kind 'targets'"),
    ],
)
def test_what_cannot_go_wrong_is_refused(label_noise, options, message):
    with pytest.raises(ValueError, match=message):
        noisy(label_noise, **options)
