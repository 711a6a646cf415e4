"""Trials share a program where their programs are the same, whatever their values are called."""

import dataclasses
import functools
import operator

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import FieldReference

from fljax.algorithms import ALGORITHMS, fedavg, fedprox
from fljax.algorithms import make as make_algorithm
from fljax.config import default_config, resolve
from fljax.config.experiment import Experiment, make_dataset, make_experiment
from fljax.data.dataset import Split
from fljax.models import mlp
from fljax.studies.groups import from_config, from_function, grouped, key_of, same_key
from fljax.studies.study import Study, listed_trials
from fljax.tasks import classification

pytestmark = pytest.mark.usefixtures("quick_compilation")


def small_config(**values):
    config = default_config()
    settings = {"dataset": "digits", "num_clients": 4, "clients_per_round": 2, "num_rounds": 2}
    settings |= {"partition": "dirichlet"}
    for name, value in (settings | values).items():
        config[name] = value
    return config


CONFIG = small_config()
DATA = make_dataset(resolve(CONFIG))


def groups_of(make, axes, seeds=(0,)):
    return grouped(listed_trials(Study(axes, seeds=seeds)), make)


def sizes(groups):
    return [len(group.trials) for group in groups]


def written(task=None, options=lambda values: {}, algorithm=lambda lr: fedavg(lr)):
    """Returns the sweep of a function that makes everything anew for each trial."""

    def make(trial):
        model = task(trial.values) if task else classification(mlp((64, 8, 10)), 10)
        rounds = {"num_rounds": 2, "clients_per_round": 2, "seed": trial.seed}
        own = options(trial.values)
        return Experiment(DATA, model, algorithm(trial.values.get("client_lr", 0.1)), rounds | own)

    return from_function(make)


def test_what_follows_from_a_value_by_reference_tells_groups_apart():
    config = small_config(client_lr=FieldReference(0.1))
    config.batch_size = (config.get_ref("client_lr") * 100).to_int()
    axes = {"client_lr": (0.04, 0.4, 0.041), "server_lr": (0.5, 1.0)}
    groups = groups_of(from_config(config), axes, seeds=(0, 1))
    assert [group.experiment.options["batch_size"] for group in groups] == [4, 40]
    assert sizes(groups) == [8, 4]


def test_what_a_function_makes_of_a_hyperparameter_tells_groups_apart():
    def make(trial):
        config = CONFIG.copy_and_resolve_references()
        config.client_lr, config.seed = trial.values["client_lr"], trial.seed
        config.local_steps = round(1 / config.client_lr)
        return make_experiment(config, DATA)

    groups = groups_of(from_function(make), {"client_lr": (0.05, 0.5, 0.51)}, seeds=(0, 1))
    assert [group.experiment.options["local_steps"] for group in groups] == [20, 2]
    assert sizes(groups) == [2, 4]


def test_the_name_of_a_data_key_may_mean_something_else_to_a_function():
    def width(values):
        return classification(mlp((64, values["sigma"], 10)), 10)

    assert sizes(groups_of(written(width), {"sigma": (5, 50)}, seeds=(0, 1))) == [2, 2]


def test_no_part_of_an_experiment_is_taken_on_trust():
    axes = {"client_lr": (0.1, 0.2)}

    def smoothed(values):
        def loss(logits, labels):
            targets = optax.smooth_labels(logits * 0 + 1, values["client_lr"])
            return optax.softmax_cross_entropy(logits, targets)

        return classification(mlp((64, 8, 10)), 10, loss_fn=loss)

    def weighting(lr):
        return fedavg(lr, weighting="uniform" if lr > 0.1 else "examples")

    def schedule(values):
        return {"server_lr_schedule": lambda round: values["client_lr"] ** round}

    assert sizes(groups_of(written(smoothed), axes)) == [1, 1]
    assert sizes(groups_of(written(algorithm=weighting), axes)) == [1, 1]
    assert sizes(groups_of(written(options=schedule), axes)) == [1, 1]


