"""Invariant 7: one clear error, or a counted exclusion."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
import toy

import fljax
from fljax import algorithms, compression
from fljax.core.sampler import uniform
from fljax.core.settings import OPTIONS
from fljax.core.transforms import Pipeline, dense_bits
from fljax.data import ArrayExamples, LazyExamples, Split
from fljax.training.options import RoundOptions, RunOptions

pytestmark = pytest.mark.usefixtures("quick_compilation")


# rates that the optimizers do not read
OWN_RATES = algorithms.fedavg(
    client_optimizer=lambda hp: optax.sgd(0.1), server_optimizer=lambda hp: optax.sgd(1.0)
)

CODED = Pipeline(uplink=(compression.uplink(compression.int8()),))


def simulate(parts=None, spec=None, **options):
    defaults = {"num_rounds": 3, "clients_per_round": 3, "batch_size": 4, "progress": False}
    parts = toy.clients(dtype=np.float32) if parts is None else parts
    return fljax.simulate(
        toy.dataset(parts), toy.softmax_task(np.float32), spec, **(defaults | options)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clients_per_round": 10}, "clients_per_round = 10, but the population has 9"),
        ({"clients_per_round": 0}, "clients_per_round = 0"),
        ({"local_epochs": 1, "local_steps": 3}, "exactly one"),
        ({"local_epochs": 0}, "at least one"),
        ({"batch_size": -1}, "batch_size = -1"),
        ({"remainder": "wrapp"}, "remainder = 'wrapp'"),
        ({"batch_size": 100, "remainder": "drop"}, "No client has a batch"),
        ({"sampler": "unifrom"}, "sampler = 'unifrom'"),
        ({"cohorts": [[0, 99]]}, r"cohorts\[0\] names client 99"),
        ({"cohorts": []}, "empty list"),
        ({"devices": 99}, "devices = 99"),
        ({"initial_params": {"w": np.zeros((2, 2))}}, "initial_params do not fit"),
        ({"baselines": ("centralised",)}, "centralised"),
        ({"resume": True}, "workdir"),
        ({"num_rounds": 0}, "num_rounds = 0"),
        ({"eval_clients": -2}, "eval_clients = -2 must be at least -1"),
        ({"cohorts": [[]]}, "list of empty ones"),
        ({"batch_size": 2.5}, "batch_size = 2.5"),
        ({"local_epochs": 1.5}, "local_epochs = 1.5 .float. must be a whole"),
        ({"local_epochs": None, "local_steps": 2.5}, "local_steps = 2.5 .float. must be a whole"),
        ({"clients_per_round": 2.5}, "clients_per_round = 2.5 .float. must be a whole"),
        ({"lanes": "2"}, "lanes = '2' .str. must be a whole"),
        ({"num_rounds": 2.5}, "num_rounds = 2.5 .float. must be a whole"),
        ({"rounds_per_dispatch": 2.5}, "rounds_per_dispatch = 2.5 .float. must be a whole"),
        ({"batch_size": 0, "remainder": "drop"}, "needs a batch_size"),
        ({"lanes": -1}, "lanes = -1"),
        ({"eval_every": -3}, "eval_every = -3"),
        ({"stop_at_target": True}, "needs target_accuracy"),
        ({"checkpoint_every": 5}, "needs a workdir"),
        ({"steps_per_round": [1]}, "1 entries for num_rounds = 3"),
        ({"placement": "host"}, "placement = 'host'"),
        ({"steps_per_round": [1, 1, -1]}, r"steps_per_round\[2\] = -1 must be at least 0"),
        ({"eval_personal": 3}, "eval_personal = 3, but the clients of .* own no held-out rows"),
        ({"client_weights": [1e38] * 9}, "client_weights go from 1e.38"),
        ({"client_weights": [1e-40] + [1] * 8}, "client_weights go from 1e-40 to 1,"),
        ({"client_lr_factors": [1] * 9, "spec": OWN_RATES}, "client_lr_factors has no effect"),
        ({"client_lr_schedule": lambda t: 0.5**t, "spec": OWN_RATES}, "client_lr_schedule has no"),
        ({"server_lr_schedule": lambda t: 0.0 * t, "spec": OWN_RATES}, "server_lr_schedule has no"),
        ({"uplink": "topk(0.1)"}, "uplink = 'topk.*Did you mean"),
        ({"uplink": 0.1}, "uplink = 0.1 .float. must be a text"),
        ({"downlink_per_leaf": True}, "has no effect with downlink = 'none'"),
        ({"uplink": "top_k(0.5)", "uplink_memory": "ef21"}, "Set weighting = 'uniform'"),
        ({"uplink": "bf16", "pipeline": CODED}, "the pipeline has links of its own"),
        ({"sampler": uniform(9, 3, 0)._replace(feedback="late")}, "feedback = 'late'; choose from"),
    ],
)
def test_errors_name_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        simulate(**options)


def test_generated_data_cannot_be_kept_on_the_devices():
    dataset = fljax.data.synthetic(num_clients=4, materialize=False)
    with pytest.raises(ValueError, match="generated on demand"):
        fljax.simulate(
            dataset, fljax.models.softmax_regression(60, 10), num_rounds=1, clients_per_round=2,
            placement="device", progress=False,
        )  # fmt: skip


def test_a_message_too_large_to_count_is_refused():
    with pytest.raises(ValueError, match="512 MiB"):
        jax.eval_shape(dense_bits, jax.ShapeDtypeStruct((2**27,), np.float32))


def test_a_sampler_that_names_nobody_is_refused():
    sampler = uniform(9, 3, 0)._replace(select=lambda state, round: (np.array([-1]), state))
    with pytest.raises(ValueError, match="chose client -1"):
        simulate(sampler=sampler)


def test_groups_and_compressors_may_be_names():
    dataset = toy.dataset(toy.clients(dtype=np.float32))
    names = np.array(["a", "b", "c"] * 3)
    run = fljax.simulate(
        dataclasses.replace(dataset, groups={"hospital": names}), toy.softmax_task(np.float32),
        num_rounds=1, clients_per_round=3, progress=False, uplink="int8",
    )  # fmt: skip
    assert run.summary["rounds"] == 1 and run.config["uplink"] == "int8"
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(run.variables.params))
    assert run.summary["uplink_bytes"] == 3 * (size + 4)  # a byte a parameter, and a scale


def test_unknown_options_name_the_nearest():
    with pytest.raises(TypeError, match="Did you mean num_rounds"):
        simulate(num_round=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.1}, "called 'client_lr'.*belongs to the algorithm"),
        ({"client_lr": 0.1}, "belongs to the algorithm"),
        ({"alpha": 0.1}, "belongs to the data"),
        ({"fraction_fit": 0.1}, "Flower's name; here it is called 'clients_per_round'"),
        ({"topk": 0.1}, "called 'uplink'"),
        ({"uplinc": "int8"}, "Did you mean uplink"),
    ],
)
def test_names_of_others_are_answered_with_ours_and_its_place(options, message):
    with pytest.raises(TypeError, match=message):
        simulate(**options)


def test_without_local_work_clients_pass_over_their_rows_once():
    numbers = {"num_rounds": 1, "clients_per_round": 1}
    assert RoundOptions(**numbers).local_epochs == 1
    assert RoundOptions(**numbers, local_steps=3).local_epochs is None
    assert RoundOptions(**numbers, batch_size=None).batch_size == 0  # all rows at once


def test_records_say_what_the_table_says_of_their_options():
    for record in (RoundOptions, RunOptions):
        for field in dataclasses.fields(record):
            assert f"  {field.name}: " in record.__doc__, field.name
            if field.name in OPTIONS and "schedule" not in field.name:
                assert f"{field.name}: {OPTIONS[field.name].meaning}" in record.__doc__


def test_missing_options_are_named():
    with pytest.raises(TypeError, match="clients_per_round"):
        fljax.simulate(toy.dataset(toy.clients()), toy.softmax_task(), num_rounds=1)


def test_clients_without_rows_are_counted():
    run = simulate(cohorts=[[0, 1, 2]])
    assert run.curves["train/clients"].tolist()[-1] == 2
    assert run.curves["train/clients_without_rows"].tolist()[-1] == 1


def test_a_nan_client_is_left_out_and_counted():
    parts = toy.clients(dtype=np.float32)
    parts[3][0][0] = np.nan
    with pytest.warns(UserWarning, match="1 client"):
        run = simulate(parts, cohorts=[[0, 2, 3]])
    without = simulate(parts, cohorts=[[0, 2]])
    assert run.curves["train/clients_nonfinite"][-1] == 1
    for name, value in without.variables.params.items():
        np.testing.assert_array_equal(run.variables.params[name], value)


def test_a_round_in_which_all_diverge_ends_the_run():
    parts = toy.clients(dtype=np.float32)
    for x, _ in parts:
        x[:] = np.nan
    with pytest.raises(FloatingPointError, match="0, 2, 3. Its data are not finite: x, row 0"):
        simulate(parts, cohorts=[[0, 2, 3]])
    params = jax.tree.map(lambda leaf: leaf * np.float32(1e38), toy.initial_params(np.float32))
    with pytest.raises(FloatingPointError, match="0, 2, 3. Lower client_lr"):
        simulate(initial_params=params, cohorts=[[0, 2, 3]])


def test_clients_left_out_are_named_by_their_ids():
    parts = toy.clients(dtype=np.float32)
    for client in (3, 5, 7):
        parts[client][0][1, 2] = np.inf
    dataset = toy.dataset(parts)
    ids = np.array([f"user-{n}" for n in range(9)])
    lazy = LazyExamples(98, dataset.train.examples.take, dataset.train.examples.spec)
    for examples in (dataset.train.examples, lazy):
        train = Split(examples, dataset.train.partition)
        with pytest.warns(
            UserWarning, match="'user-3', 'user-7'. Its data are not finite"
        ) as warned:
            fljax.simulate(
                dataclasses.replace(dataset, client_ids=ids, train=train),
                toy.softmax_task(np.float32),
                num_rounds=1, clients_per_round=3, cohorts=[[7, 2, 3]], progress=False,
            )  # fmt: skip
        first = dataset.train.partition.offsets[3] + 1
        assert f"x, row {first}, column 2" in str(warned[0].message)


def test_an_empty_cohort_is_a_round():
    run = simulate(cohorts=[[0, 2], [], [3]])
    assert run.summary["rounds"] == 3
    assert run.curves["train/clients"].tolist()[1:] == [2, 0, 1]


def test_too_much_memory_is_refused_with_the_figures():
    from fljax.engine.devices.execution import choose

    with pytest.raises(ValueError, match="GB"):
        choose(
            cohort=1000, equal_steps=False, data_bytes=0, param_bytes=10**9, needs_stack=True,
            memory_bytes=10**10,
        )  # fmt: skip


@pytest.mark.parametrize("role", ["train", "test"])
@pytest.mark.parametrize("label", [-1, 4])
@pytest.mark.parametrize("lazy", [False, True])
def test_labels_that_are_no_class_are_refused(role, label, lazy):
    parts = toy.clients(dtype=np.float32)
    dataset = toy.dataset(parts)
    arrays = dict(dataset.train.examples.arrays)
    arrays["y"] = np.array(arrays["y"])
    arrays["y"][97] = label
    examples = ArrayExamples(arrays)
    if lazy:
        examples = LazyExamples(98, examples.take, examples.spec)
    split = dataclasses.replace(getattr(dataset, role), examples=examples)
    dataset = dataclasses.replace(dataset, **{role: split})
    message = rf"{role} labels of 'toy' hold {label} \(row 97\), and the classes are 0 to 3"
    with pytest.raises(ValueError, match=message):
        fljax.simulate(dataset, toy.softmax_task(np.float32), num_rounds=1, clients_per_round=3)


def test_labels_that_are_no_integers_are_refused():
    dataset = toy.dataset([(x, y * 1.0) for x, y in toy.clients(dtype=np.float32)])
    with pytest.raises(ValueError, match="y is float32, and a classification task learns classes"):
        fljax.simulate(dataset, toy.softmax_task(np.float32), num_rounds=1, clients_per_round=3)
