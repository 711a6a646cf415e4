"""Small models and batches, shared by the tests of tasks and networks."""

from functools import partial

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fljax import tasks

FEATURES, CLASSES = 5, 7
KEY = jax.random.key(0)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


class Net(nnx.Module):
    """Dropout and BatchNorm; the latter takes the mask, so padding rows do not count."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(FEATURES, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x, mask=None):
        x = self.norm(self.dense(x), mask=None if mask is None else mask[:, None])
        return self.out(self.dropout(nnx.relu(x)))


class MaskedNorm(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(FEATURES, rngs=rngs)
        self.out = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, x, mask):
        return self.out(self.norm(x, mask=mask[:, None]))


class PlainNorm(MaskedNorm):
    def __call__(self, x):
        return self.out(self.norm(x))


class LinenNet(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x, train):
        x = flax.linen.BatchNorm(use_running_average=not train)(x)
        x = flax.linen.Dropout(0.5, deterministic=not train)(x)
        return flax.linen.Dense(CLASSES)(x)


def examples(rows=6, seed=0, features=FEATURES, dtype=np.float32):
    generator = np.random.default_rng(seed)
    return {
        "x": generator.standard_normal((rows, features)).astype(dtype),
        "y": generator.integers(0, CLASSES, rows).astype(np.int32),
        "mask": np.ones(rows, bool),
    }


def with_padding(batch, rows=2):
    """Appends rows of NaN whose labels do not exist."""
    return {
        "x": np.concatenate([batch["x"], np.full_like(batch["x"][:rows], np.nan)]),
        "y": np.concatenate([batch["y"], np.full_like(batch["y"][:rows], 10**6)]),
        "mask": np.concatenate([batch["mask"], np.zeros(rows, bool)]),
    }


def mean_loss(task, params, frozen, state, batch, key=KEY, train=True):
    (value, weight), new_state = task.loss(params, frozen, state, batch, key, train)
    return value.sum() / jnp.maximum(weight.sum(), 1), new_state


def gradient(task, params, frozen, state, batch, key=KEY):
    loss = partial(mean_loss, task)
    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=5)
    return compiled(params, frozen, state, batch, key, True)


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def no_parameters(key):
    return {}


def linear_task(loss_fn=None):
    network = tasks.from_functions(lambda key: random_linear(), linear)
    return tasks.classification(network, CLASSES, loss_fn=loss_fn)


def random_linear(dtype=np.float32):
    generator = np.random.default_rng(1)
    return {
        "kernel": jnp.asarray(generator.standard_normal((FEATURES, CLASSES)).astype(dtype)),
        "bias": jnp.asarray(generator.standard_normal(CLASSES).astype(dtype)),
    }
