"""Rows of hostile clients that are poisoned before anybody trains."""

import dataclasses

import numpy as np
import pytest
from robustness import reference_poison

from fljax import data
from fljax.data.dataset import Split
from fljax.robustness.attacks.labels import label_flip, poisoned_labels
from fljax.robustness.attacks.pixels import pixel_trigger

RNG = np.random.default_rng(0)
SIZES = (5, 0, 8, 3, 12)
IDS = RNG.permutation(np.repeat(np.arange(5), SIZES))
X = RNG.integers(0, 200, (len(IDS), 4, 4), np.uint8)
Y = RNG.integers(0, 4, len(IDS))
HOSTILE = np.array([False, True, True, False, True])


LAZY = data.synthetic(num_clients=2, materialize=False)
OPTIONS = {"client_ids": IDS, "num_classes": 4, "preprocess": data.image_scaling(None)}


def dataset(**options):
    made = data.from_arrays(X, Y, **OPTIONS, **options)
    return dataclasses.replace(made, test=Split(data.ArrayExamples({"x": X, "y": Y})))


def arrays_of(split):
    return split.examples.take(split.rows())


def test_labels_of_hostile_clients_go_wrong():
    whole = dataset(val_fraction=0.2)
    attack = poisoned_labels(0.5, classes=4)
    found = data.poisoned(whole, HOSTILE[np.unique(IDS)], attack.own_rows, seed=3)
    assert found.train.examples.arrays["x"] is whole.train.examples.arrays["x"]
    np.testing.assert_array_equal(whole.train.examples.arrays["y"], Y)
    for place, client in enumerate(np.unique(IDS)):
        rows = found.train.partition.rows(place)
        before, after = Y[rows], found.train.examples.arrays["y"][rows]
        wrong = after != before
        least = HOSTILE[client] * 0.5 * len(rows)
        assert np.floor(least) <= wrong.sum() <= np.ceil(least)
        flipped = reference_poison.flipped(before, 4)
        np.testing.assert_array_equal(after[wrong], flipped[wrong])
    for role in ("val", "test"):
        now, before = arrays_of(getattr(found, role)), arrays_of(getattr(whole, role))
        np.testing.assert_array_equal(now["y"], before["y"])
    again = data.poisoned(whole, HOSTILE[np.unique(IDS)], attack.own_rows, seed=3)
    other = data.poisoned(whole, HOSTILE[np.unique(IDS)], attack.own_rows, seed=4)
    labels = [each.train.examples.arrays["y"].tolist() for each in (found, again, other)]
    assert labels[0] == labels[1] != labels[2]


def test_triggers_stand_in_the_rows_of_hostile_clients():
    whole = dataset()
    attack = pixel_trigger(1, size=2, share=0.25, once=True)
    assert not attack.batches and label_flip(target=0).own_rows is None
    found = data.poisoned(whole, HOSTILE[np.unique(IDS)], attack.own_rows)
    stamped = reference_poison.stamped(X, 2, "bottom_right", 255)
    for place, client in enumerate(np.unique(IDS)):
        rows = found.train.partition.rows(place)
        now = found.train.examples.take(rows)
        changed = (now["x"] != X[rows]).any((1, 2))
        least = HOSTILE[client] * 0.25 * len(rows)
        assert np.floor(least) <= changed.sum() <= np.ceil(least)
        want = np.where(changed[:, None, None], stamped[rows], X[rows])
        np.testing.assert_array_equal(now["x"], want)
        np.testing.assert_array_equal(now["y"], np.where(changed, 1, Y[rows]))
    np.testing.assert_array_equal(whole.train.examples.arrays["x"], X)


def test_evaluated_rows_that_are_training_rows_too_stay():
    made = data.from_arrays(X, Y, **OPTIONS)
    whole = dataclasses.replace(made, test=Split(made.train.examples))
    found = data.poisoned(whole, np.ones(4, bool), poisoned_labels(target=2).own_rows)
    assert (found.train.examples.arrays["y"] == 2).all()
    np.testing.assert_array_equal(found.test.examples.arrays["y"], Y)


def test_the_root_keeps_its_rows():
    rooted = data.with_root(dataset(), rows=6)
    everybody_else = np.arange(5) != rooted.root
    found = data.poisoned(rooted, everybody_else, poisoned_labels(classes=4).own_rows)
    assert found.root == rooted.root == 4
    own = rooted.train.partition.rows(4)
    now, before = (each.train.examples.arrays["y"] for each in (found, rooted))
    np.testing.assert_array_equal(now[own], before[own])
    others = np.setdiff1d(rooted.train.rows(), own)
    np.testing.assert_array_equal(now[others], 3 - before[others])
    with pytest.raises(ValueError, match="client 4 of 'arrays', the server's own"):
        data.poisoned(rooted, [True] * 5, keep)


def test_inputs_of_several_arrays_are_poisoned_one_by_one():
    x = {"left": np.eye(4), "right": np.arange(4)}
    whole = data.from_arrays(np.eye(4), [0, 1, 1, 0], client_ids=[0, 0, 1, 1])
    examples = data.ArrayExamples({"x": x, "y": whole.train.examples.arrays["y"]})
    whole = dataclasses.replace(whole, train=Split(examples, whole.train.partition))
    negated = lambda x, y, rng: ({"left": -x["left"], "right": x["right"]}, y)  # noqa: E731
    found = data.poisoned(whole, [True, False], negated).train.examples.arrays
    np.testing.assert_array_equal(found["x"]["left"], np.eye(4) * [[-1], [-1], [1], [1]])
    assert found["y"] is whole.train.examples.arrays["y"]


def keep(x, y, rng):
    return x, y


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.poisoned(LAZY, [True] * 2, keep), "are generated"),
        (
            lambda: data.poisoned(
                dataset(concept_drift="label_rotations(2), sudden(1)"), [True] * 4, keep
            ),
            "drift over the rounds, and cannot be poisoned",
        ),
        (lambda: data.poisoned(dataset(), [True], keep), r"must be bool\[4\]"),
        (lambda: data.poisoned(dataset(), [0, 1, 1, 0], keep), r"must be bool\[4\]"),
        (
            lambda: data.poisoned(dataset(), [True] * 4, lambda x, y, rng: (x[:1], y[:1])),
            "own_rows returns 1 rows of .* for 5 of",
        ),
        (
            lambda: data.poisoned(dataset(), [True] * 4, lambda x, y, rng: (x, y / 2)),
            "as many of the same kind",
        ),
        (
            lambda: data.poisoned(
                dataset().repartition(data.Partition([0, 2, 4], [0, 1, 1, 2])),
                [True, False],
                keep,
            ),
            "share training rows with honest ones",
        ),
    ],
)
def test_what_cannot_be_poisoned_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
