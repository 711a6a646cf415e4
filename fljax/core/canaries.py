"""Canaries: directions drawn at random that some clients send, and that an audit looks for.

Andrew et al. 2023 (arXiv:2302.03098): independent random directions in many dimensions are almost
orthogonal to each other and to whatever a model learns, so that one that is found in a model was
sent. A direction is a function of (seed, canary), so that nobody has to keep it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.values import FACTOR, Field, Interval, checked

__all__ = ["SEED", "check_chance", "check_seed", "direction", "is_included"]

PyTree = Any

# Programs may take a seed as an argument, and so as a float of 32 bits, which holds these exactly.
SEED = Interval(0, 2**24, high_open=True)
_DIRECTION, _COIN = 0, 1


def direction(seed: Any, canary: Any, like: PyTree) -> PyTree:
    """Returns the direction of a canary: independent normal numbers, scaled to norm 1.

    Args:
      seed: Of all canaries, a whole number; may be traced.
      canary: Its number, such as that of a client; may be traced.
      like: Arrays or shapes whose structure, shapes and types it has.

    Returns:
      Arrays whose norm is 1 all together.

    Example:
      >>> found = direction(0, 7, {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
      >>> squares = sum(float((leaf**2).sum()) for leaf in found.values())
      >>> found["w"].shape, round(squares, 5)
      ((3, 2), 1.0)
    """
    key = _key(seed, canary, _DIRECTION)
    leaves, structure = jax.tree.flatten(like)
    drawn = [
        jax.random.normal(jax.random.fold_in(key, number), leaf.shape, jnp.float32)
        for number, leaf in enumerate(leaves)
    ]
    norm = jnp.sqrt(sum((jnp.square(numbers).sum() for numbers in drawn), jnp.float32(0)))
    scaled = [
        (numbers / norm).astype(leaf.dtype) for numbers, leaf in zip(drawn, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, scaled)


def is_included(seed: Any, canary: Any, chance: Any = 0.5) -> jax.Array:
    """Returns whether a canary is sent at all, by a coin of its own: a bool scalar.

    Args:
      seed, canary: As `direction` takes them.
      chance: How likely it is; may be traced.

    Example:
      >>> included = jax.vmap(lambda canary: is_included(0, canary))(jnp.arange(1000))
      >>> 450 < int(included.sum()) < 550
      True
    """
    return jax.random.uniform(_key(seed, canary, _COIN), dtype=jnp.float32) < chance


def check_seed(seed: Any) -> None:
    """Raises ValueError for a seed of canaries that is no whole number from 0 to 2^24 - 1.

    Example:
      >>> check_seed(7)
    """
    checked("seed", seed, Field(None, int, SEED))


def check_chance(chance: Any) -> None:
    """Raises ValueError for a chance that is not above 0 and at most 1.

    Example:
      >>> check_chance(0.5)
    """
    checked("chance", chance, Field(None, float, FACTOR))


def _key(seed: Any, canary: Any, purpose: int) -> jax.Array:
    """Returns the key of a canary, the same on every device and whatever JAX's default is."""
    word = jnp.asarray(seed).astype(jnp.uint32)
    key = jax.random.fold_in(jax.random.key(word, impl="threefry2x32"), purpose)
    return jax.random.fold_in(key, canary)