def test_a_function_that_makes_the_same_anew_shares_one_program():
    axes = {"client_lr": (0.1, 0.2)}
    assert sizes(groups_of(written(), axes, seeds=(0, 1))) == [4]
    assert sizes(groups_of(written(algorithm=lambda lr: fedprox(lr, lr)), axes)) == [2]

    def divided(trial):
        config = CONFIG.copy_and_resolve_references()
        config.alpha = trial.values["alpha"]
        partition = make_dataset(resolve(config)).train.partition
        train = Split(DATA.train.examples, partition)
        return make_experiment(CONFIG, dataclasses.replace(DATA, train=train))

    (group,) = groups_of(from_function(divided), {"alpha": (0.1, 10.0)})
    assert len(group.datasets) == 2


def test_ordinary_configurations_share_one_program():
    for values in (
        {"algorithm": "fedprox", "client_momentum": 0.5, "client_weight_decay": 0.1},
        {"model": "mlp", "uplink": "top_k(0.1), qsgd(8)", "uplink_memory": "error_feedback"},
    ):
        config = small_config(**values)
        axes = {"client_lr": (0.1, 0.2), "alpha": (0.1, 1.0)}
        assert sizes(groups_of(from_config(config), axes, seeds=(0, 1))) == [8]


def scaled(factor, then=abs):
    return lambda x: then(factor * x)


def counting(times):
    def down(n):
        return times if n == 0 else down(n - 1)

    return down


def with_default(value):
    def function(x, y=value, *, z=value):
        return x + y + z

    return function


class Machine:
    def __init__(self, speed):
        self.speed = speed

    def run(self):
        return self.speed


MACHINE, ON_DEVICE = Machine(1), jnp.arange(3)

# (what makes a value, arguments that make others)
MAKERS = [
    (scaled, 2, 3),
    (scaled, 2, 2.0),
    (lambda factor: scaled(1, scaled(factor)), 2, 3),
    (counting, 2, 3),
    (with_default, 2, 3),
    (lambda power: functools.partial(operator.pow, power), 2, 3),
    (lambda keyword: functools.partial(dict, a=keyword), 2, 3),
    (lambda entry: {"a": [scaled(entry)], "b": (1, entry)}, 2, 3),
    (lambda step: scaled(np.arange(0, 6, step)), 2, 3),
    (lambda kind: np.zeros(2, kind), np.float32, np.int32),
]


@pytest.mark.parametrize("make, value, other", MAKERS)
def test_values_made_anew_are_alike_where_they_do_the_same(make, value, other):
    assert same_key(key_of(make(value)), key_of(make(value)))
    assert not same_key(key_of(make(value)), key_of(make(other)))


def test_other_code_is_another_function():
    assert not same_key(key_of(lambda x: x + 1), key_of(lambda x: x - 1))


def test_what_nothing_is_known_of_is_like_itself_alone():
    assert same_key(key_of(MACHINE.run), key_of(MACHINE.run))
    value, other = Machine(1), Machine(1)
    assert not same_key(key_of(value.run), key_of(other.run))
    assert same_key(key_of(scaled(ON_DEVICE)), key_of(scaled(ON_DEVICE)))
    copy = ON_DEVICE.copy()
    assert not same_key(key_of(scaled(ON_DEVICE)), key_of(scaled(copy)))


def test_what_refuses_to_be_compared_is_not_alike():
    class Rude:
        def __eq__(self, other):
            raise TypeError

    value, other = Rude(), Rude()
    assert not same_key(key_of(value), key_of(other))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_numbers_of_algorithms_are_no_part_of_the_program(name):
    spec = make_algorithm(name)
    further = {key: 1.01 * value or 0.01 for key, value in spec.hparams.items()}
    both = (spec, make_algorithm(name, **further))
    keys = [key_of(each._replace(hparams={}, judging={})) for each in both]
    assert same_key(*keys)
