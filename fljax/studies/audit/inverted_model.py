"""Typical rows of classes by the released model of a run, beside the classes' means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.reconstruction.model_inversion import invert_classes, likeness_of_means
from fljax.config.experiment import Experiment
from fljax.config.prediction import fitted_model
from fljax.core import random
from fljax.data.pictures.image_rows import plot_image_rows
from fljax.recording.models import load_saved
from fljax.recording.runs import Run
from fljax.studies.audit.scene import is_image, seen_rows

# Rows that means are taken of, and classes that are inverted, at most.
_MOST_ROWS, _MOST_CLASSES = 5000, 20
_STEPS = 1000


def invert_model(
    run: Run, experiment: Experiment, folder: Path, seed: int
) -> dict[str, Any] | None:
    """Returns how near the inverted classes of a run's final model come to those of its data.

    Args:
      run: The run, which kept its model.
      experiment: What it did; of a task with one label a row.
      folder: Receives a picture where rows are images: means of classes above, inverted ones below.
      seed: Draws the rows that means are taken of.

    Returns:
      {"classes": int, "scores": what the model gives each, "nearest": the share of classes whose
      inverted row correlates with the class's own mean most, "psnr" (dB) to that mean, "picture": a
      file's name or None}; None for tasks of many classes or without logits.
    """
    task, dataset = experiment.task, experiment.dataset
    number = task.num_classes
    if task.kind != "classification" or task.apply is None or number > _MOST_CLASSES:
        return None
    variables, frozen = fitted_model(task, load_saved(run.directory))
    rows = dataset.train.rows()
    order = np.argsort(random.bits(seed, "audit/means", rows), kind="stable")
    x, y = seen_rows(dataset, rows[order[:_MOST_ROWS]])
    box = float(x.min()), float(x.max())

    def logits(params, x):
        return task.apply(params, frozen, variables.model_state, x)

    params = jax.tree.map(jnp.asarray, variables.params)
    found = invert_classes(
        logits, params, x.shape[1:], number, steps=_STEPS, box=box, cost="log",
        start=float(x.mean()), total_variation=1e-2 * is_image(x.shape[1:]),
    )  # fmt: skip
    known = [x[y == label] for label in range(number)]
    means = np.stack([own.mean(0) if len(own) else np.full(x.shape[1:], np.nan) for own in known])
    likeness = likeness_of_means(found.x, means, box[1] - box[0])
    picture = None
    if is_image(x.shape[1:]):
        picture = "classes.png"
        images = {"mean": means, "inverted": found.x}
        plot_image_rows(images, low=box[0], high=box[1], path=folder / picture)
    return {
        "classes": number,
        "scores": found.scores.tolist(),
        "nearest": float((likeness.nearest == np.arange(number)).mean()),
        "psnr": [float(value) if np.isfinite(value) else None for value in likeness.psnr],
        "picture": picture,
    }
