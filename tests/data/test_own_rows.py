"""Own rows: all rows are divided among clients, then each client's into train, val and test."""

import numpy as np
import pytest

from fljax import config, data
from fljax.config import experiment

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(400, 3)), RNG.integers(0, 4, 400)
X_TEST, Y_TEST = RNG.normal(size=(100, 3)), RNG.integers(0, 4, 100)


def pooled(**options):
    kinds = {"num_clients": 7, "own_test_fraction": 0.25, "seed": 2} | options
    return data.from_arrays(X, Y, x_test=X_TEST, y_test=Y_TEST, **kinds)


def counts(dataset, role):
    return data.label_counts(
        dataset.train.examples.arrays["y"], getattr(dataset, role).partition, 4
    )


@pytest.mark.parametrize("partition", ["iid", "dirichlet(alpha=0.3)", "shards", "quantity"])
def test_every_row_of_both_sets_has_one_client_and_one_role(partition):
    dataset = pooled(partition=partition, val_fraction=0.2)
    roles = [dataset.train, dataset.val, dataset.test]
    rows = np.concatenate([split.rows() for split in roles])
    np.testing.assert_array_equal(np.sort(rows), np.arange(500))
    stored = dataset.train.examples.arrays
    np.testing.assert_allclose(stored["x"], np.concatenate([X, X_TEST]), rtol=1e-6)
    np.testing.assert_array_equal(stored["y"], np.concatenate([Y, Y_TEST]))
    assert all(split.examples is dataset.train.examples for split in roles)
    sizes = sum(split.partition.sizes for split in roles)
    without = pooled(partition=partition)
    expected = without.train.partition.sizes + without.test.partition.sizes
    np.testing.assert_array_equal(sizes, expected)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_each_class_of_each_client_gives_its_share(fraction):
    dataset = pooled(partition="dirichlet", alpha=0.5, own_test_fraction=fraction)
    test, both = counts(dataset, "test"), counts(dataset, "train") + counts(dataset, "test")
    assert np.abs(test - fraction * both).max() < 1.5  # one by the class, a half by the client
    wanted = np.rint(fraction * both.sum(1)).clip(1, both.sum(1) - 1)
    np.testing.assert_array_equal(test.sum(1), wanted)


def test_small_clients_keep_a_row_to_train_and_give_one_to_test():
    ids = np.repeat(np.arange(4), [1, 2, 3, 10])
    dataset = data.from_arrays(X[:16], Y[:16], client_ids=ids, own_test_fraction=0.2)
    assert dataset.test.partition.sizes.tolist() == [0, 1, 1, 2]
    assert dataset.train.partition.sizes.tolist() == [1, 1, 2, 8]
    with pytest.raises(ValueError, match="no client of 'arrays' has two rows"):
        data.from_arrays(X[:4], Y[:4], client_ids=np.arange(4), own_test_fraction=0.5)


@pytest.mark.parametrize(
    "partition",
    ["iid", "dirichlet(alpha=0.5)", "classes_per_client", "dirichlet_per_client(alpha=1.0)"],
)
def test_exact_numbers_of_rows(partition):
    y = np.arange(2000) % 10
    options = {"num_clients": 5, "own_test_fraction": 0.25, "rows_per_client": 80}
    if partition.startswith("dirichlet("):
        options["min_partition_size"] = 80
    dataset = data.from_arrays(np.zeros((2000, 1)), y, partition=partition, **options)
    assert dataset.train.partition.sizes.tolist() == [60] * 5
    assert dataset.test.partition.sizes.tolist() == [20] * 5
    rows = np.concatenate([dataset.train.rows(), dataset.test.rows()])
    assert len(np.unique(rows)) == 400


def test_a_sample_keeps_the_classes_of_its_client():
    y = np.arange(2000) % 10
    options = {"num_clients": 5, "classes_per_client": 2}
    whole = data.make_partition("classes_per_client", y, **options)
    kept = data.make_partition("classes_per_client", y, **options, rows_per_client=50)
    for client in range(5):
        assert set(kept.rows(client)) < set(whole.rows(client))
        share = 50 / whole.sizes[client]
        found, given = (np.bincount(y[part.rows(client)], minlength=10) for part in (kept, whole))
        assert np.abs(found - share * given).max() <= 1


@pytest.mark.parametrize("name", ["dirichlet_hsu", "dirichlet_per_client"])
def test_clients_that_draw_fewer_rows_get_their_mixture(name):
    """With rows to spare, a client has the mixture that it drew, though others want the same."""
    y = np.arange(4000) % 10

    def mixtures(**options):
        partition = data.make_partition(name, y, 20, alpha=1.0, **options)
        table = data.label_counts(y, partition, 10) / partition.sizes[:, None]
        return np.exp(-(table * np.log(table.clip(1e-12))).sum(1)).mean()

    few = mixtures(rows_per_client=40)
    assert few < 2.8  # mixtures drawn from Dir(0.1, ..., 0.1) have 2.2 classes of equal frequency
    if name == "dirichlet_per_client":  # all of them suffer where the last rows are dealt too
        assert few < 0.8 * mixtures()


def test_natural_clients_own_their_training_and_test_rows():
    ids, test_ids = (
        np.arange(400) % 6,
        np.arange(100) % 9,
    )  # clients 6 to 8 are in the test set alone
    dataset = pooled(num_clients=None, client_ids=ids, test_client_ids=test_ids)
    assert dataset.client_ids.tolist() == list(range(9)) and dataset.held_out is None
    owner = np.concatenate([ids, test_ids])
    for split in (dataset.train, dataset.test):
        np.testing.assert_array_equal(owner[split.rows()], split.partition.owners())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"client_ids": np.arange(400) % 6, "num_clients": None},
            "give client_ids and test_client_ids",
        ),
        ({"own_test_fraction": 1.0}, "own_test_fraction = 1.0 must be at least 0 and below 1"),
        ({"own_test_fraction": "a"}, "own_test_fraction = 'a'"),
        ({"rows_per_client": 80}, "rows_per_client = 80, but client . gets 7[12] rows"),
        ({"rows_per_client": 0}, "rows_per_client = 0 must be at least 1"),
        ({"partition": "dirichlet_hsu", "rows_per_client": 99}, "71 rows for each client"),
        ({"partition": data.iid(500, 7), "num_clients": None}, "give all rows as x and y"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pooled(**options)


def test_a_second_division_is_refused():
    with pytest.raises(ValueError, match="has a test split already"):
        data.with_own_test(pooled(), 0.2)


def test_keys_of_a_configuration():
    given = {"num_clients": 10, "own_test_fraction": 0.25, "rows_per_client": 80, "data_seed": 4}
    found = experiment.make_dataset(config.resolve(given))
    assert found.train.partition.sizes.tolist() == [60] * 10
    assert found.test.partition.sizes.tolist() == [20] * 10
    expected = data.load(
        "digits", num_clients=10, own_test_fraction=0.25, rows_per_client=80, seed=4
    )
    np.testing.assert_array_equal(found.test.rows(), expected.test.rows())
    with pytest.raises(config.ConfigError, match="own_test_fraction"):
        experiment.make_dataset(config.resolve({"dataset": "synthetic", "own_test_fraction": 0.2}))
