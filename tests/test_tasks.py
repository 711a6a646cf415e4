"""Tasks: losses, exact metrics and padding rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import (
    CLASSES,
    KEY,
    MaskedNorm,
    close,
    examples,
    gradient,
    linear,
    linear_task,
    mean_loss,
    random_linear,
    with_padding,
)

from fljax import tasks

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


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
