"""Makes tasks without targets: a model is to return what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import LOSS, LOWER, Metric, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import Field, checked
from fljax.tasks.batches import only_real
from fljax.tasks.metric_names import chosen
from fljax.tasks.supervised import floats, supervised

_LOSSES = ("mse", "bce")


def autoencoder(
    model: Any,
    *,
    loss: str = "mse",
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a reconstruction task: the model's outputs are to equal its inputs.

    The loss of an example is a mean over its features: the squared error with "mse", with "bce" the
    cross entropy of the outputs as logits and of features in [0, 1] as probabilities.

    Args:
      model: As for `classification`; it maps x[B, ...] to as many numbers, in any shape.
      loss: "mse" or "bce".
      metrics: Names of what it is judged by, the one that chooses first; all by default.
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; x is float[B, ...], and y is not read.

    Raises:
      ValueError: For another loss, or where outputs and inputs do not fit.

    Example:
      >>> task = tasks.autoencoder(models.mlp((64, 8, 64)))
      >>> [metric.name for metric in task.metrics]
      ['loss', 'rmse']
    """
    is_bce = checked("loss", loss, Field("mse", str, _LOSSES)) == "bce"

    def scored(outputs, batch, counts):
        """Returns losses and squared errors [B], both means over features."""
        x = jnp.asarray(batch["x"])
        x = only_real(counts, x.reshape(len(x), -1))
        flat = outputs.reshape(len(x), -1) if jnp.ndim(outputs) else outputs
        made = only_real(counts, floats(flat, x.shape, "a number for each feature of x"))
        squares = jnp.square((jax.nn.sigmoid(made) if is_bce else made) - x).mean(1)
        losses = (jax.nn.softplus(made) - x * made).mean(1) if is_bce else squares
        return tuple(jnp.where(counts, each, 0) for each in (losses, squares))

    def measured(scores, counts):
        losses, squares = scores
        rows = counts.astype(jnp.int32)
        return Measured({"loss": Sum(losses, rows), "rmse": Sum(squares, rows)})

    return supervised(
        model,
        kind="autoencoder",
        metrics=chosen(metrics, (LOSS, RMSE), (LOSS.name, RMSE.name)),
        scored=scored,
        measured=measured,
        frozen=frozen,
        fast_layers=fast_layers,
    )


RMSE = Metric(
    "rmse",
    LOWER,
    lambda sums: np.sqrt(sums["rmse"].value / sums["rmse"].weight),
    label="Root mean squared error",
)
