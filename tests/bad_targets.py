"""The functions of the public rooms, with arguments that they take, for `bad_calls`."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
import toy
from bad_inputs import TEXTS, same
from flax import linen, nnx

import fljax
from fljax import algorithms, compression, data, models, privacy, recording, studies, tasks
from fljax.compression import names as compression_names
from fljax.core import sampler
from fljax.studies.study import listed_trials, study_of
from fljax.training import simulation
from fljax.training.options import RoundOptions, RunOptions

DATASET = toy.dataset(toy.clients(dtype=np.float32))
TASK = toy.softmax_task(np.float32)
LABELS = np.arange(60) % 5
X = np.linspace(0, 1, 240, dtype=np.float32).reshape(60, 4)
NOWHERE = Path(tempfile.gettempdir()) / "fljax-bad-inputs"
PARTITION = data.iid(LABELS, 4)
COUNTS = np.ones((4, 5), int)
COMPRESSOR = compression.qsgd(4)


class Target(NamedTuple):
    """A function and arguments that it takes.

    Attributes:
      call: The function.
      base: {argument: value} that is fine.
      more: Arguments that may be given besides.
      pool: {argument: values that are wrong in ways of its own}.
      differs: ({argument: value}, result) -> see `Case`.
      weight: How often it is drawn.
      also: See `Case`.
    """

    call: Callable[..., Any]
    base: dict[str, Any]
    more: tuple[str, ...] = ()
    pool: Mapping[str, tuple] = {}
    differs: Callable[[dict, Any], Mapping] = lambda changed, result: {}
    weight: int = 1
    also: tuple[str, ...] = ()


def _simulate(dataset, model, algorithm, **options):
    """Calls `fljax.simulate` up to its first round."""
    loop, baselines = simulation.Loop, simulation.run_baselines
    simulation.Loop, simulation.run_baselines = _Stopped, lambda run, *rest: run
    try:
        return fljax.simulate(dataset, model, algorithm, **options)
    finally:
        simulation.Loop, simulation.run_baselines = loop, baselines


class _Stopped:
    """Takes the place of the loop of rounds."""

    interrupted, directory, summary = False, None, {"rounds": 0}

    def __init__(self, federation, recorder, checkpoints, config, *rest):
        self.config = config

    def run(self):
        return self


def _other_options(changed, result) -> dict[str, tuple]:
    config = result.config
    return {
        name: (value, config[name])
        for name, value in changed.items()
        if name in config
        and not (value is None or same(value, config[name]) or config[name] == [value])
        and not (config[name] is None and not value)
    }


def _other_hparams(changed, spec) -> dict[str, tuple]:
    return {
        name: (value, spec.hparams[name])
        for name, value in changed.items()
        if name in spec.hparams and not same(value, spec.hparams[name])
    }


def _algorithm(call, more: str = "", **base) -> Target:
    pool = {
        "client_optimizer": (optax.sgd(0.1), "adam", 3),
        "server_optimizer": (optax.sgd(0.1), "adem", 3),
        "weighting": ("example", "Uniform"),
    }
    return Target(call, base, tuple(more.split()), pool, _other_hparams, 2)


def _of_labels(call, **options) -> Target:
    base = {"labels": LABELS, "num_clients": 4, "seed": 0, "min_partition_size": 1}
    return Target(call, base | options, also=("rows", "classes"))


def _plain(call, more: str = "", **base) -> Target:
    return Target(call, base, tuple(more.split()))


def _option_names() -> tuple[str, ...]:
    given = {name for record in (RoundOptions, RunOptions) for name in record.__dataclass_fields__}
    # they look for files, print, or stand in the base
    own = {"resume", "progress", "workdir", "sinks", "num_rounds", "clients_per_round"}
    return tuple(sorted(given - own))


RUNS: dict[str, Target] = {
    "simulate": Target(
        _simulate,
        {
            "dataset": DATASET,
            "model": TASK,
            "algorithm": algorithms.fedavg(),
            "num_rounds": 2,
            "clients_per_round": 3,
        },
        _option_names(),
        {
            "algorithm": ("fedavg", algorithms.fedavg, optax.sgd(0.1)),
            "baselines": ("central", ["local_only", 3], "centralized", ["centralized"] * 2),
            "client_lr_schedule": (optax.constant_schedule(-1.0), lambda r: [1.0], 0.5),
            "cohorts": ([[0, 99]], [[-1]], [["a"]], [[0], [True]], [[0], [[1]]], "0", [0, 1]),
            "dataset": ("mnist", (X, LABELS), DATASET.train),
            "hooks": ([3], ["a"], len, [None]),
            "initial_params": ({"w": 1}, {"w": "a", "b": "c"}, [1], "file", {"w": None}),
            "model": ("mlp", models.mlp, models.mlp((5, 4)), nnx.Linear, (len, len), (len,)),
            "pipeline": ("top_k(0.1)", COMPRESSOR, compression.uplink(COMPRESSOR)),
        },
        _other_options,
        30,
    ),
    "fedavg": _algorithm(
        algorithms.fedavg,
        "client_momentum mu weighting client_optimizer server_optimizer",
        client_lr=0.1,
        server_lr=1.0,
    ),
    "fedprox": _algorithm(algorithms.fedprox, "client_lr server_lr client_momentum", mu=0.1),
    "fedopt": _algorithm(
        algorithms.fedopt, "beta1 beta2 tau bias_correction client_lr", server_optimizer="adam"
    ),
    "fedopt of momentum": _algorithm(
        functools.partial(algorithms.fedopt, "momentum"), "server_lr", server_momentum=0.9
    ),
    "fedsgd": _algorithm(algorithms.fedsgd, "server_optimizer weighting", server_lr=0.1),
    "scaffold": _algorithm(algorithms.scaffold, "weighting", client_lr=0.1, server_lr=1.0),
    "local_only": _algorithm(algorithms.local_only, "client_momentum", client_lr=0.1),
    "models.make": _plain(models.make, "hidden", name="mlp", num_classes=5, input_shape=(4,)),
    "models.make of a CNN": _plain(
        models.make, "conv_form", name="emnist_cnn", num_classes=5, input_shape=(8, 8, 1)
    ),
    "softmax_regression": _plain(models.softmax_regression, num_features=4, num_classes=5),
    "mlp": _plain(models.mlp, sizes=(4, 3, 5)),
    "char_lstm": _plain(models.char_lstm, "embedding hidden layers lstm_form", vocab=9),
    "resnet18_gn": _plain(
        models.resnet18_gn, "width groups conv_form", num_classes=5, input_shape=(8, 8, 1)
    ),
    "with_fast_convolutions": _plain(
        models.with_fast_convolutions, "form", model=models.emnist_cnn(5, (8, 8, 1))
    ),
    "classification": _plain(
        tasks.classification, "loss_fn frozen fast_layers", model=models.mlp((4, 5)), num_classes=5
    ),
    "next_token": _plain(
        tasks.next_token, "pad_id frozen fast_layers", model=models.char_lstm(9), num_classes=9
    ),
    "from_functions": _plain(tasks.from_functions, init=lambda key: {}, apply=lambda params, x: x),
    "from_nnx": _plain(tasks.from_nnx, "frozen fast_layers", model=models.mlp((4, 5))),
    "from_linen": _plain(tasks.from_linen, "rng_names", module=linen.Dense(3), example_x=X[:1]),
    "use_all_cores": _plain(fljax.use_all_cores, count=2),
    "load_run": _plain(fljax.load_run, directory=str(NOWHERE)),
    "load_config": Target(
        fljax.load_config, {"path": str(NOWHERE)}, ("overrides",), also=("file",)
    ),
    "run_config": Target(
        fljax.run_config,
        {"config": {"num_round": 2}, "workdir": NOWHERE},
        ("resume", "profile"),
        also=("num_round",),
    ),
    "plot_curves": _plain(
        recording.plot_curves,
        "target_accuracy",
        runs={"a": {"round": np.arange(3.0), "train/loss": np.ones(3)}},
        directory=NOWHERE,
    ),
    "wandb_sink": _plain(recording.wandb_sink, "project tags config", mode="disabled"),
}

DATA: dict[str, Target] = {
    "from_arrays": Target(
        data.from_arrays,
        {"x": X, "y": LABELS, "num_clients": 4},
        (
            "partition", "seed", "val_fraction", "num_classes", "preprocess", "name", "kind",
            "alpha", "x_test", "y_test", "client_ids", "test_client_ids", "groups",
            "min_partition_size", "class_names", "on_nonfinite", "own_test_fraction",
            "rows_per_client", "feature_skew", "concept_shift", "label_noise",
            "held_out_fraction", "held_out_folds", "held_out_fold", "split_by",
            "test_split_by", "concept_drift",
        ),
        {"partition": ("shard", "natural", data.iid)},
        weight=4,
        also=("rows",),
    ),
    "data.load": Target(
        data.load,
        {"name": "digits", "partition": "dirichlet", "num_clients": 5, "alpha": 0.5},
        (
            "seed", "data_dir", "val_fraction", "split_seed", "test_fraction", "self_balancing",
            "min_partition_size", "own_test_fraction", "rows_per_client", "feature_skew",
            "concept_shift", "label_noise", "held_out_fraction", "held_out_folds", "held_out_fold",
            "concept_drift",
        ),
        weight=3,
    ),
    "synthetic": _plain(
        data.synthetic,
        "alpha beta seed iid materialize val_fraction partition",
        num_clients=3,
        max_size=60,
    ),
    "iid": _of_labels(data.iid),
    "dirichlet": _of_labels(data.dirichlet, alpha=0.5, self_balancing=False),
    "dirichlet_hsu": _of_labels(data.dirichlet_hsu, alpha=0.5),
    "dirichlet_per_client": _of_labels(data.dirichlet_per_client, alpha=0.5),
    "shards": _of_labels(data.shards, shards_per_client=2),
    "classes_per_client": _of_labels(data.classes_per_client, classes_per_client=2),
    "quantity": _of_labels(data.quantity, sigma=0.5),
    "natural": _of_labels(data.natural, client_ids=LABELS, num_clients=5),
    "make_partition": Target(
        data.make_partition,
        {"name": "dirichlet", "labels": LABELS, "num_clients": 4, "alpha": 0.5},
        ("seed", "min_partition_size"),
        also=("rows",),
    ),
    "Partition": _plain(data.Partition, offsets=np.array([0, 2, 4]), index=np.arange(4)),
    "image_scaling": _plain(data.image_scaling, moments=((0.5,), (0.5,))),
    "resolve_data_dir": _plain(data.resolve_data_dir, data_dir="x"),
    "plot_partition": _plain(
        data.plot_partition, "title path", partition=PARTITION, counts=COUNTS
    ),
    "partition_statistics": _plain(
        data.partition_statistics, partition=PARTITION, counts=COUNTS
    ),
}  # fmt: skip

PARTS: dict[str, Target] = {
    "top_k": _plain(compression.top_k, fraction=0.1),
    "rand_k": _plain(compression.rand_k, fraction=0.1, unbiased=True),
    "prune": _plain(compression.prune, fraction=0.1),
    "qsgd": _plain(compression.qsgd, bits=4),
    "int8": _plain(compression.int8, stochastic=True, bits=8),
    "quantized uniformly": _plain(compression.uniform, bits=4),
    "rotated_uniform": _plain(compression.rotated_uniform, bits=4),
    "powersgd": _plain(compression.powersgd, rank=2),
    "fetch_sgd": _plain(compression.fetch_sgd, "fraction momentum seed", rows=3, columns=8),
    "chain": _plain(
        lambda first, second: compression.chain(first, second),
        first=compression.top_k(0.1),
        second=COMPRESSOR,
    ),
    "uplink": _plain(compression.uplink, "per_leaf", compressor=COMPRESSOR),
    "downlink": _plain(compression.downlink, "per_leaf", compressor=COMPRESSOR),
    "error_feedback": _plain(compression.error_feedback, link=compression.uplink(COMPRESSOR)),
    "ef21": _plain(compression.ef21, link=compression.uplink(COMPRESSOR), num_clients=3),
    "diana": _plain(
        compression.diana, link=compression.uplink(COMPRESSOR), num_clients=3, rate=0.1
    ),
    "marina": _plain(
        compression.marina, "seed", link=compression.uplink(COMPRESSOR), probability=0.1
    ),
    "compression by name": Target(
        lambda **given: compression_names.check(compression_names.Names(**given)),
        {"uplink": "top_k(0.1)", "downlink": "qsgd(8)"},
        ("uplink_memory", "downlink_memory", "uplink_per_leaf"),
        {"uplink": TEXTS, "downlink": TEXTS, "uplink_memory": TEXTS},
        weight=4,
    ),
    "banded_matrix": _plain(
        privacy.banded_matrix, "bands horizon delta", clip_norm=0.3, noise_multiplier=2.0
    ),
    "tree_aggregation": _plain(
        privacy.tree_aggregation,
        "restart_every completion delta",
        clip_norm=0.3,
        noise_multiplier=2.0,
    ),
    "sampler.uniform": Target(
        sampler.uniform, {"num_clients": 5, "clients_per_round": 2, "seed": 0}, also=("population",)
    ),
    "sampler.poisson": Target(
        sampler.poisson, {"num_clients": 5, "clients_per_round": 2, "seed": 0}, also=("population",)
    ),
    "sampler.separated": Target(
        sampler.separated,
        {"num_clients": 5, "clients_per_round": 2, "seed": 0},
        ("separation",),
        also=("population",),
    ),
    "sampler.replay": Target(
        sampler.replay, {"cohorts": [[0, 1]], "num_clients": 5}, also=("population",)
    ),
    "grid": Target(
        studies.grid,
        {"axes": {"client_lr": (0.1, 0.2)}},
        pool={"axes": ({"a": 0.1}, {"a": []}, {3: (1,)}, {"a": (1, 1)}, {"seed": (1,)})},
    ),
    "sample": _plain(
        studies.sample, axes={"client_lr": studies.uniform(0.1, 0.2)}, num=3, seed=0
    ),
    "choice": _plain(lambda value: studies.choice(value), value=1),
    "an axis drawn uniformly": _plain(studies.uniform, low=0.1, high=0.2),
    "log_uniform": _plain(studies.log_uniform, low=0.1, high=0.2),
    "repeat": _plain(studies.repeat, configurations=[{"client_lr": 0.1}], seeds=(0, 1)),
    "the settings of a study": Target(
        lambda **given: listed_trials(study_of(given)),
        {"axes": {"client_lr": (0.1, 0.2)}},
        (
            "search", "num_trials", "seeds", "search_seed", "criterion", "min_rounds",
            "reduction", "parallel_trials", "memory_gb", "wandb",
        ),
        weight=4,
    ),
    "sweep": Target(
        functools.partial(fljax.sweep, progress=False),
        {"config": {"num_rounds": 2}, "workdir": NOWHERE, "axes": {}},
        ("resume", "share", "search", "seeds"),
        also=("axes",),
    ),
}  # fmt: skip

TARGETS = RUNS | DATA | PARTS
