"""`from_arrays`: which splits come out, and what is refused."""

import jax
import numpy as np
import pytest

from fljax.data import Partition, from_arrays

X = np.arange(24.0).reshape(12, 2)
Y = np.arange(12) % 3
IDS = np.repeat(["ann", "bob", "cy"], [5, 4, 3])


def test_natural_clients():
    dataset = from_arrays(X, Y, client_ids=IDS)
    assert dataset.client_ids.tolist() == ["ann", "bob", "cy"]
    assert dataset.train.partition.sizes.tolist() == [5, 4, 3]
    assert dataset.num_classes == 3 and dataset.test is None
    assert dataset.train.examples.arrays["y"].dtype == np.int32
    assert dataset.train.examples.arrays["x"].dtype == jax.dtypes.canonicalize_dtype(np.float64)


def test_ids_are_set_aside_for_another_partition():
    dataset = from_arrays(X, Y, client_ids=IDS, partition="shards", num_clients=2)
    assert dataset.num_clients == 2 and dataset.client_ids is None


def test_iid_where_only_the_number_of_clients_is_given():
    assert from_arrays(X, Y, num_clients=4).train.partition.sizes.tolist() == [3] * 4


def test_ready_partition_may_leave_rows_out():
    partition = Partition(np.array([0, 2, 3]), np.array([11, 4, 7]))
    assert from_arrays(X, Y, partition=partition).train.partition is partition


def test_test_rows_of_training_clients():
    ids = np.array(["cy", "ann", "cy"])
    dataset = from_arrays(
        X, Y, client_ids=IDS, x_test=X[:3], y_test=Y[:3], test_client_ids=ids, num_classes=7
    )
    assert dataset.test.partition.sizes.tolist() == [1, 0, 2]
    assert dataset.test.partition.rows(2).tolist() == [0, 2]
    assert dataset.held_out is None and dataset.num_classes == 7


def test_test_rows_of_other_clients_are_held_out():
    ids = np.array([9, 9, 8])
    dataset = from_arrays(
        X, Y, client_ids=np.arange(12) // 4, x_test=X[:3], y_test=Y[:3], test_client_ids=ids
    )
    assert dataset.test.partition is None and dataset.test.num_rows == 3
    assert [dataset.held_out.partition.rows(c).tolist() for c in (0, 1)] == [[2], [0, 1]]


def test_test_rows_of_both():
    ids = np.array(["dan", "ann", "eve", "bob"])
    dataset = from_arrays(
        X, Y, client_ids=IDS, x_test=X[:4], y_test=Y[:4], test_client_ids=ids, val_fraction=0.25
    )
    assert dataset.test.partition.sizes.tolist() == [1, 1, 0]
    assert dataset.test.rows().tolist() == [1, 3]
    assert dataset.held_out.rows().tolist() == [0, 2]
    assert dataset.val.num_rows == 3


def test_groups_are_per_client():
    dataset = from_arrays(X, Y, client_ids=IDS, groups={"site": ["n", "s", "n"]}, val_fraction=0.25)
    assert dataset.groups["site"].tolist() == ["n", "s", "n"]


def test_memory_maps_are_neither_copied_nor_converted(tmp_path):
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert from_arrays(x, Y, num_clients=2).train.examples.arrays["x"] is x


def test_token_sequences():
    dataset = from_arrays(
        np.zeros((4, 5), np.uint8), np.full((4, 5), 6, np.uint8), num_clients=2, kind="next_token"
    )
    assert dataset.kind == "next_token" and dataset.num_classes == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y[:5], "num_clients": 2}, "x has 12 rows, but y has 5"),
        ({"y": Y * 1.0, "num_clients": 2}, "y must hold integers"),
        ({"y": Y - 1, "num_clients": 2}, "negative label -1"),
        ({"y": np.stack([Y, Y], 1), "num_clients": 2}, "must be \\[rows\\] labels"),
        ({"x": np.array(["a"] * 12), "num_clients": 2}, "x must be an array of numbers"),
        ({"num_classes": 2, "num_clients": 2}, "num_classes=2, but the labels go up to 2"),
        ({}, "no clients of their own"),
        ({"partition": "natural"}, "no natural clients"),
        ({"partition": "dirichlet", "num_clients": 2}, "needs alpha"),
        ({"partition": Partition(np.array([0, 13]))}, "rows 0..12, but there are 12"),
        ({"partition": Partition(np.array([0, 2])), "num_clients": 3}, "partition has 1 clients"),
        ({"partition": Partition(np.array([0, 2])), "alpha": 3}, "takes no options"),
        ({"client_ids": IDS[:3]}, "one id for each of the 12 rows"),
        ({"client_ids": np.where(Y == 1, np.nan, 1.0)}, "4 of 12 client_ids are NaN.* row 1"),
        ({"client_ids": np.array([None] + ["a"] * 11, object)}, "row 0 is missing"),
        ({"client_ids": np.array([1] + ["a"] * 11, object)}, "mix the types int, str"),
        ({"client_ids": np.full(12, 0.5)}, "fractions"),
        ({"num_clients": 2, "groups": {"site": [0, 1, 0]}}, "'site' .* 3 entries.* 2 clients"),
        ({"num_clients": 2, "x_test": X}, "go together"),
        ({"num_clients": 2, "x_test": X[:, :1], "y_test": Y}, "a row of x_test is"),
        ({"client_ids": IDS, "test_client_ids": IDS}, "without x_test"),
        (
            {"client_ids": IDS, "x_test": X, "y_test": Y, "test_client_ids": np.arange(12)},
            "convert them to one type",
        ),
        ({"kind": "regression", "num_clients": 2}, "kind must be one of"),
        ({"x": X[:0], "y": Y[:0], "num_clients": 1}, "no training rows"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"x": X, "y": Y, **changes}
    with pytest.raises(ValueError, match=message):
        from_arrays(arguments.pop("x"), arguments.pop("y"), **arguments)
