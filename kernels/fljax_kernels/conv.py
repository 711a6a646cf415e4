"""Two-dimensional convolution as one matrix product, for kernels that differ between clients.

`jax.vmap` over the kernels of `lax.conv_general_dilated` makes a grouped convolution, which is slow
on every backend, and on CPUs a convolution inside a compiled loop is slow by itself. Here the two
spatial axes of the kernel are dealt with on different sides of a matrix product:

    columns = the kw horizontal shifts of the input, side by side  [B, H, OW, kw*C]
    product = columns @ kernel                                     [B, H, OW, kh*O]
    output  = sum of the kh vertical shifts of the product         [B, OH, OW, O]

Compared with the usual im2col, which copies every input kh*kw times, this one copies the input kw
times and makes a wider product, whose two gradients are good shapes as well. All parts are linear
and common to JAX, which derives both gradients (in either mode); under vmap the product becomes a
batched one.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers=None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: jax.typing.DTypeLike | None = None,
    out_sharding=None,
) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated` does, for two spatial axes and channels last.

    Give it to Flax: `nnx.Conv(..., conv_general_dilated=fljax_kernels.conv_general_dilated)`.

    Args:
      lhs: float[B, H, W, C] inputs.
      rhs: float[kh, kw, C / groups, O] kernels.
      window_strides: Vertical and horizontal stride.
      padding: "SAME", "SAME_LOWER", "VALID", or ((top, bottom), (left, right)); a negative number
        crops.
      lhs_dilation: Spacing of the inputs (transposed convolutions); default 1.
      rhs_dilation: Spacing of the kernel's taps; default 1.
      dimension_numbers: What stands for ("NHWC", "HWIO", "NHWC"), as Flax passes it.
      feature_group_count: Number of groups; each group is a product of its own.
      batch_group_count: Must be 1.
      precision: As in `jax.lax.dot_general`.
      preferred_element_type: dtype of the result, by default that of the inputs. The products of
        half-precision inputs are rounded to their dtype, as are those of the gradients, and the
        kh shifts are summed in float32.
      out_sharding: Must be None.

    Returns:
      float[B, OH, OW, O].

    Raises:
      ValueError: For other numbers of axes, other layouts, batch groups or an output sharding.
    """
    _check(lhs, rhs, dimension_numbers, feature_group_count, batch_group_count, out_sharding)
    x_dilation, w_dilation = lhs_dilation or (1, 1), rhs_dilation or (1, 1)
    x = lax.pad(
        lhs,
        jnp.zeros((), lhs.dtype),
        [(0, 0, 0), *((0, 0, spacing - 1) for spacing in x_dilation), (0, 0, 0)],
    )
    if isinstance(padding, str):
        extent = [
            (k - 1) * spacing + 1 for k, spacing in zip(rhs.shape[:2], w_dilation, strict=True)
        ]
        padding = lax.padtype_to_pads(x.shape[1:3], extent, window_strides, padding)
    accumulator = jnp.promote_types(jnp.result_type(lhs, rhs), jnp.float32)

    def one_group(x, w):
        return _convolve(x, w, window_strides, padding, w_dilation, precision, accumulator)

    if feature_group_count == 1:
        y = one_group(x, rhs)
    else:
        x = x.reshape(*x.shape[:3], feature_group_count, -1)
        w = rhs.reshape(*rhs.shape[:3], feature_group_count, -1)
        y = jax.vmap(one_group, in_axes=3, out_axes=3)(x, w)
        y = y.reshape(*y.shape[:3], -1)
    return y.astype(preferred_element_type or lhs.dtype)


def _convolve(x, w, strides, padding, dilation, precision, accumulator):
    """Convolves [B, H, W, C] with [kh, kw, C, O]; sums shifts in the dtype `accumulator`."""
    kh, kw, channels, features = w.shape
    (height, top), (width, left) = (
        ((n + low + high - (k - 1) * spacing - 1) // stride + 1, low)
        for n, k, (low, high), spacing, stride in zip(
            x.shape[1:3], w.shape[:2], padding, dilation, strides, strict=True
        )
    )
    rows = [i * dilation[0] - top for i in range(kh)]
    columns = [j * dilation[1] - left for j in range(kw)]
    x = jnp.concatenate([_window(x, 2, start, width, strides[1]) for start in columns], axis=3)

    def product(x, w):
        # of matrices: XLA's CPU backend is twice as slow at products with more axes
        # in the inputs' dtype: a product with a wider result has gradients of mixed dtypes, which
        # no matrix unit computes at half precision
        y = jnp.matmul(x.reshape(-1, x.shape[3]), w, precision=precision)
        return y.reshape(*x.shape[:3], w.shape[1]).astype(accumulator)

    if strides[0] == 1:
        w = w.transpose(1, 2, 0, 3).reshape(kw * channels, kh * features)
        y = jnp.split(product(x, w), kh, axis=3)
        return sum(_window(y[i], 1, start, height) for i, start in enumerate(rows))
    # every row of the product above would be computed, but only some used
    w = w.reshape(kh, kw * channels, features)
    x = [_window(x, 1, start, height, strides[0]) for start in rows]
    return sum(product(x[i], w[i]) for i in range(kh))


def _window(x: jax.Array, axis: int, start: int, size: int, stride: int = 1) -> jax.Array:
    """Returns `size` entries of an axis, from `start` on; those out of range are zero."""
    pads = [(0, 0, 0)] * x.ndim
    stop = start + (size - 1) * stride + 1
    pads[axis] = (-start, stop - x.shape[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    return lax.slice_in_dim(x, 0, x.shape[axis], stride, axis)


def _check(lhs, rhs, dimension_numbers, feature_groups, batch_groups, out_sharding):
    if lhs.ndim != 4 or rhs.ndim != 4:
        raise ValueError(
            "fljax_kernels.conv_general_dilated has two spatial axes: inputs [B, H, W, C] and "
            f"kernels [kh, kw, C, O], not {lhs.shape} and {rhs.shape}. Leave out "
            "conv_general_dilated= for other convolutions."
        )
    expected = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
    if lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) != expected:
        raise ValueError(
            f"fljax_kernels.conv_general_dilated has the layout {_LAYOUT}, which must be given as "
            f"dimension_numbers, not {dimension_numbers}."
        )
    if lhs.shape[3] != feature_groups * rhs.shape[2] or rhs.shape[3] % feature_groups:
        raise ValueError(
            f"Inputs {lhs.shape} and kernels {rhs.shape} do not fit {feature_groups} feature "
            "group(s): C must be groups x the kernels' C, and O divisible by groups."
        )
    if batch_groups != 1 or out_sharding is not None:
        raise ValueError(
            "fljax_kernels.conv_general_dilated has neither batch groups nor output shardings: "
            f"batch_group_count = {batch_groups}, out_sharding = {out_sharding}."
        )
