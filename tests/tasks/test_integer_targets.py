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
from fljax.core import metrics

pytestmark = pytest.mark.usefixtures("quick_compilation")


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


@pytest.mark.parametrize("reduce", [jnp.mean, lambda losses: losses[:, None], lambda losses: 0.0])
def test_an_own_loss_is_one_for_each_target(reduce):
    task, batch = linear_task(lambda z, y: reduce((z[:, 0] - y) ** 2)), with_padding(examples())
    with pytest.raises(ValueError, match=r"loss_fn returns an array of shape .* no mean"):
        task.loss(task.init(KEY)[0], {}, {}, batch, KEY, True)


@pytest.mark.parametrize("model", [(lambda key: random_linear(), linear), MaskedNorm])
def test_padding_rows_change_nothing_even_if_nan(model):
    task, batch = tasks.classification(model, CLASSES), examples()
    variables = task.init(KEY)
    jax.tree.map(
        close, gradient(task, *variables, with_padding(batch)), gradient(task, *variables, batch)
    )
    full, padded = (jax.jit(task.measure)(*variables, b) for b in (batch, with_padding(batch)))
    for name, whole in full.sums.items():
        for with_more, values in zip(padded.sums[name], whole, strict=True):
            close(with_more, np.append(values, [0, 0]))
    jax.tree.map(np.testing.assert_array_equal, padded.counts, full.counts)


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


def check_counts(counts, confusion):
    """Asserts that counts by class are those of a confusion matrix, rows actual."""
    np.testing.assert_array_equal(counts.hits, np.diagonal(confusion))
    np.testing.assert_array_equal(counts.actual, confusion.sum(1))
    np.testing.assert_array_equal(counts.predicted, confusion.sum(0))


@pytest.mark.parametrize("decimals", [8, 0])
def test_metrics_are_exact_counts_also_of_equal_logits(decimals):
    def rounded(params, x):
        return jnp.round(linear(params, x), decimals)

    task = tasks.classification((lambda key: random_linear(), rounded), CLASSES)
    batch = examples(rows=200)
    params, _, _ = task.init(KEY)
    got = task.measure(params, {}, {}, batch)
    logits = rounded(params, batch["x"])
    confusion, correct, top5 = reference_metrics(logits, batch["y"])
    check_counts(got.counts, confusion)
    np.testing.assert_array_equal(got.sums["accuracy"].value, correct)
    np.testing.assert_array_equal(got.sums["top5"].value, top5)
    for values in got.sums.values():
        np.testing.assert_array_equal(values.weight, np.ones(200))
    close(got.sums["loss"].value, -log_softmax(logits)[np.arange(200), batch["y"]])
    integers = jax.tree.leaves((got.counts, got.sums["accuracy"], got.sums["top5"]))
    assert all(leaf.dtype == np.int32 for leaf in integers)


def test_a_model_that_diverged_is_never_correct():
    task = linear_task()
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, task.init(KEY)[0])
    got = task.measure(params, {}, {}, examples() | {"y": np.zeros(6, np.int32)})
    assert got.sums["accuracy"].value.sum() == got.sums["top5"].value.sum() == 0
    assert np.isnan(got.sums["loss"].value).all()


def odd_logits(shape, seed):
    """Returns float32 logits with ties, and in most rows NaN, inf or -inf, some all of one kind."""
    generator = np.random.default_rng(seed)
    logits = generator.integers(-2, 3, shape).astype(np.float32)
    odd = generator.choice(np.float32([np.nan, np.inf, -np.inf]), shape)
    share = generator.choice([0, 0.2, 1], (*shape[:-1], 1))
    one_kind = generator.choice(np.float32([np.nan, -np.inf, np.inf, 0]), (*shape[:-1], 1))
    logits = np.where(generator.random(shape) < share, odd, logits)
    return np.where(generator.random((*shape[:-1], 1)) < 0.1, one_kind, logits)


def reference_sums(logits, labels):
    """Returns (correct, in the top 5, [(actual, predicted or None)]), one target at a time."""
    correct, top5, pairs = [], [], []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        with np.errstate(invalid="ignore"):
            shares = np.exp(row - row.max())
        order = np.argsort(-row, kind="stable")
        predicts = np.isfinite(shares.sum())
        correct.append(predicts and order[0] == label)
        top5.append(predicts and label in order[:5])
        pairs.append((label, order[0] if predicts else None))
    return np.array(correct), np.array(top5), pairs


