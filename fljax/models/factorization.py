"""Matrix factorization: what a user thinks of an item is a product of two vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from fljax.core.item_sets import members
from fljax.core.values import Field, checked
from fljax.models.inputs import count

_USER = Field("personal", str, ("personal", "history"))


def matrix_factorization(
    num_items: int, dim: int = 16, *, user: str = "personal"
) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns matrix factorization (Koren, Bell and Volinsky, 2009) for one user a client.

    The score of an item is the product of its vector and the user's, plus a bias of the item. The
    user's vector is one of these:

    - "personal": a parameter `user`, one for all users of a model. Where a client is a user, keep
      it at the client, as in Ammad-ud-din et al. (arXiv:1901.09888): fedper(personal="user") or
      fedrep(personal="user"), which trains one vector after the other. It takes local steps, where
      they solve for it. Without such an algorithm, everybody is recommended the same.
    - "history": the sum of further vectors of the items chosen so far, without the item that is
      scored, divided by the root of their number (Kabbur et al., 2013): nothing is personal, and
      new users are recommended items without any training.

    Args:
      num_items: Number of items plus one: items are 1, 2, ..., and 0 is none.
      dim: Length of the vectors.
      user: "personal" or "history".

    Returns:
      A model of int[B, H], the items of each user: float[B, num_items], a score of each item; and,
      with "personal", of int[B], single items: float[B], the score of each, for ratings
      (`fljax.tasks.regression`).

    Raises:
      ValueError: For sizes that are not whole numbers of at least 1.

    Example:
      >>> model = models.matrix_factorization(50, dim=4)(nnx.Rngs(0))
      >>> model(jnp.array([[3, 7, 0]])).shape, model(jnp.array([3, 7])).shape
      ((1, 50), (2,))
    """
    sizes = count("num_items", num_items), count("dim", dim)
    return partial(MatrixFactorization, *sizes, checked("user", user, _USER))


class MatrixFactorization(nnx.Module):
    """Scores all items for users, or single ones for the user whose vector it has."""

    def __init__(self, num_items: int, dim: int, user: str, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(dim**-0.5)
        self.items = nnx.Param(normal(rngs.params(), (num_items, dim)))
        self.bias = nnx.Param(jnp.zeros(num_items))
        if user == "personal":
            self.user = nnx.Param(normal(rngs.params(), (dim,)))
        else:
            self.history = nnx.Param(normal(rngs.params(), (num_items, dim)))
        self.is_personal = user == "personal"

    def __call__(self, x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.integer) or x.ndim > 2:
            raise ValueError(
                f"x is {x.dtype}{list(x.shape)}, and matrix_factorization needs numbers of items, "
                "integers [rows, items] or [rows]."
            )
        items, bias = self.items[...], self.bias[...]
        if self.is_personal:
            scores = items @ self.user[...] + bias
            return jnp.broadcast_to(scores, (len(x), len(scores))) if x.ndim == 2 else scores[x]
        if x.ndim < 2:
            raise ValueError(
                "With user='history' the items of a user must be known, integers [rows, items]; "
                "for single items choose user='personal'."
            )
        return self._of_history(members(x, len(items)), items) + bias

    def _of_history(self, chosen: jax.Array, items: jax.Array) -> jax.Array:
        """Returns float[B, num_items], scores by what each user chose, but for the item itself."""
        history, chosen = self.history[...], chosen.astype(items.dtype)
        own = chosen * (history * items).sum(1)
        others = jnp.maximum(chosen.sum(1, keepdims=True) - chosen, 1)
        return (chosen @ history @ items.T - own) * others**-0.5
