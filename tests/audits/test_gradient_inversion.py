"""Rows that are found again from gradients and updates of small networks."""

from __future__ import annotations

import inversion_nets as nets
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fljax.audits.reconstruction.clients import batches_in_order, gradient, local_training, summed
from fljax.audits.reconstruction.gradient_inversion import reconstruct
from fljax.audits.reconstruction.objectives import cosine_distance, relative_l2, total_variation
from fljax.audits.reconstruction.search import adam, lbfgs, search
from fljax.audits.reconstruction.settings import Inversion, make_inversion
from fljax.audits.reconstruction.similarity import matched, psnr

pytestmark = pytest.mark.usefixtures("quick_compilation")
GRADIENT = gradient(nets.losses)
PARAMS = nets.dense()
X, Y = nets.digits(4)


def with_noise(sent, norm: float):
    """Returns what was sent with normal noise, of a norm relative to its own."""
    leaves, tree = jax.tree.flatten(sent)
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=leaf.shape) for leaf in leaves]
    lengths = [np.sqrt(sum(np.square(a).sum() for a in all_)) for all_ in (leaves, noise)]
    scale = norm * lengths[0] / lengths[1]
    pairs = zip(leaves, noise, strict=True)
    return tree.unflatten([jnp.asarray(a + scale * b, jnp.float32) for a, b in pairs])


@pytest.mark.parametrize("row", [0, 3])
def test_a_digit_is_found_again_and_noise_makes_it_worse(row):
    x, y = X[row : row + 1], Y[row : row + 1]
    sent = GRADIENT(PARAMS, x, y)
    quality = []
    for noise in (0.0, 0.1, 1.0):
        found = reconstruct(
            with_noise(sent, noise), GRADIENT, PARAMS, x.shape,
            attack="idlg(300, restarts=2)", head=nets.head,
        )  # fmt: skip
        assert noise > 0.5 or found.labels.tolist() == y.tolist()
        assert found.objectives[found.restart] == found.objectives.min()
        quality.append(float(psnr(found.x, x)[0]))
    assert quality[0] > 30
    assert quality[0] > quality[1] + 10 > quality[2] + 15


def test_labels_are_found_together_with_rows():
    sent = GRADIENT(PARAMS, X[2:3], Y[2:3])
    found = reconstruct(
        sent, GRADIENT, PARAMS, (1, 8, 8), attack="dlg(400, restarts=3)", num_classes=10
    )
    assert psnr(found.x, X[2:3])[0] > 30 and found.labels.tolist() == Y[2:3].tolist()
    again = reconstruct(
        sent, GRADIENT, PARAMS, (1, 8, 8), attack="dlg(400, restarts=3)", num_classes=10
    )
    np.testing.assert_array_equal(found.x, again.x)


def test_signed_steps_stay_in_the_box():
    sent = GRADIENT(PARAMS, X[:1], Y[:1])
    found = reconstruct(
        sent, GRADIENT, PARAMS, (1, 8, 8), attack="geiping(1e-4, steps=400)", labels=Y[:1]
    )
    assert psnr(found.x, X[:1])[0] > 20
    assert found.x.min() >= 0 and found.x.max() <= 1


def test_a_batch_is_found_in_some_order():
    x, y = X[:2], Y[:2]
    found = reconstruct(
        GRADIENT(PARAMS, x, y), GRADIENT, PARAMS, x.shape,
        attack="idlg(800, restarts=2)", head=nets.head,
    )  # fmt: skip
    pairs = matched(found.x, x)
    assert (pairs.psnr > 30).all()
    assert found.labels[pairs.found].tolist() == y.tolist()


def test_local_epochs_are_unrolled():
    client = local_training(nets.losses, optax.sgd(0.1), batches_in_order(2, 1, epochs=2))
    sent = client(PARAMS, X[:2], Y[:2])
    found = reconstruct(
        sent, client, PARAMS, (2, 8, 8), attack="idlg(800, restarts=2)", labels=Y[:2]
    )
    # who knows the order of the rows finds them in it
    assert (psnr(found.x, X[:2]) > 30).all()
    # who takes the update for a gradient does not
    sloppy = reconstruct(
        jax.tree.map(jnp.negative, sent), GRADIENT, PARAMS, (2, 8, 8),
        attack="idlg(800, restarts=2)", labels=Y[:2],
    )  # fmt: skip
    assert matched(sloppy.x, X[:2]).psnr.mean() < psnr(found.x, X[:2]).mean() - 10


