"""The kernels' definitions, as loops of NumPy in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def conv_reference(
    lhs: np.ndarray,
    rhs: np.ndarray,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    dilation: Sequence[int] = (1, 1),
) -> np.ndarray:
    """Sums over the taps of the kernel, one strided view of the padded input each.

    Args:
      lhs: [B, H, W, C] inputs.
      rhs: [kh, kw, C, O] kernels.
      strides: Vertical and horizontal stride.
      padding: ((top, bottom), (left, right)) zeros around the input.
      dilation: Vertical and horizontal spacing of the taps.

    Returns:
      float64[B, OH, OW, O].
    """
    x = np.pad(np.asarray(lhs, np.float64), ((0, 0), *padding, (0, 0)))
    w = np.asarray(rhs, np.float64)
    height, width = (
        (n - (k - 1) * spacing - 1) // stride + 1
        for n, k, spacing, stride in zip(x.shape[1:3], w.shape[:2], dilation, strides, strict=True)
    )
    y = np.zeros((len(x), height, width, w.shape[3]))
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            tap = x[:, i * dilation[0] :: strides[0], j * dilation[1] :: strides[1]]
            y += tap[:, :height, :width] @ w[i, j]
    return y


def max_pool_reference(inputs: np.ndarray, window_shape: Sequence[int] = (2, 2)) -> np.ndarray:
    """Takes the maximum of each window of [B, H, W, C], window by window."""
    height, width = window_shape
    batch, rows, columns, channels = inputs.shape
    y = np.empty((batch, rows // height, columns // width, channels), inputs.dtype)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            window = inputs[:, i * height : (i + 1) * height, j * width : (j + 1) * width]
            y[:, i, j] = window.max(axis=(1, 2))
    return y
