"""Transposed weights: the same work of a job, whatever is done to them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fljax.core.algorithm import Aggregate
from fljax.core.trees import all_finite
from fljax.engine.program.accumulators import Finished
from fljax.engine.program.layout import Work, transposed_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


def _proximal(message, carry, x, y):
    gradients = jax.grad(_loss)(carry, x, y)
    return jax.tree.map(lambda w, g, s: w - 0.1 * (g + 0.3 * (w - s)), carry, gradients, message)


def _through_other_operations(carry, x, y):
    carry = _sgd(carry, x, y)
    narrow = jnp.sort(carry["narrow"], axis=0) + carry["narrow"].sum(1, keepdims=True)
    return carry | {"narrow": narrow * jnp.where(carry["narrow"] > 0, 1.0, 0.5)}


def _velocity(params):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9)).init(params)


def _clipped(message, params):
    update = jax.tree.map(lambda old, new: old - new, message, params)
    norm = optax.tree.norm(update)
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(1, norm), update)


def _work(step, start=lambda message: message, params_of=lambda carry: carry, weight=2.0):
    def finish(message, carry, index, rows):
        update = _clipped(message, params_of(carry))
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(update)])
        stats = {"first": flat[0], "last": flat[-1]}
        return Finished({"update": update}, {"update": weight}, (), stats, all_finite(update))

    return Work(
        start=lambda message, index, rows: start(message),
        step=lambda message, carry, index, x, y: step(message, carry, x * (1 + index), y),
        finish=finish,
    )


def _mask():
    return jax.tree.map(lambda leaf: (leaf > 0).astype(leaf.dtype), _params())


CASES = {
    "sgd": lambda: _work(lambda message, *rest: _sgd(*rest)),
    "momentum": lambda: _work(
        lambda message, *rest: _momentum(*rest), lambda p: (p, _velocity(p)), lambda carry: carry[0]
    ),
    "proximal": lambda: _work(_proximal),
    "other operations": lambda: _work(lambda message, *rest: _through_other_operations(*rest)),
    "a start from elsewhere": lambda: _work(
        lambda message, *rest: _sgd(*rest), lambda message: jax.tree.map(jnp.cos, message)
    ),
    "a weight an entry": lambda: _work(lambda message, *rest: _sgd(*rest), weight=_mask()),
}


def _run(work, message, index, x, y):
    carry = work.start(message, index, ())
    for _ in range(_STEPS):
        carry = work.step(message, carry, index, x, y)
    return carry, work.finish(message, carry, index, ())


@functools.cache
def _finished_of_each_lane(name):
    """Returns what the work as it was written finishes with, for three jobs."""
    work, message = CASES[name](), _params()
    one = jax.jit(lambda index: _run(work, message, index, *_data())[1])
    return [one(jnp.int32(lane)) for lane in range(3)]


@pytest.mark.parametrize(("lanes", "summed"), [(1, False), (3, True)])
@pytest.mark.parametrize("name", CASES)
def test_the_rewritten_work_computes_the_same(name, lanes, summed):
    with jax.enable_x64(True):
        work, message = CASES[name](), _params()
        x, y = _data()
        layout = transposed_weights(work, message, (), (jnp.int32(0), x, y), summed)
        trials = jax.tree.map(lambda leaf: leaf[None], message)
        packed = jax.tree.map(lambda leaf: leaf[0], layout.pack(trials))
        run = jax.jit(jax.vmap(lambda index: _run(layout.work, packed, index, x, y)))
        carry, finished = run(jnp.arange(lanes, dtype=jnp.int32))

        shapes = {leaf.shape[1:] for leaf in jax.tree.leaves(carry)}
        assert (10, 40) in shapes and (40, 10) not in shapes
        moves = summed and name != "a weight an entry"
        assert finished.values["update"]["narrow"].shape[1:] == ((10, 40) if moves else (40, 10))
        sums = {"update": Aggregate(finished.values["update"], 1.0, 1.0)}
        updates = layout.unpack(sums)["update"].sum
        for lane in range(lanes):
            expected = _finished_of_each_lane(name)[lane]
            everything = finished._replace(values={"update": updates})
            own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], everything)
            for got, want in zip(jax.tree.leaves(own), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def test_only_narrow_weights_of_products_are_transposed():
    x, y = _data()
    message = _params() | {"table": jnp.ones((64, 10))}
    work = _work(lambda message, carry, x, y: carry | _sgd(carry, x, y))
    packed = transposed_weights(work, message, (), (jnp.int32(0), x, y), True).pack(message)
    shapes = {name: leaf.shape for name, leaf in packed.items()}
    assert shapes == {"wide": (48, 40), "narrow": (10, 40), "bias": (10,), "table": (64, 10)}


def test_work_without_products_stays_as_it_is():
    x, y = _data()
    message = {"table": jnp.ones((64, 8))}
    work = _work(lambda message, carry, x, y: jax.tree.map(lambda leaf: leaf * 0.5, carry))
    assert transposed_weights(work, message, (), (jnp.int32(0), x, y), True).work is work


def test_work_without_narrow_weights_is_not_even_traced():
    def refuse(*_):
        raise AssertionError("traced")

    x, y = _data()
    message = {name: leaf for name, leaf in _params().items() if name != "narrow"}
    work = _work(refuse)._replace(finish=refuse)
    assert transposed_weights(work, message, (), (jnp.int32(0), x, y), True).work is work


def test_a_step_that_returns_something_else_is_left_to_the_loop():
    x, y = _data()
    message = _params()
    work = _work(lambda message, carry, x, y: {"other": carry["narrow"]})
    assert transposed_weights(work, message, (), (jnp.int32(0), x, y), True).work is work
