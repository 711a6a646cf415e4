"""Costs of an exported model are what a person counts."""

import jax
import numpy as np
import pytest

from fljax import models, tasks
from fljax.config.prediction import Trained
from fljax.core.algorithm import Variables
from fljax.export.card import table
from fljax.export.costs import device_costs, inference_cost
from fljax.export.forward import forward
from fljax.training.edge_costs import RoundWork

ROW = {"x": {"shape": [64], "dtype": "float32"}, "y": {"shape": [], "dtype": "int32"}}


@pytest.fixture(scope="module")
def cost():
    task = tasks.classification(models.mlp((64, 8, 10)), num_classes=10)
    params, frozen, state = jax.tree.map(np.asarray, task.init(jax.random.key(0)))
    trained = Trained(task, Variables(params, state), frozen, None, {"example": ROW})
    return inference_cost(forward(trained))


def test_a_perceptron(cost):
    assert cost.parameters == 64 * 8 + 8 + 8 * 10 + 10
    assert cost.weight_bytes == 4 * cost.parameters
    assert cost.flops == 2 * (64 * 8 + 8 * 10)
    # every weight is read once, and so are the inputs; outputs and hidden units go to and fro
    assert cost.weight_bytes + 4 * 74 <= cost.moved <= cost.weight_bytes + 4 * (74 + 6 * 18)
    assert cost.weight_bytes + 4 * 64 < cost.memory < cost.weight_bytes + 4 * (64 + 4 * 18)
    assert cost.xla_flops >= cost.flops


def test_devices_that_cannot_are_named(cost):
    work = RoundWork(10, 1e6, 1e5, memory=500e3, downlink_bytes=1e6, uplink_bytes=1e6)
    found = device_costs(cost, work, links=(8.0, 8.0))
    small = found["mcu_cortex_m4"].training
    assert not small.fits and found["mcu_cortex_m7"].training.fits
    assert found["edge_tpu"].training.training is None and found["edge_tpu"].dtype == "int8"
    assert found["raspberry_pi_5"].training.transfer_seconds == pytest.approx(2.0)
    lines = {line.split("|")[1].strip(): line for line in table(found)}
    assert "does not fit into 256.00 kB" in lines["mcu_cortex_m4"]
    assert "does not train" in lines["edge_tpu"] and "if in int8" in lines["edge_tpu"]


def test_weights_beyond_the_memory_do_not_fit(cost):
    large = device_costs(cost._replace(memory=2e6))
    assert not large["mcu_cortex_m7"].inference_fits and large["raspberry_pi_5"].inference_fits
    assert large["edge_tpu"].inference_fits  # a quarter of the bytes in int8
