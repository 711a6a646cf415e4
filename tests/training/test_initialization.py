"""A model's initialization is one program, and its numbers are those of single operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from fljax import models, tasks
from fljax.training import initialization
from fljax.training.initialization import initialized


class Odd(nnx.Module):
    """Odd shapes under the field's initializers."""

    def __init__(self, rngs):
        named = nnx.initializers
        self.conv = nnx.Conv(3, 5, (3, 1), kernel_init=named.he_normal(), rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dense = nnx.Linear(7, 1, rngs=rngs)
        self.out = nnx.Linear(1, 33, kernel_init=named.xavier_uniform(), rngs=rngs)

    def __call__(self, x):
        return x


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.gelu(linen.Dense(9, kernel_init=linen.initializers.he_normal())(x))
        return linen.LayerNorm()(x)


def plain(key):
    return {"w": jax.random.normal(key, (17,)) / 3}


@pytest.mark.parametrize(
    "model",
    [
        models.make("mlp", 3, (13,), hidden=(5,)),
        Odd,
        tasks.from_linen(Linen(), np.ones((2, 6), np.float32)),
        (plain, lambda params, x: x),
    ],
    ids=["mlp", "nnx", "linen", "functions"],
)
def test_one_program_gives_the_same_bits_as_its_operations(model):
    init = tasks.classification(model, 3).init
    for seed in range(3):
        key = jax.random.key(seed)
        want, got = init(key), initialized(init, key)
        assert jax.tree.structure(got) == jax.tree.structure(want)
        for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert leaf.dtype == other.dtype
            np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other))


def test_models_made_anew_compile_once(monkeypatch):
    monkeypatch.setattr(initialization, "_programs", {})
    compiled = []
    listen = lambda event, seconds, **_: compiled.append(event)  # noqa: E731
    make = lambda: tasks.classification(models.make("mlp", 3, (11,), hidden=(4,)), 3).init  # noqa: E731
    keys = [jax.random.key(seed) for seed in range(3)]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for key in keys:
            initialized(make(), key)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled.count("/jax/core/compile/backend_compile_duration") == 1


def test_what_lies_on_the_host_stays_out_of_programs(monkeypatch):
    monkeypatch.setattr(initialization, "_programs", {})
    weights = jnp.arange(1 << 19, dtype=jnp.float32)
    assert initialized(lambda key: {"w": weights}, jax.random.key(0))["w"] is weights
    drawn = initialized(lambda key: np.asarray(jax.random.normal(key, (4,))), jax.random.key(0))
    np.testing.assert_array_equal(drawn, jax.random.normal(jax.random.key(0), (4,)))
    assert not initialization._programs
