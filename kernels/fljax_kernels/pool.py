"""Max-pooling without XLA's window reduction, whose gradient is slow on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fljax_kernels.stored import stored

# Of more channels XLA makes vectors, and computing entries again is cheaper than keeping them.
_FEW_CHANNELS = 16


def max_pool(inputs: jax.Array, window_shape: Sequence[int] = (2, 2)) -> jax.Array:
    """Takes the maximum of each window; windows do not overlap.

    Rows and columns that do not fill a window are left out, as with padding "VALID". The gradient
    goes to the first maximum of a window in row-major order, never to several.

    Args:
      inputs: [..., H, W, C].
      window_shape: Height and width of a window; the strides are the same.

    Returns:
      [..., H // height, W // width, C].

    Example:
      >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel().tolist()
      [5.0, 7.0, 13.0, 15.0]
    """
    height, width = window_shape
    *batch, rows, columns, channels = inputs.shape
    rows, columns = rows // height, columns // width
    x = inputs[..., : rows * height, : columns * width, :]
    # stored, since a dense layer's rows of features have indices that XLA makes no vectors of
    return stored(_window_max(x.reshape(*batch, rows, height, columns, width, channels)))


@jax.custom_jvp
def _window_max(x: jax.Array) -> jax.Array:
    """[..., rows, height, columns, width, C] -> [..., rows, columns, C]."""
    return reduce(jnp.maximum, _entries(_kept(x)))


@_window_max.defjvp
def _window_max_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    height, width = x.shape[-4], x.shape[-2]
    numbers = np.arange(height * width, dtype=np.min_scalar_type(height * width))
    entries = _entries(_kept(x))
    best, place = entries[0], jnp.zeros(entries[0].shape, numbers.dtype)
    for number, entry in zip(numbers[1:], entries[1:], strict=True):
        place = jnp.where(entry > best, number, place)
        best = jnp.maximum(best, entry)
    place = stored(place)
    # one comparison for each entry of the gradient, which XLA makes a single loop of
    chosen = numbers.reshape(height, 1, width, 1) == jnp.expand_dims(place, (-4, -2))
    return best, jnp.where(chosen, dx, 0).sum((-4, -2))


def _entries(x: jax.Array) -> list[jax.Array]:
    """Returns the entries of all windows, in row-major order of a window."""
    height, width = x.shape[-4], x.shape[-2]
    rows = (part.squeeze(-4) for part in lax.split(x, [1] * height, axis=x.ndim - 4))
    return [
        part.squeeze(-2) for row in rows for part in lax.split(row, [1] * width, axis=row.ndim - 2)
    ]


def _kept(x: jax.Array) -> jax.Array:
    """Returns the entries, written to memory where they have few channels.

    XLA would else compute what they come from (a convolution's sum of slices, say) again for every
    entry of a window, and once more for the gradient: a quarter of LeNet's step.
    """
    return x if x.shape[-1] > _FEW_CHANNELS else stored(x)
