"""Checks the kernels on this device against NumPy in float64."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from fljax.benchmarks.kernels.reference import conv_reference, max_pool_reference
from fljax_kernels import conv_general_dilated, max_pool

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


def check_convolution(layer: str, precision: str, batch: int = 20, clients: int = 2) -> list[Check]:
    """Checks a convolution and both its gradients, with a kernel for each client.

    Args:
      layer: One of `LAYERS`.
      precision: "float32" or "TF32"; sets the bound, and is to be the precision of the context.
      batch: Images of a client.
      clients: Kernels.
    """
    size, channels, features, kernel = LAYERS[layer]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((clients, batch, size, size, channels), np.float32)
    w = generator.standard_normal((clients, kernel, kernel, channels, features), np.float32)
    out = size - kernel + 1
    slope = generator.standard_normal((clients, batch, out, out, features), np.float32)

    def convolve(x, w):
        return conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=_LAYOUT)

    @jax.jit
    @jax.vmap
    def everything(x, w, slope):
        y, pull_back = jax.vjp(convolve, x, w)
        return y, *pull_back(slope)

    found = everything(x, w, slope)
    expected = zip(*map(_references, x, w, slope), strict=True)
    kinds = ("forward", "input gradient", "kernel gradient")
    return [
        Check(f"{layer}, {kind}", _error(ours, np.stack(reference)), BOUNDS[precision])
        for kind, ours, reference in zip(kinds, found, expected, strict=True)
    ]


def check_pooling() -> Check:
    """Checks max-pooling, which rounds nothing."""
    x = np.random.default_rng(0).standard_normal((4, 24, 24, 8), np.float32)
    return Check("2x2 max-pooling", _error(jax.jit(max_pool)(x), max_pool_reference(x)), 0.0)


def _references(x: np.ndarray, w: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the convolution and its gradients, which are convolutions as well."""
    edge = w.shape[0] - 1
    flipped = w[::-1, ::-1].swapaxes(2, 3)
    of_input = conv_reference(slope, flipped, padding=((edge, edge), (edge, edge)))
    of_kernel = conv_reference(x.transpose(3, 1, 2, 0), slope.transpose(1, 2, 0, 3))
    return conv_reference(x, w), of_input, of_kernel.transpose(1, 2, 0, 3)


def _error(found: jax.Array, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())
