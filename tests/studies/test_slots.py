"""Slots evaluate trials by shared programs, and what one takes is known beforehand."""

import jax
import pytest

from fljax.config import default_config
from fljax.core.trees import nbytes
from fljax.engine.devices.execution import make_mesh
from fljax.recording.checkpoints import CHECKPOINT_COPIES
from fljax.studies.groups import from_config, grouped
from fljax.studies.slots import Slots, _bytes_of_a_trial
from fljax.studies.study import Study, listed_trials
from fljax.training.options import split_options

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_partitions_share_the_compiled_evaluation_and_the_test_set():
    config = default_config()
    settings = {
        "dataset": "digits", "num_clients": 10, "clients_per_round": 4, "num_rounds": 2,
        "partition": "dirichlet", "min_partition_size": 5, "val_fraction": 0.1, "devices": 2,
        "lanes": 1,
    }  # fmt: skip
    for name, value in settings.items():
        config[name] = value
    trials = listed_trials(Study({"alpha": (0.1, 0.3, 1.0, 10.0)}))
    (group,) = grouped(trials, from_config(config))
    slots = Slots(group, trials, *split_options(group.experiment.options))
    slots.evaluate(range(4))
    made = list(slots._evaluations.values())
    rows = {own.sets["val"].inputs.rows.shape for own in made}
    assert len(made) == 4
    # one for the test set, one for each shape of the validation rows
    programs = {id(program): program for program in (own.evaluate_many for own in made)}
    assert sum(program._cache_size() for program in programs.values()) == 1 + len(rows)
    assert len(rows) < 3
    assert all(own.sets["test"] is made[0].sets["test"] for own in made)
    # the divisions own different validation rows
    owners = [own.sets["val"].owners for own in made]
    assert not all(list(owner) == list(owners[0]) for owner in owners[1:])


def test_client_states_are_counted_as_they_are_held():
    config = default_config()
    settings = {
        "dataset": "digits", "algorithm": "scaffold", "num_clients": 10, "clients_per_round": 4,
        "num_rounds": 6, "devices": 2, "lanes": 1,
    }  # fmt: skip
    for name, value in settings.items():
        config[name] = value
    trials = listed_trials(Study({"client_lr": (0.1, 0.2, 0.3)}))
    (group,) = grouped(trials, from_config(config))
    options, run_options = split_options(group.experiment.options)
    _, of_clients = _bytes_of_a_trial(group, options, make_mesh(2))
    slots = Slots(group, trials[:2], options, run_options)
    store = slots.federation.store
    slots.train(6)
    for place in (0, 1):
        slots.federation.replace({place: group.inputs[2]})
        slots.train(6)
        held = nbytes((store._rows, store._room))
        saved = CHECKPOINT_COPIES * nbytes(jax.device_get(store.state()["rows"]))
        # all ten clients took part in nearly every trial
        assert store.num_rows > 16
        assert of_clients < held + saved <= 2 * of_clients
