"""Sweeps that take seconds, and their trials run alone, for tests."""

import numpy as np

import fljax
from fljax.config import default_config
from fljax.config.experiment import make_experiment


def small_config(**values):
    config = default_config()
    settings = {
        "dataset": "digits",
        "num_clients": 12,
        "partition": "dirichlet",
        "val_fraction": 0.1,
        "clients_per_round": 4,
        "num_rounds": 6,
        "eval_every": 2,
        "batch_size": 16,
        "lanes": 1,
        "devices": 1,
        "matmul_precision": "highest",
    }
    for name, value in (settings | values).items():
        config[name] = value
    return config


def rows_of(found, trial):
    return [row for row in found.results.rows if row["trial"] == trial.number]


def alone(config, trial):
    """Returns the curves of the trial run by itself."""
    config = config.copy_and_resolve_references()
    for name, value in trial.values.items():
        config[name] = value
    config.seed = trial.seed
    made = make_experiment(config)
    run = fljax.simulate(made.dataset, made.task, made.algorithm, progress=False, **made.options)
    return run.curves


def assert_same_rows(one, other, rtol=1e-5):
    """Asserts that two lists of rows agree: everything but numbers exactly."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, err_msg=name)