def reference_scores(pairs):
    """Returns macro precision, recall and F1 of pairs (actual, predicted)."""
    scores = []
    for kind in sorted({label for pair in pairs for label in pair if label is not None}):
        hits = sum(actual == predicted == kind for actual, predicted in pairs)
        actual, predicted = (sum(pair[place] == kind for pair in pairs) for place in range(2))
        scores.append(
            (hits / max(predicted, 1), hits / max(actual, 1), 2 * hits / (actual + predicted))
        )
    return dict(
        zip(("precision_macro", "recall_macro", "f1_macro"), np.mean(scores, 0), strict=True)
    )


@pytest.mark.parametrize("classes", [1, 2, 4, 7, 1030])
@pytest.mark.parametrize("kind", ["classification", "next_token"])
def test_all_metrics_agree_whatever_the_logits(kind, classes):
    """A target without a softmax is wrong in each of them, and padding counts in none."""
    rows, times = 60, 3
    shape = (rows, classes) if kind == "classification" else (rows, times, classes)
    logits = odd_logits(shape, classes)
    generator = np.random.default_rng(1)
    labels = generator.integers(0, min(classes, 8), shape[:-1]).astype(np.int32)
    mask = np.arange(rows) < rows - 5
    task = getattr(tasks, kind)((lambda key: {}, lambda params, x: x), classes)
    got = jax.jit(task.measure)({}, {}, {}, {"x": logits, "y": labels, "mask": mask})
    counted = np.broadcast_to(mask.reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
    counted = counted & ((labels != 0) | (kind == "classification"))
    correct, top5, pairs = reference_sums(logits[counted], labels[counted])
    sums = jax.device_get(got.sums)
    for name, each in (("accuracy", correct), ("top5", top5)):
        expected = np.zeros(counted.shape, int)
        expected[counted] = each
        np.testing.assert_array_equal(sums[name].value, expected.reshape(rows, -1).sum(1))
        np.testing.assert_array_equal(sums[name].weight, counted.reshape(rows, -1).sum(1))
    found = metrics.global_metrics(task.metrics, sums, jax.device_get(got.counts))
    if not pairs:  # the only class is that of padding
        return
    micro = [found[f"{name}_micro"] for name in ("precision", "recall", "f1")]
    assert micro == [found["accuracy"]] * 3 == [np.mean(correct)] * 3
    assert found["accuracy"] <= found["top5"] == pytest.approx(np.mean(top5))
    for name, expected in reference_scores(pairs).items():
        assert found[name] == pytest.approx(expected, abs=1e-12)
    clients = metrics.client_metrics(task.metrics, sums, np.arange(rows) % 7, 7)
    for name in ("accuracy", "top5"):
        assert np.average(clients[name], weights=clients["weight"]) == pytest.approx(found[name])
    if (kind, classes) == ("classification", 7):  # those that are named follow from sums
        names = [metric.name for metric in task.metrics]
        named = tasks.classification((lambda key: {}, lambda params, x: x), 7, metrics=names)
        got = jax.jit(named.measure)({}, {}, {}, {"x": logits, "y": labels, "mask": mask})
        own = metrics.global_metrics(named.metrics, jax.device_get(got.sums), got.counts)
        assert got.counts is None and own == pytest.approx(found, nan_ok=True)


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
    got = task.measure(table, {}, {}, batch)
    confusion, correct, top5 = reference_metrics(table[x][counted], y[counted])
    check_counts(got.counts, confusion)
    assert got.sums["accuracy"].value.sum() == sum(correct)
    assert got.sums["top5"].value.sum() == sum(top5)
    close(got.sums["loss"].value, value)


def test_without_a_padding_token_every_target_counts():
    task = tasks.next_token((lambda key: jnp.eye(CLASSES), bigram), CLASSES, pad_id=None)
    zeros = np.zeros((2, 3), int)
    batch = {"x": zeros, "y": zeros, "mask": np.ones(2, bool)}
    (_, weight), _ = task.loss(jnp.eye(CLASSES), {}, {}, batch, KEY, True)
    np.testing.assert_array_equal(weight, [3, 3])
