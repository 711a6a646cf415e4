"""Clients whose devices have too little memory take part in nothing."""

import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, tasks
from fljax.systems.devices import equal
from fljax.systems.fleet import Fleet
from fljax.training.device_memory import training_bytes, with_enough_memory
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import rehearsed

pytestmark = pytest.mark.usefixtures("quick_compilation")

OPTIONS = {"num_rounds": 4, "clients_per_round": 4, "batch_size": 10, "progress": False}
SMALL = np.arange(12) % 2 == 0
DEVICES = equal(12)._replace(memory_gb=np.where(SMALL, 1e-6, 4.0))


@pytest.fixture(scope="module")
def digits():
    return data.digits(partition="iid", num_clients=12)


def run(digits, **options):
    return fljax.simulate(digits, "softmax_regression", "fedavg", **OPTIONS | options)


@pytest.mark.parametrize(
    "schedule", ["wait_for_all", "over_selection(1.5)", "fedbuff(concurrency=6)"]
)
def test_nobody_asks_or_waits_for_small_devices(digits, schedule):
    with pytest.warns(UserWarning, match="6 of 12 clients' devices have less than the .* GB that"):
        found = run(digits, profiles=DEVICES, schedule=schedule)
    assert not SMALL[found.timeline["client"]].any()
    assert (found.curves["train/clients"][1:] > 0).all()


def test_samplers_that_draw_none_but_small_devices_lose_the_round(digits):
    with pytest.warns(UserWarning, match="they take part in nothing"):
        found = run(digits, profiles=DEVICES, cohorts=[[0, 2], [1, 4], [2], [3, 5]])
    assert found.curves["train/clients"][1:].tolist() == [0, 1, 0, 2]


def test_where_nobody_is_left_it_is_refused(digits):
    with pytest.raises(ValueError, match="memory_gb: no client's device has the .* GB that train"):
        run(digits, profiles="lognormal(1.0, memory_gb=1e-9)")
    fleet = Fleet(DEVICES, None, np.full(12, 3), 0.0, 0.0, 0.0, 0)
    with pytest.raises(ValueError, match="privacy counts on the sampler's draws"):
        with_enough_memory(fleet, 10_000, keeps_cohorts=True)
    assert with_enough_memory(fleet, 500, keeps_cohorts=True) is fleet


def test_training_takes_a_model_its_message_and_a_batch(digits):
    options = RoundOptions(num_rounds=1, clients_per_round=2)
    task, spec = tasks.classification(models.softmax_regression(64, 10), 10), algorithms.fedavg(0.1)
    shapes = rehearsed(digits, task, spec)
    few, many = (training_bytes(digits, task, spec, options, rows, shapes) for rows in (1, 1000))
    model = 4 * 650
    assert 2 * model <= few <= 8 * model
    assert many - few >= 999 * 64 * 4
