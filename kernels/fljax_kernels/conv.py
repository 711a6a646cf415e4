"""Convolution over one or two axes from matrix products, for kernels that differ between clients.

`jax.vmap` over the kernels of `lax.conv_general_dilated` makes a grouped convolution, which is slow
on every backend, and on CPUs a convolution inside a compiled loop is slow by itself. Four forms of
the same function:

"gemm": one matrix product, with the two spatial axes of the kernel dealt with on different sides of
it, so that the input is copied kw times instead of kh * kw times as in the usual im2col:

    columns = the kw horizontal shifts of the input, side by side  [B, H, OW, kw*C]
    product = columns @ kernel                                     [B, H, OW, kh*O]
    output  = sum of the kh vertical shifts of the product         [B, OH, OW, O]

All parts are linear and common to JAX, which derives both gradients (in either mode); under vmap
the product becomes a batched one. For few input channels im2col copies less, and is what is done.

"winograd": a fourth to a fifth of the multiplications (see `fljax_kernels.winograd`).

"grouped": XLA's own convolution, of which vmap makes a grouped one.

"pallas": kernels of our own for NVIDIA cards, which write no copies of the input to memory and can
take a bias, ReLU and pooling along (see `fljax_kernels.implicit_gemm`); elsewhere it is "gemm".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.depthwise import depthwise_conv
from fljax_kernels.forms import form_of
from fljax_kernels.winograd import winograd_conv

FORMS = ("auto", "gemm", "winograd", "grouped", "pallas")
LAYOUT = ("NHWC", "HWIO", "NHWC")
_LAYOUTS = {3: ("NWC", "WIO", "NWC"), 4: LAYOUT}
# Begins the name of a scope; behind it stands what `direct_share` returns.
DIRECT_PRODUCTS = "direct_products*"
# Winograd's tiles: larger ones save little more and round to larger errors
_TILE = 4


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
    *,
    form: str = "auto",
) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated` does, over one or two axes and channels last.

    Give it to Flax: `nnx.Conv(..., conv_general_dilated=fljax_kernels.conv_general_dilated)`.

    The form "auto" is "winograd" on a CPU where that is faster, else "gemm", unless
    `fljax_kernels.forms.choosing` says otherwise. ("grouped" was 3.4 times as slow as "gemm" on a
    card; `python -m fljax.benchmarks.kernels.layers` measures all.) Largest errors of float32
    against float64, as a share of the largest result, for standard normal inputs of 32 channels:

    | form | output | input gradient | weight gradient |
    | --- | --- | --- | --- |
    | "gemm" | 3e-7 | 3e-7 | 4e-7 |
    | "winograd", 3x3 | 2e-6 | 1e-6 | 3e-6 |
    | "winograd", 5x5 | 5e-6 | 3e-6 | 1e-5 |

    Args:
      lhs: float[B, H, W, C] inputs; over one axis float[B, W, C].
      rhs: float[kh, kw, C / groups, O] kernels; over one axis float[kw, C / groups, O].
      window_strides: Vertical and horizontal stride; over one axis, as in what follows, one entry.
      padding: "SAME", "SAME_LOWER", "VALID", or ((top, bottom), (left, right)); a negative number
        crops.
      lhs_dilation: Spacing of the inputs (transposed convolutions); default 1.
      rhs_dilation: Spacing of the kernel's taps; default 1.
      dimension_numbers: What stands for ("NHWC", "HWIO", "NHWC"), over one axis for ("NWC", "WIO",
        "NWC"), as Flax passes it.
      feature_group_count: Number of groups; each group is a product of its own.
      batch_group_count: Must be 1.
      precision: As in `jax.lax.dot_general`.
      preferred_element_type: dtype of the result, by default that of the inputs. The products of
        half-precision inputs are rounded to their dtype, as are those of the gradients, and the
        kh shifts are summed in float32. ("winograd" computes in float32 throughout.)
      out_sharding: Must be None.
      form: "auto", "gemm", "winograd", "grouped" or "pallas". Winograd's form and "pallas" have no
        forward mode, and "pallas" has first derivatives alone: use another one, such as
        `gemm_conv`, under `jax.jvp`.

    Returns:
      float[B, OH, OW, O]; over one axis float[B, OW, O].

    Raises:
      ValueError: For other numbers of axes, other layouts, batch groups or an output sharding; for
        an unknown form, and for "winograd" with strides, dilation or kernels beyond 5x5.

    Example:
      >>> images, kernels = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
      >>> numbers = ("NHWC", "HWIO", "NHWC")
      >>> ours = conv_general_dilated(images, kernels, (1, 1), "SAME", dimension_numbers=numbers)
      >>> xla = jax.lax.conv_general_dilated(images, kernels, (1, 1), "SAME", None, None, numbers)
      >>> ours.shape, bool(jnp.allclose(ours, xla, atol=1e-5))
      ((2, 5, 5, 4), True)
    """
    _check(lhs, rhs, dimension_numbers, feature_group_count, batch_group_count, out_sharding)
    if lhs.ndim == 3:
        y = conv_general_dilated(
            lhs[:, None],
            rhs[None],
            (1, *window_strides),
            padding if isinstance(padding, str) else ((0, 0), *padding),
            (1, *(lhs_dilation or (1,))),
            (1, *(rhs_dilation or (1,))),
            LAYOUT,
            feature_group_count,
            precision=precision,
            preferred_element_type=preferred_element_type,
            form=form,
        )
        return y[:, 0]
    x_dilation, w_dilation = lhs_dilation or (1, 1), rhs_dilation or (1, 1)
    if isinstance(padding, str):
        padding = named_padding(lhs, rhs, window_strides, padding, x_dilation, w_dilation)
    if form not in FORMS:
        raise ValueError(f"form = {form!r}; choose one of {', '.join(map(repr, FORMS))}.")
    form = form_of("conv", form)
    if form == "grouped":
        y = lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            x_dilation,
            w_dilation,
            LAYOUT,
            feature_group_count,
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
        return y.astype(preferred_element_type or lhs.dtype)
    x = lax.pad(
        lhs,
        jnp.zeros((), lhs.dtype),
        [(0, 0, 0), *((0, 0, spacing - 1) for spacing in x_dilation), (0, 0, 0)],
    )
    size = output_size(x, rhs, window_strides, padding, w_dilation)
    if 0 in size:
        # no window fits into the image
        shape = (lhs.shape[0], *size, rhs.shape[3])
        return jnp.zeros(shape, preferred_element_type or lhs.dtype)
    accumulator = jnp.promote_types(jnp.result_type(lhs, rhs), jnp.float32)
    # what a direct convolution multiplies; the zeros between dilated inputs need no product
    direct = prod(size) * prod(rhs.shape[:2]) / prod(x_dilation)
    if feature_group_count == x.shape[3] > 1 and form != "pallas":
        with jax.named_scope(f"{DIRECT_PRODUCTS}{1 / prod(x_dilation)!r}"):
            y = depthwise_conv(
                x.astype(accumulator), rhs.astype(accumulator),
                window_strides, padding, w_dilation, size,
            )  # fmt: skip
        return y.astype(preferred_element_type or lhs.dtype)
    if _use_winograd(form, x, rhs, window_strides, padding, w_dilation, feature_group_count):
        share = direct / _winograd_products(size, rhs)

        def one_group(x, w):
            x, w = x.astype(accumulator), w.astype(accumulator)
            pads = tuple((int(low), int(high)) for low, high in padding)
            return winograd_conv(x, w, pads, (_TILE, _TILE), precision)

    else:
        whole_rows = _multiplies_whole_rows(rhs, window_strides)
        rows = x.shape[1] if whole_rows else size[0]
        share = direct / (rows * size[1] * prod(rhs.shape[:2]))

        def one_group(x, w):
            return _gemm(x, w, window_strides, padding, w_dilation, precision, accumulator)

    if form == "pallas" and jnp.issubdtype(accumulator, jnp.floating):
        # imported here: nothing else needs Pallas, and its backend may disappear
        from fljax_kernels.fused_conv import convolve, geometry_of

        dtype = jnp.result_type(lhs, rhs, preferred_element_type or lhs)
        geometry = geometry_of(window_strides, padding, w_dilation, size)

        def one_group(x, w):
            return convolve(x.astype(dtype), w.astype(dtype), None, geometry, precision)

    with jax.named_scope(f"{DIRECT_PRODUCTS}{share!r}"):
        if feature_group_count == 1:
            y = one_group(x, rhs)
        else:
            x = x.reshape(*x.shape[:3], feature_group_count, -1)
            w = rhs.reshape(*rhs.shape[:3], feature_group_count, -1)
            y = jax.vmap(one_group, in_axes=3, out_axes=3)(x, w)
            y = y.reshape(*y.shape[:3], -1)
    return y.astype(preferred_element_type or lhs.dtype)


