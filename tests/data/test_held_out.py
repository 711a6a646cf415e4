"""Held-out clients: who never trains, and what is known of them."""

import dataclasses

import numpy as np
import pytest

from fljax import config, data
from fljax.config import experiment

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(200, 3)), RNG.integers(0, 4, 200)
IDS = np.repeat([f"client_{number}" for number in range(10)], 20)
SITES = [f"site_{number % 3}" for number in range(10)]


def held(fraction=0.3, **options):
    options = {"client_ids": IDS, "own_test_fraction": 0.25, "groups": {"site": SITES}} | options
    return data.from_arrays(X, Y, held_out_fraction=fraction, **options)


def test_clients_and_all_that_is_known_of_them_go_one_way_or_the_other():
    dataset, whole = held(val_fraction=0.2), held(0.0)
    assert dataset.num_clients == 7 and dataset.held_out.partition.num_clients == 3
    named = dict(zip(whole.client_ids, range(10), strict=True))
    assert {*dataset.client_ids, *dataset.held_out_ids} == set(named)
    for place, name in enumerate(dataset.client_ids):
        number = named[name]
        assert dataset.groups["site"][place] == SITES[number]
        own = np.concatenate(
            [dataset.train.partition.rows(place), dataset.val.partition.rows(place)]
        )
        np.testing.assert_array_equal(np.sort(own), np.sort(whole.train.partition.rows(number)))
        np.testing.assert_array_equal(
            dataset.test.partition.rows(place), whole.test.partition.rows(number)
        )
    for place, name in enumerate(dataset.held_out_ids):
        number = named[name]
        assert dataset.held_out_groups["site"][place] == SITES[number]
        for split, of in ((dataset.held_out_train, whole.train), (dataset.held_out, whole.test)):
            assert split.examples is dataset.train.examples
            np.testing.assert_array_equal(split.partition.rows(place), of.partition.rows(number))


def test_without_own_test_rows_all_rows_are_held_out():
    test = {"x_test": X[:30], "y_test": Y[:30], "client_ids": None, "groups": None}
    dataset = held(own_test_fraction=0.0, num_clients=10, **test)
    assert dataset.held_out_train is None and dataset.held_out.num_rows == 60
    assert dataset.held_out_ids.tolist() == sorted(dataset.held_out_ids.tolist())
    assert dataset.test.partition is None and dataset.test.num_rows == 30


def test_the_seed_chooses_and_domains_stay_with_their_clients():
    chosen = [held(seed=seed).held_out_ids.tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    images = X[:, None, :]
    skew = "gaussian_noise(0.5, levels=2)"
    whole, dataset = (
        data.from_arrays(images, Y, client_ids=IDS, feature_skew=skew, held_out_fraction=fraction)
        for fraction in (0.0, 0.3)
    )
    domain = dict(zip(whole.client_ids, whole.groups["domain"], strict=True))
    assert [domain[name] for name in dataset.held_out_ids] == list(
        dataset.held_out_groups["domain"]
    )
    assert [domain[name] for name in dataset.client_ids] == list(dataset.groups["domain"])


@pytest.mark.parametrize(
    ("fraction", "options", "message"),
    [
        (0.99, {}, "of 10 clients would hold out 10"),
        (1.0, {}, "held_out_fraction = 1.0 must be at least 0 and below 1"),
        (0.5, {"client_ids": None, "groups": None, "num_clients": 1}, "of 1 clients"),
        (
            0.5,
            {
                "own_test_fraction": 0.0,
                "x_test": X[:2],
                "y_test": Y[:2],
                "test_client_ids": ["a"] * 2,
            },
            "has a held_out split already",
        ),
    ],
)
def test_what_cannot_be_is_refused(fraction, options, message):
    with pytest.raises(ValueError, match=message):
        held(fraction, **options)


def test_held_out_rows_to_train_on_need_rows_to_be_judged_on():
    dataset = held()
    with pytest.raises(ValueError, match="held_out_train of 'arrays' is over 3 clients"):
        dataclasses.replace(dataset, held_out=None)


def test_the_key_of_a_configuration():
    given = {"num_clients": 10, "held_out_fraction": 0.2, "own_test_fraction": 0.2}
    found = experiment.make_dataset(config.resolve(given))
    assert found.num_clients == 8 and found.held_out_train.partition.num_clients == 2
