"""Folds over clients: each client is held out once; a study over seeds has each fold once."""

import numpy as np
import pytest

from fljax import config, data
from fljax.config import experiment
from fljax.studies.groups import resolved
from fljax.studies.space import Trial

X, Y = np.zeros((88, 2)), np.arange(88) % 3
IDS = np.repeat(list("abcdefghijk"), 8)


@pytest.mark.parametrize("folds", [2, 3, 11])
def test_each_client_is_held_out_in_one_fold_and_trains_in_the_others(folds):
    options = {"client_ids": IDS, "held_out_folds": folds, "own_test_fraction": 0.25}
    options["groups"] = {"site": np.arange(11) % 2}
    held = []
    for fold in range(folds):
        dataset = data.from_arrays(X, Y, held_out_fold=fold, **options)
        everyone = [*dataset.client_ids, *dataset.held_out_ids]
        assert sorted(everyone) == sorted(set(IDS))
        assert dataset.held_out_train.partition.num_clients == len(dataset.held_out_ids)
        held += dataset.held_out_ids.tolist()
        assert len(dataset.held_out_ids) in (11 // folds, -(-11 // folds))
    assert sorted(held) == sorted(set(IDS))


def test_a_study_over_seeds_has_each_fold_once():
    keys = {"num_clients": 10, "held_out_folds": 5, "clients_per_round": 2}
    base = config.with_keys(config.default_config(), keys)
    folds = [resolved(base, Trial(number, {}, seed=number)).held_out_fold for number in range(5)]
    assert folds == [0, 1, 2, 3, 4]
    held = [
        experiment.make_dataset(resolved(base, Trial(number, {}, seed=number))).held_out_ids
        for number in range(5)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(10))
    fixed = config.resolve({"num_clients": 10, "held_out_folds": 5, "held_out_fold": 2, "seed": 4})
    assert fixed.held_out_fold == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"held_out_fold": 1}, "held_out_fold = 1 needs held_out_folds"),
        ({"held_out_folds": 3, "held_out_fold": 3}, "3 folds are numbered 0 to 2"),
        ({"held_out_folds": 3, "held_out_fraction": 0.2}, "both hold clients out"),
        ({"held_out_folds": 12}, "there are 11 clients"),
        ({"held_out_folds": 1}, "held_out_folds = 1 must be at least 2"),
    ],
)
def test_folds_that_there_are_not_are_refused_from_python_and_a_configuration(keys, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(X, Y, client_ids=IDS, **keys)
    with pytest.raises(ValueError, match=message):
        experiment.make_dataset(config.resolve({"num_clients": 11, "partition": "iid"} | keys))
