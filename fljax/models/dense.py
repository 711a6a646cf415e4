"""Softmax regression and multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import nnx

from fljax.models.inputs import count, counts, shaped


class MLP(nnx.Module):
    """Dense layers with ReLU between them, on flattened inputs: [B, ...] -> [B, sizes[-1]]."""

    def __init__(self, sizes: Sequence[int], kernel_init: Callable, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [
                nnx.Linear(inputs, outputs, kernel_init=kernel_init, rngs=rngs)
                for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True)
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = shaped(x, -1)
        *hidden, last = self.layers
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


def softmax_regression(num_features: int, num_classes: int) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns multinomial logistic regression, which starts at zero (the problem is convex).

    Raises:
      ValueError: For sizes that are not whole numbers of at least 1.

    Example:
      >>> model = models.softmax_regression(4, 3)(nnx.Rngs(0))
      >>> model(jnp.zeros((2, 4))).shape
      (2, 3)
    """
    sizes = count("num_features", num_features), count("num_classes", num_classes)
    return partial(MLP, sizes, nnx.initializers.zeros)


def mlp(sizes: Sequence[int]) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns a perceptron with ReLU.

    Args:
      sizes: Features, hidden units, ..., classes. (784, 200, 200, 10) is the "2NN" of McMahan et
        al. (arXiv:1602.05629), of 199,210 parameters.

    Raises:
      ValueError: For sizes that are not whole numbers of at least 1, or fewer than two.

    Example:
      >>> model = models.mlp((4, 8, 3))(nnx.Rngs(0))
      >>> model(jnp.zeros((2, 4))).shape
      (2, 3)
    """
    return partial(MLP, counts("sizes", sizes, least=2), nnx.initializers.glorot_uniform())
