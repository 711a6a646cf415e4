"""Attacks know the classes and numbers of a run's data, and leave its baselines alone."""

import dataclasses

import jax
import numpy as np
import pytest
from small_sweeps import small_config

import fljax
from fljax import algorithms, data, models, tasks
from fljax.config.experiment import make_experiment
from fljax.core.transforms import as_configured
from fljax.robustness.attacks.labels import label_flip, poisoned_labels
from fljax.training.attack_checks import facts_of
from fljax.training.options import RoundOptions, split_options
from fljax.training.robustness import with_robustness, without_own_rows

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIENTS, COHORT = 12, 8
RNG = np.random.default_rng(0)
DIGITS = data.digits(partition="iid", num_clients=CLIENTS)
SOFTMAX = tasks.classification(models.softmax_regression(64, 10), 10)
SPEC = algorithms.fedavg(0.1, weighting="uniform")


def config_of(**values):
    settings = {"num_clients": CLIENTS, "clients_per_round": COHORT, "num_rounds": 2}
    settings |= {"partition": "iid", "val_fraction": 0.0, "weighting": "uniform", "local_steps": 2}
    return small_config(**settings | values)


def options_of(**values):
    return RoundOptions(num_rounds=2, clients_per_round=COHORT, batch_size=16, **values)


def attacked(attack, dataset=DIGITS, task=SOFTMAX):
    return with_robustness(dataset, task, SPEC, options_of(attack=attack, attackers=0.25))


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (label_flip(classes=12), "makes the label 11, and the classes of the task are 0 to 9"),
        (poisoned_labels(classes=8), "makes the label -1, .* Make it for 10 classes"),
        (label_flip(target=10), "makes the label 10"),
        (label_flip(source=12, target=1), "changes none of the labels 0 to 9"),
        ("label_flip(source=3, target=3)", "changes none of the labels 0 to 9"),
        ("sign_flip, label_flip(classes=12)", "makes the label 11"),
        ("one_of(1, ('sign_flip', 'label_flip(classes=12)'))", "makes the label 11"),
    ],
)
def test_labels_beyond_the_classes_or_unchanged_are_refused(attack, message):
    with pytest.raises(ValueError, match=message):
        attacked(attack)


@pytest.mark.parametrize("attack", ["label_flip", "poisoned_labels", "pixel_trigger(0)"])
def test_labels_do_not_go_wrong_where_there_are_no_classes(attack):
    x, y = RNG.normal(size=(2, 200, 4)).astype(np.float32)
    made = data.from_arrays(x, y[:, 0], num_clients=10, partition="iid", kind="targets")
    task = tasks.regression(models.mlp((4, 1)))
    with pytest.raises(ValueError, match="the task has no classes"):
        attacked(attack, made, task)
    attacked("sign_flip", made, task)


@pytest.mark.parametrize(("factor", "largest"), [(16.0, 16.0), (-1.0, 0.0)])
def test_the_square_has_the_largest_number_of_the_data(factor, largest):
    arrays = DIGITS.train.examples.arrays
    scaled = data.ArrayExamples({**arrays, "x": factor * arrays["x"]})
    train = data.Split(scaled, DIGITS.train.partition)
    made = dataclasses.replace(DIGITS, train=train)
    assert facts_of(made, SOFTMAX, "pixel_trigger(0)")["largest"] == largest
    assert facts_of(made, SOFTMAX, None)["largest"] is None
    for attack in ("pixel_trigger(0)", "one_of(0, ('pixel_trigger(0)', 'sign_flip'))"):
        _, options = attacked(attack, made)
        trigger = as_configured(options.pipeline).trigger
        x, _ = trigger.rows(scaled.arrays["x"], arrays["y"])
        assert (x.reshape(-1, 8, 8)[:, 5:, 5:] == largest).all()


def test_inputs_of_several_arrays_have_no_largest_number():
    x = {"left": np.eye(4, dtype=np.float32), "right": np.arange(4)}
    made = data.from_arrays(np.eye(4), [0, 1, 1, 0], client_ids=[0, 0, 1, 1])
    examples = data.ArrayExamples({"x": x, "y": made.train.examples.arrays["y"]})
    made = dataclasses.replace(made, train=data.Split(examples, made.train.partition))
    assert facts_of(made, SOFTMAX, "label_flip")["largest"] is None


@pytest.mark.parametrize("attack", ["poisoned_labels", "pixel_trigger(0, once=True)"])
def test_data_are_poisoned_beside_rows_of_the_servers_own(attack):
    plain, config = (
        config_of(aggregator="fltrust", root_rows=50, **own)
        for own in ({}, {"attack": attack, "attackers": 0.25})
    )
    before, made = make_experiment(plain).dataset, make_experiment(config)
    labels = [each.train.examples.arrays["y"] for each in (before, made.dataset)]
    changed = [
        client
        for client in range(made.dataset.num_clients)
        if (labels[0] != labels[1])[before.train.partition.rows(client)].any()
    ]
    assert len(changed) == 3 and made.dataset.root == CLIENTS not in changed
    assert without_own_rows(made.dataset, split_options(made.options)[0]).root == CLIENTS
    if attack == "poisoned_labels":
        given = {**made.options, "progress": False, "devices": 1}
        run = fljax.simulate(made.dataset, made.task, made.algorithm, **given)
        assert np.isfinite(run.curves["train/loss"][1:]).all()


def test_baselines_train_on_what_clients_held_before():
    config = config_of(attack="poisoned_labels", attackers=0.5)
    made = make_experiment(config)
    clean = without_own_rows(made.dataset, split_options(made.options)[0])
    poisoned, honest = (each.train.examples.arrays["y"] for each in (made.dataset, clean))
    assert (poisoned != honest).any()
    np.testing.assert_array_equal(honest, DIGITS.train.examples.arrays["y"])

    def run_of(**own):
        return fljax.simulate(
            DIGITS, SOFTMAX, SPEC, num_rounds=2, clients_per_round=CLIENTS, batch_size=16,
            local_steps=2, progress=False, devices=1, lanes=1, baselines=("centralized",), **own,
        )  # fmt: skip

    attacked, plain = run_of(attack="poisoned_labels", attackers=0.5), run_of()
    assert attacked.curves["train/loss"][-1] > plain.curves["train/loss"][-1]
    params = [run.baselines["centralized"].variables.params for run in (attacked, plain)]
    jax.tree.map(np.testing.assert_array_equal, *params)
