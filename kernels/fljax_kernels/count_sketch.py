"""Count sketches (Charikar, Chen and Farach-Colton 2002) of vectors, as FetchSGD sends them.

FetchSGD: Rothchild et al. 2020, arXiv:2007.07682.

A sketch has several rows, each with its own hash functions: coordinate i is multiplied by a random
sign and added to one of the row's columns. A coordinate is estimated by the median over the rows of
its column times its sign.

Scattered additions are slow, so the hash functions have a structure. The vector is cut into blocks
of as many coordinates as there are columns. In a row, each block is added as a whole, rotated by a
random number of columns and times a random sign; its coordinates first get the signs of a random
pattern, one pattern for all blocks of the row. All these draws are independent. Then:

- A coordinate is equally likely to be in each column, and its sign to be either.
- Two coordinates of different blocks meet with probability 1 / columns; two of the same block never
  do. Given one coordinate, which one of every other block it meets, and with which sign, is
  independent between blocks, and between rows.
- The signs of any two or three coordinates are independent.

So the error of one estimate is, in each row, a sum of independent terms without bias and with a
variance of at most |x|**2 / columns, as ever, and the analysis of the median over rows holds as it
stands: it is about one coordinate at a time. What is given up is independence between coordinates:
all of one block meet those of another one at the same distance, or none does, and the signs of four
coordinates, two in each of two blocks, may be tied.

Sketches are linear: with equal keys and shapes, sums of sketches are sketches of sums.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.rows import for_each_row


class Hashes(NamedTuple):
    """The hash functions of all rows.

    Attributes:
      rotations: int32[blocks, rows], columns by which a block is moved.
      signs: float[blocks, rows] of 1 and -1.
      patterns: float[rows, columns] of 1 and -1.
    """

    rotations: jax.Array
    signs: jax.Array
    patterns: jax.Array


def sketch(x: jax.Array, key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Returns the count sketch of x; it has no reverse-mode derivative.

    Args:
      x: float[..., d].
      key: Typed PRNG key, a scalar, of the hash functions: the same for all who sum sketches, and
        for `unsketch`.
      rows: Number of rows; an odd number has a median of its own.
      columns: Number of columns; with d or more, no coordinates meet.

    Returns:
      float[..., rows, columns].

    Raises:
      ValueError: If rows or columns is not positive.
      TypeError: If x is not real floating point.

    Example:
      >>> x, y, key = jnp.arange(5.0), jnp.ones(5), jax.random.key(0)
      >>> sums = sketch(x, key, 3, 4) + sketch(y, key, 3, 4)
      >>> sums.shape, bool(jnp.allclose(sums, sketch(x + y, key, 3, 4)))
      ((3, 4), True)
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"sketch is for real floating-point arrays, not {x.dtype}; convert it.")
    if rows < 1 or columns < 1:
        raise ValueError(f"A sketch of {rows} x {columns} holds nothing; both must be 1 or more.")
    hashes = draw_hashes(key, x.shape[-1], rows, columns, x.dtype)
    form = _sketch_in_turn if jax.default_backend() == "cpu" else _sketch_at_once
    return for_each_row(form, x, hashes)


def unsketch(table: jax.Array, key: jax.Array, d: int) -> jax.Array:
    """Estimates the coordinates of a vector from its count sketch.

    Args:
      table: float[..., rows, columns], a sketch or a sum of sketches.
      key: The key it was made with.
      d: Number of coordinates.

    Returns:
      float[..., d], the medians over rows. NaN in a column shows in every coordinate that is in it.

    Example:
      >>> x, key = jnp.array([3.0, 1.0, 2.0]), jax.random.key(0)
      >>> unsketch(sketch(x, key, 1, 3), key, 3).tolist()  # no coordinates meet
      [3.0, 1.0, 2.0]
    """
    rows, columns = table.shape[-2:]
    hashes = draw_hashes(key, d, rows, columns, table.dtype)
    form = _unsketch_in_turn if jax.default_backend() == "cpu" else _unsketch_at_once
    return for_each_row(form, table, hashes, axes=2)[..., :d]


def draw_hashes(
    key: jax.Array, d: int, rows: int, columns: int, dtype: jax.typing.DTypeLike
) -> Hashes:
    """Draws the hash functions of a sketch, with signs of a dtype."""
    of_rotations, of_signs = jax.random.split(key)
    blocks = -(-d // columns)
    bits = jax.random.bits(of_signs, (rows, -(-(blocks + columns) // 32)), jnp.uint32)
    bits = (bits[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    signs = jnp.where(bits == 0, 1, -1).astype(dtype).reshape(rows, -1)
    return Hashes(
        jax.random.randint(of_rotations, (blocks, rows), 0, columns, jnp.int32),
        signs[:, :blocks].T,
        signs[:, blocks : blocks + columns],
    )


def _blocks(x, hashes):
    columns = hashes.patterns.shape[1]
    return jnp.pad(x, (0, -x.size % columns)).reshape(-1, columns)


def _sketch_in_turn(x, hashes):
    """Adds one block after another to rows of twice the length, for CPUs."""
    x = _blocks(x, hashes)
    blocks, columns = x.shape

    def add(number, tables):
        def add_to(table, start, sign, pattern):
            part = lax.dynamic_slice(table, (start,), (columns,)) + sign * pattern * x[number]
            return lax.dynamic_update_slice(table, part, (start,))

        starts, signs = hashes.rotations[number], hashes.signs[number]
        return tuple(map(add_to, tables, starts, signs, hashes.patterns))

    tables = (jnp.zeros(2 * columns, x.dtype),) * len(hashes.patterns)
    tables = jnp.stack(lax.fori_loop(0, blocks, add, tables))
    return tables[:, :columns] + tables[:, columns:]


def _sketch_at_once(x, hashes):
    """Gathers what is in each column, and sums: no atomic additions, the same result each time."""
    x = _blocks(x, hashes)
    signed = x[:, None] * hashes.patterns * hashes.signs[..., None]
    places = _modulo(
        jnp.arange(x.shape[1], dtype=jnp.int32) - hashes.rotations[..., None], x.shape[1]
    )
    return jnp.take_along_axis(signed, places, -1).sum(0)


def _unsketch_in_turn(table, hashes):
    """Estimates one block after another, from rows that stand twice, for CPUs."""
    columns = table.shape[1]
    twice = jnp.concatenate([table, table], 1)

    def estimate(hashes_of_block):
        def of_row(row, start, sign, pattern):
            return lax.dynamic_slice(row, (start,), (columns,)) * sign * pattern

        return _median(list(map(of_row, twice, *hashes_of_block, hashes.patterns)))

    return lax.map(estimate, (hashes.rotations, hashes.signs)).reshape(-1)


def _unsketch_at_once(table, hashes):
    columns = table.shape[1]
    places = _modulo(jnp.arange(columns, dtype=jnp.int32) + hashes.rotations[..., None], columns)

    def of_row(row, places, signs, pattern):
        return row[places] * signs[:, None] * pattern

    rows = map(of_row, table, places.swapaxes(0, 1), hashes.signs.T, hashes.patterns)
    return _median(list(rows)).reshape(-1)


def _modulo(places, columns):
    """Brings places that are out of range by less than a turn back into it."""
    return jnp.where(
        places < 0, places + columns, jnp.where(places < columns, places, places - columns)
    )


def _median(rows):
    """Sorts the rows by exchanges of neighbours, which are vectors' minima and maxima."""
    count = len(rows)
    for step in range(count):
        for i in range(step % 2, count - 1, 2):
            lower, upper = rows[i], rows[i + 1]
            rows[i], rows[i + 1] = jnp.minimum(lower, upper), jnp.maximum(lower, upper)
    return rows[count // 2] if count % 2 else (rows[count // 2 - 1] + rows[count // 2]) / 2
