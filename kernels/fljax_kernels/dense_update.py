"""The SGD step of a dense layer, in one pass over its weights.

Behind its forward pass, plain SGD passes over the weights of a dense layer three times: for the
gradient by its input, to write their own gradient, to add that to them. With few rows each pass
takes as long as memory does. On NVIDIA cards the kernel here reads each tile of the weights once,
takes both products with it, and writes it back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# With more rows arithmetic takes longer than memory, and products of their own do it better
MAX_ROWS = 64
_TILE = 64


def dense_update(
    w: jax.Array,
    x: jax.Array,
    dy: jax.Array,
    scale: jax.Array,
    precision: lax.PrecisionLike = None,
    *,
    passes_back: bool = True,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Adds `scale` times the gradient to a dense layer's weights.

    Elsewhere than on NVIDIA cards, and for more than `MAX_ROWS` rows, these are plain products.

    Args:
      w: float[in, out] weights.
      x: float[rows, in] inputs, of the same dtype.
      dy: float[rows, out] gradient by outputs, of the same dtype.
      scale: float[] a number, of the same dtype: minus the learning rate. Where it is 0, weights
        stay as they are, whatever the gradient.
      precision: As in `jax.lax.dot_general`.
      passes_back: Whether the gradient by inputs is wanted.
      interpret: Whether to run the kernel without a card, slowly.

    Returns:
      (w + scale * x.T @ dy, dy @ w.T or None).
    """
    plain = partial(_plain, precision=precision, passes_back=passes_back)
    kernel = partial(_kernel_call, precision=precision, passes_back=passes_back)
    if interpret:
        return kernel(w, x, dy, scale, interpret=True)
    if len(x) > MAX_ROWS:
        return plain(w, x, dy, scale)
    return lax.platform_dependent(w, x, dy, scale, cuda=kernel, default=plain)


def _plain(w, x, dy, scale, precision, passes_back):
    dx = _product(dy, w, 1, 1, precision) if passes_back else None
    return jnp.where(scale != 0, w + scale * _product(x, dy, 0, 0, precision), w), dx


def _product(a, b, a_axis: int, b_axis: int, precision: Any) -> jax.Array:
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), precision=precision)


def _kernel_call(w, x, dy, scale, precision, passes_back, interpret=False):
    # imported here: nothing else needs Pallas, and its backend may disappear
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    inputs, outputs = w.shape
    shapes = [jax.ShapeDtypeStruct(w.shape, w.dtype)]
    shapes += [jax.ShapeDtypeStruct(x.shape, w.dtype)] if passes_back else []
    new, *dx = pl.pallas_call(
        partial(
            _kernel,
            rows=max(16, pl.next_power_of_2(len(x))),
            width=max(16, min(_TILE, pl.next_power_of_2(outputs))),
            precision=precision,
            passes_back=passes_back,
        ),
        grid=(pl.cdiv(inputs, _TILE),),
        out_shape=shapes,
        input_output_aliases={0: 0},
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="dense_update",
    )(w, x, dy, scale.reshape(1))
    return new, dx[0] if dx else None


def _kernel(w_ref, x_ref, dy_ref, scale_ref, new_ref, *dx_ref, rows, width, precision, passes_back):
    """Updates all weights of some inputs."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    (inputs, outputs), count = w_ref.shape, x_ref.shape[0]

    def load(ref, first, second, *limits):
        first, second = jnp.broadcast_arrays(first, second)
        real = (first < limits[0]) & (second < limits[1])
        return plgpu.load(ref.at[first, second], mask=real, other=0), (first, second), real

    row = lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
    at = pl.program_id(0) * _TILE
    across = at + lax.broadcasted_iota(jnp.int32, (1, _TILE), 1)
    down = at + lax.broadcasted_iota(jnp.int32, (_TILE, 1), 0)
    x, x_at, x_real = load(x_ref, row, across, count, inputs)
    scale = scale_ref[0]

    def one_tile(step, dx):
        feature = step * width + lax.broadcasted_iota(jnp.int32, (1, width), 1)
        dy, *_ = load(dy_ref, row, feature, count, outputs)
        w, w_at, real = load(w_ref, down, feature, inputs, outputs)
        if passes_back:
            dx = dx + _product(dy, w, 1, 1, precision)
        new = jnp.where(scale != 0, w + scale * _product(x, dy, 0, 0, precision), w)
        plgpu.store(new_ref.at[w_at], new, mask=real)
        return dx

    dx = lax.fori_loop(0, pl.cdiv(outputs, width), one_tile, jnp.zeros(x.shape, x.dtype))
    if passes_back:
        plgpu.store(dx_ref[0].at[x_at], dx, mask=x_real)