def test_a_sum_over_clients_is_the_clients_together():
    client = summed(GRADIENT, 2)
    sent = client(PARAMS, X[:4], Y[:4])
    expected = jax.tree.map(lambda leaf: 2 * leaf, GRADIENT(PARAMS, X[:4], Y[:4]))
    for ours, theirs in zip(jax.tree.leaves(sent), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_distances_are_those_of_the_papers():
    rng = np.random.default_rng(0)
    sent, observed = ({"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)} for _ in range(2))
    flat, goal = (np.concatenate([t["a"].ravel(), t["b"]]) for t in (sent, observed))
    expected = ((flat - goal) ** 2).sum() / (goal**2).sum()
    np.testing.assert_allclose(relative_l2(sent, observed), expected, rtol=1e-5)
    cosine = flat @ goal / np.linalg.norm(flat) / np.linalg.norm(goal)
    np.testing.assert_allclose(cosine_distance(sent, observed), 1 - cosine, rtol=1e-5)
    images = rng.normal(size=(2, 3, 4, 2))
    expected = np.abs(np.diff(images, axis=1)).mean() + np.abs(np.diff(images, axis=2)).mean()
    np.testing.assert_allclose(total_variation(jnp.asarray(images)), expected, rtol=1e-5)
    assert total_variation(jnp.ones((1, 1, 1))) == 0
    zero = jax.tree.map(jnp.zeros_like, sent)
    assert cosine_distance(zero, sent) == 1 and np.isfinite(relative_l2(sent, zero))


def test_searches_keep_the_best_and_leave_what_is_no_number():
    def wall(x):
        return jnp.where(x[0] > 2, jnp.nan, (x[0] - 1.5) ** 2)

    best, value = search(wall, lbfgs(), jnp.array([-3.0]), 60)
    np.testing.assert_allclose(best, [1.5], atol=1e-3)
    best, value = search(wall, lbfgs(), jnp.array([3.0]), 60)
    assert best.tolist() == [3] and value == np.inf
    best, value = search(wall, adam(0.1), jnp.array([3.0]), 60)
    assert best.tolist() == [3] and value == np.inf
    # one evaluation is of the start
    best, value = search(lambda x: (x**2).sum(), adam(0.1), jnp.array([2.0]), 1)
    assert best.tolist() == [2] and value == 4


def test_settings_have_names():
    assert make_inversion("dlg") == Inversion(tolerance=1e-10)
    assert make_inversion("idlg(restarts=3)").restarts == 3
    made = make_inversion("geiping(0.1, box=(-1, 1))")
    assert (made.distance, made.signed, made.box) == ("cosine", True, (-1.0, 1.0))
    for wrong, message in (
        ("dgl", "Did you mean 'dlg'"),
        ("dlg(steps=0)", "steps = 0 must be at least 1"),
        ("geiping(-1)", "total_variation = -1"),
        ("geiping(box=(1, 0))", r"box = \(1, 0\).*must be \(least, largest\)"),
        ("geiping(labels='known')", "labels = 'known' is not one of"),
        (Inversion(box=(0, 1)), "kept by the optimizer 'adam' alone"),
        (Inversion(start="zeros"), "start = 'zeros' is not one of"),
    ):
        with pytest.raises(ValueError, match=message):
            make_inversion(wrong)


def test_what_an_attack_lacks_is_said():
    sent = GRADIENT(PARAMS, X[:1], Y[:1])

    def attempt(observed=sent, shape=(1, 8, 8), **options):
        return reconstruct(observed, GRADIENT, PARAMS, shape, **options)

    with pytest.raises(ValueError, match="head is not given"):
        attempt(attack="idlg")
    with pytest.raises(ValueError, match="num_classes is not given"):
        attempt(attack="dlg")
    with pytest.raises(ValueError, match="2 labels were given for 1 rows"):
        attempt(labels=[1, 2])
    with pytest.raises(ValueError, match="use geiping\\(0\\)"):
        attempt(shape=(1, 64), labels=[1])
    with pytest.raises(ValueError, match="give them alike"):
        attempt({"v": sent["v"]}, labels=[1])
    with pytest.raises(ValueError, match="not finite"):
        attempt(jax.tree.map(lambda leaf: leaf / 0, sent), labels=[1])
    with pytest.raises(ValueError, match=r"shape = \(\)"):
        attempt(shape=(), labels=[1])
