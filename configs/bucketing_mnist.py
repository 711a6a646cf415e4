"""Attacks and robust rules on clients of sorted labels (Karimireddy et al. 2022, arXiv:2006.09365).

MNIST, 25 clients, of whom 20 are honest and hold 2,850 rows each in the order of labels, and 5 are
hostile and hold 600 rows of all labels each. Each of 600 rounds is one step of SGD 0.01 on 32 rows
of every client. The rules see gradients times the rate: the paper's tau = 10 and smoothing 0.1 are
a hundredth here. Settings, behind a colon:

    plain       no momentum, no bucketing (the default)
    bucketing   buckets of two clients before each rule
    momentum    the same, and worker momentum 0.9, as the official code has it: not damped, and none
                for hostile clients that do not collude

For `fljax study`: four rules under five attacks. Published, as the mean of the last ten of 20
evaluations (of the logs in github.com/epfml/byzantine-robust-noniid-optimizer): see BENCHMARKS.md.

Costs: 480,000 examples a run, about 72 MFLOP each: 10 minutes of one CPU core.
Reaches: see BENCHMARKS.md.
"""

import numpy as np

from fljax.config import check_setting, default_config
from fljax.data import Partition

RULES = (
    "krum(5)",
    "median",
    "rfa(iterations=8, smoothing=0.001, tolerance=0.0)",
    "centered_clipping(0.1, 3)",
)
ATTACKS = ("sign_flip", "label_flip", "mimic", "ipm(0.1)", "alie(ddof=1)")
HONEST, HOSTILE = 20, 5


def sorted_labels(labels, num_clients, seed):
    """Gives hostile clients a twentieth of the rows, and honest ones the others in label order."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    hostile, honest = np.split(rows, [len(rows) // HONEST])
    honest = honest[np.argsort(labels[honest], kind="stable")]
    held = [*np.array_split(honest, HONEST), *np.array_split(hostile, num_clients - HONEST)]
    return Partition(np.cumsum([0, *map(len, held)]), np.concatenate(held))


def get_config(setting="plain"):
    check_setting(setting, ("plain", "bucketing", "momentum"))
    config = default_config()
    config.dataset = "mnist"
    config.num_clients = HONEST + HOSTILE
    config.partition = "bucketing_mnist:sorted_labels"
    config.model = "emnist_cnn"
    config.clients_per_round = HONEST + HOSTILE
    config.weighting = "uniform"
    config.local_steps = 1
    config.batch_size = 32
    config.client_lr = 0.01
    config.num_rounds = 600
    config.eval_every = 30
    config.attack = "none"
    config.attacker_clients = "20-24"
    if setting == "momentum":
        config.worker_momentum = 0.9
        config.worker_dampened = False
        config.attacker_momentum = False
    return config


def get_study(setting="plain"):
    before = "" if setting == "plain" else "bucketing(2), "
    return {"axes": {"aggregator": [before + rule for rule in RULES], "attack": list(ATTACKS)}}
