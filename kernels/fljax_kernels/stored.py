"""Arrays that are written to memory, where XLA would compute their entries again and again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.forms import chosen

# The value of a first entry at which `stored` takes its two steps: seldom, and exact in every type.
_RARE = 85


@jax.custom_jvp
def stored(x: jax.Array) -> jax.Array:
    """Returns an array as it is, on CPUs written to memory by a loop of its own.

    XLA's CPU backend makes one loop of an operation and of those before it, which computes an entry
    again for each of its uses, looks up for each entry which slice it is from, and does without
    vectors where a reshape comes last: up to ten times slower. An optimization barrier does not
    help, since it is removed before loops are made. A `while` stays, and what enters it is in
    memory. This one has no step unless the first entry has a certain value; then it changes all
    signs, or bits, twice.

    Args:
      x: Integers or floating-point numbers of any shape.

    Returns:
      The same.
    """
    if jax.default_backend() != "cpu" or x.size == 0 or chosen("stored") == "plain":
        return x
    first = lax.slice(x, [0] * x.ndim, [1] * x.ndim).reshape(())
    steps = jnp.where(first == jnp.asarray(_RARE, x.dtype), 2, 0)
    turned = lax.neg if jnp.issubdtype(x.dtype, jnp.floating) else lax.bitwise_not
    return lax.fori_loop(0, steps, lambda _, x: turned(x), x)


@stored.defjvp
def _stored_jvp(primals, tangents):
    return stored(*primals), *tangents
