"""Invariant 2 with compression: devices and lanes change no more than a flipped rounding."""

import numpy as np
import pytest

from fljax.compression.links import vector_of
from fljax.config import experiment
from fljax.training.simulation import simulate

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORT = 12
CONFIG = {
    "dataset": "digits",
    "num_clients": 16,
    "partition": "dirichlet",
    "clients_per_round": COHORT,
    "num_rounds": 4,
    "eval_every": 0,
    "local_steps": 3,
    "batch_size": 10,
    "model": "mlp",
    "model_options": {"hidden": (32,)},
    "matmul_precision": "highest",
}
FEEDBACK = {"uplink_memory": "error_feedback"}
# with the quantum: what one client's coordinate, or the model's, may differ by where a rounding or
# a choice falls the other way, as a share of the largest parameter
LINKS = {
    "top_k": ({"uplink": "top_k(0.05)"} | FEEDBACK, 1 / COHORT),
    "qsgd": ({"uplink": "qsgd(4)"}, 1 / COHORT),
    "sign": ({"uplink": "sign", "uplink_per_leaf": True} | FEEDBACK, 1 / COHORT),
    "int8 both ways": (
        {"uplink": "int8", "downlink": "int8", "downlink_memory": "difference"},
        1 / 127,
    ),
}


def final_vector(config, **layout):
    made = experiment.make_experiment(CONFIG | config | layout)
    options = made.options | {"progress": False}
    run = simulate(made.dataset, made.task, made.algorithm, **options)
    assert run.config["execution"]["devices"] == layout["devices"]
    assert run.config["execution"]["lanes"] == layout["lanes"]
    return np.asarray(vector_of(run.variables.params))


@pytest.fixture(scope="module")
def uncompressed():
    pytest.importorskip("sklearn")
    return final_vector({}, devices=1, lanes=1)


@pytest.mark.parametrize("name", LINKS)
def test_layout_changes_no_more_than_a_quantum_of_few_coordinates(name, uncompressed):
    config, share = LINKS[name]
    expected = final_vector(config, devices=1, lanes=1)
    got = final_vector(config, devices=8, lanes=2)
    difference, scale = np.abs(got - expected), np.abs(expected).max()
    assert (difference <= 1e-5 * scale).mean() >= 0.999
    assert difference.max() <= share * scale
    # what is compared has been compressed
    assert np.abs(expected - uncompressed).max() > 1e-3 * scale
