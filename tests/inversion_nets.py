"""Small sigmoid networks for reconstructions: losses of their rows, and digits of 8 x 8 pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

HIDDEN = 32


def digits(count: int) -> tuple[jax.Array, jax.Array]:
    """Returns x float32[count, 8, 8] in [0, 1] and y int32[count]."""
    found = load_digits()
    x = found.images[:count] / 16
    return jnp.asarray(x, jnp.float32), jnp.asarray(found.target[:count], jnp.int32)


def dense(seed: int = 0, inputs: int = 64, classes: int = 10) -> dict[str, jax.Array]:
    """Returns parameters of a network of one hidden layer, uniform in (-0.5, 0.5) as DLG's are."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (inputs, HIDDEN), "b": (HIDDEN,), "v": (HIDDEN, classes), "c": (classes,)}
    return {
        name: jnp.asarray(rng.uniform(-0.5, 0.5, shape), jnp.float32)
        for name, shape in shapes.items()
    }


def losses(params, x, y):
    """Returns float32[B], the cross entropy of each row."""
    hidden = jax.nn.sigmoid(x.reshape(len(x), -1) @ params["w"] + params["b"])
    log_p = jax.nn.log_softmax(hidden @ params["v"] + params["c"])
    return -jnp.take_along_axis(log_p, y[:, None], 1)[:, 0]


def head(sent):
    """Returns the gradient of the last layer."""
    return sent["v"], sent["c"]
