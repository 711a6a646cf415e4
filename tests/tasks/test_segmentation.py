"""Segmentation against loops over pixels and scikit-learn's scores of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import tasks
from fljax.core import metrics

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES, ROWS, HEIGHT, WIDTH, IGNORED = 4, 7, 5, 3, 255
IDENTITY = (lambda key: {}, lambda params, x: x)


def images(seed=0):
    """Returns a batch whose logits are x: with ties, a class that nobody has, and padding."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES - 1, (ROWS, HEIGHT, WIDTH)).astype(np.int32)
    y[1], y[2, 0] = IGNORED, IGNORED
    x = generator.integers(-2, 3, (ROWS, HEIGHT, WIDTH, CLASSES)).astype(np.float32)
    x[3], y[-1], x[-1] = np.nan, 10**6, np.nan
    return {"x": x, "y": y, "mask": np.arange(ROWS) < ROWS - 1}


def loss_of(logits, labels, share, first):
    """Returns the loss of one image, pixel by pixel, in float64."""
    entropy, pixels = 0.0, 0
    overlap, sizes = np.zeros(CLASSES), np.zeros(CLASSES)
    for row, label in zip(logits.reshape(-1, CLASSES), labels.ravel(), strict=True):
        if label == IGNORED:
            continue
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        entropy -= np.log(shares[label])
        overlap[label] += shares[label]
        sizes += shares + (np.arange(CLASSES) == label)
        pixels += 1
    dice = ((2 * overlap + 1) / (sizes + 1))[first:].mean()
    return (1 - share) * entropy / pixels + share * (1 - dice) if pixels else 0.0


@pytest.mark.parametrize(("share", "background"), [(0.5, True), (0.3, False)])
def test_losses_and_scores_are_those_of_loops(share, background):
    scores = pytest.importorskip("sklearn.metrics")
    batch, first = images(), 0 if background else 1
    task = tasks.segmentation(
        IDENTITY, CLASSES, dice_weight=share, background=background, ignore_label=IGNORED
    )
    (value, weight), _ = jax.jit(task.loss, static_argnums=5)({}, {}, {}, batch, None, True)
    sums = jax.device_get(jax.jit(task.measure)({}, {}, {}, batch).sums)
    np.testing.assert_array_equal(weight, [1, 0, 1, 1, 1, 1, 0])
    for row in (0, 1, 2, 4, 5):
        loss = loss_of(np.float64(batch["x"][row]), batch["y"][row], share, first)
        np.testing.assert_allclose(value[row], loss, rtol=1e-5)
    assert value[6] == 0 and np.isnan(value[3])
    np.testing.assert_allclose(sums["loss"].value, value, rtol=1e-6)

    def expected(rows):
        """Returns the scores of some images, whose NaN are predictions of no class."""
        label, logits = batch["y"][rows], batch["x"][rows]
        predicted = np.where(np.isnan(logits).any(-1), -1, np.nan_to_num(logits).argmax(-1))
        label, predicted = (each[label != IGNORED] for each in (label, predicted))
        classes = [kind for kind in range(first, CLASSES) if (label == kind).any()]
        classes += [kind for kind in range(first, CLASSES) if (predicted == kind).any()]
        of = {"average": "macro", "labels": sorted(set(classes)), "zero_division": 0}
        return [
            scores.jaccard_score(label, predicted, **of),
            scores.f1_score(label, predicted, **of),
            scores.accuracy_score(label, predicted),
        ]

    names = ("mean_iou", "dice", "pixel_accuracy")
    found = metrics.global_metrics(task.metrics, sums)
    real = np.arange(ROWS - 1)
    np.testing.assert_allclose([found[name] for name in names], expected(real), rtol=1e-12)
    owners = np.array([0, 2, 2, 0, 0, 2, 2])
    table = metrics.client_metrics(task.metrics, sums, owners, 4)
    each = [expected(real[owners[:-1] == owner]) for owner in (0, 2)]
    np.testing.assert_allclose([table[name] for name in names], np.transpose(each), rtol=1e-12)


def test_what_does_not_fit_is_refused():
    batch = images()
    for change, message in (
        ({"y": batch["y"][:, 0]}, r"y is int32\[7, 3\].*\[rows, height, width\]"),
        ({"x": batch["x"][..., :2]}, r"returns an array of shape \[7, 5, 3, 2\]; \[7, 5, 3, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(tasks.segmentation(IDENTITY, 4).measure, {}, {}, {}, batch | change)
    with pytest.raises(ValueError, match="leaves no class"):
        tasks.segmentation(IDENTITY, 1, background=False)
    with pytest.raises(ValueError, match="dice_weight = 1.5"):
        tasks.segmentation(IDENTITY, 4, dice_weight=1.5)


def test_gradients_are_finite_whatever_is_ignored():
    batch = images() | {"mask": np.arange(ROWS) < 3}
    task = tasks.segmentation(
        (lambda key: jnp.ones(()), lambda scale, x: scale * x), CLASSES, ignore_label=IGNORED
    )
    total = lambda scale: task.loss(scale, {}, {}, batch, None, True)[0][0].sum()  # noqa: E731
    assert np.isfinite(jax.jit(jax.grad(total))(1.0))


@pytest.mark.parametrize("text", ["flip", "crop(1)", "rotation(90)", "crop(1), noise(0.0)"])
def test_augmentations_move_pixels_and_their_classes_alike(text):
    """If x shows each pixel's class, it does so after it was moved; nothing is class 0."""
    y = np.random.default_rng(0).integers(0, 2, (6, 4, 4)).astype(np.int32)
    batch = {"x": np.eye(2, dtype=np.float32)[y] * 60, "y": y, "mask": np.ones(6, bool)}
    seen = []

    def apply(params, x):
        seen.append(x)
        return x.at[..., 0].add(1.0)

    task = tasks.augmented(tasks.segmentation(((lambda key: {}), apply), 2, dice_weight=0), text)

    @jax.jit
    def step(key):
        (value, _), _ = task.loss({}, {}, {}, batch, key, True)
        return value, seen[-1]

    value, x = step(jax.random.key(1))
    assert (np.asarray(x) != batch["x"]).any()
    if "rotation" not in text:
        assert np.all(value < 0.35)
    else:  # between pixels, both classes are near to each other
        sure = np.abs(x[..., 0] - x[..., 1]) > 5
        assert np.all(value <= 5.1 * (1 - sure.mean((1, 2))) + 0.4)


def test_pixels_that_are_ignored_are_not_moved():
    task = tasks.segmentation(IDENTITY, 2, ignore_label=IGNORED)
    tasks.augmented(task, "cutout(2), noise")
    with pytest.raises(ValueError, match="Leave ignore_label out"):
        tasks.augmented(task, "flip")
