"""Convolutions that are one kernel with what follows them: a bias, ReLU, 2x2 max-pooling.

On NVIDIA cards the functions here run the kernels of `fljax_kernels.implicit_gemm`. Elsewhere they
compute the same from the matrix products of the form "gemm", so that a model that was trained on a
card is evaluated anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fljax_kernels import implicit_gemm
from fljax_kernels.conv import LAYOUT, gemm_conv
from fljax_kernels.implicit_gemm import NOWHERE, Geometry


def geometry_of(strides, padding, dilation, size, ending: str = "") -> Geometry:
    """Returns the record of sequences, with padding as ((top, bottom), (left, right))."""
    (top, _), (left, _) = padding
    return Geometry(tuple(strides), (int(top), int(left)), tuple(dilation), tuple(size), ending)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def convolve(
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array | None,
    geometry: Geometry,
    precision: lax.PrecisionLike = None,
    interpret: bool = False,
) -> jax.Array:
    """Convolves images with kernels, and does what follows.

    Args:
      x: float[B, H, W, C].
      w: float[kh, kw, C, O] of the same dtype.
      bias: float[O] of the same dtype; None where nothing follows.
      geometry: How the convolution walks, and what follows.
      precision: As in `jax.lax.dot_general`.
      interpret: Whether to run the kernels without a card, slowly.

    Returns:
      float[B, OH, OW, O].
    """
    return _forward(x, w, bias, geometry, precision, interpret)[0]


def _forward(x, w, bias, geometry, precision, interpret):
    """Returns (result, residuals)."""
    run = partial(implicit_gemm.outputs, geometry=geometry, precision=precision)
    elsewhere = partial(_outputs, geometry=geometry, precision=precision)
    y, places = _on_card(run, elsewhere, interpret, x, w, bias)
    saved = {"": None, "relu": y, "pool": places}[geometry.ending]
    return y, (x, w, saved)


def _backward(geometry, precision, interpret, residuals, dy):
    x, w, saved = residuals
    dx = _on_card(
        partial(
            implicit_gemm.input_gradient, shape=x.shape, geometry=geometry, precision=precision
        ),
        partial(_input_gradient, shape=x.shape, geometry=geometry, precision=precision),
        interpret, dy, saved, w,
    )  # fmt: skip
    dw, db = _on_card(
        partial(
            implicit_gemm.weight_gradient, shape=w.shape, geometry=geometry, precision=precision
        ),
        partial(_weight_gradient, shape=w.shape, geometry=geometry, precision=precision),
        interpret, x, dy, saved,
    )  # fmt: skip
    return dx, dw.astype(w.dtype), None if db is None else db.astype(w.dtype)


convolve.defvjp(_forward, _backward)


def _on_card(kernel: Callable, elsewhere: Callable, interpret: bool, *arguments: Any) -> Any:
    """Runs a kernel on NVIDIA cards and its substitute elsewhere, as known when it is compiled."""
    if interpret:
        return kernel(*arguments, interpret=True)
    return lax.platform_dependent(*arguments, cuda=kernel, default=elsewhere)


def _outputs(x, w, bias, geometry, precision):
    """Computes as `implicit_gemm.outputs` does."""
    y = _convolution(x, w, geometry, precision)
    if not geometry.ending:
        return y, None
    y = jnp.maximum(y + bias, 0)
    if geometry.ending == "relu":
        return y, None
    height, width = geometry.result_size
    y = y[:, : 2 * height, : 2 * width].reshape(len(y), height, 2, width, 2, -1)
    entries = y.transpose(0, 1, 3, 5, 2, 4).reshape(len(y), height, width, -1, 4)
    best = entries.max(-1)
    return best, jnp.where(best > 0, entries.argmax(-1), NOWHERE).astype(jnp.int8)


def _input_gradient(dy, saved, w, shape, geometry, precision):
    slopes = _slopes(dy, saved, geometry)
    convolution = lambda x: _convolution(x, w, geometry, precision)  # noqa: E731
    (dx,) = jax.vjp(convolution, jnp.zeros(shape, w.dtype))[1](slopes)
    return dx


def _weight_gradient(x, dy, saved, shape, geometry, precision):
    slopes = _slopes(dy, saved, geometry)
    convolution = lambda w: _convolution(x, w, geometry, precision)  # noqa: E731
    (dw,) = jax.vjp(convolution, jnp.zeros(shape, x.dtype))[1](slopes)
    total = jnp.promote_types(x.dtype, jnp.float32)
    db = slopes.sum((0, 1, 2), dtype=total) if geometry.ending else None
    return dw.astype(total), db


def _slopes(dy, saved, geometry):
    """Returns the gradient behind the convolution itself."""
    if not geometry.ending:
        return dy
    if geometry.ending == "relu":
        return jnp.where(saved > 0, dy, 0)
    chosen = saved[:, :, None, :, None] == np.arange(4, dtype=np.int8).reshape(2, 1, 2, 1)
    slopes = jnp.where(chosen, dy[:, :, None, :, None], 0)
    count, height, _, width, _, features = slopes.shape
    left_out = [(0, n % 2) for n in geometry.size]
    return jnp.pad(
        slopes.reshape(count, 2 * height, 2 * width, features), [(0, 0), *left_out, (0, 0)]
    )


def _convolution(x, w, geometry: Geometry, precision):
    padding = [
        (low, (count - 1) * stride + (taps - 1) * spacing + 1 - size - low)
        for low, count, stride, taps, spacing, size in zip(
            geometry.padding, geometry.size, geometry.strides, w.shape[:2], geometry.dilation,
            x.shape[1:3], strict=True,
        )
    ]  # fmt: skip
    return gemm_conv(
        x, w, geometry.strides, padding, None, geometry.dilation, LAYOUT, precision=precision
    )
