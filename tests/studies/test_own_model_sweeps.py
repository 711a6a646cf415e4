"""Numbers of algorithms whose clients have models of their own are arguments of one program."""

import numpy as np
import pytest
from small_sweeps import alone, rows_of, small_config

import fljax

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

NAMES = ("eval/personal/loss", "eval/test/loss", "train/loss")
# Clients that never train, with rows to adapt to.
NEW_CLIENTS = {"own_test_fraction": 0.25, "held_out_fraction": 0.3}


@pytest.mark.parametrize(
    ("algorithm", "axes"),
    [
        ("ditto", {"lam": (0.0, 1.0), "client_lr": (0.1, 0.3)}),
        ("apfl", {"mixture": (0.25, 0.75)}),
        ("pfedme", {"lam": (1.0, 5.0), "inner_lr": (0.05, 0.1)}),
        ("per_fedavg", {"inner_lr": (0.0, 0.1)}),
        ("knn_per", {"knn_weight": (0.0, 0.5)}),
    ],
)
def test_trials_share_a_program_and_are_the_trials_alone(algorithm, axes, tmp_path):
    new = NEW_CLIENTS if algorithm == "ditto" else {}
    config = small_config(algorithm=algorithm, eval_personal=-1, num_rounds=2, **new)
    found = fljax.sweep(config, tmp_path, axes=axes, progress=False)
    assert found.summary["groups"] == 1
    trial = found.results.trials[-1]
    curves, last = alone(config, trial), rows_of(found, trial)[-1]
    for name in (*NAMES, "eval/new_clients/loss") if new else NAMES:
        np.testing.assert_allclose(last[name], curves[name][-1], rtol=1e-5, err_msg=name)
    assert len({rows_of(found, each)[-1][NAMES[0]] for each in found.results.trials}) > 1
