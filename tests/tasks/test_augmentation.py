"""Augmentations do what their definitions say, to real rows of training steps alone."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import fljax
from fljax import data, models, tasks
from fljax.config import ConfigError, resolve
from fljax.tasks.augmentation import Augmentation, _rotated, chain_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).normal(size=(40, 7, 6, 2)).astype(np.float32)


def changed(text, batch, key=KEY):
    (augmentation,) = chain_of(text)
    return jax.jit(augmentation.change)(key, batch)


def batch_of(x, **more):
    return {"x": jnp.asarray(x), "y": jnp.zeros(len(x), jnp.int32), **more}


def test_crops_are_windows_of_padded_images_at_all_places():
    found = np.asarray(changed("crop(2)", batch_of(IMAGES))["x"])
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = set()
    for image, source in zip(found, padded, strict=True):
        (place,) = [
            (r, c) for r in range(5) for c in range(5)
            if np.allclose(image, source[r : r + 7, c : c + 6], atol=1e-6)
        ]  # fmt: skip
        places.add(place)
    assert {r for r, _ in places} == {c for _, c in places} == set(range(5))


@pytest.mark.parametrize("text, axis", [("flip", 1), ("flip(vertical=True)", 0)])
def test_half_of_the_images_are_mirrored(text, axis):
    found = np.asarray(changed(text, batch_of(IMAGES))["x"])
    same = [np.array_equal(a, b) for a, b in zip(found, IMAGES, strict=True)]
    turned = [np.array_equal(a, np.flip(b, axis)) for a, b in zip(found, IMAGES, strict=True)]
    assert np.logical_xor(same, turned).all() and 10 < sum(turned) < 30


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, -45.0])
def test_rotations_are_scipys(angle):
    image = IMAGES[0, :6]
    found = jax.jit(_rotated)(jnp.asarray(image), jnp.deg2rad(angle))
    wanted = ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_cutout_zeroes_one_square_and_noise_has_its_deviation():
    found = np.asarray(changed("cutout(3)", batch_of(np.ones((200, 7, 6, 1), np.float32)))["x"])
    gone = 7 * 6 - found.sum((1, 2, 3))
    assert gone.max() == 9 and set(gone) <= {4, 6, 9}
    noisy = np.asarray(changed("noise(0.5)", batch_of(np.zeros((200, 50), np.float32)))["x"])
    assert noisy.std() == pytest.approx(0.5, rel=0.03)


def test_windows_cut_tokens_and_targets_alike():
    x = jnp.arange(60).reshape(3, 20)
    found = changed("window(8)", {"x": x, "y": x + 1})
    assert found["x"].shape == (3, 8) and (found["y"] == found["x"] + 1).all()
    assert (jnp.diff(found["x"]) == 1).all() and len(set((found["x"][:, 0] % 20).tolist())) > 1


def test_mixup_is_the_mixture_of_two_losses_and_one_forward_pass():
    task = tasks.classification(models.softmax_regression(4, 3), 3)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.arange(6) < 4}
    params, frozen, state = task.init(KEY)
    params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape), params)
    mixed = tasks.augmented(task, "mixup(1.0)")
    run = jax.jit(lambda key: mixed.loss(params, frozen, state, batch, key, True))
    (losses, weights), _ = run(KEY)
    own = jax.random.split(jax.random.fold_in(KEY, 0x617567), 1)[0]
    _, other, share = chain_of("mixup(1.0)")[0].mix(own, batch)
    blend = share[:, None] * x + (1 - share[:, None]) * x[np.asarray(other)]
    logits = np.asarray(
        task.apply(params, frozen, state, jnp.where(batch["mask"][:, None], blend, 0))
    )
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -(share * logp[np.arange(6), y] + (1 - share) * logp[np.arange(6), y[other]])
    np.testing.assert_allclose(losses[:4], wanted[:4], rtol=1e-5)
    assert weights.tolist() == [1, 1, 1, 1, 0, 0] and losses[4:].tolist() == [0, 0]
    assert not np.isin(np.asarray(other)[:4][np.asarray(share)[:4] < 1], [4, 5]).any()
    lowered = jax.jit(
        jax.grad(lambda p: mixed.loss(p, frozen, state, batch, KEY, True)[0][0].sum())
    )
    assert lowered.lower(params).as_text().count("stablehlo.dot_general") == 2  # forward, backward


def test_evaluation_sees_examples_as_they_are_and_steps_differ():
    task = tasks.classification(models.softmax_regression(4, 3), 3)
    noisy = tasks.augmented(task, "noise(1.0)")
    assert noisy.measure is task.measure and noisy.apply is task.apply
    params, frozen, state = task.init(KEY)
    params = jax.tree.map(jnp.ones_like, params)
    params = jax.tree.map(lambda leaf: leaf * jnp.arange(leaf.shape[-1]), params)
    batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 1]), "mask": jnp.array([True, True])}

    @jax.jit
    def losses(key):
        return noisy.loss(params, frozen, state, batch, key, True)[0][0]

    one, again, another = losses(KEY), losses(KEY), losses(jax.random.key(4))
    assert (one == again).all() and (one != another).all()
    calm, _ = noisy.loss(params, frozen, state, batch, KEY, False)
    np.testing.assert_array_equal(
        calm[0], task.loss(params, frozen, state, batch, None, False)[0][0]
    )


def test_what_does_not_fit_is_refused():
    for text, said in (
        ("crops", "crop"), ("crop(0)", "padding"), ("mixup, flip", "stands last"), ("", "crop"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            resolve({"augmentation": text})
    with pytest.raises(ValueError, match="change images"):
        chain_of("flip")[0].change(KEY, batch_of(np.ones((2, 5), np.float32)))
    with pytest.raises(ValueError, match="mixes floats"):
        chain_of("mixup")[0].mix(KEY, batch_of(np.ones((2, 5), np.int32), mask=jnp.ones(2, bool)))
    with pytest.raises(ValueError, match="batches of this run hold one. Set batch_size to 2"):
        chain_of("mixup")[0].mix(KEY, batch_of(np.ones((1, 5), np.float32), mask=jnp.ones(1, bool)))
    with pytest.raises(ValueError, match="one length"):
        chain_of("window(9)")[0].change(KEY, batch_of(np.ones((2, 5), np.int32)))


def test_mixed_examples_have_no_gradient_of_their_own_to_clip():
    dataset = data.from_arrays(np.ones((6, 2), np.float32), np.arange(6) % 2, client_ids=[0] * 6)
    options = {"num_rounds": 1, "clients_per_round": 1, "local_steps": 1, "batches": "poisson"}
    with pytest.raises(ValueError, match="mixes them, as the augmentation mixup .* Leave mixup"):
        fljax.simulate(
            dataset, "logistic", augmentation="noise(0.1), mixup(0.4)", batch_size=2,
            privacy=fljax.privacy.dpsgd(1.0, 1.0), **options,
        )  # fmt: skip
    task = tasks.classification(models.softmax_regression(2, 2), 2)
    assert not tasks.augmented(task, "noise(0.1)").compares_examples


def test_one_of_ones_own():
    task = tasks.classification(models.softmax_regression(4, 3), 3)
    own = Augmentation(lambda key, batch: {**batch, "x": -batch["x"]})
    params, frozen, state = task.init(KEY)
    params = jax.tree.map(lambda leaf: leaf + 1.0 * jnp.arange(leaf.shape[-1]), params)
    batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 1]), "mask": jnp.array([True, True])}
    (found, _), _ = tasks.augmented(task, [own]).loss(params, frozen, state, batch, KEY, True)
    turned = {**batch, "x": -batch["x"]}
    np.testing.assert_array_equal(found, task.loss(params, frozen, state, turned, KEY, True)[0][0])


def test_a_run_says_what_changed_its_examples(tmp_path):
    rng = np.random.default_rng(0)
    dataset = data.from_arrays(rng.normal(size=(12, 4)), np.arange(12) % 3, num_clients=2)
    shared = {
        "num_rounds": 1, "clients_per_round": 2, "progress": False, "lanes": 1, "devices": 1,
        "rounds_per_dispatch": 1,
    }  # fmt: skip
    run = fljax.simulate(
        dataset, "softmax_regression", augmentation="noise(1.0)", workdir=tmp_path, **shared
    )
    calm = fljax.simulate(dataset, "softmax_regression", augmentation="noise(0.0)", **shared)
    assert json.loads((tmp_path / "config.json").read_text())["augmentation"] == "noise(1.0)"
    ours, theirs = (jax.tree.leaves(each.variables.params) for each in (run, calm))
    assert any((a != b).any() for a, b in zip(ours, theirs, strict=True))
