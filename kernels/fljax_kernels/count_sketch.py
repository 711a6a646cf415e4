"""Count sketches (Charikar, Chen and Farach-Colton 2002) of vectors, as FetchSGD sends them.

FetchSGD: Rothchild et al. 2020, arXiv:2007.07682.

A sketch has several rows, each with its own hash functions: coordinate i is multiplied by a random
sign and added to one of the row's columns. A coordinate is estimated by the median over the rows of
its column times its sign.

Scattered additions are slow, so the columns have a structure. The vector is cut into blocks of as
many coordinates as there are columns, and each block is added to the row as a whole, rotated by a
random number of columns. What that keeps, of hash functions drawn without structure:

- The signs are independent of each other and of the rotations, and so are the rows.
- Every coordinate is equally likely to be in every column.
- Two coordinates of different blocks meet with probability 1 / columns, independently of every
  other block's rotation; two of the same block never do.

So every row's estimate is unbiased, with a variance of at most |x|**2 / columns, as ever; the
analysis of the median of rows, which is about one coordinate at a time, holds as it stands. What it
gives up: which pairs of two blocks meet is one event, so that in one row the errors of neighbouring
coordinates depend on each other more than under independent hash functions.

Sketches are linear: with equal keys and shapes, sums of sketches are sketches of sums.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Hashes(NamedTuple):
    """The hash functions of all rows.

    Attributes:
      rotations: int32[blocks, rows], columns by which a block is moved.
      signs: uint32[blocks, rows, ceil(columns / 32)]; bit i of word w is for place
        i * ceil(columns / 32) + w of the block, and means -1 if it is set.
    """

    rotations: jax.Array
    signs: jax.Array


def sketch(x: jax.Array, key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Returns the count sketch of x.

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
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"sketch is for real floating-point arrays, not {x.dtype}; convert it.")
    if rows < 1 or columns < 1:
        raise ValueError(f"A sketch of {rows} x {columns} holds nothing; both must be 1 or more.")
    hashes = draw_hashes(key, x.shape[-1], rows, columns)
    form = _sketch_in_turn if jax.default_backend() == "cpu" else _sketch_at_once
    one = partial(form, hashes=hashes, columns=columns)
    return jnp.vectorize(one, signature="(d)->(r,c)")(x)


def unsketch(table: jax.Array, key: jax.Array, d: int) -> jax.Array:
    """Estimates the coordinates of a vector from its count sketch.

    Args:
      table: float[..., rows, columns], a sketch or a sum of sketches.
      key: The key it was made with.
      d: Number of coordinates.

    Returns:
      float[..., d], the medians over rows. NaN in a column shows in every coordinate that is in it.
    """
    rows, columns = table.shape[-2:]
    hashes = draw_hashes(key, d, rows, columns)
    one = partial(_unsketch, hashes=hashes, d=d)
    return jnp.vectorize(one, signature="(r,c)->(d)")(table)


def draw_hashes(key: jax.Array, d: int, rows: int, columns: int) -> Hashes:
    """Draws the hash functions of a sketch."""
    of_rotations, of_signs = jax.random.split(key)
    blocks, words = -(-d // columns), -(-columns // 32)
    return Hashes(
        jax.random.randint(of_rotations, (blocks, rows), 0, columns, jnp.int32),
        jax.random.bits(of_signs, (blocks, rows, words), jnp.uint32),
    )


def _signs(words, columns, dtype):
    """uint32[..., words] -> [..., columns] of 1 and -1."""
    bits = words[..., None, :] >> jnp.arange(32, dtype=jnp.uint32)[:, None]
    signs = jnp.where((bits & 1) == 0, jnp.ones((), dtype), -jnp.ones((), dtype))
    return signs.reshape(*words.shape[:-1], -1)[..., :columns]


def _blocks(x, columns):
    return jnp.pad(x, (0, -x.size % columns)).reshape(-1, columns)


def _sketch_in_turn(x, hashes, columns):
    """Adds one block after another to rows of twice the length, for CPUs."""
    blocks, rows = hashes.rotations.shape
    x = _blocks(x, columns)

    def add(number, tables):
        signed = x[number] * _signs(hashes.signs[number], columns, x.dtype)
        starts = hashes.rotations[number]
        return tuple(
            lax.dynamic_update_slice(
                table, lax.dynamic_slice(table, (start,), (columns,)) + row, (start,)
            )
            for table, start, row in zip(tables, starts, signed, strict=True)
        )

    tables = (jnp.zeros(2 * columns, x.dtype),) * rows
    tables = jnp.stack(lax.fori_loop(0, blocks, add, tables))
    return tables[:, :columns] + tables[:, columns:]


def _sketch_at_once(x, hashes, columns):
    """Gathers what is in each column, and sums: no atomic additions, the same result each time."""
    x = _blocks(x, columns)
    signed = x[:, None] * _signs(hashes.signs, columns, x.dtype)
    places = jnp.arange(columns, dtype=jnp.int32) - hashes.rotations[..., None]
    places = jnp.where(places < 0, places + columns, places)
    return jnp.take_along_axis(signed, places, -1).sum(0)


def _unsketch(table, hashes, d):
    rows, columns = table.shape
    places = jnp.arange(columns, dtype=jnp.int32) + hashes.rotations[..., None]
    places = jnp.where(places < columns, places, places - columns)
    signs = _signs(hashes.signs, columns, table.dtype)
    estimates = [table[row][places[:, row]] * signs[:, row] for row in range(rows)]
    return _median(estimates).reshape(-1)[:d]


def _median(rows):
    """Sorts the rows by exchanges of neighbours, which are vectors' minima and maxima."""
    rows, count = list(rows), len(rows)
    for step in range(count):
        for i in range(step % 2, count - 1, 2):
            lower, upper = rows[i], rows[i + 1]
            rows[i], rows[i + 1] = jnp.minimum(lower, upper), jnp.maximum(lower, upper)
    return rows[count // 2] if count % 2 else (rows[count // 2 - 1] + rows[count // 2]) / 2
