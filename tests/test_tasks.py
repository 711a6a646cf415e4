"""Tasks: losses, exact metrics, padding rows, and every way to hand in a model."""

import warnings
from functools import partial

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fljax import models, networks, tasks

FEATURES, CLASSES = 5, 7
KEY = jax.random.key(0)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


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


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


# Loss


def test_loss_of_an_example_is_its_cross_entropy():
    task, batch = linear_task(), examples()
    params, frozen, state = task.init(KEY)
    (value, weight), _ = task.loss(params, frozen, state, batch, KEY, True)
    close(value, -log_softmax(linear(params, batch["x"]))[np.arange(6), batch["y"]])
    np.testing.assert_array_equal(weight, np.ones(6))
    assert value.dtype == np.float32 and weight.dtype == np.int32


def test_loss_is_stable_for_huge_logits():
    logits, labels = jnp.array([[1e4, 0.0], [1e4, -jnp.inf]]), jnp.array([1, 0])
    np.testing.assert_array_equal(tasks.softmax_cross_entropy(logits, labels), [1e4, 0])
    slope = jax.grad(lambda logits: tasks.softmax_cross_entropy(logits, labels).sum())(logits)
    np.testing.assert_array_equal(slope, [[1, -1], [0, 0]])


def test_gradient_is_the_finite_difference_in_float64(x64):
    task, batch = linear_task(), examples(dtype=np.float64)
    params = random_linear(np.float64)
    direction = jax.tree.map(jnp.sin, params)
    (loss, _), grads = gradient(task, params, {}, {}, batch)
    assert loss.dtype == np.float64

    def moved(by):
        params_moved = jax.tree.map(lambda p, d: p + by * d, params, direction)
        return mean_loss(task, params_moved, {}, {}, batch)[0]

    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
    np.testing.assert_allclose(slope, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=1e-8)


def test_an_own_loss_replaces_the_default():
    def squared(logits, labels):
        return (logits[:, 0] - labels) ** 2

    task, batch = linear_task(squared), with_padding(examples())
    params, _, _ = task.init(KEY)
    (value, _), _ = task.loss(params, {}, {}, batch, KEY, True)
    close(value[:6], (linear(params, batch["x"][:6])[:, 0] - batch["y"][:6]) ** 2)
    np.testing.assert_array_equal(value[6:], 0)


@pytest.mark.parametrize("model", [(lambda key: random_linear(), linear), MaskedNorm])
def test_padding_rows_change_nothing_even_if_nan(model):
    task, batch = tasks.classification(model, CLASSES), examples()
    variables = task.init(KEY)
    jax.tree.map(
        close, gradient(task, *variables, with_padding(batch)), gradient(task, *variables, batch)
    )
    full, padded = (jax.jit(task.metrics)(*variables, b) for b in (batch, with_padding(batch)))
    for name, values in full.per_example.items():
        close(padded.per_example[name], np.append(values, [0, 0]))
    np.testing.assert_array_equal(padded.confusion, full.confusion)


def test_a_batch_of_padding_alone_has_no_loss_and_no_gradient():
    task = linear_task()
    batch = examples() | {"mask": np.zeros(6, bool)}
    (loss, _), grads = gradient(task, *task.init(KEY), batch)
    assert loss == 0
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), grads)


# Metrics


def reference_metrics(logits, labels):
    """Counts one target at a time; of equal logits, the first one wins."""
    confusion = np.zeros((CLASSES, CLASSES), int)
    correct, top5 = [], []
    for row, label in zip(np.asarray(logits), labels, strict=True):
        order = np.argsort(-row, kind="stable")
        confusion[label, order[0]] += 1
        correct.append(order[0] == label)
        top5.append(label in order[:5])
    return confusion, correct, top5


@pytest.mark.parametrize("decimals", [8, 0])
def test_metrics_are_exact_counts_also_of_equal_logits(decimals):
    def rounded(params, x):
        return jnp.round(linear(params, x), decimals)

    task = tasks.classification((lambda key: random_linear(), rounded), CLASSES)
    batch = examples(rows=200)
    params, _, _ = task.init(KEY)
    got = task.metrics(params, {}, {}, batch)
    logits = rounded(params, batch["x"])
    confusion, correct, top5 = reference_metrics(logits, batch["y"])
    np.testing.assert_array_equal(got.confusion, confusion)
    np.testing.assert_array_equal(got.per_example["correct"], correct)
    np.testing.assert_array_equal(got.per_example["correct_top5"], top5)
    np.testing.assert_array_equal(got.per_example["weight"], np.ones(200))
    close(got.per_example["loss"], -log_softmax(logits)[np.arange(200), batch["y"]])
    integers = (got.confusion, *(got.per_example[k] for k in ("weight", "correct", "correct_top5")))
    assert all(leaf.dtype == np.int32 for leaf in integers)


