"""The fast convolution for models that do not ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
from flax import nnx

from fljax.core.values import Field, checked, shown
from fljax_kernels import conv_general_dilated
from fljax_kernels.conv import FORMS

_FORM = Field("auto", str, tuple(FORMS))
Factory = Callable[[nnx.Rngs], nnx.Module]


def with_fast_convolutions(model: nnx.Module | Factory, form: str = "auto") -> nnx.Module | Factory:
    """Returns the same model with `fljax_kernels.conv_general_dilated` in its convolutions.

    Every `nnx.Conv` over two axes, at any depth, computes the same function with the same
    parameters, much faster when many clients train side by side and on CPUs. Convolutions over one
    or three axes, transposed ones, and those that were given a function of their own stay as they
    are; the models of `fljax.models`, which have the fast convolution already, take the form.
    Forward-mode derivatives (`jax.jvp`, `jax.jacfwd`) do not pass through the form "winograd",
    which "auto" chooses on CPUs where it is the fastest; for them, choose "gemm" or "grouped".
    Whatever the model calls itself, such as `nnx.max_pool`, stays too
    (`fljax_kernels.max_pool` is the fast one).

    Args:
      model: A module, which is copied, or a function (nnx.Rngs) -> module.
      form: How convolutions are computed: one of the forms of
        `fljax_kernels.conv_general_dilated`.

    Returns:
      A module, or a function (nnx.Rngs) -> module, like the one given.

    Raises:
      ValueError: For an unknown form.
      TypeError: For a linen module, whose layers are made while it runs.

    Example:
      >>> model = models.with_fast_convolutions(lambda rngs: nnx.Conv(1, 2, (3, 3), rngs=rngs))
      >>> model(nnx.Rngs(0))(jnp.zeros((1, 4, 4, 1))).shape
      (1, 4, 4, 2)
    """
    checked("form", form, _FORM)
    if isinstance(model, nnx.Module):
        return _convert(nnx.clone(model), form)
    if hasattr(model, "init") and hasattr(model, "apply") or not callable(model):
        raise TypeError(
            f"model = {shown(model)} ({type(model).__name__}): with_fast_convolutions takes an "
            "nnx.Module or a function (nnx.Rngs) -> module. In a linen module write nn.Conv(..., "
            "conv_general_dilated=fljax_kernels.conv_general_dilated)."
        )
    return lambda rngs: _convert(model(rngs), form)


def with_form(factory: Factory, conv_form: str) -> Factory:
    """Returns a model of `fljax.models` whose convolutions are computed in a form."""
    if checked("conv_form", conv_form, _FORM) == "auto":
        return factory
    return with_fast_convolutions(factory, conv_form)


@cache
def _in_form(form: str) -> Callable:
    """Returns the same function each time, so that modules with it are equal."""
    return conv_general_dilated if form == "auto" else partial(conv_general_dilated, form=form)


def _convert(module: nnx.Module, form: str) -> nnx.Module:
    usual = (jax.lax.conv_general_dilated, conv_general_dilated)
    for _, layer in nnx.iter_modules(module):
        if (
            isinstance(layer, nnx.Conv)
            and len(layer.kernel_size) == 2
            and layer.conv_general_dilated in usual
        ):
            layer.conv_general_dilated = _in_form(form)
    return module
