"""Max-pooling without XLA's window reduction, whose gradient is slow on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp


def max_pool(inputs: jax.Array, window_shape: Sequence[int] = (2, 2)) -> jax.Array:
    """Takes the maximum of each window; windows do not overlap.

    Rows and columns that do not fill a window are left out, as with padding "VALID". The gradient
    goes to the first maximum of a window in row-major order, never to several.

    Args:
      inputs: [..., H, W, C].
      window_shape: Height and width of a window; the strides are the same.

    Returns:
      [..., H // height, W // width, C].
    """
    height, width = window_shape
    *batch, rows, columns, channels = inputs.shape
    rows, columns = rows // height, columns // width
    x = inputs[..., : rows * height, : columns * width, :]
    x = x.reshape(*batch, rows, height, columns, width * channels)
    x = reduce(_first_maximum, jnp.split(x, width, axis=-1))
    return reduce(_first_maximum, (x[..., i, :, :] for i in range(height)))


def _first_maximum(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the larger one, `a` if both are equal, NaN if one is NaN."""
    return jnp.where((b > a) | jnp.isnan(b), b, a)
