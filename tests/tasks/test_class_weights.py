"""Class weights and focal loss equal formulas in float64; balanced weights are scikit-learn's."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import data, tasks
from fljax.studies.groups import key_of, same_key
from fljax.training.task_choice import as_task, fitted

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS, FEATURES = 9, 4
MASK = np.arange(ROWS) < 7
X = np.random.default_rng(0).standard_normal((ROWS, FEATURES))


def linear(outputs):
    w = np.random.default_rng(1).standard_normal((FEATURES, outputs))
    return (lambda key: {"w": jnp.asarray(w)}, lambda params, x: x @ params["w"]), w


def losses_and_slope(task, y):
    """Returns the losses of the task, and the gradient of their sum, in float64."""
    with jax.enable_x64(True):
        batch = {"x": jnp.asarray(X), "y": jnp.asarray(y), "mask": jnp.asarray(MASK)}

        def total(params):
            (losses, weights), _ = task.loss(params, {}, {}, batch, None, True)
            return losses.sum(), (losses, weights)

        params = task.init(jax.random.key(0))[0]
        slope, (losses, weights) = jax.jit(jax.grad(total, has_aux=True))(params)
    return losses, weights, slope["w"]


def numerical(value, w):
    """Returns the gradient of the real rows' losses by differences."""
    slope = np.zeros_like(w)
    for place in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[place] = 1e-6
        slope[place] = (value(w + step) - value(w - step))[MASK].sum() / 2e-6
    return slope


