"""What every option and hyperparameter may be, once, for configurations and for Python.

Where an option is the same in both, the configuration's table (`fljax.config.schema`) takes its
line from here; `RoundOptions`, `RunOptions`, the algorithms and the partitions check by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax.core.per_client import is_per_client
from fljax.core.values import (
    COUNT,
    DECAY,
    FACTOR,
    FINITE,
    NON_NEGATIVE,
    POSITIVE,
    SEED,
    Field,
    Interval,
    checked,
    wrong,
)

# Options of `fljax.simulate`; their defaults are those of `RoundOptions` and `RunOptions`.
OPTIONS: dict[str, Field] = {
    "num_rounds": Field(None, int, COUNT),
    "clients_per_round": Field(None, int, COUNT),
    "local_epochs": Field(1, int, NON_NEGATIVE, optional=True),
    "local_steps": Field(None, int, NON_NEGATIVE, optional=True),
    "batch_size": Field(20, int, NON_NEGATIVE),
    "remainder": Field("partial", str, ("partial", "drop", "wrap")),
    "shuffle": Field(True, bool),
    "sampler": Field("uniform", str, ("uniform", "poisson")),
    "seed": Field(0, int, SEED),
    "compute_dtype": Field("float32", str, ("float32", "bfloat16")),
    "devices": Field(0, int, NON_NEGATIVE),
    "lanes": Field(0, int, NON_NEGATIVE),
    "wave": Field(0, int, NON_NEGATIVE),
    "placement": Field("auto", str, ("auto", "device", "stream")),
    "calibrate": Field(None, bool, optional=True),
    "rounds_per_dispatch": Field(0, int, NON_NEGATIVE),
    "eval_every": Field(10, int, NON_NEGATIVE),
    "eval_batch_size": Field(0, int, NON_NEGATIVE),
    # 0: none, -1: all, k: a seeded sample of k clients.
    "eval_clients": Field(0, int, Interval(-1)),
    "eval_personal": Field(0, int, NON_NEGATIVE),
    "target_accuracy": Field(None, float, FACTOR, optional=True),
    "stop_at_target": Field(False, bool),
    "patience": Field(0, int, NON_NEGATIVE),
    "min_delta": Field(0.0, float, NON_NEGATIVE),
    "uplink_mbps": Field(None, float, POSITIVE, optional=True),
    "downlink_mbps": Field(None, float, POSITIVE, optional=True),
    "resume": Field(False, bool),
    "checkpoint_every": Field(0, int, NON_NEGATIVE),
    "keep_checkpoints": Field(2, int, COUNT),
    "baselines": Field((), tuple, ("centralized", "local_only")),
    "progress": Field(True, bool),
    "matmul_precision": Field(
        None,
        str,
        ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32"),
        optional=True,
    ),
}

# Numbers of the algorithms, which the compiled programs take as arguments.
HYPERPARAMETERS: dict[str, Field] = {
    "client_lr": Field(0.1, float, POSITIVE),
    "client_momentum": Field(0.0, float, DECAY),
    "client_weight_decay": Field(0.0, float, NON_NEGATIVE),
    "mu": Field(0.0, float, NON_NEGATIVE),
    "server_lr": Field(1.0, float, POSITIVE),
    "server_momentum": Field(0.9, float, DECAY),
    "beta1": Field(0.9, float, DECAY),
    "beta2": Field(0.99, float, DECAY),
    "tau": Field(1e-3, float, POSITIVE),
}

_ADAPTIVE = ("adagrad", "adam", "yogi")
# {what a server optimizer is set by: the optimizers that use it}
SERVER_NUMBERS = {
    "server_momentum": ("momentum",),
    "beta1": _ADAPTIVE,
    "beta2": ("adam", "yogi"),
    "tau": _ADAPTIVE,
    "bias_correction": _ADAPTIVE,
}

# How the algorithms are set besides.
ALGORITHM: dict[str, Field] = {
    "weighting": Field(None, str, ("examples", "uniform"), optional=True),
    "server_optimizer": Field("sgd", str, ("sgd", "momentum", "adagrad", "adam", "yogi")),
    "bias_correction": Field(False, bool),
}

# What is compressed, by name; see `fljax.compression.names`.
COMPRESSION: dict[str, Field] = {
    "uplink": Field("none", str),
    "uplink_level": Field(None, float, POSITIVE, optional=True),
    "uplink_memory": Field("none", str),
    "uplink_per_leaf": Field(False, bool),
    "downlink": Field("none", str),
    "downlink_level": Field(None, float, POSITIVE, optional=True),
    "downlink_memory": Field("none", str, ("none", "error_feedback", "difference")),
    "downlink_per_leaf": Field(False, bool),
}

# How rows are divided among clients.
PARTITION: dict[str, Field] = {
    "num_clients": Field(None, int, COUNT, optional=True),
    "alpha": Field(0.5, float, POSITIVE),
    "shards_per_client": Field(2, int, COUNT),
    "classes_per_client": Field(2, int, COUNT),
    "sigma": Field(1.0, float, Interval(0, 100)),
    "min_partition_size": Field(1, int, NON_NEGATIVE),
    "val_fraction": Field(0.1, float, DECAY),
    "seed": Field(0, int, SEED),
}

_NUMBER = Field(None, float, FINITE)


def checked_all(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Returns values that the fields of the same names allow; see `checked`."""
    return {name: checked(name, value, fields[name]) for name, value in values.items()}


def checked_hyperparameter(name: str, value: Any) -> float:
    """Returns a hyperparameter as a float, by its line of the table or as any finite number."""
    if name == "client_lr" and is_per_client(value):
        must = "one number; for rates of clients' own give simulate(..., client_lr_factors=[...])"
        raise wrong(name, value, must)
    return checked(name, value, HYPERPARAMETERS.get(name, _NUMBER))
