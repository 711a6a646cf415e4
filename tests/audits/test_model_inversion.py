"""Typical rows of a model's classes, against a loop in float64."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fljax.audits.reconstruction.model_inversion import invert_classes, likeness_of_means

pytestmark = pytest.mark.usefixtures("quick_compilation")


def linear(params, x):
    return x.reshape(len(x), -1) @ params


def mi_face(w, label, shape, rate, steps, patience, enough, weight=0.0):
    """Returns algorithm 1 of the paper for softmax of x @ w, with a box of (0, 1)."""
    x = np.zeros(shape)

    def look(x):
        z = x.ravel() @ w
        p = np.exp(z - z.max())
        p /= p.sum()
        slope = -p[label] * (w @ (np.eye(len(p))[label] - p)).reshape(shape)
        vertical, horizontal = np.diff(x, axis=0), np.diff(x, axis=1)
        cost = 1 - p[label]
        cost += weight * (np.abs(vertical).mean() + np.abs(horizontal).mean())
        for axis, differences in enumerate((vertical, horizontal)):
            signs = weight * np.sign(differences) / differences.size
            before, behind = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
            before[axis], behind[axis] = (1, 0), (0, 1)
            slope = slope + np.pad(signs, before) - np.pad(signs, behind)
        return cost, p[label], slope

    cost, score, slope = look(x)
    tried = [(cost, score, x)]
    while len(tried) <= steps and score < enough:
        x = np.clip(x - rate * slope, 0, 1)
        cost, score, slope = look(x)
        window = [c for c, _, _ in tried[-patience:]]
        tried.append((cost, score, x))
        if cost >= max(window):
            break
    return min(tried, key=lambda one: one[0]), len(tried) - 1


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_descent_is_that_of_the_paper(weight):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(16, 3))
    options = dict(learning_rate=0.2, steps=60, patience=5, enough=0.97)
    found = invert_classes(
        linear, jnp.asarray(w, jnp.float32), (4, 4), 3, total_variation=weight, **options
    )
    for label in range(3):
        (_, score, x), taken = mi_face(w, label, (4, 4), 0.2, 60, 5, 0.97, weight)
        if weight == 0:  # with it, rounding chooses the signs of differences that are 0
            assert found.steps[label] == taken
            np.testing.assert_allclose(found.x[label], x, atol=1e-4)
        np.testing.assert_allclose(found.scores[label], score, atol=1e-2 if weight else 1e-4)
    assert found.x.min() >= 0 and found.x.max() <= 1
    assert (found.scores >= 0.97).all() or (found.steps == 60).any() or weight


def test_what_cannot_get_better_ends_at_once():
    found = invert_classes(linear, jnp.zeros((4, 2)), (4,), 2, start=0.5)
    assert found.steps.tolist() == [1, 1] and found.scores.tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(found.x, 0.5)


def test_the_logarithm_moves_where_the_score_does_not():
    w = jnp.array([[30.0, 0.0], [0.0, 30.0]])
    options = dict(box=(-1, 1), steps=300, learning_rate=0.01)
    params = w, jnp.array([40.0, 0.0])

    def sure(params, x):
        return x @ params[0] + params[1]

    by_score = invert_classes(sure, params, (2,), 2, **options)
    by_log = invert_classes(sure, params, (2,), 2, cost="log", **options)
    assert by_score.scores[1] < 0.01 and by_log.scores[1] > 0.98


def test_inverted_classes_are_compared_with_means():
    rng = np.random.default_rng(1)
    means = rng.uniform(size=(4, 5, 5))
    found = means[[0, 2, 1, 3]] * 0.5 + 0.1
    found[3] = 0.3  # constant
    likeness = likeness_of_means(found, means)
    assert likeness.nearest.tolist() == [0, 2, 1, -1]
    expected = np.corrcoef(found[0].ravel(), means[2].ravel())[0, 1]
    assert likeness.correlation[0, 2] == pytest.approx(expected)
    assert np.isnan(likeness.correlation[3]).all()
    error = np.mean((found[1] - means[1]) ** 2)
    assert likeness.psnr[1] == pytest.approx(-10 * np.log10(error))


def test_values_out_of_range_are_refused():
    def attempt(**options):
        return invert_classes(linear, jnp.zeros((4, 2)), (4,), 2, **options)

    for options, message in (
        ({"enough": 0}, "enough = 0.0 must be above 0"),
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"box": (1, 0)}, r"box = \(1, 0\)"),
        ({"cost": "loss"}, "cost = 'loss' is not one of"),
        ({"total_variation": 0.1}, "prior of images"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt(**options)
