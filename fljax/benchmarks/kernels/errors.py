"""Checks the kernels on this device against NumPy in float64."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from fljax.benchmarks.kernels.reference import (
    conv_reference,
    lstm_reference,
    max_pool_reference,
)
from fljax_kernels import conv_general_dilated, conv_relu, lstm, max_pool
from fljax_kernels.dense_update import dense_update

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# layer -> (height and width, input channels, output channels, kernel size)
LAYERS = {
    "EMNIST CNN, first": (28, 1, 32, 3),
    "EMNIST CNN, second": (26, 32, 64, 3),
    "CIFAR-10 CNN, second": (30, 32, 64, 3),
    "5x5, 32 to 64": (14, 32, 64, 5),
}
# of the largest value; products of TF32 have 10 bits after the point
BOUNDS = {"float32": 2e-5, "TF32": 5e-3}


class Check(NamedTuple):
    """The largest error of a kernel, as a share of the largest value of the result."""

    kernel: str
    error: float
    bound: float


def check_convolution(
    layer: str, precision: str, batch: int = 20, clients: int = 2, form: str = "auto"
) -> list[Check]:
    """Checks a convolution and both its gradients, with a kernel for each client.

    Args:
      layer: One of `LAYERS`.
      precision: "float32" or "TF32"; sets the bound, and is to be the precision of the context.
      batch: Images of a client.
      clients: Kernels.
      form: As in `conv_general_dilated`.
    """
    size, channels, features, kernel = LAYERS[layer]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((clients, batch, size, size, channels), np.float32)
    w = generator.standard_normal((clients, kernel, kernel, channels, features), np.float32)
    out = size - kernel + 1
    slope = generator.standard_normal((clients, batch, out, out, features), np.float32)

    def convolve(x, w):
        return conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=_LAYOUT, form=form)

    @jax.jit
    @jax.vmap
    def everything(x, w, slope):
        y, pull_back = jax.vjp(convolve, x, w)
        return y, *pull_back(slope)

    found = everything(x, w, slope)
    expected = zip(*map(_references, x, w, slope), strict=True)
    kinds = ("forward", "input gradient", "kernel gradient")
    suffix = "" if form == "auto" else f', "{form}"'
    return [
        Check(f"{layer}, {kind}{suffix}", _error(ours, np.stack(reference)), BOUNDS[precision])
        for kind, ours, reference in zip(kinds, found, expected, strict=True)
    ]


def check_pooling() -> Check:
    """Checks max-pooling, which rounds nothing."""
    x = np.random.default_rng(0).standard_normal((4, 24, 24, 8), np.float32)
    return Check("2x2 max-pooling", _error(jax.jit(max_pool)(x), max_pool_reference(x)), 0.0)


def check_fused(batch: int = 20, clients: int = 2) -> list[Check]:
    """Checks what is one kernel on NVIDIA cards, on small whole numbers, which nothing rounds.

    Of equal numbers in a window, the first one must get the gradient.
    """
    draw = np.random.default_rng(0)

    def numbers(*shape):
        return draw.integers(-2, 3, (clients, *shape)).astype(np.float32)

    x, w, bias = numbers(batch, 27, 26, 32), numbers(3, 3, 32, 64), numbers(64)
    slope = numbers(batch, 12, 12, 64)

    @jax.jit
    @jax.vmap
    def convolution(x, w, bias, slope):
        layer = partial(conv_relu, pool=True, form="pallas")
        y, pull_back = jax.vjp(layer, x, w, bias)
        return y, *pull_back(slope)

    kinds = "forward", "input gradient", "kernel gradient", "bias gradient"
    found = dict(zip(kinds, convolution(x, w, bias, slope), strict=True))
    expected = zip(*map(_pooled_references, x, w, bias, slope), strict=True)
    checks = [
        Check(f"convolution, ReLU and pooling, {kind}", _error(ours, np.stack(reference)), 0.0)
        for (kind, ours), reference in zip(found.items(), expected, strict=True)
    ]
    w, x, dy = numbers(200, 70), numbers(batch, 200), numbers(batch, 70)
    update = jax.jit(jax.vmap(partial(dense_update, scale=np.float32(-0.5))))
    weights, dx = update(w, x, dy)
    return [
        *checks,
        Check("SGD update", _error(weights, w - 0.5 * x.swapaxes(1, 2) @ dy), 0.0),
        Check("SGD update, input gradient", _error(dx, dy @ w.swapaxes(1, 2)), 0.0),
    ]


def check_recurrence(precision: str, form: str = "auto", clients: int = 2) -> list[Check]:
    """Checks an LSTM's recurrence and both its gradients, with weights for each client.

    Args:
      precision: As for `check_convolution`.
      form: As in `fljax_kernels.lstm`.
      clients: Weights.
    """
    draw, hidden = np.random.default_rng(0), 70
    shapes = (19, 10, 4 * hidden), (hidden, 4 * hidden), (19, 10, hidden)
    gates, kernel, slope = (draw.standard_normal((clients, *s), np.float32) for s in shapes)
    kernel /= np.float32(hidden**0.5)

    @jax.jit
    @jax.vmap
    def everything(gates, kernel, slope):
        outputs, pull_back = jax.vjp(partial(lstm, form=form), gates, kernel)
        return outputs, *pull_back(slope)

    found = everything(gates, kernel, slope)
    expected = map(np.stack, zip(*map(lstm_reference, gates, kernel, slope), strict=True))
    kinds = "forward", "gate gradient", "kernel gradient"
    return [
        Check(f"LSTM, {form}, {kind}", _error(ours, reference), BOUNDS[precision])
        for kind, ours, reference in zip(kinds, found, expected, strict=True)
    ]


def _pooled_references(x, w, bias, slope) -> tuple[np.ndarray, ...]:
    """Returns maxima over 2x2 windows of max(x * w + bias, 0), and the gradients."""
    before = conv_reference(x, w) + bias
    batch, rows, columns, features = slope.shape
    inside = before[:, : 2 * rows, : 2 * columns]
    windows = inside.reshape(batch, rows, 2, columns, 2, features).transpose(0, 1, 3, 5, 2, 4)
    windows = windows.reshape(*slope.shape, 4)
    best = windows.max(-1)
    chosen = np.arange(4) == windows.argmax(-1)[..., None]
    slopes = np.where(chosen & (best > 0)[..., None], slope[..., None], 0.0)
    slopes = slopes.reshape(*slope.shape, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(inside.shape)
    before_gradient = np.zeros_like(before)
    before_gradient[:, : 2 * rows, : 2 * columns] = slopes
    _, dx, dw = _references(x, w, before_gradient)
    return np.maximum(best, 0), dx, dw, before_gradient.sum((0, 1, 2))


def _references(x: np.ndarray, w: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the convolution and its gradients, which are convolutions as well."""
    edge = w.shape[0] - 1
    flipped = w[::-1, ::-1].swapaxes(2, 3)
    of_input = conv_reference(slope, flipped, padding=((edge, edge), (edge, edge)))
    of_kernel = conv_reference(x.transpose(3, 1, 2, 0), slope.transpose(1, 2, 0, 3))
    return conv_reference(x, w), of_input, of_kernel.transpose(1, 2, 0, 3)


def _error(found: jax.Array, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())