def test_a_model_that_diverged_is_never_correct():
    task = linear_task()
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, task.init(KEY)[0])
    got = task.metrics(params, {}, {}, examples() | {"y": np.zeros(6, np.int32)})
    assert got.per_example["correct"].sum() == got.per_example["correct_top5"].sum() == 0
    assert np.isnan(got.per_example["loss"]).all()


# Next token


def bigram(params, x):
    return params[x]


def test_next_token_counts_all_targets_but_padding():
    generator = np.random.default_rng(0)
    table = jnp.asarray(generator.standard_normal((CLASSES, CLASSES)), jnp.float32)
    task = tasks.next_token((lambda key: table, bigram), CLASSES)
    x, y = generator.integers(1, CLASSES, (2, 4, 9))
    y[0, 5:] = y[1] = 0
    mask = np.array([True, True, True, False])
    batch = {"x": x, "y": y, "mask": mask}
    counted = (y != 0) & mask[:, None]
    losses = -np.take_along_axis(log_softmax(table[x]), y[..., None], -1)[..., 0]
    (value, weight), _ = task.loss(table, {}, {}, batch, KEY, True)
    close(value, np.where(counted, losses, 0).sum(1))
    np.testing.assert_array_equal(weight, [5, 0, 9, 0])
    got = task.metrics(table, {}, {}, batch)
    confusion, correct, top5 = reference_metrics(table[x][counted], y[counted])
    np.testing.assert_array_equal(got.confusion, confusion)
    assert got.per_example["correct"].sum() == sum(correct)
    assert got.per_example["correct_top5"].sum() == sum(top5)
    close(got.per_example["loss"], value)


def test_without_a_padding_token_every_target_counts():
    task = tasks.next_token((lambda key: jnp.eye(CLASSES), bigram), CLASSES, pad_id=None)
    zeros = np.zeros((2, 3), int)
    batch = {"x": zeros, "y": zeros, "mask": np.ones(2, bool)}
    (_, weight), _ = task.loss(jnp.eye(CLASSES), {}, {}, batch, KEY, True)
    np.testing.assert_array_equal(weight, [3, 3])


# Models


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

    def losses(seed, train):
        (value, _), state = task.loss(*variables, batch, jax.random.key(seed), train)
        return value, state

    trained, updated = losses(1, True)
    np.testing.assert_array_equal(trained, losses(1, True)[0])
    assert (trained != losses(2, True)[0]).any()
    evaluated, same = losses(1, False)
    np.testing.assert_array_equal(evaluated, losses(2, False)[0])
    np.testing.assert_array_equal(evaluated, task.metrics(*variables, batch).per_example["loss"])
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
    variables = [task.init(jax.random.key(seed)) for seed in range(3)]

    def train(params, frozen, state):
        def step(i, carry):
            params, state = carry
            key = jax.random.fold_in(KEY, i)
            loss = partial(mean_loss, task)
            grads, state = jax.grad(loss, has_aux=True)(params, frozen, state, batch, key)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state

        return jax.lax.fori_loop(0, 4, step, (params, state))

    with jax.checking_leaks():
        alone = [jax.jit(train)(*v) for v in variables]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
    together = jax.jit(jax.vmap(train))(*stacked)
    jax.tree.map(close, together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone))


def test_statistics_keep_their_dtype_when_parameters_are_float64(x64):
    batch = examples(dtype=np.float64)
    task = tasks.classification(tasks.from_linen(LinenNet(), batch["x"]), CLASSES)
    params, frozen, state = task.init(KEY)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    state = jax.tree.map(lambda leaf: leaf.astype(np.float32), state)
    (value, weight), updated = task.loss(params, frozen, state, batch, KEY, True)
    assert value.dtype == np.float64 and weight.dtype == np.int32
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype(np.float32)}


def test_reading_a_module_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = tasks.classification(Net, CLASSES)
        gradient(task, *task.init(KEY), examples())


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
    with pytest.raises(ValueError, match=r"logits of shape \(6, 7\).*needs \(6, 8\)"):
        task.loss(params, frozen, state, examples(), KEY, True)
