"""A convolution, its bias, ReLU and max-pooling as one function, and in one form as one kernel."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.conv import LAYOUT, conv_general_dilated, named_padding, output_size
from fljax_kernels.pool import max_pool


def conv_relu(
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array,
    window_strides: Sequence[int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "VALID",
    *,
    pool: bool = False,
    precision: lax.PrecisionLike = None,
    form: str = "auto",
) -> jax.Array:
    """Computes max(x * w + bias, 0), and takes the maxima of its 2x2 windows where asked to.

    In the form "pallas" that is one kernel, which writes nothing but the result (and the places of
    maxima, a byte each), and the gradients are one kernel each: neither what is pooled nor its
    gradient is ever in memory. In other forms it is `conv_general_dilated`, and what follows.

    Args:
      x: float[B, H, W, C] images.
      w: float[kh, kw, C, O] kernels.
      bias: float[O].
      window_strides, padding, precision, form: As in `conv_general_dilated`.
      pool: Whether to pool, without a last row or column that fills no window.

    Returns:
      float[B, OH, OW, O], in the widest dtype of the three.

    Example:
      >>> images, kernels = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
      >>> conv_relu(images, kernels, jnp.zeros(4), pool=True).shape
      (2, 2, 2, 4)
    """
    dtype = jnp.result_type(x, w, bias)
    x, w, bias = (value.astype(dtype) for value in (x, w, bias))
    if form == "pallas":
        if isinstance(padding, str):
            padding = named_padding(x, w, window_strides, padding, (1, 1), (1, 1))
        size = output_size(x, w, window_strides, padding, (1, 1))
        if min(size) >= (2 if pool else 1):
            # imported here: nothing else needs Pallas, and its backend may disappear
            from fljax_kernels.fused_conv import convolve, geometry_of

            ending = "pool" if pool else "relu"
            geometry = geometry_of(window_strides, padding, (1, 1), size, ending)
            return convolve(x, w, bias, geometry, precision)
    y = conv_general_dilated(
        x, w, window_strides, padding, dimension_numbers=LAYOUT, precision=precision, form=form
    )
    y = jnp.maximum(y + bias, 0)
    return max_pool(y) if pool else y
