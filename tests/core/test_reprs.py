"""Notebooks show datasets, runs and their parts as a line, never their arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms, load_model
from fljax.core.algorithm import Variables
from fljax.recording.models import load_saved
from fljax.studies.results import Results
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation")


def is_short(one, *parts):
    text = repr(one)
    return (len(text) < 600 and "\n" not in text and "array(" not in text.lower()) and all(
        part in text for part in parts
    )


def test_everything_is_shown_in_a_line(tmp_path):
    dataset = toy.dataset(toy.clients(dtype=np.float32))
    options = {"num_rounds": 2, "clients_per_round": 3, "progress": False, "eval_clients": -1}
    run = fljax.simulate(dataset, toy.softmax_task(np.float32), workdir=tmp_path, **options)
    read = fljax.load_run(tmp_path)
    for each in (run, read):
        assert is_short(each, str(tmp_path), "2 rounds", "test accuracy 0.", "test loss")
    assert is_short(read._replace(summary=None, rounds=read.rounds[:1]), "unfinished, 0 rounds")
    assert is_short(run._replace(rounds=run.rounds[:2]), "1 round,")
    for variables in (run.variables, load_model(tmp_path), load_saved(tmp_path)):
        assert is_short(variables, "Variables(28 parameters in 2 arrays)")
    assert is_short(Variables({"w": jnp.zeros(3)}, {"mean": jnp.zeros(3)}), "and a model state")
    settings = RoundOptions(
        num_rounds=2, clients_per_round=3, initial_params=toy.initial_params(np.float32),
        cohorts=np.arange(90).reshape(30, 3) % 9,
    )  # fmt: skip
    assert is_short(settings, "num_rounds=2")
    task = toy.softmax_task(np.float32)
    assert is_short(task, "Task('classification', 4 classes)")
    assert is_short(build(dataset, task, algorithms.fedavg(), settings), "'fedavg' on", "9 clients")
    assert is_short(algorithms.scaffold(0.1), "scaffold")
    assert is_short(Results([], [{}] * 1000, {}), "0 trials, 1,000 rows")
    assert is_short(Results([None], [{}], {}), "(1 trial, 1 row)")
    assert is_short(Variables({"w": jnp.zeros(1)}, {}), "(1 parameter in 1 array)")


def test_names_of_classes_stay_with_the_model(tmp_path):
    x = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    dataset = fljax.data.from_arrays(x, ["walk", "run", "lie", "sit"] * 3, num_clients=3)
    task = toy.softmax_task(np.float32)
    run = fljax.simulate(
        dataset, task, num_rounds=1, clients_per_round=2, workdir=tmp_path, progress=False
    )
    names = ["lie", "run", "sit", "walk"]
    assert run.config["class_names"] == names
    read = fljax.load_run(tmp_path)
    assert read.config["class_names"] == read.about_model["class_names"] == names
    labels = fljax.predictor(run, task)(x).argmax(-1)
    assert {dataset.class_names[k] for k in labels} <= set(names)
