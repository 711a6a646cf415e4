"""From names in a configuration to the things they stand for, with their numbers."""

import functools
import inspect
import math
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import reference
import toy

from fljax import algorithms, data, models
from fljax.algorithms import SERVER_OPTIMIZERS
from fljax.config import (
    ConfigError,
    default_config,
    experiment,
    load_config,
    resolve,
    to_plain,
    with_keys,
)
from fljax.config.experiment import make_experiment
from fljax.config.key_checks import partition_options
from fljax.core.parts import name_of
from fljax.core.settings import ALGORITHM
from fljax.data.sources import images
from fljax.studies.groups import key_of, same_key
from fljax.training.options import split_options
from fljax.training.simulation import simulate

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written", "files_read_once")

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
# These need no files; the others are tested where FLJAX_DATA_DIR names a folder with them.
ALWAYS = ("quickstart", "synthetic_fedprox")
# cifar10_subset.npz has 15,000 images instead of 50,000.
SUPPLIED = {"cifar10_pfl": {"num_clients": 300}}


LRS = {"client_lr": 0.3, "server_lr": 0.7}
ADAPTIVE = {"beta1": 0.8, "beta2": 0.95, "tau": 0.01}
MOMENTUM = {"client_momentum": 0.5}
DECAY = {"client_weight_decay": 0.1}


@pytest.mark.parametrize(
    ("config", "name", "hparams"),
    [
        ({}, "fedavg", LRS),
        ({"algorithm": "fedopt", "server_optimizer": "sgd"}, "fedavg", LRS),
        (MOMENTUM, "fedavg", LRS | MOMENTUM),
        (DECAY, "fedavg", LRS | DECAY),
        (
            {"server_optimizer": "momentum", "server_momentum": 0.6},
            "fedopt/momentum",
            LRS | {"server_momentum": 0.6},
        ),
        *(
            ({"server_optimizer": kind} | ADAPTIVE | MOMENTUM, f"fedopt/{kind}",
             LRS | ADAPTIVE | MOMENTUM)
            for kind in ("adam", "yogi")
        ),
        ({"algorithm": "fedprox", "mu": 0.2} | MOMENTUM | DECAY, "fedprox",
         LRS | {"mu": 0.2} | MOMENTUM | DECAY),
        ({"algorithm": "scaffold"}, "scaffold", LRS),
        ({"algorithm": "fedsgd", "client_lr": None}, "fedsgd", {"server_lr": 0.7}),
        ({"server_optimizer": "adagrad", "tau": 0.01}, "fedopt/adagrad",
         LRS | {"beta1": 0.9, "tau": 0.01}),
    ],
)  # fmt: skip
def test_algorithms_get_their_numbers(config, name, hparams):
    spec = experiment.make_algorithm(resolve(LRS | config))
    assert spec.name == name
    assert dict(spec.hparams) == pytest.approx(hparams)


PLAIN = [{"algorithm": name} for name in algorithms.ALGORITHMS]
OPTIMIZERS = [{"algorithm": "fedopt", "server_optimizer": name} for name in SERVER_OPTIMIZERS]


@pytest.mark.parametrize("keys", PLAIN + OPTIMIZERS, ids=lambda keys: "-".join(keys.values()))
def test_an_algorithm_s_own_defaults_count_from_both_sides(keys):
    """Settings that a configuration leaves out are as the function of the algorithm has them."""
    given = {name: value for name, value in keys.items() if name != "algorithm"}
    own = getattr(algorithms, keys["algorithm"])(**given)
    config = resolve(keys)
    assert same_key(key_of(experiment.make_algorithm(config)), key_of(own))
    assert {name: config[name] for name in own.hparams} == own.hparams
    unset = {name for name in ALGORITHM if config[name] is None}
    weighs = keys["algorithm"] != "local_only"  # whose clients send nothing
    assert not unset & {*own.hparams, *["weighting"] * weighs}


def test_numbers_at_which_an_algorithm_is_another_one_have_to_be_set():
    assert resolve({"algorithm": "fedprox"}).mu > 0
    assert resolve({"algorithm": "fedprox", "mu": 0}).mu == 0
    assert resolve({}).mu is None
    rates = {name: resolve({"server_optimizer": name}).server_lr for name in SERVER_OPTIMIZERS}
    assert rates == {"sgd": 1, "momentum": 1, "adagrad": 0.01, "adam": 0.01, "yogi": 0.01}


@pytest.fixture(scope="module")
def files_read_once():
    """Keeps what is unpacked of large files, which many configurations share."""
    with pytest.MonkeyPatch.context() as patch:
        for function in ("_idx_arrays", "_cifar10_subset"):
            patch.setattr(images, function, functools.cache(getattr(images, function)))
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def one_round(**config):
    """Parameters after one round of full-batch epochs on all clients."""
    spec = experiment.make_algorithm(resolve(LRS | config))
    cohort = [list(range(len(toy.SIZES)))]
    federation, _ = toy.run_rounds(
        toy.clients(), spec, cohort, batch_size=0, local_epochs=3, devices=2
    )
    return toy.params_of(federation)


