"""Uniform quantization: every entry becomes one of a few equidistant levels.

Rounding is stochastic where a key is given: an entry between two levels goes to the upper one with
the probability of its distance from the lower one, so that the mean is the entry itself. That holds
up to 2 ** -24 of a level, which is how finely a random word is compared, and up to the rounding of
the arithmetic. Two grids:

symmetric around zero, -s, ..., s times scale / s. With the Euclidean norm as scale this is QSGD
(Alistarh et al., arXiv:1610.02132), whose variance is at most min(d / s ** 2, sqrt(d) / s) ||x||²;
with the largest magnitude as scale and s = 127 it is the usual int8.

between the smallest and the largest entry (Suresh et al., arXiv:1611.00429), whose variance with k
levels is at most d / (2 (k - 1) ** 2) ||x||².

Entries may be of any dtype; half precision is computed in float32. An infinite or missing number
is not lost: it makes the scale or the range infinite or NaN, and then no decoded entry of the
vector is finite. (Where scale or range come from elsewhere, entries beyond them become the
outermost levels, and the code of NaN is undefined.) A scale or range that is too small to divide
by, about 1e-36 in float32, counts as zero; so does one so large that level / scale is no normal
number, in float32 beyond 8.5e37 times the level, which only one or a few levels can meet.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax_kernels.random_words import keys_of_rows, random_words

MAX_LEVEL = 127


def euclidean_norm(x: jax.Array) -> jax.Array:
    """Returns the norms [...] of the vectors x[..., d], the scale of QSGD.

    Squares of entries beyond about 1e-19 and 1e19 leave the range of float32: a vector of entries
    smaller than that has the norm 0, and one with a larger entry an infinite norm.
    """
    return jnp.linalg.norm(_floating(x), axis=-1)


def largest_magnitude(x: jax.Array) -> jax.Array:
    """Returns max |x| [...] of the vectors x[..., d], the scale of int8 and TernGrad."""
    return jnp.abs(_floating(x)).max(-1, initial=0)


def value_range(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the smallest and the largest entries, each [...], of the vectors x[..., d]."""
    x = _floating(x)
    return x.min(-1), x.max(-1)


def quantize_symmetric(
    x: jax.Array, scale: jax.Array, level: int | jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """Rounds x / scale to multiples of 1 / level.

    Args:
      x: Numbers [..., d].
      scale: Positive [...], at least the largest magnitude of its vector, or 0 if that is 0.
      level: The largest level s, 1 to 127; an int32[] may be traced, and is trusted.
      key: Typed PRNG keys [...], one for each vector; without them rounding is to nearest, ties to
        even.

    Returns:
      uint8[..., d] codes in [0, 2 * level], of (2 * level).bit_length() bits: level + s.

    Raises:
      ValueError: For other levels, or keys that do not fit.

    Example:
      >>> x = jnp.array([-1.0, 0.1, 0.5, 1.0])
      >>> quantize_symmetric(x, jnp.float32(1), level=2).tolist()
      [0, 2, 3, 4]
    """
    if not isinstance(level, jax.Array):
        _check(
            1 <= level <= MAX_LEVEL, f"level = {level!r}; a symmetric grid has 1 to {MAX_LEVEL}."
        )
    x = _floating(x)
    return _codes(x * _ratio(level, scale)[..., None], -level, level, key)


def dequantize_symmetric(codes: jax.Array, scale: jax.Array, level: int | jax.Array) -> jax.Array:
    """Inverts `quantize_symmetric`, but for its rounding.

    Args:
      codes: uint8[..., d].
      scale: [...] as given to it.
      level: As given to it.

    Returns:
      Numbers [..., d] of scale's dtype.

    Example:
      >>> dequantize_symmetric(jnp.array([0, 2, 3, 4], jnp.uint8), jnp.float32(1), level=2).tolist()
      [-1.0, 0.0, 0.5, 1.0]
    """
    scale = _floating(scale)
    return (codes.astype(jnp.int32) - level).astype(scale.dtype) * (scale / level)[..., None]


def quantize_range(
    x: jax.Array,
    low: jax.Array,
    high: jax.Array,
    levels: int | jax.Array,
    key: jax.Array | None = None,
) -> jax.Array:
    """Rounds to equidistant levels between two bounds, both of which are levels.

    Args:
      x: Numbers [..., d].
      low: Lower bounds [...].
      high: Upper bounds [...].
      levels: Number of levels k, 2 to 256; an int32[] may be traced, and is trusted.
      key: As in `quantize_symmetric`.

    Returns:
      uint8[..., d] codes in [0, levels), of (levels - 1).bit_length() bits.

    Raises:
      ValueError: For other numbers of levels, or keys that do not fit.

    Example:
      >>> quantize_range(jnp.array([2.0, 2.6, 4.0]), jnp.float32(2), jnp.float32(4), 3).tolist()
      [0, 1, 2]
    """
    if not isinstance(levels, jax.Array):
        _check(2 <= levels <= 256, f"levels = {levels!r}; a range has 2 to 256.")
    x = _floating(x)
    position = (x - low[..., None]) * _ratio(levels - 1, high - low)[..., None]
    return _codes(position, 0, levels - 1, key)


def dequantize_range(
    codes: jax.Array, low: jax.Array, high: jax.Array, levels: int | jax.Array
) -> jax.Array:
    """Inverts `quantize_range`, but for its rounding.

    Args:
      codes: uint8[..., d].
      low: [...] as given to it.
      high: [...] as given to it.
      levels: As given to it.

    Returns:
      Numbers [..., d] of the bounds' dtype.

    Example:
      >>> codes = jnp.array([0, 1, 2], jnp.uint8)
      >>> dequantize_range(codes, jnp.float32(2), jnp.float32(4), 3).tolist()
      [2.0, 3.0, 4.0]
    """
    low, high = _floating(low), _floating(high)
    step = (high - low) / (levels - 1)
    return low[..., None] + codes.astype(jnp.int32).astype(step.dtype) * step[..., None]


def _codes(position, lowest, highest, key):
    """Returns rounded positions as uint8, counted from the lowest level on."""
    if key is None:
        rounded = jnp.round(position)
    else:
        rounded = _round_stochastically(position, key)
    rounded = jnp.clip(rounded, lowest, highest) - lowest
    return rounded.astype(jnp.int32).astype(jnp.uint8)


def _round_stochastically(x, key):
    words = random_words(keys_of_rows(key, x), x.shape[-1])
    # 24 bits are what float32 holds; signed integers convert faster
    uniform = (words >> 8).astype(jnp.int32).astype(x.dtype) * 2.0**-24
    below = jnp.floor(x)
    return below + (uniform < x - below)


def _ratio(levels, width):
    """Returns levels / width, or 0 where a width as small as that has no levels."""
    width = _floating(width)
    ratio = levels / width
    return jnp.where(jnp.isposinf(ratio) | (width == 0), 0, ratio)


def _floating(x):
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check(condition, message):
    if not condition:
        raise ValueError(message)
