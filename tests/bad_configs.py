"""Bad inputs through configurations: from keys to the parts of an experiment."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Any

from bad_inputs import TEXTS, WRONG, Case, changes, same

from fljax.config import resolve
from fljax.config.experiment import make_dataset, make_experiment
from fljax.config.schema import FIELDS

BASE = {"num_clients": 20, "clients_per_round": 4, "num_rounds": 3, "partition": "iid"}
DATA_KEYS = (
    *("dataset", "partition", "num_clients", "data_dir", "data_seed", "val_fraction"),
    *("own_test_fraction", "rows_per_client", "feature_skew", "held_out_fraction"),
    *("concept_shift", "label_noise", "held_out_folds", "held_out_fold", "concept_drift"),
)
# What else an option may wrongly be, besides values of wrong kinds.
POOL: dict[str, tuple[Any, ...]] = {
    "uplink": TEXTS,
    "downlink": TEXTS,
    "uplink_memory": TEXTS,
    "downlink_memory": TEXTS,
    "model": ("mlp", "emnist_cnn", "char_lstm", "resnet18_gn", "cnn", "MLP"),
    "model_options": (
        {"hidden": 5}, {"hidden": "ab"}, {"hidden": [0]}, {"hidden": [-1]}, {"hidden": [1.5]},
        {"hidden": None}, {"hidden": [[3]]}, {"hiden": [3]}, {"num_classes": 3}, {"width": 3},
        {"input_shape": (3,)}, {"conv_form": "fast"}, {"hidden": {}}, {"hidden": [2**70]}, {"": 1},
        {"rngs": 1}, {"layers": 0},
    ),
    "dataset_options": (
        {"seed": 1}, {"partition": "iid"}, {"num_clients": 3}, {"val_fraction": 0.5}, {"alpha": 1},
        {"data_dir": "x"}, {"test_fraction": 2}, {"test_fraction": "a"}, {"test_fraction": None},
        {"split_seed": -1}, {"split_seed": "a"}, {"split_seed": 1.5}, {"self_balancing": 3},
        {"name": "x"}, {"kind": "y"}, {"labels": [1]}, {"client_ids": [1]}, {"clients": {}},
        {"x": 1}, {"num_classes": 2}, {"min_partition_size": "a"}, {"sigma": -1},
    ),
    "partition": ("natural", "dirichlet", "shards", "quantity", "classes_per_client", "IID"),
    "dataset": ("mnits", "synthetic", "digit", "mnist_writers"),
    "algorithm": ("fedopt", "fedsgd", "scaffold", "fedprox", "FedAvg"),
    "client_lr_schedule": ("cosine", "step", "exponential", "linear"),
    "server_lr_schedule": ("cosine", "step", "exponential", "linear"),
}  # fmt: skip
PAIRED = {  # what makes a key count
    "mu": {"algorithm": "fedprox"},
    "tau": {"server_optimizer": "adam"},
    "beta1": {"server_optimizer": "adam"},
    "beta2": {"server_optimizer": "yogi"},
    "bias_correction": {"server_optimizer": "adam"},
    "server_momentum": {"server_optimizer": "momentum"},
    "alpha": {"partition": "dirichlet"},
    "sigma": {"partition": "quantity"},
    "shards_per_client": {"partition": "shards"},
    "classes_per_client": {"partition": "classes_per_client"},
    "model_options": {"model": "mlp"},
    "uplink_memory": {"uplink": "top_k(0.1)"},
    "downlink_memory": {"downlink": "top_k(0.1)"},
    "client_lr_decay_rounds": {"client_lr_schedule": "step", "client_lr_decay_rate": 0.5},
    "client_lr_decay_rate": {"client_lr_schedule": "exponential"},
    "server_lr_decay_rounds": {"server_lr_schedule": "cosine"},
    "client_lr_warmup_rounds": {"client_lr_schedule": "cosine"},
    "stop_at_target": {"target_accuracy": 0.5},
}


@functools.cache
def _digits():
    return make_dataset(resolve(BASE))


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yields so many configurations with one or two wrong values, or a wrong name."""
    generator = random.Random(seed)
    names = [name for name in FIELDS if name not in ("wandb", "mlflow")]
    for _ in range(count):
        if generator.random() < 0.03:
            changed = {"wandb": generator.choice((*WRONG, {"mode": 3}, {"mod": "offline"}))}
        else:
            changed = changes(generator, names, POOL)
        around = {} if generator.random() < 0.2 else _around(changed)
        given = BASE | around | changed
        yield Case(
            "config", changed, functools.partial(_made, given), functools.partial(_other, changed)
        )


def _around(changed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in changed:
        found |= PAIRED.get(name, {})
    return found


def _made(given: dict[str, Any]):
    resolved = resolve(given)
    own = any(
        given.get(key, FIELDS[key].default) != BASE.get(key, FIELDS[key].default)
        for key in FIELDS
        if key in DATA_KEYS or key in ("alpha", "sigma", "dataset_options")
    )
    experiment = make_experiment(resolved, None if own else _digits())
    return resolved, experiment


def _other(changed: dict[str, Any], made) -> dict[str, tuple[Any, Any]]:
    """Returns {key: (given, resolved)} of values that are not what was given."""
    resolved, experiment = made
    found = {}
    for name, value in changed.items():
        if name == "wandb" or value is None:
            continue
        now = experiment.hparams.get(name, resolved[name])
        if hasattr(now, "to_dict"):
            now = now.to_dict()
        # 0 or "", and None; 0 is a period that the schedule knows
        unset = not value and (not now or name.endswith("_lr_decay_rounds"))
        if not (unset or same(value, now) or tuple([value]) == now or value == now):
            found[name] = (value, now)
    return found
