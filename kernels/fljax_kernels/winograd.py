"""Two-dimensional convolution by minimal filtering (Winograd; Lavin & Gray, arXiv:1509.09308).

F(m, r) computes m outputs of a filter with r taps from n = m + r - 1 products instead of m r:

    outputs = inverse @ ((kernel @ taps) * (data @ inputs))

Along both axes of an image, a tile of m x m outputs takes n x n products for each pair of channels:
36 instead of 144 in F(4x4, 3x3), 64 instead of 400 in F(4x4, 5x5). All tiles of a batch together
make n x n matrix products, one for each position in a tile:

    [n, n, tiles, C] @ [n, n, C, O] -> [n, n, tiles, O]

What remains are the transforms before and after, which move more memory than they compute. Each is
written in the form that XLA's CPU backend makes the fastest loop of, and so are their transposes,
of which the two gradients consist. That is why the gradients are written by hand, and why there is
no forward mode: `jax.jvp` refuses a `jax.custom_vjp`. `jax.vmap` and gradients of gradients work.
"""

from __future__ import annotations

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fljax_kernels.stored import stored

Pads = tuple[tuple[int, int], tuple[int, int]]

# The first five round to a third of the errors of 0, 1, -1, 2, -2.
_POINTS = np.array([0.0, 1.0, -1.0, 2.0, -0.5, -2.0, 0.5])


