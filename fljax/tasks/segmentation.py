"""Makes tasks with a class for each pixel, which are judged by how regions overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import LOSS, Metric, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, FINITE, Field, Interval, checked
from fljax.tasks.batches import only_real, per_example
from fljax.tasks.metric_names import chosen
from fljax.tasks.supervised import floats, supervised

# Keeps the overlap of a class that an image has not from being 0 / 0.
_SMOOTHING = 1.0


def segmentation(
    model: Any,
    num_classes: int,
    *,
    dice_weight: float = 0.5,
    background: bool = True,
    ignore_label: int | None = None,
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task with a class for each pixel: cross entropy and soft Dice.

    The loss of an image is (1 - w) times the mean cross entropy of its pixels plus w times
    (1 - Dice), where Dice is the mean over classes of (2 overlap + 1) / (size in the target + size
    in the prediction + 1), in probabilities (Milletari et al., arXiv:1606.04797, without squares).
    Every image counts alike, whatever its size.

    It is judged by mean IoU, Dice and the share of correct pixels, of the pixels of all images
    together: IoU of a class is overlap / union, Dice is 2 overlap / sum of both sizes, and the mean
    is over the classes that occur among targets or predictions: scikit-learn's `jaccard_score` and
    `f1_score` with average="macro".

    Args:
      model: As for `classification`; it maps x[B, ...] to logits [B, H, W, num_classes].
      num_classes: Number of classes; class 0 is usually the background.
      dice_weight: w, from 0 (cross entropy alone) to 1 (Dice alone).
      background: Whether class 0 counts in Dice, both as loss and as metric, and in mean IoU.
      ignore_label: Pixels with this label do not count, as border pixels; None if all count.
      metrics: Names of what it is judged by, the one that chooses first; all by default.
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; y is int[B, H, W].

    Raises:
      ValueError: For numbers out of range, or where logits and labels do not fit.

    Example:
      >>> task = tasks.segmentation(models.unet(3, (32, 32, 1), width=4, depth=2), num_classes=3)
      >>> task, [metric.name for metric in task.metrics]
      (Task('segmentation', 3 classes), ['mean_iou', 'dice', 'pixel_accuracy', 'loss'])
    """
    num_classes = checked("num_classes", num_classes, Field(None, int, COUNT))
    share = checked("dice_weight", dice_weight, Field(0.5, float, Interval(0, 1)))
    background = checked("background", background, Field(True, bool))
    ignore_label = checked("ignore_label", ignore_label, Field(None, int, FINITE, optional=True))
    first = 0 if background else 1
    judged_by = chosen(metrics, METRICS, [metric.name for metric in METRICS])
    if num_classes <= first:
        raise ValueError("background = False leaves no class of num_classes = 1. Give at least 2.")

    def counted_pixels(batch):
        y = jnp.asarray(batch["y"])
        if y.ndim != 3 or not (jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == jnp.bool_):
            raise ValueError(
                f"y is {y.dtype}{list(y.shape)}, and a segmentation task learns classes of pixels: "
                "give integers [rows, height, width]."
            )
        counts = jnp.broadcast_to(jnp.asarray(batch["mask"])[:, None, None], y.shape)
        return counts if ignore_label is None else counts & (y != ignore_label)

    def counted(batch):
        return counted_pixels(batch).any((1, 2))

    def scored(outputs, batch, counts):
        """Returns losses [B], bool[B, H, W, C] predictions and labels, and what counts."""
        pixels = counted_pixels(batch)
        shape = (*pixels.shape, num_classes)
        logits = only_real(pixels, floats(outputs, shape, "a logit of each class for each pixel"))
        labels = _one_hot(batch["y"], num_classes, pixels)
        cross_entropy, dice = _losses(logits, labels, pixels, first)
        losses = jnp.where(counts, (1 - share) * cross_entropy + share * dice, 0)
        # a model that diverged predicts nothing
        predicts = pixels & jnp.isfinite(logits.max(-1))
        return losses, _one_hot(logits.argmax(-1), num_classes, predicts), labels, pixels

    def measured(scores, counts):
        losses, found, labels, pixels = scores
        images = counts.astype(jnp.int32)
        by_class = {OVERLAP: found & labels, PREDICTED: found, ACTUAL: labels}
        areas = {
            name: Sum(area.sum((1, 2), dtype=jnp.int32)[:, first:], images)
            for name, area in by_class.items()
        }
        hits, size = (per_example(each.astype(jnp.int32)) for each in (found & labels, pixels))
        return Measured({"loss": Sum(losses, images), "pixel_accuracy": Sum(hits, size), **areas})

    return supervised(
        model,
        kind="segmentation",
        metrics=judged_by,
        scored=scored,
        measured=measured,
        counted=counted,
        # labels that are ignored are no classes, and would be refused
        num_classes=num_classes if ignore_label is None else None,
        frozen=frozen,
        fast_layers=fast_layers,
    )


OVERLAP, PREDICTED, ACTUAL = "overlap", "predicted", "actual"


def _one_hot(labels: jax.Array, num_classes: int, counts: jax.Array) -> jax.Array:
    return (jnp.arange(num_classes) == labels[..., None]) & counts[..., None]


def _losses(
    logits: jax.Array, labels: jax.Array, pixels: jax.Array, first: int
) -> tuple[jax.Array, jax.Array]:
    """Returns (mean cross entropy over pixels, 1 - soft Dice over the classes from `first` on)."""
    log_probabilities = jax.nn.log_softmax(logits)
    cross_entropy = -jnp.sum(log_probabilities, where=labels, axis=(1, 2, 3))
    probabilities = jnp.exp(log_probabilities)
    overlap = jnp.sum(probabilities, where=labels, axis=(1, 2))
    sizes = jnp.sum(probabilities, where=pixels[..., None], axis=(1, 2)) + labels.sum((1, 2))
    dice = (2 * overlap + _SMOOTHING) / (sizes + _SMOOTHING)
    size = jnp.maximum(pixels.sum((1, 2)), 1)
    return cross_entropy / size, 1 - dice[:, first:].mean(-1)


def _quotients(sums: Mapping[str, Sum], quotient: Callable) -> Any:
    """Returns the mean over classes that occur of a quotient of (overlap, both sizes together)."""
    overlap, predicted, actual = (
        np.asarray(sums[name].value, np.float64) for name in (OVERLAP, PREDICTED, ACTUAL)
    )
    occurs = predicted + actual > 0
    of_class = np.where(occurs, quotient(overlap, predicted + actual), 0)
    return of_class.sum(-1) / occurs.sum(-1)


METRICS = (
    Metric(
        "mean_iou",
        value=partial(_quotients, quotient=lambda overlap, both: overlap / (both - overlap)),
        label="Mean IoU",
    ),
    Metric(
        "dice",
        value=partial(_quotients, quotient=lambda overlap, both: 2 * overlap / both),
        label="Dice",
    ),
    Metric("pixel_accuracy", label="Pixel accuracy"),
    LOSS,
)
