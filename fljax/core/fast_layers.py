"""Fast convolutions take the place of Flax's own: the same function, parameters and names.

XLA's convolution is slow inside a compiled loop on CPUs, and slow everywhere once each client has
kernels of its own. `fljax_kernels.conv_general_dilated` computes the same from matrix products: a
CNN of two `nnx.Conv` trains ten times as fast with it on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import jax
from flax import nnx
from jax import lax

from fljax.core.values import Field, checked, shown
from fljax_kernels import conv_general_dilated, conv_relu, max_pool
from fljax_kernels.conv import FORMS
from fljax_kernels.forms import form_of

FORM = Field("auto", str, tuple(FORMS))
Factory = Callable[[nnx.Rngs], nnx.Module]

# Layers that are named before the others are counted.
_NAMED = 4


def with_fast_layers(module: nnx.Module) -> tuple[nnx.Module, tuple[str, ...]]:
    """Returns a module whose convolutions are fast, and the names of those that were replaced.

    An `nnx.Conv` over one or two axes, at any depth, is replaced unless it was given a function of
    its own. What has another type stays as it is, subclasses of `nnx.Conv` too, since nobody knows
    what they do with their function.

    Args:
      module: Of arrays or of shapes; it stays as it is.

    Returns:
      (a copy, or the module itself where nothing is replaced; ("blocks/0/conv", ...)).

    Example:
      >>> module, names = with_fast_layers(nnx.Conv(1, 8, (3, 3), rngs=nnx.Rngs(0)))
      >>> module.conv_general_dilated.__module__
      'fljax_kernels.conv'
    """
    plain = (lax.conv_general_dilated,)
    names = tuple("/".join(map(str, path)) for path, _ in _convolutions(module, plain))
    return (_converted(module, "auto", plain) if names else module), names


def named(names: Sequence[str]) -> str:
    """Returns the names of replaced layers for people: all of a few, and the number of the rest.

    Example:
      >>> named(("conv1", "conv2"))
      'conv1, conv2'
      >>> named([f"blocks/{i}" for i in range(9)])
      'blocks/0, blocks/1, blocks/2, blocks/3 and 5 more'
    """
    some = ", ".join(name or "the model" for name in names[:_NAMED])
    return some + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def with_fast_convolutions(model: nnx.Module | Factory, form: str = "auto") -> nnx.Module | Factory:
    """Returns the same model with `fljax_kernels.conv_general_dilated` in its convolutions.

    Tasks do this by themselves to NNX modules (`fast_layers`); call it to choose the form, or to
    train elsewhere. Each `nnx.Conv` over one or two axes, at any depth, computes the same function
    with the same parameters, much faster when many clients train side by side and on CPUs.
    Convolutions over three axes, transposed ones, subclasses, and those that were given a function
    of their own stay as they are. Forward-mode derivatives (`jax.jvp`, `jax.jacfwd`) do not pass
    through the form "winograd", which "auto" chooses on CPUs where it is the fastest; for them,
    choose "gemm" or "grouped". Whatever the model calls itself, such as `nnx.max_pool`, stays too
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
      >>> net = lambda rngs: nnx.Conv(1, 2, (3, 3), rngs=rngs)
      >>> model = models.with_fast_convolutions(net, form="gemm")
      >>> model(nnx.Rngs(0))(jnp.zeros((1, 4, 4, 1))).shape
      (1, 4, 4, 2)
    """
    checked("form", form, FORM)
    usual = (lax.conv_general_dilated, *map(_in_form, FORMS))
    if isinstance(model, nnx.Module):
        return _converted(model, form, usual)
    if hasattr(model, "init") and hasattr(model, "apply") or not callable(model):
        raise TypeError(
            f"model = {shown(model)} ({type(model).__name__}): with_fast_convolutions takes an "
            "nnx.Module or a function (nnx.Rngs) -> module. In a linen module write nn.Conv(..., "
            "conv_general_dilated=fljax_kernels.conv_general_dilated)."
        )
    return lambda rngs: _converted(model(rngs), form, usual)


def relu_of(layer: nnx.Conv, x: jax.Array, pool: bool = False) -> jax.Array:
    """Returns max(layer(x), 0), or its maxima over 2x2 windows.

    In the form "pallas" all of it is one kernel (`fljax_kernels.conv_relu`), if the layer has a
    bias and nothing unusual: no strides, dilation, groups, mask or dtype of its own.

    Args:
      layer: The convolution.
      x: float[B, H, W, C].
      pool: Whether to take maxima, without a last row or column that fills no window.

    Example:
      >>> layer = nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0))
      >>> relu_of(layer, jnp.ones((1, 8, 8, 1)), pool=True).shape
      (1, 4, 4, 2)
    """
    if _is_pallas(layer.conv_general_dilated) and _is_usual(layer) and x.ndim == 4:
        kernel, bias = layer.kernel[...], layer.bias[...]
        return conv_relu(x, kernel, bias, padding=layer.padding, pool=pool, form="pallas")
    y = nnx.relu(layer(x))
    return max_pool(y) if pool else y


def _is_pallas(convolution: Callable) -> bool:
    """Returns whether a layer's function computes in the form "pallas"."""
    if convolution is conv_general_dilated:
        return form_of("conv", "auto") == "pallas"
    return convolution is _in_form("pallas")


def _is_usual(layer: nnx.Conv) -> bool:
    ones = layer.strides, layer.input_dilation, layer.kernel_dilation, layer.feature_group_count
    own = layer.mask, layer.dtype, layer.precision, layer.preferred_element_type
    return (
        layer.padding in ("SAME", "VALID")
        and all(number in (1, (1, 1)) for number in ones)
        and all(value is None for value in own)
        and layer.use_bias
    )


def _converted(module: nnx.Module, form: str, usual: Sequence[Callable]) -> nnx.Module:
    """Returns a copy whose convolutions with one of the usual functions are computed in a form."""
    module = nnx.clone(module)
    for _, layer in list(_convolutions(module, usual)):
        layer.conv_general_dilated = _in_form(form)
    return module


def _convolutions(
    module: nnx.Module, usual: Sequence[Callable]
) -> Iterator[tuple[tuple[Any, ...], nnx.Conv]]:
    for path, layer in nnx.iter_modules(module):
        if (
            type(layer) is nnx.Conv
            and len(layer.kernel_size) <= 2
            and layer.conv_general_dilated in usual
        ):
            yield path, layer


@cache
def _in_form(form: str) -> Callable:
    """Returns the same function each time, so that modules with it are equal."""
    return conv_general_dilated if form == "auto" else partial(conv_general_dilated, form=form)
