"""What a trial is expected to take covers what its clients keep, through refills."""

import jax
import pytest

from fljax.config import default_config
from fljax.core.trees import nbytes
from fljax.engine.devices.execution import make_mesh
from fljax.recording.checkpoints import CHECKPOINT_COPIES
from fljax.studies.groups import from_config, grouped
from fljax.studies.memory import _bytes_of_a_trial
from fljax.studies.slots import Slots
from fljax.studies.study import Study, listed_trials
from fljax.training.options import split_options

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
