"""Networks: NNX, linen and plain functions, taken apart into plain dicts."""

import warnings
from functools import partial

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import (
    CLASSES,
    FEATURES,
    KEY,
    LinenNet,
    Net,
    PlainNorm,
    close,
    examples,
    gradient,
    linear,
    linear_task,
    mean_loss,
    no_parameters,
    random_linear,
    with_padding,
)

from fljax import models, tasks
from fljax.core import network as networks

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_nnx_linen_and_plain_functions_agree():
    factory, batch = models.softmax_regression(FEATURES, CLASSES), examples()
    linen = tasks.from_linen(flax.linen.Dense(CLASSES), batch["x"])
    params = random_linear()
    plain = gradient(linear_task(), params, {}, {}, batch)
    nested = {"layers": {"0": params}}
    (loss, state), grads = gradient(tasks.classification(factory, CLASSES), nested, {}, {}, batch)
    jax.tree.map(close, ((loss, state), grads["layers"]["0"]), plain)
    jax.tree.map(
        close, gradient(tasks.classification(linen, CLASSES), params, {}, {}, batch), plain
    )


def test_variables_are_plain_dicts_with_text_keys():
    params, frozen, state = tasks.classification(Net, CLASSES).init(KEY)
    assert set(params) == {"dense", "norm", "out"} and frozen == {}
    assert set(state) == {"norm"} and set(state["norm"]) == {"mean", "var"}
    layers = tasks.classification(models.mlp((5, 3, 7)), CLASSES).init(KEY)[0]["layers"]
    assert list(layers) == ["0", "1"]
    for tree in (params, state, layers):
        assert all(
            type(key.key) is str for path, _ in jax.tree.leaves_with_path(tree) for key in path
        )


def test_init_depends_on_the_key_alone():
    task = tasks.classification(Net, CLASSES)
    first, again, other = (jax.jit(task.init)(jax.random.key(seed))[0] for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["out"]["kernel"] != other["out"]["kernel"]).all()
    # a module made by hand from the same key has the same parameters
    np.testing.assert_array_equal(
        Net(nnx.Rngs(jax.random.key(1))).out.kernel[...], first["out"]["kernel"]
    )


def test_a_module_instance_starts_from_copies_of_its_parameters():
    module = Net(nnx.Rngs(3))
    task = tasks.classification(module, CLASSES)
    params, frozen, state = task.init(KEY)
    np.testing.assert_array_equal(params["out"]["kernel"], module.out.kernel[...])
    gradient(task, params, frozen, state, examples())
    params["out"]["kernel"].delete()  # as donation does
    assert np.isfinite(module.out.kernel[...]).all()
    assert np.isfinite(task.init(jax.random.key(9))[0]["out"]["kernel"]).all()


@pytest.mark.parametrize(
    "model", [Net, tasks.from_linen(LinenNet(), np.zeros((2, FEATURES), np.float32))]
)
def test_dropout_and_statistics_belong_to_training(model):
    task, batch = tasks.classification(model, CLASSES), examples()
    variables = task.init(KEY)
    loss, measure = jax.jit(task.loss, static_argnums=5), jax.jit(task.measure)

    def losses(seed, train):
        (value, _), state = loss(*variables, batch, jax.random.key(seed), train)
        return value, state

    trained, updated = losses(1, True)
    np.testing.assert_array_equal(trained, losses(1, True)[0])
    assert (trained != losses(2, True)[0]).any()
    evaluated, same = losses(1, False)
    np.testing.assert_array_equal(evaluated, losses(2, False)[0])
    close(evaluated, measure(*variables, batch).sums["loss"].value)
    jax.tree.map(np.testing.assert_array_equal, same, variables[2])
    changed = jax.tree.map(lambda new, old: (new != old).all(), updated, variables[2])
    assert all(jax.tree.leaves(changed))
    assert jax.tree.structure(updated) == jax.tree.structure(variables[2])


