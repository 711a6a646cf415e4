"""Codes of values: whole numbers in the order of the values, among which a search goes digit by
digit.

Floating-point numbers are ordered like their bits, once those of negative ones are turned around,
so that as many binary digits as they have find any of them exactly. Between two bounds, codes may
instead be even steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.ranges import Range


class Codes(NamedTuple):
    """An order-preserving code of values.

    Attributes:
      bits: Codes are below 2^bits.
      of: values[B] -> unsigned codes[B], inside a trace.
      value: codes, in NumPy -> the largest values that have them.
    """

    bits: int
    of: Callable[[jax.Array], jax.Array]
    value: Callable[[np.ndarray], np.ndarray]


def code_type() -> Any:
    """Returns the widest unsigned type there is."""
    return jax.dtypes.canonicalize_dtype(np.uint64)


def exact_codes(dtype: Any) -> Codes:
    """Returns codes of which each stands for one value of a type.

    Raises:
      ValueError: For a type of other numbers, or one wider than JAX has it.

    Example:
      >>> codes = exact_codes(jnp.float32)
      >>> found = np.asarray(codes.of(jnp.array([-1.5, 0.0, 2.0])))
      >>> bool((np.diff(found.astype(float)) > 0).all()), codes.value(found).tolist()
      (True, [-1.5, 0.0, 2.0])
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if dtype == jnp.bool_:
        dtype = np.dtype(np.uint8)
    if jnp.issubdtype(dtype, jnp.integer):
        return _of_integers(np.dtype(dtype))
    if jnp.issubdtype(dtype, jnp.floating):
        return _of_floats(np.dtype(np.float64 if dtype == np.float64 else np.float32))
    raise ValueError(f"Values of type {dtype} have no order; quantiles need real numbers.")


def _of_integers(dtype: np.dtype) -> Codes:
    bits, word = 8 * dtype.itemsize, np.dtype(f"uint{8 * dtype.itemsize}")
    # the sign bit turned around puts negative numbers first
    turned = word.type(0 if dtype.kind == "u" else 1 << (bits - 1))

    def of(values):
        words = jax.lax.bitcast_convert_type(values.astype(dtype), word)
        return (words ^ turned).astype(code_type())

    def value(codes):
        return (np.asarray(codes).astype(word) ^ turned).view(dtype)

    return Codes(bits, of, value)


def _of_floats(dtype: np.dtype) -> Codes:
    bits, word = 8 * dtype.itemsize, np.dtype(f"uint{8 * dtype.itemsize}")
    sign = word.type(1 << (bits - 1))

    def of(values):
        words = jax.lax.bitcast_convert_type(values.astype(dtype), word)
        words = jnp.where(words == sign, 0, words)  # there are two zeros
        return jnp.where(words >= sign, ~words, words | sign).astype(code_type())

    def value(codes):
        words = np.asarray(codes).astype(word)
        return np.where(words >= sign, words ^ sign, ~words).view(dtype)

    return Codes(bits, of, value)


def even_codes(bounds: Range, bits: int) -> Codes:
    """Returns codes of even steps between two bounds; a value has that of the next step.

    Example:
      >>> from fljax.analytics.ranges import checked_range
      >>> codes = even_codes(checked_range(0.0, 1.5), bits=2)
      >>> codes.of(jnp.array([0.0, 0.4, 0.5, 9.0])).tolist(), codes.value(np.array([1])).tolist()
      ([0, 1, 1, 3], [0.5])
    """
    low, width, last = float(bounds.low), float(bounds.high - bounds.low), 2**bits - 1

    def of(values):
        share = (values.astype(jnp.result_type(float)) - low) / width
        return jnp.ceil(jnp.clip(share, 0, 1) * last).astype(code_type())

    def value(codes):
        return low + width * (np.asarray(codes, np.float64) / last)

    return Codes(bits, of, value)


def whole_codes(bounds: Range) -> Codes:
    """Returns codes of the whole numbers between two bounds.

    Raises:
      ValueError: If there are none.

    Example:
      >>> from fljax.analytics.ranges import checked_range
      >>> codes = whole_codes(checked_range(1, 12))
      >>> codes.bits, codes.of(jnp.array([0, 4, 12])).tolist(), codes.value(np.array([3])).tolist()
      (4, [0, 3, 11], [4])
    """
    low, high = math.ceil(bounds.low), math.floor(bounds.high)
    if low > high:
        raise ValueError(
            f"low = {bounds.low:g}, high = {bounds.high:g}: rows are whole numbers, and there is "
            "none between. Move them apart."
        )

    def of(values):
        # bounds, and what lies between them, may be beyond the type of the rows
        wide = values.astype(jax.dtypes.canonicalize_dtype(np.int64))
        return (jnp.clip(wide, low, high) - low).astype(code_type())

    def value(codes):
        return np.minimum(low + np.asarray(codes).astype(np.int64), high)

    return Codes(max(1, (high - low).bit_length()), of, value)