class Filter(NamedTuple):
    """F(m, r) along one axis, with n = m + r - 1.

    Attributes:
      inverse: float64[m, n], from products to outputs.
      kernel: float64[n, r], from taps to factors.
      data: float64[n, n], from inputs to the other factors.
    """

    inverse: np.ndarray
    kernel: np.ndarray
    data: np.ndarray

    @property
    def outputs(self) -> int:
        """m."""
        return len(self.inverse)

    @property
    def overhang(self) -> int:
        """Number of blocks of m inputs that a tile reads beyond its own."""
        return -(-(len(self.data) - self.outputs) // self.outputs)


@cache
def minimal_filter(outputs: int, taps: int) -> Filter:
    """Returns F(outputs, taps), for outputs + taps <= 9.

    It is the transpose of Toom and Cook's multiplication of two polynomials, of `outputs` and of
    `taps` coefficients: evaluate both at n points, infinity among them; multiply; interpolate.
    """
    points = _POINTS[: outputs + taps - 2]

    def evaluate(size):
        return np.vstack([points[:, None] ** np.arange(size), np.eye(size)[-1]])

    # denominators go to the kernels, the smallest array
    scale = [np.prod([p - q for q in points if q != p]) for p in points]
    scale = np.array([*scale, 1.0])[:, None]
    data = np.linalg.inv(evaluate(outputs + taps - 1)).T * scale
    return Filter(evaluate(outputs).T, evaluate(taps) / scale, np.round(data, 12))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def winograd_conv(
    x: jax.Array,
    w: jax.Array,
    padding: Pads,
    outputs: tuple[int, int],
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Convolves with stride 1.

    Args:
      x: float[B, H, W, C] inputs.
      w: float[kh, kw, C, O] kernels.
      padding: ((top, bottom), (left, right)); a negative number crops.
      outputs: Height and width of a tile of outputs.
      precision: As in `jax.lax.dot_general`.

    Returns:
      float[B, OH, OW, O].
    """
    return _forward(x, w, padding, outputs, precision)[0]


def _forward(x, w, padding, outputs, precision):
    filters = _filters(outputs, w)
    size = [
        n + low + high - taps + 1
        for n, taps, (low, high) in zip(x.shape[1:3], w.shape[:2], padding, strict=True)
    ]
    tiled = [-(-n // m) * m for n, m in zip(size, outputs, strict=True)]
    margins = [
        (low, m + minimal.overhang * minimal.outputs - n - low)
        for n, m, minimal, (low, _) in zip(x.shape[1:3], tiled, filters, padding, strict=True)
    ]
    data = _to_tiles(_place(x, margins), filters)
    products = _multiply("tpc,tco->tpo", data, _factors(w, filters), precision)
    y = _from_tiles(products.reshape(*data.shape[:-1], -1), filters)
    return _place(y, [(0, n - m) for n, m in zip(size, tiled, strict=True)]), (data, w)


def _backward(padding, outputs, precision, residuals, dy):
    data, w = residuals
    filters = _filters(outputs, w)
    size = dy.shape[1:3]
    tiled = [count * m for count, m in zip(data.shape[3:5], outputs, strict=True)]
    dy = _place(dy, [(0, m - n) for n, m in zip(size, tiled, strict=True)])
    products = _from_tiles_transposed(dy, filters)
    factors, pull_back = jax.vjp(partial(_factors, filters=filters), w)
    # the other order of these two operands takes 1.7 times as long on a CPU
    dfactors = _multiply("tpc,tpo->tco", data, products, precision)
    (dw,) = pull_back(dfactors.reshape(factors.shape))
    dx = _multiply("tpo,tco->tpc", products, factors, precision)
    dx = _to_tiles_transposed(dx.reshape(data.shape), filters)
    margins = [
        (-low, n + taps - 1 - high - extent)
        for n, taps, extent, (low, high) in zip(
            size, w.shape[:2], dx.shape[1:3], padding, strict=True
        )
    ]
    return _place(dx, margins), dw


winograd_conv.defvjp(_forward, _backward)


def _filters(outputs, w):
    return tuple(minimal_filter(m, taps) for m, taps in zip(outputs, w.shape[:2], strict=True))


def _place(x, margins):
    """Pads the two spatial axes with zeros; a negative margin crops."""
    config = [(0, 0, 0), *((low, high, 0) for low, high in margins), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _multiply(subscripts, a, b, precision):
    """One matrix product for each of the positions [nw, nh]."""
    flat = (array.reshape(array.shape[0] * array.shape[1], -1, array.shape[-1]) for array in (a, b))
    return jnp.einsum(subscripts, *flat, precision=precision)


def _factors(w, filters):
    """[kh, kw, C, O] -> [nw, nh, C, O]."""
    w = _stack(filters[0].kernel, _unstack(w, 0), 0)
    return _stack(filters[1].kernel, _unstack(w, 1), 0)


def _to_tiles(x, filters):
    """[B, H, W, C] -> [nw, nh, B, TH, TW, C]."""
    for axis, minimal in zip((1, 3), filters, strict=True):
        m = minimal.outputs
        phases = _unstack(_split(x, axis, m), axis + 1)
        count = x.shape[axis] // m - minimal.overhang
        inputs = [
            lax.slice_in_dim(phases[i % m], i // m, i // m + count, axis=axis)
            for i in range(len(minimal.data))
        ]
        x = _stack(minimal.data, inputs, 0)
    return x


def _to_tiles_transposed(x, filters):
    """[nw, nh, B, TH, TW, C] -> [B, H, W, C]: what tiles share is added up."""
    vertical, horizontal = filters
    for axis, minimal, stack in ((3, horizontal, _stack_by_weights), (1, vertical, _stack)):
        inputs = stack(minimal.data.T, _unstack(x, 0), axis + 1)
        m, n = minimal.outputs, len(minimal.data)
        x = 0
        for block in range(minimal.overhang + 1):
            part = lax.slice_in_dim(inputs, block * m, min(n, (block + 1) * m), axis=axis + 1)
            config = [(0, 0, 0)] * part.ndim
            config[axis] = (block, minimal.overhang - block, 0)
            config[axis + 1] = (0, m - part.shape[axis + 1], 0)
            x = x + lax.pad(part, jnp.zeros((), part.dtype), config)
        x = _merge(x, axis)
    return x


def _from_tiles(products, filters):
    """[nw, nh, B, TH, TW, O] -> [B, OH, OW, O]."""
    vertical, horizontal = filters
    y = stored(_stack_by_weights(vertical.inverse, _unstack(products, 1), 3))
    y = _merge(y, 2)
    return _merge(_stack(horizontal.inverse, _unstack(y, 0), 3), 2)


def _from_tiles_transposed(y, filters):
    """[B, OH, OW, O] -> [nw, nh, B, TH, TW, O]."""
    vertical, horizontal = filters
    y = _stack(horizontal.inverse.T, _unstack(_split(y, 2, horizontal.outputs), 3), 0)
    return _stack(vertical.inverse.T, _unstack(_split(y, 2, vertical.outputs), 3), 1)


def _stack(matrix, parts, axis):
    """The rows of `matrix` times `parts`, stacked: each row a sum of its own, without zeros."""
    return jnp.stack([_weighted_sum(row, parts) for row in matrix], axis)


def _stack_by_weights(matrix, parts, axis):
    """The same as one loop over all rows, which reads its weights from an array.

    Along an inner axis XLA's concatenation branches at each element; this does not.
    """
    shape = [1] * (parts[0].ndim + 1)
    shape[axis] = len(matrix)
    weights = jnp.asarray(matrix, parts[0].dtype)
    return sum(
        weights[:, i].reshape(shape) * jnp.expand_dims(part, axis) for i, part in enumerate(parts)
    )


def _weighted_sum(weights, parts):
    terms = [
        part if weight == 1 else -part if weight == -1 else float(weight) * part
        for weight, part in zip(weights, parts, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])


def _unstack(x, axis):
    """The slices along an axis. (Indexing has a transpose that XLA does not fuse.)"""
    return [part.squeeze(axis) for part in lax.split(x, [1] * x.shape[axis], axis)]


def _split(x, axis, size):
    """Makes an axis of blocks and one of `size` entries of it."""
    return x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])


def _merge(x, axis):
    """Makes one axis of `axis` and the next."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
