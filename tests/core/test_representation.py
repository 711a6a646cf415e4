"""Inputs of a model's last layer, and which parameters are that layer's, of any model."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import CLASSES, FEATURES, KEY, LinenNet, Net, close, examples

from fljax import models, tasks
from fljax.core.gradients import bind
from fljax.core.trees import leaf_paths

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Norm(nnx.Module):
    """A convolution, a normalization, a scan over positions, and a head behind all of it."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3,), rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.cell = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = jnp.moveaxis(self.norm(self.conv(x[..., None])), 1, 0)
        kernel = self.cell.kernel[...]
        state, _ = jax.lax.scan(lambda h, x: (jnp.tanh(h @ kernel + x), None), x[0] * 0, x)
        return jax.checkpoint(jax.jit(lambda h: self.out(h) / jnp.float32(3)))(nnx.gelu(state))


def plain(apply, **shapes):
    """Returns a model of plain functions whose parameters are normal numbers."""
    keys = jax.random.split(KEY, len(shapes))
    init = lambda key: {  # noqa: E731
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return tasks.from_functions(init, apply)


def bound(model, batch, **options):
    task = tasks.classification(model, CLASSES)
    params, frozen, state = task.init(KEY)
    return bind(task, frozen, like=batch, **options), params, state


def head_paths(model, batch):
    local, params, state = bound(model, batch)
    leaves = zip(leaf_paths(params), jax.tree.leaves(local.head(params, state)), strict=True)
    return {path for path, is_head in leaves if is_head}


def residual(params, x):
    hidden = jnp.tanh(x @ params["a"])
    hidden = hidden + jnp.tanh(hidden @ params["b"])
    return (params["out"] @ hidden.T).T * params["scale"] + params["bias"]


def gated(params, x):
    hidden = jnp.tanh(x @ params["a"])
    return jax.nn.sigmoid(hidden @ params["gate"]) * (hidden @ params["out"])


MODELS = {
    "mlp": (models.mlp((FEATURES, 4, CLASSES)), {"layers/1/kernel", "layers/1/bias"}),
    "softmax": (
        models.softmax_regression(FEATURES, CLASSES),
        {"layers/0/kernel", "layers/0/bias"},
    ),
    "batch norm and dropout": (Net, {"out/kernel", "out/bias"}),
    "convolution, scan, remat": (Norm, {"out/kernel", "out/bias"}),
    "linen": (
        tasks.from_linen(LinenNet(), jnp.zeros((1, FEATURES))),
        {"Dense_0/kernel", "Dense_0/bias"},
    ),
    "residual": (
        plain(residual, a=(FEATURES, 3), b=(3, 3), out=(CLASSES, 3), scale=(), bias=(CLASSES,)),
        {"out", "scale", "bias"},
    ),
    "gated": (
        plain(gated, a=(FEATURES, 3), gate=(3, CLASSES), out=(3, CLASSES)),
        {"gate", "out"},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_what_is_read_behind_the_representation(name):
    model, head = MODELS[name]
    batch = examples()
    assert head_paths(model, batch) == head
    local, params, state = bound(model, batch)
    represent = jax.jit(local.representation, static_argnums=4)
    found, sums, new_state = represent(params, state, batch, KEY, True)
    expected, expected_state = jax.jit(local.loss, static_argnums=4)(
        params, state, batch, KEY, True
    )
    jax.tree.map(close, (sums, new_state), (expected, expected_state))
    assert len(found) == len(batch["y"])
    # all of the model but its head has a gradient in it, and no head has
    gradient = jax.jit(
        jax.grad(lambda params: (represent(params, state, batch, KEY, True)[0] ** 2).sum())
    )(params)
    moved = {
        path
        for path, leaf in zip(leaf_paths(params), jax.tree.leaves(gradient), strict=True)
        if np.abs(leaf).max() > 0
    }
    # what stands before a normalization of the batch as a bias has none
    assert moved.isdisjoint(head) and moved | head >= set(leaf_paths(params)) - {"dense/bias"}


def test_it_is_what_the_layers_before_make_of_the_rows():
    batch = examples()
    local, params, state = bound(models.mlp((FEATURES, 4, CLASSES)), batch)
    represent = jax.jit(lambda batch: local.representation(params, state, batch, None, False)[0])
    found = represent(batch)
    first = params["layers"]["0"]
    expected = np.maximum(batch["x"] @ first["kernel"] + first["bias"], 0)
    close(found, expected)
    side_by_side = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), batch)
    close(jax.vmap(represent)(side_by_side), np.stack([expected, expected[::-1]]))
    lower, *_ = bound(models.mlp((FEATURES, 4, CLASSES)), batch, compute_dtype="bfloat16")
    rounded = jax.jit(lambda: lower.representation(params, state, batch, None, False)[0])()
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, expected, rtol=0.05, atol=0.02)


def test_a_position_of_a_text_has_its_own():
    batch = examples() | {"x": np.ones((6, 3), np.int32), "y": np.ones((6, 3), np.int32)}
    task = tasks.next_token(models.char_lstm(CLASSES, hidden=4, layers=1), CLASSES)
    params, frozen, state = task.init(KEY)
    local = bind(task, frozen, like=batch)
    represent = lambda: local.representation(params, state, batch, None, False)[0]  # noqa: E731
    assert jax.eval_shape(represent).shape == (6, 3, 4)
    head = local.head(params, state)
    assert head["dense"] == {"kernel": True, "bias": True} and not any(
        jax.tree.leaves(head | {"dense": {}})
    )


def test_penalties_of_the_loss_are_no_layer():
    def loss_of(params, frozen, model_state, batch, key, train):
        found, model_state = task.loss(params, frozen, model_state, batch, key, train)
        penalty = sum((leaf**2).sum() for leaf in jax.tree.leaves(params))
        return (found[0] + penalty, found[1]), model_state

    batch = examples()
    task = tasks.classification(models.mlp((FEATURES, 4, CLASSES)), CLASSES)
    params, frozen, state = task.init(KEY)
    head = bind(task._replace(loss=loss_of), frozen, like=batch).head(params, state)
    assert head["layers"]["1"] == {"kernel": True, "bias": True}
    assert not any(jax.tree.leaves(head["layers"]["0"]))


class Looped(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(CLASSES, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = jnp.pad(x, ((0, 0), (0, CLASSES - FEATURES)))
        return jax.lax.fori_loop(0, 3, lambda _, x: self.layer(x), x)


class Tied(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        kernel = self.param("kernel", flax.linen.initializers.normal(), (FEATURES, CLASSES))
        return jnp.tanh(x @ kernel) @ kernel.T @ kernel


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Looped, r"inside a loop or branch of the model \((scan|while)\).*Put the last layer"),
        (
            tasks.from_linen(Tied(), jnp.zeros((1, FEATURES))),
            "last product is with kernel, which the layers before it read as well.*paths",
        ),
        (
            plain(lambda params, x: jnp.pad(x * params["a"], ((0, 0), (0, 2))), a=(FEATURES,)),
            "no parameters are multiplied, as a matrix or kernel",
        ),
    ],
)
def test_models_without_a_last_layer_are_refused_with_the_reason(model, said):
    with pytest.raises(ValueError, match=f"no last layer that reads a representation.*{said}"):
        head_paths(model, examples())


def test_shapes_of_the_data_are_needed():
    local, params, state = bound(models.softmax_regression(FEATURES, CLASSES), None)
    with pytest.raises(ValueError, match="with the shapes of a batch"):
        local.head(params, state)
