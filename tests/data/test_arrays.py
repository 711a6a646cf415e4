"""`from_arrays`: which splits come out, and what is refused."""

import jax
import numpy as np
import pytest

from fljax.data import LazyExamples, Partition, from_arrays
from fljax.data.partitions.partition import chosen_clients

X = np.arange(24.0).reshape(12, 2)
Y = np.arange(12) % 3
IDS = np.repeat(["ann", "bob", "cy"], [5, 4, 3])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"data_checks": "warn"}, r"data.checked\(dataset, 'warn'\)"),
        (
            {"val_fracton": 0.1},
            "from_arrays has no argument 'val_fracton' = 0.1. .* 'val_fraction'",
        ),
        ({"alhpa": 0.1, "partition": "dirichlet", "num_clients": 2}, "dirichlet has no .* 'alpha'"),
    ],
)
def test_options_that_are_nobodys_are_answered_by_who_has_them(option, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(X, Y, **({"client_ids": IDS} | option))


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


def test_some_of_the_natural_clients():
    names = np.array(list("abcdefghij"))
    ids, test_ids = np.repeat(names, 3), np.append(np.repeat(names, 2), ["new", "new"])
    x, y, groups = np.arange(30.0)[:, None], np.arange(30) % 2, {"site": np.arange(10)}

    def take(num_clients, seed):
        return from_arrays(
            x, y, client_ids=ids, num_clients=num_clients, seed=seed, groups=groups,
            x_test=x[:22], y_test=y[:22], test_client_ids=test_ids,
        )  # fmt: skip

    dataset = take(4, seed=1)
    taken = dataset.client_ids
    assert dataset.num_clients == len(set(taken)) == 4 and taken.tolist() == sorted(taken)
    for number, name in enumerate(taken):
        assert (ids[dataset.train.partition.rows(number)] == name).all()
        assert (test_ids[dataset.test.partition.rows(number)] == name).all()
    assert dataset.train.num_rows == 12 and dataset.test.num_rows == 8
    assert names[dataset.groups["site"]].tolist() == taken.tolist()
    # clients that were not taken are left out; those that never train are held out as ever
    assert dataset.held_out_ids.tolist() == ["new"] and dataset.held_out.num_rows == 2
    assert take(4, seed=1).client_ids.tolist() == taken.tolist()
    assert len({tuple(take(4, seed).client_ids) for seed in range(5)}) > 1
    assert set(taken) < set(take(7, seed=1).client_ids)
    assert take(None, seed=1).num_clients == 10
    with pytest.raises(ValueError, match="10 natural clients, not 11"):
        take(11, seed=1)


def test_clients_without_test_rows_have_no_test_set():
    with pytest.warns(UserWarning, match="no test set"):
        dataset = from_arrays(
            X, Y, client_ids=IDS, num_clients=1, seed=0, x_test=X[:2], y_test=Y[:2],
            test_client_ids=["ann" if chosen_clients(3, 1, 0)[0] else "cy"] * 2,
        )  # fmt: skip
    assert dataset.test is None and dataset.held_out is None


def test_records_of_data_are_short():
    x = np.random.default_rng(0).standard_normal((1000, 50))
    dataset = from_arrays(
        x,
        np.arange(1000) % 2,
        client_ids=np.arange(1000) // 10,
        x_test=x,
        y_test=np.zeros(1000, int),
    )
    lazy = LazyExamples(10, lambda rows: {}, dataset.train.examples.spec)
    for part in (dataset, dataset.train, dataset.test, dataset.train.partition, lazy,
                dataset.train.examples):  # fmt: skip
        assert len(repr(part)) < 160 and "\n" not in repr(part) and "array(" not in repr(part)
    assert repr(dataset.train.partition) == "Partition(100 clients, 1,000 rows)"
    assert "100 clients, rows: train 1,000, test 1,000" in repr(dataset)


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
        ({"partition": "dirichlet"}, "needs num_clients"),
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
        ({"kind": "regression", "num_clients": 2}, "kind = 'regression' is not one of"),
        ({"x": X[:0], "y": Y[:0], "num_clients": 1}, "no training rows"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"x": X, "y": Y, **changes}
    with pytest.raises(ValueError, match=message):
        from_arrays(arguments.pop("x"), arguments.pop("y"), **arguments)
