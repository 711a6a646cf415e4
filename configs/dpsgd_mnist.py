"""DP-SGD on MNIST as Opacus publishes it, with one client that has all rows.

Opacus' examples/mnist.py and the figures of its README: a small CNN, plain SGD, each of 60,000
images in a batch with probability 0.004 (Poisson, 240 on average), delta 1e-5; a round here is an
epoch of 250 steps. `:epsilon_1` is noise 1.3, norm 1.5, rate 0.25, 15 epochs; `:epsilon_3` is noise
1.1, norm 1.0, rate 0.15, 60 epochs.
Costs: 8 CPU seconds an epoch.
Reaches: beside Opacus' figures in BENCHMARKS.md.
"""

import jax.numpy as jnp
from flax import nnx

from fljax.config import check_setting, default_config
from fljax.models import pytorch_init

ROWS = {"epsilon_1": (1.3, 1.5, 0.25, 15), "epsilon_3": (1.1, 1.0, 0.15, 60)}


def get_config(row="epsilon_1"):
    check_setting(row, ROWS)
    noise_multiplier, clip_norm, client_lr, num_rounds = ROWS[row]
    config = default_config()
    config.dataset = "mnist"
    config.partition = "iid"
    config.num_clients = 1
    config.clients_per_round = 1
    config.model = "dpsgd_mnist:opacus_cnn"
    config.batches = "poisson"
    config.batch_size = 240
    config.local_steps = 250
    config.num_rounds = num_rounds
    config.client_lr = client_lr
    config.privacy = "dpsgd"
    config.clip_norm = clip_norm
    config.noise_multiplier = noise_multiplier
    config.delta = 1e-5
    config.eval_every = 5
    # a second device would have nothing to do
    config.devices = 1
    return config


def opacus_cnn():
    """Returns the model of Opacus' MNIST example: 26,010 parameters, PyTorch's first values."""
    return lambda rngs: OpacusCNN(rngs)


class OpacusCNN(nnx.Module):
    """Convolutions of 16 and 32 filters, each pooled with stride 1, then 32 hidden units."""

    def __init__(self, rngs):
        def layer(inputs):
            return {**pytorch_init(inputs), "rngs": rngs}

        self.conv1 = nnx.Conv(1, 16, (8, 8), strides=2, padding=((3, 3), (3, 3)), **layer(64))
        self.conv2 = nnx.Conv(16, 32, (4, 4), strides=2, padding="VALID", **layer(256))
        self.dense1 = nnx.Linear(512, 32, **layer(512))
        self.dense2 = nnx.Linear(32, 10, **layer(32))

    def __call__(self, x):
        x = _pooled(nnx.relu(self.conv1(x)))
        x = _pooled(nnx.relu(self.conv2(x)))
        return self.dense2(nnx.relu(self.dense1(x.reshape(x.shape[0], -1))))


def _pooled(x):
    """Returns the maxima of squares of 2 x 2 that lie one pixel apart."""
    x = jnp.maximum(x[:, :-1], x[:, 1:])
    return jnp.maximum(x[:, :, :-1], x[:, :, 1:])
