"""The fast convolution for models that do not ask for it."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import nnx

from fljax_kernels import conv_general_dilated

Factory = Callable[[nnx.Rngs], nnx.Module]


def with_fast_convolutions(model: nnx.Module | Factory) -> nnx.Module | Factory:
    """Returns the same model with `fljax_kernels.conv_general_dilated` in its convolutions.

    Every `nnx.Conv` over two axes, at any depth, computes the same function with the same
    parameters, much faster when many clients train side by side and on CPUs. Convolutions over one
    or three axes, transposed ones, and those that were given a function of their own stay as they
    are. Whatever the model calls itself, such as `nnx.max_pool`, stays too
    (`fljax_kernels.max_pool` is the fast one).

    Args:
      model: A module, which is copied, or a function (nnx.Rngs) -> module.

    Returns:
      A module, or a function (nnx.Rngs) -> module, like the one given.

    Raises:
      TypeError: For a linen module, whose layers are made while it runs.
    """
    if isinstance(model, nnx.Module):
        return _convert(nnx.clone(model))
    if hasattr(model, "init") and hasattr(model, "apply") or not callable(model):
        raise TypeError(
            "with_fast_convolutions takes an nnx.Module or a function (nnx.Rngs) -> module, not "
            f"{type(model).__name__}. In a linen module write nn.Conv(..., "
            "conv_general_dilated=fljax_kernels.conv_general_dilated)."
        )
    return lambda rngs: _convert(model(rngs))


def _convert(module: nnx.Module) -> nnx.Module:
    for _, layer in nnx.iter_modules(module):
        if (
            isinstance(layer, nnx.Conv)
            and len(layer.kernel_size) == 2
            and layer.conv_general_dilated is jax.lax.conv_general_dilated
        ):
            layer.conv_general_dilated = conv_general_dilated
    return module
