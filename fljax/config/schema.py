"""Every key of a run's configuration: its default, its type and what it may be, in one table."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""


class UnknownKeyError(ConfigError, KeyError):
    """A configuration key that does not exist."""

    def __str__(self) -> str:
        return self.args[0]  # KeyError would show its repr


@dataclasses.dataclass(frozen=True)
class Interval:
    """Real numbers between two bounds; a bound itself belongs to it unless it is open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: object) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and abs(value) < math.inf

    def __str__(self) -> str:
        bounds = []
        if self.low > -math.inf:
            bounds.append(f"{'above' if self.low_open else 'at least'} {self.low:g}")
        if self.high < math.inf:
            bounds.append(f"{'below' if self.high_open else 'at most'} {self.high:g}")
        return " and ".join(bounds) or "finite"


POSITIVE = Interval(0, low_open=True)
NON_NEGATIVE = Interval(0)
COUNT = Interval(1)
DECAY = Interval(0, 1, high_open=True)
FACTOR = Interval(0, 1, low_open=True)
SEED = Interval(0, 2**32, high_open=True)

PARTITIONS = (
    "iid",
    "dirichlet",
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


class Field(NamedTuple):
    """One key.

    Attributes:
      default: Its value where nobody sets it; None stands for "not set".
      kind: bool, int, float, str, tuple, or dict for options whose names another module knows.
      allowed: Interval of numbers, tuple of names, or None for anything of that type.
      optional: Whether None is a value.
    """

    default: Any
    kind: type
    allowed: Interval | tuple[str, ...] | None = None
    optional: bool = False


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
    # None: every client of a natural partition, otherwise 100.
    "num_clients": Field(None, int, COUNT, optional=True),
    "partition": Field("dirichlet", str, PARTITIONS),
    "alpha": Field(0.5, float, POSITIVE),
    "shards_per_client": Field(2, int, COUNT),
    "classes_per_client": Field(2, int, COUNT),
    "sigma": Field(1.0, float, NON_NEGATIVE),
    "min_partition_size": Field(1, int, NON_NEGATIVE),
    "val_fraction": Field(0.1, float, DECAY),
    "data_seed": Field(0, int, SEED),
    # Model.
    "model": Field("softmax_regression", str),
    "model_options": Field({}, dict),
    # Algorithm.
    "algorithm": Field("fedavg", str, ("fedavg", "fedsgd", "fedprox", "scaffold", "fedopt")),
    "mu": Field(0.0, float, NON_NEGATIVE),
    # None: the algorithm's own, "uniform" for scaffold and "examples" for the others.
    "weighting": Field(None, str, ("examples", "uniform"), optional=True),
    "client_lr": Field(0.1, float, POSITIVE),
    "client_momentum": Field(0.0, float, DECAY),
    "client_weight_decay": Field(0.0, float, NON_NEGATIVE),
    **_schedule("client"),
    "server_optimizer": Field("sgd", str, ("sgd", "momentum", "adagrad", "adam", "yogi")),
    "server_lr": Field(1.0, float, POSITIVE),
    "server_momentum": Field(0.9, float, DECAY),
    "beta1": Field(0.9, float, DECAY),
    "beta2": Field(0.99, float, DECAY),
    "tau": Field(1e-3, float, POSITIVE),
    "bias_correction": Field(False, bool),
    **_schedule("server"),
    # Compression: "none", or calls separated by commas, "top_k(0.01), qsgd(8)"; all names stand in
    # fljax.compression.names. per_leaf: each tensor is a vector of its own.
    # level: a number that is traced, for the argument written `level`, "qsgd(level)".
    "uplink": Field("none", str),
    "uplink_level": Field(None, float, POSITIVE, optional=True),
    "uplink_memory": Field("none", str),
    "uplink_per_leaf": Field(False, bool),
    "downlink": Field("none", str),
    "downlink_level": Field(None, float, POSITIVE, optional=True),
    "downlink_memory": Field("none", str, ("none", "error_feedback", "difference")),
    "downlink_per_leaf": Field(False, bool),
    # Megabits a second of a client's link, for simulated transfer times; None takes no time.
    "uplink_mbps": Field(None, float, POSITIVE, optional=True),
    "downlink_mbps": Field(None, float, POSITIVE, optional=True),
    # Rounds and local work.
    "num_rounds": Field(100, int, COUNT),
    "clients_per_round": Field(10, int, COUNT),
    "sampler": Field("uniform", str, ("uniform", "poisson")),
    # One of the two; 0 is the same as None. With neither, one epoch.
    "local_epochs": Field(None, int, NON_NEGATIVE, optional=True),
    "local_steps": Field(None, int, NON_NEGATIVE, optional=True),
    # 0: all rows of the client in one batch.
    "batch_size": Field(20, int, NON_NEGATIVE, optional=True),
    "remainder": Field("partial", str, ("partial", "drop", "wrap")),
    "shuffle": Field(True, bool),
    "seed": Field(0, int, SEED),
    # Evaluation.
    # Rounds between evaluations; 0: only the last round.
    "eval_every": Field(10, int, NON_NEGATIVE),
    "eval_batch_size": Field(0, int, NON_NEGATIVE),
    # 0: none, -1: all, k: a seeded sample of k clients.
    "eval_clients": Field(0, int, Interval(-1)),
    "target_accuracy": Field(None, float, FACTOR, optional=True),
    "stop_at_target": Field(False, bool),
    "baselines": Field((), tuple, ("centralized", "local_only")),
    # Recording. checkpoint_every = 0 writes one at the end alone.
    "checkpoint_every": Field(0, int, NON_NEGATIVE),
    "keep_checkpoints": Field(2, int, COUNT),
    "wandb": {
        "mode": Field("disabled", str, ("disabled", "offline", "online")),
        "project": Field("fljax", str),
        "name": Field(None, str, optional=True),
        "group": Field(None, str, optional=True),
    },
    # Execution, which never changes results. 0: chosen automatically (devices: all of them).
    "lanes": Field(0, int, NON_NEGATIVE),
    "devices": Field(0, int, NON_NEGATIVE),
    "wave": Field(0, int, NON_NEGATIVE),
    "placement": Field("auto", str, ("auto", "device", "stream")),
    # Find lanes, devices and waves by trial. None: from 50 rounds on, as far as it pays.
    "calibrate": Field(None, bool, optional=True),
    "rounds_per_dispatch": Field(0, int, NON_NEGATIVE),
    # What the clients' forward and backward passes compute in; parameters and sums stay float32.
    "compute_dtype": Field("float32", str, ("float32", "bfloat16")),
    # How matrix products round, which does change results. None: as JAX is set.
    "matmul_precision": Field(
        None,
        str,
        ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32"),
        optional=True,
    ),
}

