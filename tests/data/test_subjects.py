"""Subjects: however rows are divided, those of one subject stay together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax import data

ROLES = ("train", "val", "test", "held_out", "held_out_train")


def sides_of(dataset):
    """{subject: the (split, client) pairs that have rows of it}, row by row."""
    found = {}
    for role in ROLES:
        split = getattr(dataset, role)
        if split is None or split.examples is not dataset.train.examples:
            continue
        for client in range(split.partition.num_clients):
            for row in split.partition.rows(client):
                found.setdefault(int(dataset.subjects[row]), set()).add((role, client))
    return found


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_subject_stands_on_two_sides(draw):
    seed = draw.draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, draw.draw(st.integers(20, 60)), 240)
    text = draw.draw(st.sampled_from(["iid", "dirichlet(alpha=0.5)", "quantity", "shards"]))
    options = {
        "own_test_fraction": draw.draw(st.sampled_from([0.0, 0.3])),
        "val_fraction": draw.draw(st.sampled_from([0.0, 0.2])),
        "held_out_fraction": draw.draw(st.sampled_from([0.0, 0.4])),
    }
    y = rng.integers(0, 3, 240)
    given_ = {"split_by": patients, "partition": text, "num_clients": 4, "seed": seed, **options}
    dataset = data.from_arrays(rng.normal(size=(240, 2)), y, min_partition_size=3, **given_)
    sides = sides_of(dataset)
    assert all(len(places) == 1 for places in sides.values())
    np.testing.assert_array_equal(
        np.unique(dataset.subjects, return_index=True)[1],
        np.unique(patients, return_index=True)[1],
    )
    rows = [getattr(dataset, role).rows() for role in ROLES if getattr(dataset, role) is not None]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(240))
    assert dataset.train.partition.sizes.min() > 0


def test_shares_hold_as_nearly_as_subjects_allow():
    patients = np.repeat(np.arange(400), 5)
    ids = np.repeat(np.arange(4), 500)
    x, y = np.zeros((2000, 1)), np.arange(2000) % 2
    options = {"client_ids": ids, "split_by": patients, "own_test_fraction": 0.25}
    dataset = data.from_arrays(x, y, val_fraction=0.2, **options)
    assert dataset.test.partition.sizes.tolist() == [125] * 4
    assert dataset.val.partition.sizes.tolist() == [75] * 4
    # one subject is tested on where there are two, and none where there is one
    few = {"client_ids": [0, 0, 0, 1, 1], "split_by": list("aabcc"), "own_test_fraction": 0.1}
    small = data.from_arrays(x[:5], y[:5], **few)
    assert small.test.partition.sizes.tolist()[1] == 0 and small.test.num_rows in (1, 2)


def test_a_subject_has_the_label_of_most_of_its_rows():
    patients = np.repeat(np.arange(100), 3)
    y = np.repeat(np.arange(100) % 2, 3)
    y[::3] = 0
    dataset = data.from_arrays(
        np.zeros((300, 1)), y, split_by=patients, partition="classes_per_client",
        classes_per_client=1, num_clients=2,
    )  # fmt: skip
    counts = data.split_label_counts(dataset)
    assert sorted(counts[:, 1].tolist()) == [0, 100]


def test_training_and_test_sets_share_no_subject():
    x, y = np.zeros((6, 1)), [0, 1, 0, 1, 0, 1]
    test = {"x_test": x[:2], "y_test": y[:2], "split_by": list("aabbcc"), "num_clients": 2}
    with pytest.raises(ValueError, match="rows of 'b' are in the training and in the test set"):
        data.from_arrays(x, y, test_split_by=["b", "d"], **test)
    assert data.from_arrays(x, y, test_split_by=["e", "d"], **test).test.num_rows == 2
    pooled = data.from_arrays(x, y, test_split_by=["b", "d"], own_test_fraction=0.5, **test)
    assert all(len(places) == 1 for places in sides_of(pooled).values())
    with pytest.raises(ValueError, match="give test_split_by"):
        data.from_arrays(x, y, own_test_fraction=0.5, **test)


def test_what_would_part_subjects_is_refused():
    x, y, patients = np.zeros((6, 1)), [0, 1, 0, 1, 0, 1], list("aabbcc")
    with pytest.raises(ValueError, match="the subject of row 0 .* several clients or splits"):
        data.from_arrays(x, y, client_ids=[0, 1, 0, 0, 1, 1], split_by=patients)
    with pytest.raises(ValueError, match="would part the rows of a subject"):
        data.from_arrays(x, y, num_clients=2, split_by=patients, rows_per_client=2)
    with pytest.raises(ValueError, match="split_by"):
        data.from_arrays(x, y, num_clients=2, split_by=patients[:3])
    dataset = data.from_arrays(x, y, num_clients=2, split_by=patients)
    with pytest.raises(ValueError, match="several clients or splits"):
        dataset.repartition(data.Partition(np.array([0, 3, 6])))
    assert "rows are of 3 subjects, and stay together by subject" in dataset.describe()
