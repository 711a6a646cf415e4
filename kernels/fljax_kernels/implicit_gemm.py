"""Convolutions as Pallas kernels for NVIDIA cards: matrix products whose factors are never written.

A convolution is a product of a matrix with a row for each output position, in it the window of the
image (kh * kw * C numbers), and of the kernel [kh * kw * C, O]. Here no such matrix is in memory:
each program of the grid gathers the tiles that it multiplies from the image itself.

    outputs            y[m, o]  = sum over k of window(x)[m, k] w[k, o]
    input_gradient     dx[n, c] = sum over k of window(dy)[n, k] w'[k, c]    taps run backwards
    weight_gradient    dw[k, o] = sum over m of window(x)[m, k] dy[m, o]

Under `jax.vmap` a leading axis (clients, each with kernels of its own) is one more dimension of the
grid. What follows a convolution can be part of it (`Geometry.ending`): the kernel adds the bias and
writes max(y, 0), or only the maxima of 2x2 windows and their places. The gradients then read the
places; an image's gradient before the pooling is never written either.

The kernels are for Pallas's Triton backend, which JAX 0.11 has and intends to remove one day.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from fljax_kernels.windows import (
    Walk,
    all_of,
    div,
    iota,
    load,
    position_of,
    rem,
    slopes_of,
    taps_of,
    windows_of,
)

# The place in a 2x2 window whose maximum is not positive
NOWHERE = 4
# Positions that one program of a weight gradient adds up. The batch of a single client is to fill a
# card, and each further part is one more gradient that is written and read.
_POSITIONS_OF_A_PART = 2048
_COMPILER = {"num_warps": 4, "num_stages": 3}


class Geometry(NamedTuple):
    """The way of a convolution over an image, and what follows it.

    Attributes:
      strides: Vertical and horizontal.
      padding: Rows above and columns left of the image; a negative number crops.
      dilation: Spacing of the kernel's taps.
      size: Height and width of the convolution's output.
      ending: "" nothing follows; "relu": a bias and max(y, 0); "pool": both, and the maxima of 2x2
        windows, without a last row or column that fills none.
    """

    strides: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]
    ending: str = ""

    @property
    def result_size(self) -> tuple[int, int]:
        """Height and width of what is returned."""
        shrink = 2 if self.ending == "pool" else 1
        return self.size[0] // shrink, self.size[1] // shrink


def outputs(x, w, bias, geometry, precision=None, interpret=False):
    """Convolves images with kernels of the same dtype, and does what follows.

    Args:
      x: [B, H, W, C].
      w: [kh, kw, C, O].
      bias: [O]; None where nothing follows.
      geometry: How the convolution walks.
      precision: As in `jax.lax.dot_general`.
      interpret: Whether to run without a card, slowly.

    Returns:
      (y [B, OH, OW, O], places int8 of the same shape if there is pooling, else None).
    """
    walk = _walk_of(x, w, geometry)
    shape = (x.shape[0], *geometry.result_size, w.shape[3])
    y, places = _product(
        (x,), walk, w.transpose(3, 0, 1, 2), bias, geometry.ending, precision, interpret
    )
    return y.reshape(shape), None if places is None else places.reshape(shape)


def input_gradient(dy, saved, w, shape, geometry, precision=None, interpret=False):
    """Returns the gradient by images of a shape.

    Args:
      dy: Gradient by what was returned, [B, OH, OW, O].
      saved: None, or of dy's shape: the result of a "relu", the places of a "pool".
      w: [kh, kw, C, O].
      shape: (B, H, W, C).
      geometry, precision, interpret: As for `outputs`.
    """
    grow = 2 if geometry.ending == "pool" else 1
    walk = Walk(
        count=prod(shape[:3]),
        size=tuple(shape[1:3]),
        by_windows=False,
        source=(grow * dy.shape[1], grow * dy.shape[2], dy.shape[3]),
        taps=w.shape[:2],
        strides=(1, 1),
        offsets=geometry.padding,
        steps=(-geometry.dilation[0], -geometry.dilation[1]),
        divisors=geometry.strides,
        ending=geometry.ending,
    )
    sources = (dy,) if saved is None else (dy, saved)
    dx, _ = _product(sources, walk, w.transpose(2, 0, 1, 3), None, "", precision, interpret)
    return dx.reshape(shape)


def weight_gradient(x, dy, saved, shape, geometry, precision=None, interpret=False):
    """Returns the gradients by kernels of a shape and, where something follows, by the bias.

    Args:
      x: [B, H, W, C].
      dy, saved: As for `input_gradient`.
      shape: (kh, kw, C, O).
      geometry, precision, interpret: As for `outputs`.

    Returns:
      (dw of the shape, db [O] or None), sums in float32 at least.
    """
    walk, features = _walk_of(x, jax.ShapeDtypeStruct(shape, x.dtype), geometry), shape[3]
    # one more column of windows, of ones, gives the gradient of the bias
    columns = walk.columns + (geometry.ending != "")
    tile = _Tile(rows=64, columns=_width(walk, columns, (128, 64)), features=_features(features))
    parts = pl.cdiv(walk.count, _POSITIONS_OF_A_PART)
    total = jnp.promote_types(x.dtype, jnp.float32)
    sums = pl.pallas_call(
        partial(
            _weight_kernel,
            walk=walk,
            columns=columns,
            tile=tile,
            steps=pl.cdiv(pl.cdiv(walk.count, parts), tile.rows),
            ending=geometry.ending,
            features=features,
            precision=precision,
            total=total,
        ),
        grid=(pl.cdiv(columns, tile.columns), pl.cdiv(features, tile.features), parts),
        out_shape=jax.ShapeDtypeStruct((parts * columns * features,), total),
        compiler_params=plgpu.CompilerParams(**_COMPILER),
        interpret=interpret,
        name="conv_weight_gradient",
    )(x.reshape(-1), dy.reshape(-1), *([] if saved is None else [saved.reshape(-1)]))
    sums = sums.reshape(parts, columns, features).sum(0)
    return sums[: walk.columns].reshape(shape), sums[-1] if geometry.ending else None


class _Tile(NamedTuple):
    """Sizes of what a program multiplies, powers of two and 16 at least.

    Attributes:
      rows: Positions.
      columns: Taps and channels.
      features: Output channels.
    """

    rows: int
    columns: int
    features: int


def _walk_of(x, w, geometry: Geometry) -> Walk:
    """Returns how outputs see the image, in the order in which they are pooled."""
    pooled = geometry.ending == "pool"
    size = [n - n % 2 for n in geometry.size] if pooled else geometry.size
    return Walk(
        count=x.shape[0] * prod(size),
        size=tuple(size),
        by_windows=pooled,
        source=x.shape[1:],
        taps=w.shape[:2],
        strides=geometry.strides,
        offsets=(-geometry.padding[0], -geometry.padding[1]),
        steps=geometry.dilation,
    )


def _width(walk: Walk, columns: int, sizes: tuple[int, ...]) -> int:
    """Returns how many columns a tile has: channels of one tap, if they fill it."""
    fitting = [size for size in sizes if walk.source[2] % size == 0]
    return fitting[0] if fitting else max(16, min(sizes[-1], pl.next_power_of_2(columns)))


def _features(count: int) -> int:
    return max(16, min(64, pl.next_power_of_2(count)))


def _product(sources, walk, w, bias, ending, precision, interpret):
    """Multiplies windows by kernels [N, taps..., C]; returns ([positions * N], places or None)."""
    dtype, features = w.dtype, w.shape[0]
    tile = _Tile(
        rows=128,
        columns=_width(walk, walk.columns, (64, 32) if dtype.itemsize < 4 else (32,)),
        features=_features(features),
    )
    size = walk.count // (4 if ending == "pool" else 1) * features
    result = [jax.ShapeDtypeStruct((size,), dtype)]
    result += [jax.ShapeDtypeStruct((size,), jnp.int8)] if ending == "pool" else []
    arguments = [*sources, w] + ([] if bias is None else [bias])
    y, *places = pl.pallas_call(
        partial(
            _product_kernel,
            walk=walk,
            tile=tile,
            ending=ending,
            features=features,
            precision=precision,
            total=jnp.promote_types(dtype, jnp.float32),
        ),
        grid=(pl.cdiv(walk.count, tile.rows), pl.cdiv(features, tile.features)),
        out_shape=result,
        compiler_params=plgpu.CompilerParams(**_COMPILER),
        interpret=interpret,
        name="conv_product",
    )(*(argument.reshape(-1) for argument in arguments))
    return y, places[0] if places else None


def _product_kernel(*refs, walk, tile, ending, features, precision, total):
    """One tile [positions, features] of the product, with what follows."""
    given = (2 if walk.ending else 1) + 1 + bool(ending)
    (*source, w_ref), (y_ref, *places_ref) = refs[: given - bool(ending)], refs[given:]
    first = pl.program_id(0) * tile.rows
    position = position_of(walk, first + iota(tile.rows, 0))
    feature = pl.program_id(1) * tile.features + iota(tile.features, 1)

    def add(step, sums):
        windows = windows_of(source, walk, position, taps_of(walk, step, tile.columns))
        column = step * tile.columns + iota(tile.columns, 0)
        w = load(w_ref, feature * walk.columns + column, feature < features, column < walk.columns)
        return sums + _dot(windows, w, 1, 0, precision, total)

    sums = jnp.zeros((tile.rows, tile.features), total)
    sums = _loop(pl.cdiv(walk.columns, tile.columns), add, sums)
    if ending:
        sums = sums + load(refs[given - 1], feature, feature < features).astype(total)
    rows, count = tile.rows, walk.count
    if ending == "pool":
        rows, count, first = rows // 4, count // 4, pl.program_id(0) * (rows // 4)
        sums = sums.reshape(rows, 4, tile.features)
        entry = lax.broadcasted_iota(jnp.int32, sums.shape, 1)
        best = sums.max(1)
        place = jnp.where(sums == best[:, None], entry, NOWHERE).min(1)
        place = jnp.where(best > 0, place, NOWHERE)
        sums = best
    if ending:
        sums = jnp.maximum(sums, 0)
    row = first + iota(rows, 0)
    at, real = row * features + feature, all_of((row < count, feature < features), sums.shape)
    plgpu.store(y_ref.at[at], sums.astype(y_ref.dtype), mask=real)
    if ending == "pool":
        plgpu.store(places_ref[0].at[at], place.astype(jnp.int8), mask=real)


def _weight_kernel(*refs, walk, columns, tile, steps, ending, features, precision, total):
    """One tile [columns, features] of a part of the sum over positions."""
    (x_ref, *gradient), out_ref = refs[:-1], refs[-1]
    start = pl.program_id(0) * tile.columns
    taps = taps_of(walk, pl.program_id(0), tile.columns, beyond=columns > walk.columns)
    column = start + iota(tile.columns, 1)
    feature = pl.program_id(1) * tile.features + iota(tile.features, 1)
    first = pl.program_id(2) * (steps * tile.rows)

    def add(step, sums):
        position = first + step * tile.rows + iota(tile.rows, 0)
        windows = windows_of((x_ref,), walk, position_of(walk, position), taps)
        # Also where nothing follows: a tile that is transposed as it was loaded is loaded number by
        # number, for the sake of the layout that the product asks for
        windows = jnp.where(column == walk.columns, 1, windows)
        row = div(position, 4) if ending == "pool" else position
        place = rem(position, 4) if ending == "pool" else None
        real = position < walk.count, feature < features
        slopes = slopes_of(gradient, row * features + feature, real, ending, place)
        return sums + _dot(windows, slopes, 0, 0, precision, total)

    sums = _loop(steps, add, jnp.zeros((tile.columns, tile.features), total))
    column = start + iota(tile.columns, 0)
    at = (pl.program_id(2) * columns + column) * features + feature
    real = all_of((column < columns, feature < features), sums.shape)
    plgpu.store(out_ref.at[at], sums, mask=real)


def _dot(a, b, a_axis: int, b_axis: int, precision, total) -> jax.Array:
    contracted = ((a_axis,), (b_axis,))
    return lax.dot_general(
        a, b, (contracted, ((), ())), precision=precision, preferred_element_type=total
    )


def _loop(steps: int, add, sums):
    return add(0, sums) if steps == 1 else lax.fori_loop(0, steps, add, sums)
