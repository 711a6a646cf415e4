"""Chooses the types in which training computes and sums, and how results go back to their own.

Steps, updates and means are computed in float32 at least, whatever the types of a model's leaves,
and go back to these once: floating-point numbers are rounded to their precision; of integers and
truth values the mean is rounded to the nearest, ties to even, so that a tie of truth values is
false. Of float32 nothing is converted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def widened(tree: PyTree) -> PyTree:
    """Returns the tree with floating-point leaves narrower than float32 as float32."""
    return jax.tree.map(lambda leaf: leaf.astype(_wide(leaf.dtype)), _arrays(tree))


def difference(new: PyTree, old: PyTree) -> PyTree:
    """Returns new - old of floating-point leaves, in float32 at least."""
    return jax.tree.map(jnp.subtract, widened(new), widened(old))


def rounded(values: PyTree, like: PyTree) -> PyTree:
    """Returns the values in the types of the leaves of `like`, rounded and kept in range."""
    return jax.tree.map(lambda value, leaf: _as_type(value, leaf.dtype), values, _arrays(like))


def summable(tree: PyTree, *, codes: bool = False) -> PyTree:
    """Returns the tree in the types in which sums over clients are kept.

    That is float32 at least, and float64 where JAX has it enabled.

    Args:
      tree: Arrays of numbers.
      codes: Whether integers are codes, which are summed as integers and decoded afterwards.
    """
    return jax.tree.map(lambda leaf: leaf.astype(_sum_type(leaf.dtype, codes)), _arrays(tree))


class Differences(NamedTuple):
    """Changes of a state, leaf by leaf, as floating-point numbers."""

    tree: PyTree


def state_change(new: PyTree, old: PyTree, whole: bool = False) -> PyTree:
    """Returns what a client sends of a state so that its mean loses no digit.

    Integers of 32 bits and more exceed the digits of float32, but hardly what a client has added to
    them: of these it sends the difference, as floating-point numbers. All else is sent as it is.

    Args:
      new, old: The state after and before.
      whole: Whether `Differences` of all leaves are sent.
    """
    if whole:
        return Differences(jax.tree.map(_gap, new, _arrays(old)))
    return jax.tree.map(lambda n, o: _gap(n, o) if _is_long(o.dtype) else n, new, _arrays(old))


def state_after(old: PyTree, mean: PyTree) -> PyTree:
    """Returns the state after a mean over what `state_change` returned, in the types it had."""
    if isinstance(mean, Differences):
        mean = jax.tree.map(
            lambda o, d: d if _is_long(o.dtype) else o.astype(d.dtype) + d, _arrays(old), mean.tree
        )

    def one(old, mean):
        if not _is_long(old.dtype):
            return _as_type(mean, old.dtype)
        odd = (old % 2).astype(mean.dtype)
        step = jnp.round(mean + odd) - odd  # of a tie, so that the sum is even
        far = old.astype(mean.dtype) + step
        near = jnp.abs(step) < 2.0 ** jnp.finfo(mean.dtype).nmant
        small = jnp.where(near, step, 0).astype(_signed(old.dtype)).astype(old.dtype)
        return jnp.where(near, old + small, _as_type(far, old.dtype))

    return jax.tree.map(one, _arrays(old), mean)


def check_trainable(params: PyTree, name: str = "params") -> None:
    """Raises ValueError for parameters that are no real floating-point numbers."""
    for path, dtype in _types(params):
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"The leaf {name}{path} is of type {dtype}, which has no gradient. Give "
                "floating-point parameters, and keep constants apart: with NNX in a Variable that "
                "is no nnx.Param, elsewhere in `frozen` or in the model state."
            )


def check_numbers(tree: PyTree, name: str) -> None:
    """Raises ValueError for leaves of which clients cannot average what they have."""
    for path, dtype in _types(tree):
        if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"The leaf {name}{path} is a PRNG key ({dtype}), of which there is no mean over "
                "clients. Derive keys from the one that each step is given (of NNX, streams of "
                "nnx.Rngs do), or hold this one in `frozen`."
            )
        if not any(jnp.issubdtype(dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
            raise ValueError(
                f"The leaf {name}{path} is of type {dtype}, of which there is no mean over "
                "clients. Use real numbers, or hold it in `frozen`."
            )


def _types(tree: PyTree) -> list[tuple[str, Any]]:
    """Returns (path, type) of each leaf."""
    return [
        (
            jax.tree_util.keystr(path),
            leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype,
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _arrays(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), tree)


def _wide(dtype: Any) -> Any:
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4
    return jnp.dtype(jnp.float32) if narrow else dtype


def _sum_type(dtype: Any, codes: bool) -> Any:
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.promote_types(_wide(dtype), float)
    if codes:
        return dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.int32)
    return jax.dtypes.canonicalize_dtype(float)


def _is_long(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) and jnp.dtype(dtype).itemsize >= 4


def _signed(dtype: Any) -> Any:
    return jnp.int64 if jnp.dtype(dtype).itemsize == 8 else jnp.int32


def _gap(new: jax.Array, old: jax.Array) -> jax.Array:
    """Returns new - old as floating-point numbers, of long integers exact where possible."""
    if jnp.issubdtype(old.dtype, jax.dtypes.extended):
        return new  # of keys there is none, as `check_numbers` says
    if not _is_long(old.dtype):
        return jnp.subtract(
            *(leaf.astype(_sum_type(old.dtype, codes=False)) for leaf in (new, old))
        )
    wide = _sum_type(old.dtype, codes=False)
    far = new.astype(wide) - old.astype(wide)
    near = jnp.abs(far) < 2.0 ** (8 * jnp.dtype(old.dtype).itemsize - 2)
    # what wraps around in unsigned numbers is right again in signed ones
    return jnp.where(near, (new - old).astype(_signed(old.dtype)).astype(wide), far)


def _as_type(value: jax.Array, dtype: Any) -> jax.Array:
    value = jnp.asarray(value)
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return value  # keys, of the one type that they have
    if value.dtype == dtype or not jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value, dtype)
    if dtype == jnp.bool_:
        return jnp.round(value) != 0
    if jnp.issubdtype(dtype, jnp.integer):
        least, most = (_within(bound, value.dtype) for bound in _bounds(dtype))
        return jnp.clip(jnp.round(value), least, most).astype(dtype)
    return value.astype(dtype)


def _bounds(dtype: Any) -> tuple[int, int]:
    info = jnp.iinfo(dtype)
    return int(info.min), int(info.max)


def _within(bound: int, dtype: Any) -> Any:
    """Returns the number of a floating-point type next to an integer, on the side of zero."""
    number = np.asarray(bound, np.float64).astype(dtype)
    if abs(int(number)) > abs(bound):
        number = np.nextafter(number, np.zeros((), dtype))
    return number
