"""Low-rank adapters against full fine-tuning: a small transformer on Shakespeare, a study.

Half of the 715 speaking roles train a GPT of 105,856 parameters; the other half, which it has not
seen, adapt it together, all weights or adapters alone. Two commands:

    fljax run lora_shakespeare:base --workdir=runs/base \\
        --export=runs/base.safetensors
    fljax study lora_shakespeare --workdir=runs/lora

The study needs the file of the first command, runs/base.safetensors; its round 0 is the base as it
is. More rounds: --config.num_rounds=400 of both.
Costs: 22,000 sequences for the base and 10,000 for each variant, three minutes of a core in all.
Reaches: 39.3 % with all weights, 39.8 % with adapters of rank 8 for a sixth of the bytes;
BENCHMARKS.md.
"""

import dataclasses

import numpy as np
import optax

from fljax import data
from fljax.algorithms import fedavg
from fljax.config import check_setting, default_config
from fljax.data.dataset import Split
from fljax.studies import Criterion

BASE = "runs/base.safetensors"


def roles(part, data_dir=None):
    """Returns Shakespeare of one half of the roles: "first" or "second"."""
    dataset = data.shakespeare(data_dir=data_dir)
    order = np.random.default_rng(0).permutation(dataset.num_clients)
    chosen = np.sort(order[: len(order) // 2] if part == "first" else order[len(order) // 2 :])

    def of(split):
        return Split(split.examples, split.partition.subset(chosen))

    ids = dataset.client_ids[chosen]
    return dataclasses.replace(
        dataset, train=of(dataset.train), test=of(dataset.test), client_ids=ids
    )


def local_adam(client_lr=0.01):
    """Returns FedAvg whose clients train with Adam, anew in each round."""
    return fedavg(client_lr, client_optimizer=lambda hparams: optax.adam(hparams["client_lr"]))


def get_config(setting="adapt"):
    check_setting(setting, ("adapt", "base"))
    config = default_config()
    config.dataset = f"lora_shakespeare:roles(part={'first' if setting == 'base' else 'second'!r})"
    # behind learned positions, attention finds nothing in so few rounds
    config.model = "gpt(layers=2, heads=4, width=64, positions='rotary')"
    config.clients_per_round = 10
    config.batch_size = 4
    config.algorithm = "lora_shakespeare:local_adam"
    config.client_lr = 0.01
    if setting == "base":
        config.num_rounds = 40
    else:
        config.init_from = BASE
        config.num_rounds = 15
    config.eval_every = 5
    return config


def get_study():
    return {
        "variants": {
            "all weights": {},
            "adapters, rank 8": {"adapters": "lora(rank=8)"},
            "adapters, rank 2": {"adapters": "lora(rank=2)"},
        },
        "reference": "all weights",
        "seeds": (0,),
        # nothing is chosen
        "criterion": Criterion(
            "eval/test/accuracy", "eval/test/accuracy", at="last", allow_test=True
        ),
    }
