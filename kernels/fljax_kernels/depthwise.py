"""Depthwise convolution: each channel by itself, as a sum of shifted images.

A product of matrices has nothing to gain where a kernel reads one channel: k x k multiplications
and additions of whole images are all there is, and their gradients are of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def depthwise_conv(
    x: jax.Array,
    w: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    size: Sequence[int],
) -> jax.Array:
    """Convolves each channel with kernels of its own.

    Args:
      x: [B, H, W, C] images.
      w: [kh, kw, 1, C * m] kernels: m output channels beside each other for each channel.
      strides: Of the windows, over height and width.
      padding: ((top, bottom), (left, right)), negative where images are cut.
      dilation: Distance of the kernel's entries.
      size: Height and width of the output.

    Returns:
      [B, *size, C * m].

    Example:
      >>> image, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
      >>> ones, none = (1, 1), ((0, 0), (0, 0))
      >>> depthwise_conv(image, kernel, ones, none, ones, (2, 2))[0, :, :, 0].tolist()
      [[4.0, 4.0], [4.0, 4.0]]
    """
    channels = x.shape[3]
    pads = [(0, 0, 0), *((*map(int, pair), 0) for pair in padding), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    kernels = w.reshape(*w.shape[:2], channels, -1)
    total = jnp.zeros((), jnp.result_type(x, w))
    for row in range(w.shape[0]):
        for column in range(w.shape[1]):
            start = (row * dilation[0], column * dilation[1])
            stop = [at + (n - 1) * s + 1 for at, n, s in zip(start, size, strides, strict=True)]
            shifted = lax.slice(x, (0, *start, 0), (x.shape[0], *stop, channels), (1, *strides, 1))
            total = total + shifted[..., None] * kernels[row, column]
    return total.reshape(*total.shape[:3], -1)
