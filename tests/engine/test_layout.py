"""Transposed weights: the same step, whatever is done to them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fljax.engine.layout import transposed_weights

_STEPS = 5


def _data():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((8, 48))
    return jnp.asarray(x), jnp.asarray(generator.integers(0, 10, 8))


def _params():
    generator = np.random.default_rng(1)
    make = lambda *shape: jnp.asarray(0.2 * generator.standard_normal(shape))  # noqa: E731
    return {"wide": make(48, 40), "narrow": make(40, 10), "bias": make(10)}


def _loss(params, x, y):
    logits = jax.nn.relu(x @ params["wide"]) @ params["narrow"] + params["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _sgd(carry, x, y):
    gradients = jax.grad(_loss)(carry, x, y)
    return jax.tree.map(lambda w, g: w - 0.1 * g, carry, gradients)


def _momentum(carry, x, y):
    params, velocity = carry
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9))
    updates, velocity = optimizer.update(jax.grad(_loss)(params, x, y), velocity, params)
    return optax.apply_updates(params, updates), velocity


def _proximal(carry, x, y):
    start = _params()
    gradients = jax.grad(_loss)(carry, x, y)
    return jax.tree.map(lambda w, g, s: w - 0.1 * (g + 0.3 * (w - s)), carry, gradients, start)


def _through_other_operations(carry, x, y):
    carry = _sgd(carry, x, y)
    narrow = jnp.sort(carry["narrow"], axis=0) + carry["narrow"].sum(1, keepdims=True)
    return carry | {"narrow": narrow * jnp.where(carry["narrow"] > 0, 1.0, 0.5)}


def _velocity(params):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9)).init(params)


CASES = {
    "sgd": (_sgd, lambda: _params()),
    "momentum": (_momentum, lambda: (_params(), _velocity(_params()))),
    "proximal": (_proximal, lambda: _params()),
    "other operations": (_through_other_operations, lambda: _params()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lanes", [1, 3])
def test_the_rewritten_step_computes_the_same(name, lanes):
    with jax.enable_x64(True):
        step, make = CASES[name]
        x, y = _data()
        carry = make()
        layout = transposed_weights(step, carry, x, y)
        packed = layout.pack(carry)
        shapes = {leaf.shape for leaf in jax.tree.leaves(packed)}
        assert (10, 40) in shapes and (40, 10) not in shapes
        one = jax.jit(layout.step)
        if lanes > 1:
            one = jax.jit(jax.vmap(layout.step, (0, 0, None)))
            packed = jax.tree.map(lambda leaf: jnp.stack([leaf] * lanes), packed)
            x = jnp.stack([x * (1 + lane) for lane in range(lanes)])
        for _ in range(_STEPS):
            packed = one(packed, x, y)
        for lane in range(lanes):
            mine, own = packed, x
            if lanes > 1:
                mine, own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], (packed, x))
            expected = carry
            for _ in range(_STEPS):
                expected = step(expected, own, y)
            for got, want in zip(
                jax.tree.leaves(layout.unpack(mine)), jax.tree.leaves(expected), strict=True
            ):
                np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def test_only_narrow_weights_of_products_are_transposed():
    x, y = _data()
    carry = _params() | {"table": jnp.ones((64, 10))}
    layout = transposed_weights(lambda carry, x, y: carry | _sgd(carry, x, y), carry, x, y)
    shapes = {name: leaf.shape for name, leaf in layout.pack(carry).items()}
    assert shapes == {"wide": (48, 40), "narrow": (10, 40), "bias": (10,), "table": (64, 10)}


def test_a_step_without_products_stays_as_it_is():
    step = lambda carry: carry * 0.5  # noqa: E731
    assert transposed_weights(step, jnp.ones((64, 8))).step is step
