"""Labels inferred from gradients of last layers, against batches that are built by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.audits.reconstruction.label_inference import (
    as_gradient,
    impact_and_offset,
    label_counts,
    label_of,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def last_layer(labels, seed: int = 0, classes: int = 10, inputs: int = 32, scale: float = 0.05):
    """Returns the gradients of a last layer's kernel and bias, inputs that are not negative."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(size=(len(labels), inputs))
    logits = a @ rng.normal(0, scale, (inputs, classes))
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    delta = (p - np.eye(classes)[labels]) / len(labels)
    return a.T @ delta, delta.sum(0)


def llg(signal: np.ndarray, rows: int) -> list[int]:
    """Returns LLG's labels, as algorithm 1 of the paper has them, in a loop."""
    signal, classes, labels = signal.copy(), len(signal), []
    impact = sum(g for g in signal if g < 0) / rows * (1 + 1 / classes)
    for c in range(classes):
        if signal[c] < 0:
            labels.append(c)
            signal[c] -= impact
    while len(labels) < rows:
        c = int(np.argmin(signal))
        labels.append(c)
        signal[c] -= impact
    return labels


@pytest.mark.parametrize("label", range(10))
def test_the_label_of_one_row_is_always_right(label):
    for seed in range(5):
        kernel, bias = last_layer([label], seed, scale=1.0)
        assert label_of(kernel, bias) == (label, True)
        assert label_of(3e-20 * kernel) == (label, True)
        # whose inputs may be negative, since only signs between classes count
        assert label_of(kernel * np.random.default_rng(seed).normal(size=(32, 1))).label == label


@pytest.mark.parametrize("label", [0, 1])
def test_two_classes_are_told_apart(label):
    kernel, bias = last_layer([label], classes=2)
    assert label_of(kernel, bias) == label_of(kernel) == (label, True)
    assert label_of(-kernel, bias).label == label


def test_what_is_no_gradient_of_one_row_is_not_certain():
    kernel, bias = last_layer([1, 4, 4])
    assert not label_of(kernel, bias).certain
    assert not label_of(np.zeros((3, 4))).certain
    assert not label_of(np.random.default_rng(0).normal(size=(32, 10))).certain


@pytest.mark.parametrize("rows", [1, 2, 8, 64])
def test_labels_of_batches_are_counted(rows):
    labels = np.random.default_rng(rows).choice(10, rows, p=np.arange(10) / 45)
    true = np.bincount(labels, minlength=10)
    kernel, bias = last_layer(labels, rows)
    shares = bias + true / rows  # the mean of what the model predicts
    counts, certain = label_counts(kernel, bias, rows=rows, offset=shares)
    assert counts.tolist() == true.tolist() and (certain <= true).all()
    assert certain.sum() >= 0.3 * rows
    # nothing but the gradient: a few rows of a large batch go to classes that the model prefers
    alone = label_counts(kernel, bias, rows=rows).counts
    assert alone.sum() == rows and np.abs(alone - true).sum() <= rows // 6


@pytest.mark.parametrize("rows", [3, 9, 40])
def test_counts_without_a_bias_are_those_of_the_papers_loop(rows):
    labels = np.random.default_rng(rows).integers(0, 10, rows)
    kernel, _ = last_layer(labels, rows, scale=0.3)
    expected = np.bincount(llg(kernel.sum(0), rows), minlength=10)
    assert label_counts(kernel, rows=rows).counts.tolist() == expected.tolist()


def test_a_known_offset_counts_where_the_model_prefers_a_class():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 30)
    shares = np.array([0.05, 0.05, 0.1, 0.8])
    bias = shares - np.bincount(labels, minlength=4) / 30
    kernel = np.ones((3, 1)) * bias
    counts, certain = label_counts(kernel, bias, rows=30, offset=shares)
    assert counts.tolist() == np.bincount(labels, minlength=4).tolist()
    assert (certain <= counts).all()
    assert label_counts(kernel, bias, rows=30).counts[3] < counts[3]


def test_gradients_that_say_nothing_are_shared_out():
    assert label_counts(np.zeros((2, 3)), np.zeros(3), rows=6).counts.tolist() == [2, 2, 2]
    assert label_counts(np.ones((2, 3)), rows=4).counts.sum() == 4


def softmax_client(params, x, y):
    def loss(params):
        logits = jax.nn.sigmoid(x @ params["w"]) @ params["v"] + params["b"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    return jax.grad(loss)(params)


def test_impact_and_offset_are_measured_on_noise():
    rng = np.random.default_rng(1)
    params = {
        "w": jnp.asarray(rng.normal(size=(6, 20)), jnp.float32),
        "v": jnp.asarray(rng.normal(0, 0.3, (20, 4)), jnp.float32),
        "b": jnp.zeros(4),
    }
    impact, offset = impact_and_offset(
        softmax_client, params, lambda sent: (sent["v"], None), (8, 6), 4
    )
    assert impact < 0 and offset.shape == (4,) and (offset > 0).all()
    x = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
    y = jnp.array([0, 0, 0, 1, 1, 2, 2, 2])
    sent = softmax_client(params, x, y)
    found = label_counts(sent["v"], rows=8, impact=impact, offset=offset)
    assert found.counts.tolist() == [3, 2, 3, 0]
    by_bias = impact_and_offset(softmax_client, params, lambda s: (s["v"], s["b"]), (8, 6), 4)
    # a row adds p - 1 to its class's signal, and the paper's factor makes up for p
    assert by_bias[0] == pytest.approx(-1 / 8, rel=0.2)


def test_labels_of_local_training_are_counted_approximately():
    rng = np.random.default_rng(2)
    a, labels = rng.uniform(size=(12, 16)), np.repeat([0, 1, 2, 4], [5, 3, 3, 1])
    w, b = rng.normal(0, 0.1, (16, 5)), np.zeros(5)
    start = w.copy(), b.copy()
    for _ in range(3):  # epochs of batches of 4
        for rows in np.split(rng.permutation(12), 3):
            p = np.exp(a[rows] @ w + b)
            delta = (p / p.sum(1, keepdims=True) - np.eye(5)[labels[rows]]) / 4
            w, b = w - 0.05 * a[rows].T @ delta, b - 0.05 * delta.sum(0)
    kernel, bias = as_gradient((w - start[0], b - start[1]), learning_rate=0.05, steps=9)
    found = label_counts(kernel, bias, rows=12).counts
    assert found.sum() == 12 and np.abs(found - [5, 3, 3, 0, 1]).sum() <= 2


def test_what_is_no_last_layer_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\).*transpose or reshape"):
        label_of(np.zeros(3))
    with pytest.raises(ValueError, match="the kernel has 4 classes"):
        label_of(np.zeros((3, 4)), np.zeros(3))
    with pytest.raises(ValueError, match="bias is not finite"):
        label_counts(np.zeros((3, 4)), np.full(4, np.nan), rows=2)
    with pytest.raises(ValueError, match="rows = 0 must be at least 1"):
        label_counts(np.zeros((3, 4)), rows=0)
    with pytest.raises(ValueError, match="impact = 0.5.*below 0"):
        label_counts(np.zeros((3, 4)), rows=2, impact=0.5)
    with pytest.raises(ValueError, match="learning_rate = 0.0 must be above 0"):
        as_gradient(np.zeros(3), 0, 1)
