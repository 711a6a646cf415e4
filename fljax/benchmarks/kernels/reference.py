"""Defines the kernels as loops of NumPy in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def conv_reference(
    lhs: np.ndarray,
    rhs: np.ndarray,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Sums over the taps of the kernel, one strided view of the padded input each.

    Args:
      lhs: [B, H, W, C] inputs.
      rhs: [kh, kw, C / groups, O] kernels.
      strides: Vertical and horizontal stride.
      padding: ((top, bottom), (left, right)) zeros around the input.
      dilation: Vertical and horizontal spacing of the taps.
      groups: Number of groups of channels.

    Returns:
      float64[B, OH, OW, O].
    """
    x = np.pad(np.asarray(lhs, np.float64), ((0, 0), *padding, (0, 0)))
    w = np.asarray(rhs, np.float64)
    y = np.zeros((len(x), *_output_size(x, w, strides, dilation), w.shape[3]))
    for inputs, outputs in _groups(x, w, groups):
        for i, j, view in _views(y, w, strides, dilation):
            y[..., outputs] += x[view][..., inputs] @ w[i, j][:, outputs]
    return y


def conv_gradients_reference(
    lhs: np.ndarray,
    rhs: np.ndarray,
    cotangent: np.ndarray,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of sum(cotangent * conv_reference(lhs, rhs, ...)), tap by tap.

    Returns:
      (float64[B, H, W, C], float64[kh, kw, C / groups, O]).
    """
    x = np.pad(np.asarray(lhs, np.float64), ((0, 0), *padding, (0, 0)))
    w, dy = np.asarray(rhs, np.float64), np.asarray(cotangent, np.float64)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for inputs, outputs in _groups(x, w, groups):
        for i, j, view in _views(dy, w, strides, dilation):
            part = dy[..., outputs]
            dx[view][..., inputs] += part @ w[i, j][:, outputs].T
            dw[i, j][:, outputs] = np.tensordot(x[view][..., inputs], part, ((0, 1, 2),) * 2)
    (top, _), (left, _) = padding
    return dx[:, top : top + lhs.shape[1], left : left + lhs.shape[2]], dw


def _output_size(x, w, strides, dilation):
    return tuple(
        (n - (k - 1) * spacing - 1) // stride + 1
        for n, k, spacing, stride in zip(x.shape[1:3], w.shape[:2], dilation, strides, strict=True)
    )


def _views(y, w, strides, dilation):
    """Yields (i, j, which of the padded inputs the tap [i, j] meets)."""
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (y.shape[1] - 1) * strides[0] + 1, strides[0])
            columns = slice(left, left + (y.shape[2] - 1) * strides[1] + 1, strides[1])
            yield i, j, (slice(None), rows, columns)


def _groups(x, w, groups):
    """Yields (input channels, output channels) of each group."""
    inputs, outputs = x.shape[3] // groups, w.shape[3] // groups
    for g in range(groups):
        yield slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)


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


def lstm_reference(
    gates: np.ndarray, kernel: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs an LSTM through the times and back, as `fljax_kernels.lstm` describes it.

    Args:
      gates: [T, B, 4 * hidden].
      kernel: [hidden, 4 * hidden].
      slope: [T, B, hidden] gradient by the outputs.

    Returns:
      (outputs [T, B, hidden], gradient by the gates, gradient by the kernel) in float64.
    """
    gates, kernel, slope = (np.asarray(array, np.float64) for array in (gates, kernel, slope))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    output = cell = np.zeros(slope.shape[1:])
    past = []
    for at in gates:
        parts = np.split(at + output @ kernel, 4, axis=-1)
        write, new = sigmoid(parts[0]), np.tanh(parts[1])
        forget, read = sigmoid(parts[2] + 1), sigmoid(parts[3])
        past.append((output, cell, write, new, forget, read))
        cell = forget * cell + write * new
        output = read * np.tanh(cell)
    outputs = np.stack([output for output, *_ in past[1:]] + [output])
    dgates, dkernel = np.zeros(gates.shape), np.zeros(kernel.shape)
    doutput = dcell = np.zeros(slope.shape[1:])
    for time, (before, cell_before, write, new, forget, read) in reversed([*enumerate(past)]):
        shown = np.tanh(forget * cell_before + write * new)
        doutput = doutput + slope[time]
        dcell = dcell + doutput * read * (1 - shown**2)
        dgates[time] = np.concatenate(
            [
                dcell * new * write * (1 - write),
                dcell * write * (1 - new**2),
                dcell * cell_before * forget * (1 - forget),
                doutput * shown * read * (1 - read),
            ],
            axis=-1,
        )
        dkernel += before.T @ dgates[time]
        doutput, dcell = dgates[time] @ kernel.T, dcell * forget
    return outputs, dgates, dkernel