def test_scaffold_counts_clients_alike_unless_told_otherwise(x64):
    default = one_round(algorithm="scaffold")
    chex.assert_trees_all_equal(default, one_round(algorithm="scaffold", weighting="uniform"))
    by_rows = one_round(algorithm="scaffold", weighting="examples")
    assert np.abs(default["w"] - by_rows["w"]).max() > 1e-3


def test_partitions_take_the_options_that_the_configuration_has_for_them():
    known = {"alpha", "shards_per_client", "classes_per_client", "sigma", "min_partition_size"}
    for name, partitioner in data.PARTITIONERS.items():
        takes = known & set(inspect.signature(partitioner).parameters)
        if name == "natural":
            takes = set()  # natural rows do not move
        assert set(partition_options(resolve({"partition": name}))) == takes, name


def changes_and_weights(weighting, decay=0.0, momentum=0.0):
    """Returns what clients send, by a loop of gradient steps with PyTorch's weight decay."""
    start, changes, weights = toy.initial_params(), [], []
    for x, y in toy.clients():
        if not len(y):
            continue
        params, velocity = start, reference.zeros(start)
        for _ in range(3):
            grad = reference.loss_and_gradient(params, x, y)[1]
            grad = reference.combine(lambda g, p: g + decay * p, grad, params)
            velocity = reference.combine(lambda v, g: momentum * v + g, velocity, grad)
            params = reference.combine(lambda p, v: p - LRS["client_lr"] * v, params, velocity)
        changes.append(reference.combine(np.subtract, params, start))
        weights.append(len(y) if weighting == "examples" else 1)
    return changes, weights


@pytest.mark.parametrize(
    ("config", "local", "server"),
    [
        (DECAY | MOMENTUM | {"weighting": "uniform"},
         {"decay": 0.1, "momentum": 0.5, "weighting": "uniform"}, {}),
        (ADAPTIVE | {"server_optimizer": "yogi"}, {}, ADAPTIVE | {"kind": "yogi"}),
        (ADAPTIVE | {"server_optimizer": "adam", "bias_correction": True}, {},
         ADAPTIVE | {"kind": "adam", "bias_correction": True}),
    ],
    ids=["weight decay", "yogi", "adam with bias correction"],
)  # fmt: skip
def test_configured_algorithms_compute_what_they_say(config, local, server, x64):
    expected = reference.Server(toy.initial_params(), lr=LRS["server_lr"], **server)
    changes, weights = changes_and_weights(**({"weighting": "examples"} | local))
    expected.step(reference.weighted_mean(changes, weights))
    toy.assert_close(one_round(**config), expected.params, 1e-9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "cosine"}, {0: 1, 25: 0.5 + 0.5 * math.sqrt(0.5), 50: 0.5, 100: 0, 120: 0}),
        ({"name": "cosine", "decay_rounds": 40}, {20: 0.5, 40: 0, 90: 0}),
        ({"name": "cosine", "warmup_rounds": 20}, {0: 1 / 21, 19: 20 / 21, 20: 1, 60: 0.5, 100: 0}),
        ({"name": "exponential", "decay_rate": 0.9}, {0: 1, 1: 0.9, 2: 0.81}),
        (
            {"name": "exponential", "decay_rate": 0.25, "decay_rounds": 10},
            {0: 1, 5: 0.5, 10: 0.25, 20: 0.0625},
        ),
        (
            {"name": "step", "decay_rate": 0.1, "decay_rounds": 30},
            {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.001},
        ),
        (
            {"name": "step", "decay_rate": 0.5, "decay_rounds": 3, "warmup_rounds": 4},
            {0: 0.2, 3: 0.8, 4: 1, 6: 1, 7: 0.5, 10: 0.25},
        ),
        ({"name": "constant", "warmup_rounds": 3}, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 50: 1}),
    ],
)
def test_schedules(options, expected):
    defaults = {"num_rounds": 100, "decay_rate": 1.0, "decay_rounds": 0, "warmup_rounds": 0}
    schedule = experiment.make_schedule(**(defaults | options))
    for round, factor in expected.items():
        assert float(schedule(np.int32(round))) == pytest.approx(factor, rel=1e-5, abs=1e-7)


def test_a_constant_learning_rate_has_no_schedule():
    config = resolve({"server_lr_schedule": "step", "server_lr_decay_rate": 0.5,
                      "server_lr_decay_rounds": 10, "num_rounds": 30})  # fmt: skip
    options = experiment.make_experiment(config).options
    assert options["client_lr_schedule"] is None
    assert float(options["server_lr_schedule"](20)) == pytest.approx(0.25)