_A_NUMBER = "a number of clients, not a fraction"
_A_CALL = "a text such as 'top_k(0.01)' or 'qsgd(8)'"

# {their name: (whose it is, or empty for several; our name; what to mind)}
FOREIGN_NAMES: dict[str, tuple[str, str, str]] = {
    "fraction_fit": ("Flower", "clients_per_round", _A_NUMBER),
    "fraction_train": ("Flower", "clients_per_round", _A_NUMBER),
    "fraction_evaluate": ("Flower", "eval_clients", _A_NUMBER),
    "min_fit_clients": ("Flower", "clients_per_round", ""),
    "min_train_nodes": ("Flower", "clients_per_round", ""),
    "min_available_clients": ("Flower", "num_clients", ""),
    "num_supernodes": ("Flower", "num_clients", ""),
    "num_partitions": ("Flower", "num_clients", ""),
    "num_server_rounds": ("Flower", "num_rounds", ""),
    "proximal_mu": ("Flower", "mu", ""),
    "eta": ("Flower", "server_lr", ""),
    "eta_l": ("Flower", "client_lr", ""),
    "beta_1": ("Flower", "beta1", ""),
    "beta_2": ("Flower", "beta2", ""),
    "strategy": ("Flower", "algorithm", ""),
    "comm_round": ("FedML", "num_rounds", ""),
    "client_num_in_total": ("FedML", "num_clients", ""),
    "client_num_per_round": ("FedML", "clients_per_round", ""),
    "partition_method": ("FedML", "partition", ""),
    "partition_alpha": ("FedML", "alpha", ""),
    "federated_optimizer": ("FedML", "algorithm", ""),
    "frequency_of_the_test": ("FedML", "eval_every", ""),
    "random_seed": ("FedML", "seed", ""),
    "n_parties": ("NIID-Bench", "num_clients", ""),
    "alg": ("NIID-Bench", "algorithm", ""),
    "beta": ("NIID-Bench", "alpha", "the Dirichlet concentration"),
    "rho": ("NIID-Bench", "client_momentum", ""),
    "sample": ("NIID-Bench", "clients_per_round", _A_NUMBER),
    "num_epochs": ("LEAF", "local_epochs", ""),
    "num_clients_per_round": ("FedJAX", "clients_per_round", ""),
    "client_learning_rate": ("FedJAX", "client_lr", ""),
    "server_learning_rate": ("FedJAX", "server_lr", ""),
    "cohort_size": ("pfl-research", "clients_per_round", ""),
    "central_num_iterations": ("pfl-research", "num_rounds", ""),
    "local_num_epochs": ("pfl-research", "local_epochs", ""),
    "local_num_steps": ("pfl-research", "local_steps", ""),
    "local_batch_size": ("pfl-research", "batch_size", ""),
    "local_learning_rate": ("pfl-research", "client_lr", ""),
    "evaluation_frequency": ("pfl-research", "eval_every", ""),
    "client_epochs_per_round": ("TensorFlow Federated", "local_epochs", ""),
    "total_rounds": ("TensorFlow Federated", "num_rounds", ""),
    "rounds_per_eval": ("TensorFlow Federated", "eval_every", ""),
    "global_rounds": ("PFLlib", "num_rounds", ""),
    "join_ratio": ("PFLlib", "clients_per_round", _A_NUMBER),
    "sample_ratio": ("FedLab", "clients_per_round", _A_NUMBER),
    "frac": ("", "clients_per_round", _A_NUMBER),
    "num_users": ("", "num_clients", ""),
    "n_clients": ("", "num_clients", ""),
    "local_ep": ("", "local_epochs", ""),
    "local_epoch": ("", "local_epochs", ""),
    "local_bs": ("", "batch_size", ""),
    "rounds": ("", "num_rounds", ""),
    "epochs": ("", "local_epochs", "passes of a client over its data; rounds are num_rounds"),
    "lr": ("", "client_lr", "the server's is server_lr"),
    "learning_rate": ("", "client_lr", "the server's is server_lr"),
    "local_lr": ("", "client_lr", ""),
    "global_lr": ("", "server_lr", ""),
    "momentum": ("", "client_momentum", "the server's is server_momentum"),
    "weight_decay": ("", "client_weight_decay", ""),
    "optimizer": ("", "server_optimizer", "clients use SGD with client_momentum"),
    "prox_mu": ("", "mu", ""),
    "compression": ("", "uplink", _A_CALL),
    "compressor": ("", "uplink", _A_CALL),
    "compress": ("", "uplink", _A_CALL),
    "compression_ratio": ("", "uplink", _A_CALL),
    "compress_ratio": ("", "uplink", _A_CALL),
    "sparsity": ("", "uplink", _A_CALL),
    "topk": ("", "uplink", _A_CALL),
    "top_k": ("", "uplink", _A_CALL),
    "quantization": ("", "uplink", _A_CALL),
    "quantize_bits": ("", "uplink", _A_CALL),
    "quantization_level": ("", "uplink", _A_CALL),
    "error_feedback": ("", "uplink_memory", "uplink_memory = 'error_feedback'"),
    "bandwidth": ("", "uplink_mbps", "the other direction's is downlink_mbps"),
}


def unknown_key(key: object, known: Iterable[str], prefix: str = "") -> UnknownKeyError:
    """Returns the error for a key that does not exist, naming the one that was probably meant.

    Args:
      key: The key as it was written.
      known: The keys that exist beside it.
      prefix: Path of the nested configuration that it was looked for in, such as "wandb.".
    """
    known = sorted(map(str, known))
    plain = str(key).lower().replace("-", "_")
    message = f"Unknown config key {prefix + str(key)!r}. "
    if plain in FOREIGN_NAMES and FOREIGN_NAMES[plain][1] in known:
        framework, ours, note = FOREIGN_NAMES[plain]
        message += f"That is {framework}'s name; here" if framework else "Here"
        message += f" it is called {ours!r}" + (f": {note}." if note else ".")
    elif close := difflib.get_close_matches(plain, known, n=1):
        message += f"Did you mean {prefix + close[0]!r}?"
    else:
        message += "Known keys: " + ", ".join(prefix + name for name in known) + "."
    return UnknownKeyError(message)
