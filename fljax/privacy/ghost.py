"""Finds gradients that are products of two vectors, and keeps them as these.

The gradient of a dense layer's weights by one example is a product: of the layer's inputs and of
the derivatives by its outputs. Its norm is the product of their norms, and the weighted sum over
examples is one matrix product, as in ordinary training; the gradients of single examples, each as
large as the layer, need not be there (Goodfellow 2015, arXiv:1510.01799).

The products are found in what JAX makes of a derivative, so that no layer has to be written for it.
Those of several terms (convolutions, recurrent layers) are multiplied out: their norm would be a
sum of terms that cancel, which float32 may get too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.jaxprs import bind, inlined

PyTree = Any
# What may follow a product without another number coming out of it.
_REARRANGEMENTS = ("transpose", "reshape", "convert_element_type", "copy")


@jax.tree_util.register_pytree_node_class
class Product:
    """The product of two vectors, not multiplied out; or many, with an axis over examples.

    Attributes:
      left, right: float[M], float[N], or [B, M], [B, N].
      finish: ([M, N]) -> the array that the product stands for.
    """

    def __init__(self, left: jax.Array, right: jax.Array, finish: Callable):
        self.left, self.right, self.finish = left, right, finish

    def tree_flatten(self):
        return (self.left, self.right), self.finish

    @classmethod
    def tree_unflatten(cls, finish, factors):
        return cls(*factors, finish)


def factored(gradient: Callable[..., tuple[PyTree, PyTree]]) -> Callable[..., tuple]:
    """Returns the function with those of its gradients that are products left as such.

    Args:
      gradient: (*arguments) -> (gradients, more).

    Returns:
      (*arguments) -> (list of the leaves of the gradients, arrays or `Product`, more).
    """

    def rewritten(*arguments):
        closed, results = jax.make_jaxpr(gradient, return_shape=True)(*arguments)
        found = _Products()
        leaves = inlined(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), found.apply)
        grads, more = jax.tree.unflatten(jax.tree.structure(results), leaves)
        return [found.of(leaf) for leaf in jax.tree.leaves(grads)], more

    return rewritten


class _Products:
    """The products among the values of a function, as it is evaluated equation by equation."""

    def __init__(self):
        # the value itself stays there too, so that no other takes its identity
        self._found: dict[int, tuple[Any, Product]] = {}

    def of(self, value: jax.Array) -> jax.Array | Product:
        """Returns the product that a value is, where it takes less room, or the value."""
        _, product = self._found.get(id(value), (None, None))
        if product is None or product.left.size + product.right.size >= value.size:
            return value
        return product

    def apply(self, equation: Any, operands: Sequence[Any]) -> list:
        """Returns the results of an equation, and notes products."""
        results = bind(equation, operands)
        if equation.primitive.name == "dot_general":
            self._note(results[0], _product(equation, *operands))
        elif equation.primitive.name in _REARRANGEMENTS and id(operands[0]) in self._found:
            _, before = self._found[id(operands[0])]
            finish = lambda value: bind(equation, [before.finish(value)])[0]  # noqa: E731
            self._note(results[0], Product(before.left, before.right, finish))
        return results

    def _note(self, value: jax.Array, product: Product | None) -> None:
        if product is not None:
            self._found[id(value)] = value, product


def _product(equation: Any, left: jax.Array, right: jax.Array) -> Product | None:
    """Returns the product that an equation computes, if each of its entries is a single one."""
    (summed, _), (shared, _) = equation.params["dimension_numbers"]
    if shared or any(left.shape[axis] != 1 for axis in summed):
        return None
    shape = equation.outvars[0].aval.shape
    return Product(left.reshape(-1), right.reshape(-1), lambda value: value.reshape(shape))


def square_norms(leaf: jax.Array | Product) -> jax.Array:
    """Returns float[B], the squared norm of each example's gradient, in float32 at least.

    Example:
      >>> products = Product(jnp.array([[1.0, 2.0]]), jnp.array([[3.0]]), lambda value: value)
      >>> square_norms(products).tolist(), square_norms(jnp.array([[3.0, 6.0]])).tolist()
      ([45.0], [45.0])
    """
    if isinstance(leaf, Product):
        return square_norms(leaf.left) * square_norms(leaf.right)
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return jnp.square(wide.reshape(len(leaf), -1)).sum(1)


def weighted_sum(leaf: jax.Array | Product, weights: jax.Array) -> jax.Array:
    """Returns the weighted sum over examples; of those with weight 0 nothing, not even a NaN.

    Args:
      leaf: [B, ...], or the products of B examples.
      weights: float[B], finite.

    Example:
      >>> weighted_sum(jnp.array([[jnp.nan], [2.0], [3.0]]), jnp.array([0.0, 1.0, 0.5])).tolist()
      [3.5]
    """
    if isinstance(leaf, Product):
        left, right = _counted(leaf.left, weights), _counted(leaf.right, weights)
        # the norms are those of exact products
        return leaf.finish(jnp.matmul((weights[:, None] * left).T, right, precision="highest"))
    flat = _counted(leaf.reshape(len(leaf), -1), weights)
    return jnp.matmul(weights, flat, precision="highest").reshape(leaf.shape[1:])


def _counted(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns rows as wide as their weights, zeros where these are 0."""
    return jnp.where(weights[:, None] != 0, rows, 0).astype(weights.dtype)