def test_options_carry_the_configuration():
    given = {
        "num_rounds": 7, "clients_per_round": 3, "local_steps": 4, "local_epochs": 0,
        "batch_size": 5, "remainder": "wrap", "shuffle": False, "sampler": "separated", "seed": 11,
        "separation": 4,
        "devices": 2, "lanes": 3, "wave": 6, "placement": "stream", "eval_every": 2,
        "eval_batch_size": 64, "eval_clients": 5, "target_accuracy": 0.5, "stop_at_target": True,
        "baselines": ("local_only",), "checkpoint_every": 3, "keep_checkpoints": 4,
        "matmul_precision": "highest", "compute_dtype": "bfloat16", "rounds_per_dispatch": 2,
        "uplink_mbps": 3.0, "downlink_mbps": 4.0,
    }  # fmt: skip
    rounds, around = split_options(experiment.make_experiment(resolve(given)).options)
    for name, value in (given | {"local_epochs": None}).items():
        assert getattr(rounds if hasattr(rounds, name) else around, name) == value, name


@pytest.mark.parametrize(
    ("partition", "options"),
    [
        ("iid", {}),
        ("dirichlet", {"alpha": 0.2, "min_partition_size": 3}),
        ("dirichlet_hsu", {"alpha": 0.2, "min_partition_size": 3}),
        ("dirichlet_per_client", {"alpha": 0.2, "min_partition_size": 3}),
        ("shards", {"shards_per_client": 3}),
        ("classes_per_client", {"classes_per_client": 3, "min_partition_size": 3}),
        ("quantity", {"sigma": 0.4, "min_partition_size": 3}),
    ],
)
def test_partitions_get_their_options(partition, options):
    config = {"partition": partition, "num_clients": 12, "data_seed": 5, "val_fraction": 0.2}
    found = experiment.make_dataset(resolve(config | options))
    expected = data.load(
        "digits", partition=partition, num_clients=12, seed=5, val_fraction=0.2, **options
    )
    for split in ("train", "val"):
        first, second = (getattr(dataset, split).partition for dataset in (found, expected))
        np.testing.assert_array_equal(first.offsets, second.offsets)
        np.testing.assert_array_equal(first.index, second.index)


def test_the_seed_of_a_run_leaves_the_data_alone():
    first, second = (
        experiment.make_dataset(resolve({"seed": seed})).train.partition.index for seed in (0, 1)
    )
    np.testing.assert_array_equal(first, second)


