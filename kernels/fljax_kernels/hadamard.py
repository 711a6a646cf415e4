"""The Walsh-Hadamard transform, and rotations by it, as a few matrix products.

H of size d = r1 r2 ... is the Kronecker product of small Hadamard matrices, one for each axis of x
seen as [r1, r2, ...]. Every product contracts the first axis and puts its result last, so that
after as many products as axes they stand in their order again, and none of them needs a transpose
or a batch of matrices:

    [r1, rest] -> [rest, r1]

With factors of about 32 a vector of 2 ** 20 takes four products and 256 operations an entry instead
of the 20 additions of butterflies, but reads and writes its memory four times instead of up to 20,
which is what takes the time; matrix units do the rest.

Rotation by signs and H (Suresh et al., arXiv:1611.00429; Ailon and Chazelle, 2006) spreads a vector
evenly over its entries before it is quantized.
"""

from __future__ import annotations

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fljax_kernels.random_words import keys_of_rows, random_words

# the largest factor has 2 ** 5 rows, as measured
_LOG_FACTOR = 5


def next_power_of_two(size: int) -> int:
    """Returns the smallest power of two that is at least `size`, which is at least 1."""
    return 1 << (size - 1).bit_length()


def hadamard_transform(x: jax.Array) -> jax.Array:
    """Multiplies each vector by the Hadamard matrix H / sqrt(d), which is its own inverse.

    Entry (i, j) of H is -1 to the number of bits that i and j share (Sylvester's order). In float32
    no entry errs by more than 1.5e-6 times norm / sqrt(d), and the mean error is below 2e-7 of that
    (normal entries, d up to 2 ** 21, against float64). NaN and infinity spread to all entries of
    their vector.

    Args:
      x: Numbers [..., d], d a power of two.

    Returns:
      [..., d] of x's dtype; half precision is computed in float32.

    Raises:
      ValueError: If d is no power of two.

    Example:
      >>> hadamard_transform(jnp.array([2.0, 0.0, 0.0, 0.0])).tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    *lead, size = x.shape
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for rows in _factors(size):
        y = y.reshape(*lead, rows, size // rows)
        matrix = jnp.asarray(_hadamard_matrix(rows), y.dtype)
        # entries of +-1 / sqrt(rows): less than float32 precision would lose what they share
        y = lax.dot_general(
            y, matrix, (((len(lead),), (0,)), ((), ())), precision=lax.Precision.HIGHEST
        )
    return y.reshape(x.shape).astype(x.dtype)


def rotate(x: jax.Array, key: jax.Array) -> jax.Array:
    """Changes random signs, then transforms: a random rotation (or reflection).

    Args:
      x: Numbers [..., d], d a power of two: pad with zeros to `next_power_of_two`.
      key: Typed PRNG keys [...], one for each vector; client and server share it.

    Returns:
      [..., d] of x's dtype, of the same norms.

    Raises:
      ValueError: If d is no power of two, or keys do not fit.

    Example:
      >>> x = jnp.array([3.0, 4.0])
      >>> print(jnp.round(jnp.linalg.norm(rotate(x, jax.random.key(0))), 5))
      5.0
    """
    return hadamard_transform(_change_signs(x, key))


def rotate_back(x: jax.Array, key: jax.Array) -> jax.Array:
    """Inverts `rotate`, given the same keys.

    Example:
      >>> x, key = jnp.arange(8.0), jax.random.key(0)
      >>> bool(jnp.allclose(rotate_back(rotate(x, key), key), x, atol=1e-5))
      True
    """
    return _change_signs(hadamard_transform(x), key)


def _change_signs(x, key):
    """Negates the entries whose random words are odd.

    Spreading the 32 bits of a word over as many entries takes longer than a word for each.
    """
    odd = random_words(keys_of_rows(key, x), x.shape[-1]) & 1 != 0
    return jnp.where(odd, -x, x)


def _factors(size: int) -> list[int]:
    """Returns powers of two whose product is `size`, as few and as even as possible."""
    if size < 1 or size & (size - 1):
        raise ValueError(
            f"Vectors of {size} entries have no Hadamard matrix here: pad them with zeros to a "
            f"power of two, {next_power_of_two(max(size, 1))}."
        )
    exponent = size.bit_length() - 1
    number = math.ceil(exponent / _LOG_FACTOR)
    return [2 ** (exponent // number + (i < exponent % number)) for i in range(number)]


@cache
def _hadamard_matrix(rows: int) -> np.ndarray:
    """Returns float64[rows, rows], orthonormal."""
    shared = np.arange(rows)[:, None] & np.arange(rows)
    parity = np.bitwise_count(shared.astype(np.uint64)) % 2
    return (1.0 - 2.0 * parity) / math.sqrt(rows)
