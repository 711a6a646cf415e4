"""Attacks and robust rules on clients of sorted labels (Karimireddy et al. 2022, arXiv:2006.09365).

MNIST, 25 clients, of whom 20 are honest and hold 2,850 rows each in the order of labels, and 5 are
hostile and hold 600 rows of all labels each. Each of 600 rounds is one step of SGD 0.01 on 32 rows
of every client. The rules see gradients times minus the rate: the paper's tau = 10 and smoothing
0.1 are a hundredth here, and ALIE is that of gradients. Settings, behind a colon:

    plain       no momentum, no bucketing (the default)
    bucketing   buckets of two clients before each rule
    momentum    the same, and worker momentum 0.9, as the official code has it: not damped, and none
                for hostile clients that do not collude

As the official code has it, too: dropout drops the same units of the i-th row of a batch for all
clients in all steps, since the simulator there gives the random state back after each client; each
seed has other masks (with those of each client's own, `--config.model_options.shared_masks=False`,
results are much the same);
Krum squares squared distances (`official_krum`; `--config.aggregator='krum(5)'` is Krum).

For `fljax study`: four rules under five attacks. Published, as the mean of the last ten of 20
evaluations (of the logs in github.com/epfml/byzantine-robust-noniid-optimizer): see BENCHMARKS.md.

Costs: 480,000 examples a run, about 72 MFLOP each: 4 minutes of one CPU core.
Reaches: centered clipping with momentum 96.8 to 97.4 % under all five attacks; see BENCHMARKS.md.
"""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fljax.config import check_setting, default_config
from fljax.data import Partition
from fljax.models import pytorch_init
from fljax.robustness.aggregators.krum import krum, krum_scores, nearest_first
from fljax.robustness.reports import rejections
from fljax.robustness.stacks import square_distances
from fljax_kernels import max_pool

RULES = (
    "bucketing_mnist:official_krum(5)",
    "median",
    "rfa(iterations=8, smoothing=0.001, tolerance=0.0, start='zero')",
    "centered_clipping(0.1, 3)",
)
ATTACKS = ("sign_flip", "label_flip", "mimic", "ipm(0.1)", "alie(ddof=1, of='gradients')")
HONEST, HOSTILE = 20, 5
BATCH = 32


def sorted_labels(labels, num_clients, seed):
    """Gives hostile clients a twentieth of the rows, and honest ones the others in label order."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    hostile, honest = np.split(rows, [len(rows) // HONEST])
    honest = honest[np.argsort(labels[honest], kind="stable")]
    held = [*np.array_split(honest, HONEST), *np.array_split(hostile, num_clients - HONEST)]
    return Partition(np.cumsum([0, *map(len, held)]), np.concatenate(held))


def official_krum(f):
    """Returns the official Krum, whose scores are sums of fourth powers of distances.

    Args:
      f: The number of updates that may be hostile.
    """

    def apply(stack, cohort, state):
        distances = square_distances(stack, cohort)
        there = cohort.valid & jnp.isfinite(jnp.diagonal(distances))
        scores = krum_scores(nearest_first(distances**2), there, f)
        kept = (jnp.arange(len(scores)) == jnp.argmin(scores)) & there
        return stack[jnp.argmin(scores)], state, rejections(kept, cohort)

    return krum(f)._replace(apply=apply)


def official_cnn(shared_masks=True, mask_seed=0):
    """Returns the official model, PyTorch's example of MNIST without the second ReLU.

    Args:
      shared_masks: Whether dropout drops the same units for all clients in all steps.
      mask_seed: Of the masks that are shared; that of the run.
    """
    dropout = functools.partial(SharedDropout, mask_seed) if shared_masks else nnx.Dropout
    return lambda rngs: OfficialCNN(dropout, rngs)


class OfficialCNN(nnx.Module):
    """3x3 convolutions of 32 and 64 filters, pooled once, dropped whole, then 128 hidden units."""

    def __init__(self, dropout, rngs):
        def layer(inputs):
            return {**pytorch_init(inputs), "rngs": rngs}

        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", **layer(9))
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", **layer(288))
        self.dropout1 = dropout(0.25, broadcast_dims=(1, 2), rngs=rngs)
        self.dense1 = nnx.Linear(9216, 128, **layer(9216))
        self.dropout2 = dropout(0.5, rngs=rngs)
        self.dense2 = nnx.Linear(128, 10, **layer(128))

    def __call__(self, x):
        x = self.conv2(nnx.relu(self.conv1(x)))
        x = self.dropout1(max_pool(x))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(self.dropout2(x))


class SharedDropout(nnx.Dropout):
    """Dropout with one mask for all clients and steps, whose rows differ."""

    def __init__(self, mask_seed, *args, **options):
        super().__init__(*args, **options)
        self.mask_seed = mask_seed

    def __call__(self, x):
        if self.deterministic:
            return x
        kept = 1 - self.rate
        units = x.shape[-1]
        mask = np.random.default_rng(units + self.mask_seed).random((BATCH, units)) < kept
        mask = (mask / kept).astype(np.float32)[: len(x)]
        return x * mask.reshape(len(x), *(1,) * (x.ndim - 2), units)


def get_config(setting="plain"):
    check_setting(setting, ("plain", "bucketing", "momentum"))
    config = default_config()
    config.dataset = "mnist"
    config.num_clients = HONEST + HOSTILE
    config.partition = "bucketing_mnist:sorted_labels"
    mask_seed = config.get_ref("seed").to_str()
    config.model = "bucketing_mnist:official_cnn(mask_seed=" + mask_seed + ")"
    config.clients_per_round = HONEST + HOSTILE
    config.weighting = "uniform"
    config.local_steps = 1
    config.batch_size = BATCH
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
