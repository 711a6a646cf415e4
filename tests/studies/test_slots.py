"""Slots evaluate trials of any division of the data by the same programs."""

import pytest

from fljax.config import default_config
from fljax.studies.groups import from_config, grouped
from fljax.studies.slots import Slots
from fljax.studies.study import Study, listed_trials
from fljax.training.options import split_options

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_partitions_share_the_compiled_evaluation_and_the_test_set():
    config = default_config()
    settings = {
        "dataset": "digits", "num_clients": 10, "clients_per_round": 4, "num_rounds": 2,
        "min_partition_size": 5, "val_fraction": 0.1, "devices": 2, "lanes": 1,
    }  # fmt: skip
    for name, value in settings.items():
        config[name] = value
    trials = listed_trials(Study({"alpha": (0.1, 0.3, 1.0, 10.0)}))
    (group,) = grouped(trials, from_config(config))
    slots = Slots(group, trials, *split_options(group.experiment.options))
    slots.evaluate(range(4))
    made = list(slots._evaluations.values())
    rows = {one.sets["val"].inputs.rows.shape for one in made}
    assert len(made) == 4
    # one for the test set, one for each shape of the validation rows
    programs = {id(one.evaluate_many): one.evaluate_many for one in made}
    assert sum(program._cache_size() for program in programs.values()) == 1 + len(rows)
    assert len(rows) < 3
    assert all(one.sets["test"] is made[0].sets["test"] for one in made)
    # the divisions own different validation rows
    owners = [one.sets["val"].owners for one in made]
    assert not all(list(owner) == list(owners[0]) for owner in owners[1:])
