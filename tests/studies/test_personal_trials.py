"""Trials whose clients have models of their own: judged side by side as in runs of their own."""

import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.config.experiment import Experiment
from fljax.studies import Criterion

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

RATES, SEEDS = (0.1, 0.5), (0, 1)
EXAMPLES = toy.dataset(toy.clients(dtype=np.float32))
DATA = {seed: EXAMPLES.with_validation(0.3, seed=seed) for seed in SEEDS}
TASK = toy.softmax_task(np.float32)
AT_LAST = Criterion("eval/personal/accuracy", "eval/personal/mean", at="last", allow_test=True)


def experiment(make, trial):
    options = {
        "num_rounds": 3, "clients_per_round": 5, "batch_size": 4, "eval_every": 1,
        "eval_personal": -1, "devices": 1, "lanes": 1, "matmul_precision": "highest",
    }  # fmt: skip
    dataset = DATA[trial.seed]
    return Experiment(
        dataset, toy.softmax_task(np.float32), make(trial.values["client_lr"]), options
    )


# with and without a global model; algorithms that adapt it: test_own_model_sweeps.py
@pytest.mark.parametrize("make", [algorithms.local_only, algorithms.fedavg])
def test_trials_equal_runs_of_their_own(tmp_path, make):
    def of_trial(trial):
        return experiment(make, trial)

    found = fljax.sweep(
        of_trial, tmp_path, axes={"client_lr": RATES}, seeds=SEEDS, criterion=AT_LAST,
        parallel_trials=3, progress=False,
    )  # fmt: skip
    # one of the first three, and the one that takes the slot of another
    for trial in (found.results.trials[0], found.results.trials[-1]):
        made = of_trial(trial)
        options = {**made.options, "seed": trial.seed, "progress": False}
        run = fljax.simulate(made.dataset, made.task, made.algorithm, **options)
        rows = [row for row in found.results.rows if row["trial"] == trial.number]
        keys = [key for key in run.curves if key.startswith("eval/")]
        assert "eval/personal/worst" in keys and "eval/personal/loss" in keys
        for key in keys:
            values = [row[key] for row in rows if key in row]
            np.testing.assert_allclose(values, run.curves[key], rtol=1e-5, err_msg=key)
