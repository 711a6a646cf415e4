"""Every key of a run's configuration: its default, its type and what it may be, in one table."""

from __future__ import annotations

from collections.abc import Iterable

from fljax.core.names import foreign, nearest
from fljax.core.settings import ALGORITHM, COMPRESSION, HYPERPARAMETERS, OPTIONS, PARTITION
from fljax.core.values import FACTOR, NON_NEGATIVE, Field


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""


class UnknownKeyError(ConfigError, KeyError):
    """A configuration key that does not exist."""

    def __str__(self) -> str:
        return self.args[0]  # KeyError would show its repr


PARTITIONS = (
    "iid",
    "dirichlet",
    "dirichlet_hsu",
    "dirichlet_per_client",
    "shards",
    "classes_per_client",
    "quantity",
    "natural",
)

# The keys that decide on the data and on who owns them.
DATA_KEYS = (
    "dataset",
    "dataset_options",
    "data_dir",
    "num_clients",
    "partition",
    "alpha",
    "shards_per_client",
    "classes_per_client",
    "sigma",
    "min_partition_size",
    "val_fraction",
    "data_seed",
)


def _schedule(side: str) -> dict[str, Field]:
    """Returns the keys of one side's learning-rate schedule; its time is counted in rounds."""
    return {
        f"{side}_lr_schedule": Field(
            "constant", str, ("constant", "cosine", "exponential", "step")
        ),
        # What an exponential or step schedule multiplies by, every ..._decay_rounds rounds.
        f"{side}_lr_decay_rate": Field(1.0, float, FACTOR),
        # 0: every round (exponential), the whole run (cosine).
        f"{side}_lr_decay_rounds": Field(0, int, NON_NEGATIVE),
        # Rounds of linear growth before the schedule starts.
        f"{side}_lr_warmup_rounds": Field(0, int, NON_NEGATIVE),
    }


FIELDS: dict[str, Field | dict[str, Field]] = {
    # Data, and how it is divided among clients.
    "dataset": Field("digits", str),
    "dataset_options": Field({}, dict),
    "data_dir": Field(None, str, optional=True),
    # None: every client of a natural partition, otherwise 100. A natural partition takes so many of
    # its clients, chosen by data_seed.
    "num_clients": PARTITION["num_clients"],
    "partition": Field("dirichlet", str, PARTITIONS),
    "alpha": PARTITION["alpha"],
    "shards_per_client": PARTITION["shards_per_client"],
    "classes_per_client": PARTITION["classes_per_client"],
    "sigma": PARTITION["sigma"],
    "min_partition_size": PARTITION["min_partition_size"],
    "val_fraction": PARTITION["val_fraction"],
    "data_seed": PARTITION["seed"],
    # Model.
    "model": Field("softmax_regression", str),
    "model_options": Field({}, dict),
    # Algorithm.
    "algorithm": Field("fedavg", str, ("fedavg", "fedsgd", "fedprox", "scaffold", "fedopt")),
    "mu": HYPERPARAMETERS["mu"],
    # None: the algorithm's own, "uniform" for scaffold and "examples" for the others.
    "weighting": ALGORITHM["weighting"],
    "client_lr": HYPERPARAMETERS["client_lr"],
    "client_momentum": HYPERPARAMETERS["client_momentum"],
    "client_weight_decay": HYPERPARAMETERS["client_weight_decay"],
    **_schedule("client"),
    "server_optimizer": ALGORITHM["server_optimizer"],
    "server_lr": HYPERPARAMETERS["server_lr"],
    "server_momentum": HYPERPARAMETERS["server_momentum"],
    "beta1": HYPERPARAMETERS["beta1"],
    "beta2": HYPERPARAMETERS["beta2"],
    "tau": HYPERPARAMETERS["tau"],
    "bias_correction": ALGORITHM["bias_correction"],
    **_schedule("server"),
    # Compression: "none", or calls separated by commas, "top_k(0.01), qsgd(8)"; all names stand in
    # fljax.compression.names. per_leaf: each tensor is a vector of its own.
    # level: a number that is traced, for the argument written `level`, "qsgd(level)".
    **COMPRESSION,
    # Megabits a second of a client's link, for simulated transfer times; None takes no time.
    "uplink_mbps": OPTIONS["uplink_mbps"],
    "downlink_mbps": OPTIONS["downlink_mbps"],
    # Rounds and local work.
    "num_rounds": OPTIONS["num_rounds"]._replace(default=100),
    "clients_per_round": OPTIONS["clients_per_round"]._replace(default=10),
    "sampler": OPTIONS["sampler"],
    # One of the two; 0 is the same as None. With neither, one epoch.
    "local_epochs": OPTIONS["local_epochs"]._replace(default=None),
    "local_steps": OPTIONS["local_steps"],
    # 0: all rows of the client in one batch.
    "batch_size": OPTIONS["batch_size"]._replace(optional=True),
    "remainder": OPTIONS["remainder"],
    "shuffle": OPTIONS["shuffle"],
    "seed": OPTIONS["seed"],
    # Evaluation.
    # Rounds between evaluations; 0: only the last round.
    "eval_every": OPTIONS["eval_every"],
    "eval_batch_size": OPTIONS["eval_batch_size"],
    # 0: none, -1: all, k: a seeded sample of k clients.
    "eval_clients": OPTIONS["eval_clients"],
    "target_accuracy": OPTIONS["target_accuracy"],
    "stop_at_target": OPTIONS["stop_at_target"],
    # Evaluations without a better validation metric after which a run ends; 0: it never does.
    "patience": OPTIONS["patience"],
    # A metric is better where it gains more than this.
    "min_delta": OPTIONS["min_delta"],
    "baselines": OPTIONS["baselines"],
    # Recording. checkpoint_every = 0 writes one at the end alone.
    "checkpoint_every": OPTIONS["checkpoint_every"],
    "keep_checkpoints": OPTIONS["keep_checkpoints"],
    "wandb": {
        "mode": Field("disabled", str, ("disabled", "offline", "online")),
        "project": Field("fljax", str),
        "name": Field(None, str, optional=True),
        "group": Field(None, str, optional=True),
    },
    # Execution, which never changes results. 0: chosen automatically (devices: all of them).
    "lanes": OPTIONS["lanes"],
    "devices": OPTIONS["devices"],
    "wave": OPTIONS["wave"],
    "placement": OPTIONS["placement"],
    # Find lanes, devices and waves by trial. None: from 50 rounds on, as far as it pays.
    "calibrate": OPTIONS["calibrate"],
    "rounds_per_dispatch": OPTIONS["rounds_per_dispatch"],
    # What the clients' forward and backward passes compute in; parameters and sums stay float32.
    "compute_dtype": OPTIONS["compute_dtype"],
    # How matrix products round, which does change results. None: as JAX is set.
    "matmul_precision": OPTIONS["matmul_precision"],
}


def unknown_key(key: object, known: Iterable[str], prefix: str = "") -> UnknownKeyError:
    """Returns the error for a key that does not exist, naming the one that was probably meant.

    Args:
      key: The key as it was written.
      known: The keys that exist beside it.
      prefix: Path of the nested configuration that it was looked for in, such as "wandb.".
    """
    known = sorted(map(str, known))
    message = f"Unknown config key {prefix + str(key)!r}. "
    if theirs := foreign(key, known):
        message += theirs
    elif near := nearest(key, known):
        message += f"Did you mean {prefix + near!r}?"
    else:
        message += "Known keys: " + ", ".join(prefix + name for name in known) + "."
    return UnknownKeyError(message)
