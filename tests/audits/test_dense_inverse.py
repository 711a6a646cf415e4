"""Rows read off the gradients of dense layers, against rows that made them."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.audits.reconstruction.dense_inverse import dense_row, dense_rows


def gradients(x: np.ndarray, y: np.ndarray, seed: int, hidden: int = 40, classes: int = 3):
    """Returns the gradient of a first layer's kernel and bias, by hand, and who activates whom."""
    rng = np.random.default_rng(seed)
    w1, b1 = rng.normal(size=(x.shape[1], hidden)), rng.normal(size=hidden) - 2
    w2 = rng.normal(0, 0.2, size=(hidden, classes))  # no row is sure of its class
    before = x @ w1 + b1
    logits = np.maximum(before, 0) @ w2
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    at_units = ((p - np.eye(classes)[y]) @ w2.T) * (before > 0) / len(x)
    return x.T @ at_units, at_units.sum(0), before > 0


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_single_row_comes_out_exactly(seed):
    x = np.random.default_rng(seed).normal(size=(1, 30))
    kernel, bias, _ = gradients(x, np.array([seed % 3]), seed)
    np.testing.assert_allclose(dense_row(kernel, bias), x[0], atol=1e-9, rtol=0)
    # as an update of one step, too
    np.testing.assert_allclose(dense_row(-0.1 * kernel, -0.1 * bias), x[0], atol=1e-9, rtol=0)
    found = dense_rows(kernel, bias)
    assert len(found.rows) == 1 and found.spread[0] < 1e-9
    np.testing.assert_allclose(found.rows[0], x[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_that_reach_units_alone_come_out_of_a_batch(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(3, 6)), np.array([0, 1, 2])
    kernel, bias, active = gradients(x, y, seed)
    alone = active[:, active.sum(0) == 1].sum(1)  # how many units each row has for itself
    found = dense_rows(kernel, bias)
    sure = found.rows[found.units > 1]
    assert len(sure) == (alone > 1).sum() > 0
    for row, units in zip(sure, found.units, strict=False):
        apart = np.abs(x - row).max(1)
        assert apart.min() < 1e-9 and units == alone[apart.argmin()]
    # every other row is a mixture, or a row that one unit tells
    assert found.units.sum() == active.any(0).sum()
    assert (found.spread[found.units == 1] < 1e-12).all()


def test_what_one_unit_says_may_be_a_mixture():
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = dense_rows(x.T @ np.array([[0.5], [0.5]]), np.array([1.0]))
    assert found.rows.tolist() == [[0.5, 0.5]] and found.units.tolist() == [1]


def test_units_without_a_gradient_say_nothing():
    kernel, bias = np.outer([2.0, 3.0], [0.0, 1e-9, 1.0]), np.array([0.0, 1e-9, 1.0])
    assert dense_rows(kernel, bias).units.tolist() == [1]
    assert dense_row(kernel, bias).tolist() == [2, 3]
    assert dense_rows(np.zeros((2, 3)), np.zeros(3)).rows.shape == (0, 2)
    with pytest.raises(ValueError, match="0 at all units"):
        dense_row(np.zeros((2, 3)), np.zeros(3))


def test_rounding_to_float32_is_within_the_tolerance():
    x = np.random.default_rng(3).uniform(size=(1, 20))
    kernel, bias, active = gradients(x, np.array([1]), 3)
    found = dense_rows(kernel.astype(np.float32), bias.astype(np.float32))
    assert found.units.tolist() == [active.sum()]
    np.testing.assert_allclose(found.rows[0], x[0], atol=1e-6)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"has \[inputs, units\] and \[units\]"):
        dense_row(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="not finite"):
        dense_rows(np.full((2, 3), np.nan), np.zeros(3))
    with pytest.raises(ValueError, match="tolerance = 0.0 must be above 0"):
        dense_rows(np.zeros((2, 3)), np.zeros(3), tolerance=0)