def test_two_dropouts_of_one_module_draw_differently():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Dropout(0.5, rngs=rngs)
            self.second = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.stack([self.first(x), self.second(x)])

    network = tasks.from_nnx(Twice)
    (first, second), _ = network.apply(*network.init(KEY), jnp.ones(64), KEY, True, None)
    assert 0 < (first != second).sum() < 64


def test_full_batches_are_needed_by_statistics_without_a_mask():
    def needs(model):
        return tasks.classification(model, CLASSES).needs_full_batches

    linen = tasks.from_linen(LinenNet(), np.zeros((2, FEATURES), np.float32))
    assert needs(PlainNorm) and needs(linen)
    assert not needs(Net) and not needs(models.mlp((5, 7))) and not needs((no_parameters, linear))


def test_frozen_parameters_are_constants():
    everything = tasks.classification(Net, CLASSES)
    task = tasks.classification(Net, CLASSES, frozen=nnx.PathContains("dense"))
    params, frozen, state = task.init(KEY)
    assert set(params) == {"norm", "out"} and set(frozen) == {"dense"}
    (loss, _), grads = gradient(task, params, frozen, state, examples())
    (expected, _), all_grads = gradient(everything, *everything.init(KEY), examples())
    close(loss, expected)
    jax.tree.map(close, grads, {name: all_grads[name] for name in params})


def test_clients_side_by_side_inside_a_loop_are_those_one_by_one():
    task, batch = tasks.classification(Net, CLASSES), with_padding(examples())
    init = jax.jit(task.init)
    variables = [init(jax.random.key(seed)) for seed in range(3)]

    @jax.jit
    def train(params, frozen, state):
        def step(i, carry):
            params, state = carry
            key = jax.random.fold_in(KEY, i)
            loss = partial(mean_loss, task)
            grads, state = jax.grad(loss, has_aux=True)(params, frozen, state, batch, key)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state

        return jax.lax.fori_loop(0, 4, step, (params, state))

    with jax.checking_leaks():  # while it is traced, which it is once
        alone = [train(*variables[0])]
    alone += [train(*others) for others in variables[1:]]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
    together = jax.jit(jax.vmap(train))(*stacked)
    jax.tree.map(close, together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone))


def test_statistics_keep_their_dtype_when_parameters_are_float64(x64):
    batch = examples(dtype=np.float64)
    task = tasks.classification(tasks.from_linen(LinenNet(), batch["x"]), CLASSES)
    params, frozen, state = task.init(KEY)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    state = jax.tree.map(lambda leaf: leaf.astype(np.float32), state)
    (value, weight), updated = jax.eval_shape(
        lambda *variables: task.loss(*variables, batch, KEY, True), params, frozen, state
    )
    assert value.dtype == np.float64 and weight.dtype == np.int32
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype(np.float32)}


def test_reading_a_module_warns_of_nothing():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = tasks.classification(Net, CLASSES)
        gradient(task, *task.init(KEY), examples())
    assert not caught, [str(warning.message) for warning in caught]


# Mistakes


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tasks.classification(flax.linen.Dense(3), 3), "from_linen"),
        (lambda: tasks.classification("mlp", 3), "'mlp' is no model"),
        (lambda: tasks.classification(lambda rngs: 3, 3), "must return an nnx.Module, not int"),
        (
            lambda: tasks.classification((no_parameters, linear), 3, frozen=nnx.Param),
            "frozen= is a filter of NNX modules",
        ),
    ],
)
def test_what_is_no_model_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_parameters_and_outputs_of_other_shapes_are_refused():
    network = networks.from_nnx(Net)
    params, frozen, state = network.init(KEY)
    x = np.ones((2, FEATURES), np.float32)
    with pytest.raises(ValueError, match=r"missing \['out/bias'\], unknown \['out/offset'\]"):
        wrong = {"kernel": params["out"]["kernel"], "offset": params["out"]["bias"]}
        network.apply(params | {"out": wrong}, frozen, state, x, KEY, True, None)
    task = tasks.classification(Net, CLASSES + 1)
    with pytest.raises(ValueError, match="returns 7 logits for 8 classes"):
        task.loss(params, frozen, state, examples(), KEY, True)