def check(task, y, value, w, targets=1):
    losses, weights, slope = losses_and_slope(task, y)
    np.testing.assert_allclose(losses, np.where(MASK, value(w), 0), rtol=1e-12)
    # the mean divides by how many there are, whatever they weigh
    assert weights.tolist() == (targets * MASK).tolist()
    np.testing.assert_allclose(slope, numerical(value, w), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_weighted_losses_of_classes_are_their_formulas(gamma):
    y = np.random.default_rng(2).integers(0, 3, ROWS)
    model, w = linear(3)
    weights = np.array([0.5, 2.0, 1.25])

    def value(w):
        scores = np.exp(X @ w)
        p = (scores / scores.sum(1, keepdims=True))[np.arange(ROWS), y]
        return weights[y] * (1 - p) ** gamma * -np.log(p)

    options = {"class_weights": weights, "focal_gamma": gamma}
    check(tasks.classification(model, 3, **options), y, value, w)


def test_alpha_of_two_classes_weighs_the_positive_one():
    y = np.random.default_rng(3).integers(0, 2, ROWS)
    model, w = linear(2)

    def value(w):
        p = 1 / (1 + np.exp((X @ w) @ [1, -1]))
        p = np.where(y == 1, p, 1 - p)
        return np.where(y == 1, 0.3, 0.7) * (1 - p) ** 2 * -np.log(p)

    check(tasks.binary(model, focal_gamma=2, focal_alpha=0.3), y, value, w)


def test_weighted_losses_of_labels_are_their_formulas():
    y = np.random.default_rng(4).integers(0, 2, (ROWS, 3))
    model, w = linear(3)
    weights = np.array([2.0, 0.25, 1.0])

    def value(w):
        p = 1 / (1 + np.exp(-X @ w))
        p = np.where(y, p, 1 - p)
        factors = np.where(y, 0.2 * weights, 0.8)
        return (factors * (1 - p) ** 1.5 * -np.log(p)).sum(1)

    options = {"positive_weights": weights, "focal_gamma": 1.5, "focal_alpha": 0.2}
    check(tasks.multi_label(model, 3, **options), y, value, w, targets=3)


def test_what_is_certain_has_no_loss_and_a_finite_slope():
    task = tasks.classification(linear(2)[0], 2, focal_gamma=0.5)

    def total(scale):
        batch = {"x": jnp.ones((1, FEATURES)), "y": jnp.array([0]), "mask": jnp.array([True])}
        (losses, _), _ = task.loss({"w": scale * jnp.array([[1.0, 0.0]] * 4)}, {}, {}, batch, 0, 0)
        return losses[0]

    value, slope = jax.jit(jax.value_and_grad(total))(100.0)
    assert value == 0 and slope == 0


def test_the_log_loss_is_told_beside_a_weighted_loss():
    y = np.random.default_rng(5).integers(0, 3, ROWS)
    model, w = linear(3)
    names = ("log_loss", "accuracy")
    with jax.enable_x64(True):
        task = tasks.classification(model, 3, class_weights=(1, 2, 3), metrics=names)
        batch = {"x": jnp.asarray(X), "y": jnp.asarray(y), "mask": jnp.asarray(MASK)}
        sums, counts = jax.jit(task.measure)({"w": jnp.asarray(w)}, {}, {}, batch)
    assert [metric.name for metric in task.metrics] == [*names, "loss"] and counts is None
    assert sums.keys() == {*names, "loss"}  # nothing is measured that no metric reads
    p = np.exp(X @ w) / np.exp(X @ w).sum(1, keepdims=True)
    own = -np.log(p[np.arange(ROWS), y])
    np.testing.assert_allclose(sums["log_loss"].value, np.where(MASK, own, 0), rtol=1e-12)
    np.testing.assert_allclose(sums["loss"].value, np.where(MASK, own * (1 + y), 0), rtol=1e-12)


def labelled(y, kind="classification", **options):
    x, ids = np.ones((len(y), FEATURES), np.float32), np.arange(len(y)) % 3
    return data.from_arrays(x, y, client_ids=ids, kind=kind, **options)


def zeros_of(task):
    shapes = jax.eval_shape(task.init, jax.random.key(0))[0]
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def losses_of(task, params, batch):
    return jax.jit(task.measure)(params, {}, {}, batch).sums["loss"].value


def test_balanced_weights_count_the_training_labels_alone():
    y = np.array([0, 0, 0, 2, 2, 1, 0, 0, 2, 0, 0, 0])
    dataset = labelled(y, x_test=np.ones((4, FEATURES)), y_test=np.ones(4, int))
    weights = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight(
        "balanced", classes=np.arange(3), y=y
    )
    np.testing.assert_allclose(tasks.balanced_weights(np.bincount(y)), weights, rtol=1e-12)
    assert tasks.balanced_weights([6, 0, 2]).tolist() == [8 / 12, 1, 2]
    waiting = as_task("softmax_regression", dataset, "classification(class_weights='balanced')")
    task = fitted(waiting, dataset)
    given = tasks.classification(linear(3)[0], 3, class_weights=weights)
    params, batch = {"w": jnp.ones((FEATURES, 3))}, dataset.train.examples.take(np.arange(12))
    batch["mask"] = np.ones(12, bool)
    expected = losses_of(given, params, batch)
    zeros = zeros_of(task)
    np.testing.assert_allclose(losses_of(task, zeros, batch), expected)
    assert fitted(task, dataset) is task and task.fit is None
    with pytest.raises(ValueError, match="'balanced' waits for the labels"):
        waiting.measure(zeros, {}, {}, batch)
    with pytest.raises(ValueError, match="no noise of privacy covers"):
        fitted(waiting, dataset, privacy="gaussian(0.3)")
    shifted = tasks.augmented(waiting, "noise(0.1)")  # what changes inputs does so of both
    changed = fitted(shifted, dataset)
    jax.eval_shape(partial(changed.loss, train=True), zeros, {}, {}, batch, jax.random.key(0))
    assert changed.fit is None and changed.loss.__code__ is shifted.loss.__code__
    fewer = fitted(waiting, labelled(np.array([0, 0, 1, 2])))
    assert not same_key(key_of(task), key_of(fewer))  # a study shares no program of both
    assert same_key(key_of(task), key_of(fitted(waiting, dataset)))


def test_labels_are_balanced_one_by_one():
    y = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0], [0, 0]])
    dataset = labelled(y, kind="targets")
    names = "multi_label(positive_weights='balanced')"
    task = fitted(as_task("softmax_regression", dataset, names), dataset)
    batch = {**dataset.train.examples.take(np.arange(6)), "mask": np.ones(6, bool)}
    found = losses_of(task, zeros_of(task), batch)
    factors = np.where(y == 1, [2 / 4, 5 / 1], 1).sum(1)
    np.testing.assert_allclose(found, factors * np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        ("classification", {"class_weights": (1, 2)}, "must be 'balanced', or 3 numbers"),
        ("classification", {"class_weights": "equal"}, "class_weights = 'equal' .* must be"),
        ("classification", {"class_weights": (0, 0, 0)}, "not all 0"),
        ("classification", {"class_weights": (1, -1, 1)}, "at least 0"),
        ("classification", {"class_weights": 3.0}, "class_weights = 3.0"),
        ("classification", {"focal_gamma": -1}, "focal_gamma = -1.0 must be at least 0"),
        ("classification", {"focal_gamma": 1, "loss_fn": max}, "leave one of them out"),
        ("classification", {"metrics": ("auc",)}, "metrics = 'auc' is not one of 'accuracy'"),
        ("multi_label", {"positive_weights": (1, 2)}, "positive_weights = .* 3 numbers"),
        ("multi_label", {"auc": "histogram(1)"}, "bins = 1 must be at least 2"),
        ("multi_label", {"auc": "ranks"}, "auc = 'ranks': there is no 'ranks'"),
    ],
)
def test_wrong_weights_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(tasks, make)(linear(3)[0], 3, **options)


def test_two_weights_of_two_classes_contradict_each_other():
    with pytest.raises(ValueError, match=r"alpha is class_weights = \(0.75, 0.25\). Give one"):
        tasks.binary(linear(2)[0], class_weights=(1, 2), focal_alpha=0.25)
