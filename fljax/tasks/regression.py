"""Makes tasks whose targets are numbers: least squares, absolute error, and Huber's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import LOSS, LOWER, Metric, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, POSITIVE, Field, checked
from fljax.tasks.batches import only_real, per_example
from fljax.tasks.metric_names import chosen
from fljax.tasks.supervised import supervised, wide

# loss -> the metric that is of its kind, and comes first
LOSSES = {"mse": "rmse", "mae": "mae", "huber": "mae"}
# A sum of squares that is smaller than this share of its parts is rounding.
_ROUNDING = 8 * np.finfo(np.float64).eps


def regression(
    model: Any,
    outputs: int = 1,
    *,
    loss: str = "mse",
    delta: float = 1.0,
    unit: str = "",
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task whose targets are numbers.

    The loss of a batch is the mean over its rows and their targets. Targets are taken as they are:
    to standardize them is for the data set.

    Args:
      model: As for `classification`; it maps x[B, ...] to [B, outputs], or to [B] where there is
        one.
      outputs: K, the targets of a row.
      loss: "mse", squared errors; "mae", absolute errors; or "huber", half of squared errors up to
        `delta`, and straight on from there (Huber 1964).
      delta: Of "huber".
      unit: Of the targets, such as "m"; plots and tables name it.
      metrics: Names of what it is judged by, the one that chooses first, of "rmse", "mae", "r2" and
        "loss"; by default that of the loss's kind is first, of "huber" "mae".
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; y is float[B], or float[B, K]. Metrics are means over the targets of what each of
      them has; R² is 1 or 0 where a target does not vary, as in scikit-learn, and NaN of one row
      or of errors that are not finite.

    Raises:
      ValueError: For an unknown loss or metric, or a number out of range.

    Example:
      >>> task = tasks.regression(models.mlp((4, 8, 1)), loss="huber", unit="m")
      >>> [metric.title for metric in task.metrics]
      ['Mean absolute error (m)', 'Root mean squared error (m)', 'R²', 'Loss']
    """
    outputs = checked("outputs", outputs, Field(1, int, COUNT))
    loss = checked("loss", loss, Field("mse", str, tuple(LOSSES)))
    delta = checked("delta", delta, Field(1.0, float, POSITIVE))
    unit = checked("unit", unit, Field("", str))
    error_of = {"mse": jnp.square, "mae": jnp.abs, "huber": partial(_huber, delta)}[loss]
    first = LOSSES[loss]
    known = (
        Metric("rmse", LOWER, _rmse, label="Root mean squared error", unit=unit),
        Metric("mae", LOWER, _mae, label="Mean absolute error", unit=unit),
        Metric("r2", value=_r2, label="R²"),
        LOSS,
    )
    metrics = chosen(metrics, known, [first, *(each.name for each in known if each.name != first)])

    def counted(batch):
        return jnp.broadcast_to(batch["mask"][:, None], (len(batch["mask"]), outputs))

    def scored(found, batch, counts):
        y = _columns(batch["y"], "y has", outputs, "Make the task with as many outputs.")
        found = _columns(found, "The model returns", outputs, "Give its last layer as many.")
        y, errors = only_real(counts, wide(y)), only_real(counts, wide(found) - wide(y))
        return jnp.where(counts, error_of(errors), 0), errors, y

    return supervised(
        model,
        kind="regression",
        metrics=metrics,
        scored=scored,
        measured=_measured,
        counted=counted,
        frozen=frozen,
        fast_layers=fast_layers,
    )


def _huber(delta: float, errors: jax.Array) -> jax.Array:
    small = jnp.minimum(jnp.abs(errors), delta)
    return small * (jnp.abs(errors) - 0.5 * small)


def _columns(values: Any, what: str, outputs: int, remedy: str) -> jax.Array:
    """Returns numbers [B] or [B, K] as [B, K]; refuses what is of another width."""
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) == 1:
        values, shape = values[:, None], (*shape, 1)
    if shape is None or len(shape) != 2 or shape[1] != outputs:
        found = type(values).__name__ if shape is None else f"the shape {list(shape)}"
        raise ValueError(
            f"{what} {found}, and a regression task of outputs = {outputs} wants "
            f"[rows, {outputs}]. {remedy}"
        )
    return values


def _measured(scores: tuple[jax.Array, ...], counts: jax.Array) -> Measured:
    losses, errors, y = scores
    rows = counts[:, 0].astype(jnp.int32)
    return Measured(
        {
            "loss": Sum(per_example(losses), per_example(counts.astype(jnp.int32))),
            "squared_errors": Sum(errors**2, rows),
            "absolute_errors": Sum(jnp.abs(errors), rows),
            "targets": Sum(y, rows),
            "squared_targets": Sum(squares(y), rows),
        }
    )


def squares(values: jax.Array) -> jax.Array:
    """Returns the squares of numbers [...], in parts [..., 3] that add up to them without rounding.

    A variance is what is left of large sums of squares: of heights above the sea in a valley, say,
    rounding each to 32 bits would leave nothing true. So float32 numbers are cut into two of 12
    bits, whose products are exact. Parts of numbers of 64 bits are the square and zeros.
    """
    if values.dtype != jnp.float32:
        nothing = jnp.zeros_like(values)
        return jnp.stack([values**2, nothing, nothing], -1)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32) & jnp.uint32(0xFFFFF000)
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    low = values - high
    return jnp.stack([high**2, 2 * high * low, low**2], -1)


def _mean(sums: Mapping[str, Sum], name: str) -> np.ndarray:
    """Returns the mean of each target, [..., K]."""
    value, weight = sums[name]
    return value / np.asarray(weight)[..., None]


def _rmse(sums: Mapping[str, Sum]) -> Any:
    return np.sqrt(_mean(sums, "squared_errors")).mean(-1)


def _mae(sums: Mapping[str, Sum]) -> Any:
    return _mean(sums, "absolute_errors").mean(-1)


def _r2(sums: Mapping[str, Sum]) -> Any:
    """Returns the coefficient of determination; of targets that do not vary 1 or 0."""
    rows = np.asarray(sums["targets"].weight)[..., None]
    around_zero = sums["squared_targets"].value.sum(-1)
    spread = around_zero - sums["targets"].value ** 2 / rows
    errors = sums["squared_errors"].value
    constant = spread <= _ROUNDING * around_zero
    r2 = np.where(constant, errors == 0, 1 - errors / np.where(constant, 1, spread))
    return np.where((rows < 2) | ~np.isfinite(errors), np.nan, r2).mean(-1)