gemm_conv = partial(conv_general_dilated, form="gemm")


def direct_share(names: str) -> float:
    """Returns products of a direct convolution ÷ products of the form it is computed in.

    Args:
      names: The scopes that an operation was traced in (`str(equation.source_info.name_stack)`), by
        which forms tell: no program depends on names. Of an operation that is no part of a
        convolution, 1.
    """
    found = re.findall(re.escape(DIRECT_PRODUCTS) + r"([0-9.e+-]+)", names)
    return float(found[-1]) if found else 1.0


def named_padding(lhs, rhs, strides, name, x_dilation, w_dilation):
    """Returns the padding that a name stands for."""
    size = [(n - 1) * spacing + 1 for n, spacing in zip(lhs.shape[1:3], x_dilation, strict=True)]
    extent = [(k - 1) * spacing + 1 for k, spacing in zip(rhs.shape[:2], w_dilation, strict=True)]
    # NumPy's integers, in older JAX, of which Pallas would make arrays
    return [(int(low), int(high)) for low, high in lax.padtype_to_pads(size, extent, strides, name)]


def output_size(x, w, strides, padding, dilation):
    """Returns height and width of the output; 0 where not one window fits."""
    return [
        max(0, (n + low + high - (k - 1) * spacing - 1) // stride + 1)
        for n, k, (low, high), spacing, stride in zip(
            x.shape[1:3], w.shape[:2], padding, dilation, strides, strict=True
        )
    ]


def _use_winograd(form, x, w, strides, padding, dilation, groups):
    """Decides between the forms of matrix products.

    On a CPU Winograd's form pays if the products it saves, C * O for each tile, outweigh the
    transforms, C + O (as measured, 24 -> 24 channels break even), and if tiles that stick out of
    the image leave enough of the gain.
    """
    possible = (*strides, *dilation) == (1, 1, 1, 1) and max(w.shape[:2]) <= 5
    if form == "winograd" and not possible:
        raise ValueError(
            'The form "winograd" is for stride 1, no kernel dilation and kernels of up to 5x5, not '
            f"strides {tuple(strides)}, dilation {tuple(dilation)} and {w.shape[0]}x{w.shape[1]}. "
            'The form "auto" chooses it where it can.'
        )
    if form != "auto" or not possible:
        return form == "winograd"
    size = output_size(x, w, strides, padding, dilation)
    channels, features = w.shape[2], w.shape[3] // groups
    return (
        jax.default_backend() == "cpu"
        and jnp.result_type(x, w) in (jnp.float32, jnp.float64)
        and min(w.shape[:2]) >= 3
        and channels * features >= 10 * (channels + features)
        and _winograd_products(size, w) <= 0.45 * prod(size) * prod(w.shape[:2])
    )


def _winograd_products(size, w):
    """Returns the products of Winograd's form for each pair of channels."""
    return prod(-(-n // _TILE) * (_TILE + k - 1) for n, k in zip(size, w.shape[:2], strict=True))


def _multiplies_whole_rows(w, strides):
    """Says whether the product comes before the vertical shifts, over all rows of the input."""
    return strides[0] == 1 and w.shape[1] * w.shape[2] >= w.shape[3]


def _gemm(x, w, strides, padding, dilation, precision, accumulator):
    """Convolves [B, H, W, C] with [kh, kw, C, O]; sums shifts in the dtype `accumulator`."""
    kh, kw, channels, features = w.shape
    height, width = output_size(x, w, strides, padding, dilation)
    (top, _), (left, _) = padding
    rows = [i * dilation[0] - top for i in range(kh)]
    columns = [j * dilation[1] - left for j in range(kw)]
    x = jnp.concatenate([_window(x, 2, start, width, strides[1]) for start in columns], axis=3)

    def product(x, w):
        # of matrices: XLA's CPU backend is twice as slow at products with more axes
        # in the inputs' dtype: a product with a wider result has gradients of mixed dtypes, which
        # no matrix unit computes at half precision
        y = jnp.matmul(x.reshape(-1, x.shape[3]), w, precision=precision)
        return y.reshape(*x.shape[:3], w.shape[1]).astype(accumulator)

    if _multiplies_whole_rows(w, strides):
        w = w.transpose(1, 2, 0, 3).reshape(kw * channels, kh * features)
        y = jnp.split(product(x, w), kh, axis=3)
        return sum(_window(y[i], 1, start, height) for i, start in enumerate(rows))
    # im2col: copying kh times as many inputs is cheaper than adding kh times as many products
    x = jnp.concatenate([_window(x, 1, start, height, strides[0]) for start in rows], axis=3)
    return product(x, w.reshape(-1, features))


def _window(x: jax.Array, axis: int, start: int, size: int, stride: int = 1) -> jax.Array:
    """Returns `size` entries of an axis, from `start` on; those out of range are zero."""
    pads = [(0, 0, 0)] * x.ndim
    stop = start + (size - 1) * stride + 1
    pads[axis] = (-start, stop - x.shape[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    return lax.slice_in_dim(x, 0, x.shape[axis], stride, axis)


def _is_layout(layout, dimension_numbers, *shapes) -> bool:
    expected = lax.conv_dimension_numbers(*shapes, layout)
    try:
        return lax.conv_dimension_numbers(*shapes, dimension_numbers) == expected
    except TypeError:  # those of another number of axes
        return False


def _check(lhs, rhs, dimension_numbers, feature_groups, batch_groups, out_sharding):
    layout = _LAYOUTS.get(lhs.ndim)
    if layout is None or rhs.ndim != lhs.ndim:
        raise ValueError(
            "fljax_kernels.conv_general_dilated has one spatial axis or two: inputs [B, H, W, C] "
            f"and kernels [kh, kw, C, O], not {lhs.shape} and {rhs.shape}. Leave out "
            "conv_general_dilated= for other convolutions."
        )
    if not _is_layout(layout, dimension_numbers, lhs.shape, rhs.shape):
        raise ValueError(
            f"fljax_kernels.conv_general_dilated has the layout {layout}, which must be given as "
            f"dimension_numbers, not {dimension_numbers}."
        )
    if lhs.shape[-1] != feature_groups * rhs.shape[-2] or rhs.shape[-1] % feature_groups:
        raise ValueError(
            f"Inputs {lhs.shape} and kernels {rhs.shape} do not fit {feature_groups} feature "
            "group(s): C must be groups x the kernels' C, and O divisible by groups."
        )
    if batch_groups != 1 or out_sharding is not None:
        raise ValueError(
            "fljax_kernels.conv_general_dilated has neither batch groups nor output shardings: "
            f"batch_group_count = {batch_groups}, out_sharding = {out_sharding}."
        )