def test_model_and_dataset_options_arrive():
    config = {"model": "mlp", "model_options": {"hidden": (7, 5)}, "dataset": "synthetic",
              "partition": "natural", "num_clients": 20, "val_fraction": 0.0,
              "dataset_options": {"alpha": 0.5, "beta": 0.25, "max_size": 60}}  # fmt: skip
    found = experiment.make_experiment(config)
    assert found.dataset.name == "synthetic(0.5,0.25)"
    assert found.dataset.train.partition.sizes.max() == 54
    params, _, _ = jax.eval_shape(found.task.init, jax.random.key(0))
    expected = (60 * 7 + 7) + (7 * 5 + 5) + (5 * 10 + 10)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dataset": "mnits"}, "mnist"),
        ({"model": "resnet"}, "resnet"),
        ({"model_options": {"hiden": 3}, "model": "mlp"}, "Did you mean 'hidden'"),
        ({"dataset_options": {"tset_fraction": 0.1}}, "test_fraction"),
        ({"task": "classification(los=1)"}, "Did you mean 'loss_fn'"),
        ({"algorithm": "fedprox(muu=1)"}, "no argument 'muu'"),
        ({"sampler": "uniform(n=1)"}, "no argument 'n'"),
        ({"uplink": "top_k(0.1, n=1)"}, "no argument 'n'"),
        ({"num_clients": 10**6}, "1000000 clients"),
    ],
)
def test_whatever_a_part_refuses_is_an_error_of_the_configuration(config, message):
    with pytest.raises(ConfigError, match=message):
        experiment.make_experiment(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_files_resolve_and_say_what_they_are(path):
    config = load_config(path)
    assert resolve(resolve(config)) == resolve(config)
    docstring = compile(path.read_text(), str(path), "exec").co_consts[0]
    assert "Costs: " in docstring and "Reaches: " in docstring
    own = f"{path.stem}:"
    assert config.dataset in data.SOURCES or config.dataset.startswith(own)
    assert name_of(config.model) in models.MODELS or config.model.startswith(own)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_files_become_experiments(path, request, monkeypatch):
    if path.stem not in ALWAYS:
        request.getfixturevalue("data_dir")
    config = load_config(path, SUPPLIED.get(path.stem))
    config.init_from = None  # what another command leaves behind
    found = experiment.make_experiment(config)
    rounds, _ = split_options(found.options)
    assert rounds.clients_per_round <= found.dataset.num_clients
    assert config.num_clients in (None, found.dataset.num_clients)
    # large data are read and divided once
    monkeypatch.setattr(experiment, "make_experiment", lambda config: found)
    text = experiment.dry_run(config)
    assert f"{config.num_rounds:,} of {config.clients_per_round:,} clients" in text


def test_both_partitions_of_mcmahan_s_mnist_resolve():
    path = next(path for path in CONFIGS if path.stem == "mnist_mcmahan_cnn")
    for name in ("iid", "shards"):
        assert resolve(load_config(f"{path}:{name}")).partition == name


LOSSLESS = {"partition": "dirichlet", "alpha": 0.02, "min_partition_size": 0, "num_clients": 30,
            "clients_per_round": 30, "val_fraction": 0.0, "model": "softmax_regression",
            "local_steps": 1, "batch_size": 8, "devices": 2}  # fmt: skip


@pytest.fixture(scope="module")
def uncompressed():
    return changes_after(LOSSLESS)


def changes_after(config, num_rounds=3):
    made = experiment.make_experiment(config | {"num_rounds": num_rounds, "eval_every": 0})
    options = made.options | {"progress": False}
    run = simulate(made.dataset, made.task, made.algorithm, **options)
    assert run.curves["train/clients_without_rows"][0] > 5
    return run.variables.params


@pytest.mark.parametrize("memory", ["ef21", "diana(rate=0.5)", "marina(probability=0.3)"])
def test_lossless_differences_are_no_compression_where_clients_have_no_rows(memory, uncompressed):
    found = changes_after(LOSSLESS | {"uplink": "identity", "uplink_memory": memory})
    toy.assert_close(found, uncompressed, 1e-5)


@pytest.mark.parametrize(
    ("config", "least"),
    [
        ({}, 1),
        ({"remainder": "drop"}, 8),
        ({"algorithm": "fedsgd", "local_epochs": 1, "local_steps": 0, "remainder": "drop"}, 1),
    ],
)
def test_participants_are_the_clients_with_rows_enough_for_a_step(config, least):
    config = resolve(LOSSLESS | {"batch_size": 8} | config)
    dataset = experiment.make_dataset(config)
    sizes = dataset.train.partition.sizes
    assert experiment.num_participants(config, dataset) == (sizes >= least).sum() < 30


def test_report_names_results_and_costs(tmp_path):
    config = resolve({"num_rounds": 2, "clients_per_round": 3, "eval_every": 1, "devices": 2,
                      "target_accuracy": 0.01, "val_fraction": 0.1})  # fmt: skip
    run, plots = experiment.run_config(config, tmp_path / "run")
    assert {path.name for path in plots} == {"loss.png", "accuracy.png", "bytes.png"}
    text = experiment.report(run, plots)
    assert f"test accuracy {run.summary['final']['eval/test/accuracy']:.4f}" in text
    assert "best by val" in text and "target 0.01 reached" in text and "2 rounds in" in text
    assert str(tmp_path / "run") in text and str(plots[0]) in text
    for name, value in to_plain(config).items():
        assert run.config[name] == value, name
    stopped = run._replace(interrupted=True)
    assert "--resume" in experiment.report(stopped, [])
    baseline = algorithms.local_only().name
    text = experiment.report(stopped._replace(baselines={baseline: stopped}), [])
    assert f"after round 2 of the baseline {baseline}" in text


def test_an_algorithm_of_ones_own_may_wrap_ours_and_name_fewer_numbers(tmp_path):
    (tmp_path / "wrapping.py").write_text(
        "from fljax import algorithms\n"
        "def mine(client_lr=0.3):\n    return algorithms.fedavg(client_lr)\n"
    )
    keys = {"algorithm": "wrapping:mine", "code_dir": str(tmp_path)}
    values = resolve(with_keys(default_config(), keys))
    assert to_plain(resolve(values)) == to_plain(values)
    assert values["client_lr"] == 0.3 and values["server_lr"] is None


def test_unlike_epochs_are_those_of_every_trial():
    """They follow from no seed: trials of unlike seeds train side by side."""
    given = {"num_clients": 40, "local_epochs": 2, "max_local_epochs": 5}
    drawn = [
        make_experiment({**given, "seed": seed, "data_seed": seed}).options["local_epochs"]
        for seed in (0, 1)
    ]
    assert drawn[0] == drawn[1] and sorted(set(drawn[0])) == [2, 3, 4, 5] and len(drawn[0]) == 40
