"""Every mechanism that a configuration names: through whole runs, budgets, resuming and sweeps."""

import json
import shutil

import jax
import numpy as np
import pytest
from small_sweeps import small_config

import fljax
from fljax.config.experiment import make_experiment
from fljax.core import sampler as samplers
from fljax.privacy.names import MECHANISMS
from fljax.studies.groups import from_config, grouped
from fljax.studies.study import Study, listed_trials

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIENTS = 24
POISSON = {"sampler": "poisson"}
SEPARATED = {"sampler": "separated", "separation": 4}
# Mechanisms whose numbers say epsilon, and not noise.
ITS_OWN = {"noise_multiplier": None}
# {name: (call, what its theorem asks for)}
CASES = {
    "gaussian": ("gaussian(0.5)", POISSON),
    "adaptive_clipping": ("adaptive_clipping(bit_noise=30)", POISSON),
    "tree_aggregation": ("tree_aggregation(0.5)", SEPARATED),
    "banded_matrix": ("banded_matrix(0.5, bands=2)", SEPARATED),
    "dpsgd": ("dpsgd(0.5)", {"batches": "poisson"}),
    "local_gaussian": ("local_gaussian(0.5)", {}),
    "privunit": ("privunit(0.5, 2.0)", ITS_OWN),
    "discrete_gaussian": ("discrete_gaussian(0.5)", {}),
    "skellam": ("skellam(0.5)", {}),
    "randomized_sign": ("randomized_sign(0.1, 0.5, coordinates=4)", ITS_OWN),
}


def config_of(name, **values):
    text, needs = CASES[name]
    settings = {"privacy": text, "noise_multiplier": 2.0, "weighting": "uniform"}
    settings |= {"num_clients": CLIENTS, "clients_per_round": 6, "num_rounds": 4, "delta": 1e-3}
    settings |= {"val_fraction": 0.0, "partition": "iid"}
    return small_config(**settings | needs | values)


def run_of(config, **options):
    made = make_experiment(config)
    given = {**made.options, "progress": False, "devices": 1, **options}
    return fljax.simulate(made.dataset, made.task, made.algorithm, **given)


def lines(run):
    """Returns the records of a run without what depends on the clock."""
    rows = map(json.loads, (run.directory / "metrics.jsonl").read_text().splitlines())
    clock = ("time/", "throughput/")
    return [{key: row[key] for key in row if not key.startswith(clock)} for row in rows]


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_accounted_for_and_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    saving = {"checkpoint_every": 2, "keep_checkpoints": 2}
    whole = run_of(config_of(name), workdir=tmp_path / "whole", **saving)
    spent = whole.summary["privacy"]["epsilon"]
    assert spent and all(0 < value < np.inf for value in spent.values())
    curve = whole.curves["privacy/epsilon"]
    assert curve[0] == 0 and (np.diff(curve) >= 0).all() and curve[-1] in spent.values()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole.variables.params))
    # what a kill in the third round leaves
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts/checkpoints/4")
    (tmp_path / "parts/summary.json").unlink()
    ran = []
    told = (lambda federation, record: ran.append(record["round"]),)
    parts = run_of(config_of(name), workdir=tmp_path / "parts", resume=True, hooks=told)
    assert ran == [3, 4]
    jax.tree.map(np.testing.assert_array_equal, whole.variables.params, parts.variables.params)
    assert lines(whole) == lines(parts)
    assert parts.summary["privacy"] == whole.summary["privacy"]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][1] is not ITS_OWN])
def test_a_budget_finds_the_noise_and_a_sweep_over_budgets_is_one_program(name):
    config = config_of(name, noise_multiplier=None)
    trials = listed_trials(Study({"target_epsilon": (2.0, 6.0)}))
    (group,) = grouped(trials, from_config(config))
    noises = [inputs.hparams["noise_multiplier"] for inputs in group.inputs.values()]
    assert noises[0] > noises[1]
    for trial, target in enumerate((2.0, 6.0)):
        protection = group.experiment.options["privacy"]
        guarantee = protection.guarantee(group.inputs[trial].hparams)
        assert 0.97 * target < min(guarantee.epsilon(4).values()) <= target


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][1] is ITS_OWN])
def test_a_budget_ends_a_run_whose_messages_say_what_they_spend(name):
    """A client is drawn for the second time in one of four rounds; 2.0 pays for once."""
    config = config_of(name, target_epsilon=2.0)
    curve = run_of(config).curves["privacy/epsilon"]
    assert len(curve) < 5 and curve[-1] <= 2.1
    with pytest.raises(ValueError, match=r"is spent after \d of 4 rounds, and trials"):
        grouped(listed_trials(Study({"client_lr": (0.1, 0.2)})), from_config(config))


def test_every_mechanism_is_tested_here():
    assert CASES.keys() == MECHANISMS.keys()


def test_a_sampler_of_ones_own_that_breaks_its_word_ends_the_run():
    """Its guarantee is counted from the distance that it promises, and would be void."""
    config = config_of("tree_aggregation")
    lying = samplers.poisson(CLIENTS, 20, 0)._replace(separation=4)
    with pytest.raises(ValueError, match=r"promises separation = 4, but client \d+ takes part"):
        run_of(config, sampler=lying, separation=None)
