"""First values of layers, as PyTorch draws them."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import nnx

from fljax.models.inputs import count

# uniform in +-1 / sqrt(fan_in)
PYTORCH_KERNEL = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def pytorch_init(inputs: int) -> dict[str, Callable[..., jax.Array]]:
    """Returns what PyTorch's dense and convolutional layers begin with, for those of flax.

    Weights and biases are uniform in +-1 / sqrt(inputs); flax's own begin with normal weights, and
    biases of zero. Weights read the number off their shape, biases cannot.

    Args:
      inputs: Numbers that an output is made of: features, or channels times a kernel's size.

    Returns:
      {"kernel_init", "bias_init"}: initializers (key, shape, dtype) -> array.

    Raises:
      ValueError: If `inputs` is no count.

    Example:
      >>> layer = nnx.Linear(784, 10, **models.pytorch_init(784), rngs=nnx.Rngs(0))
      >>> largest = [28 * jnp.abs(leaf[...]).max() for leaf in (layer.kernel, layer.bias)]
      >>> [bool(0.5 < each <= 1) for each in largest]
      [True, True]
    """
    bound = count("inputs", inputs) ** -0.5

    def bias(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": PYTORCH_KERNEL, "bias_init": bias}
