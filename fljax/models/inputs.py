"""Checks the models' sizes and inputs."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from fljax.core.values import COUNT, Field, checked, wrong

_COUNT = Field(None, int, COUNT)


def count(name: str, value: int) -> int:
    """Returns a size as an int; raises ValueError unless it is a whole number of at least 1."""
    return checked(name, value, _COUNT)


def counts(name: str, values: Sequence[int], least: int = 0) -> tuple[int, ...]:
    """Returns sizes as ints; raises ValueError unless they are `least` or more whole numbers."""
    if not isinstance(values, list | tuple) and np.ndim(values) != 1:
        raise wrong(name, values, "a list of whole numbers, such as (200, 200)")
    if len(values) < least:
        raise wrong(name, values, f"at least {least} whole numbers")
    return tuple(count(f"{name}[{place}]", value) for place, value in enumerate(values))


def image_shape(name: str, input_shape: Sequence[int], smallest: int = 1) -> tuple[int, int, int]:
    """Returns (height, width, channels); refuses what is no image, or too small for the model.

    Raises:
      ValueError: If convolutions and pooling would leave nothing of such an image, or its shape is
        none.
    """
    shape = counts("input_shape", input_shape)
    if len(shape) != 3:
        raise ValueError(
            f"{name} needs images of a height, a width and channels, and input_shape, the shape of "
            f"an example x, is {shape}. Reshape x to [rows, height, width, channels], or choose "
            "softmax_regression or mlp."
        )
    if min(shape[:2]) < smallest:
        raise ValueError(
            f"{name} needs images of at least {smallest} x {smallest}, not {shape[0]} x "
            f"{shape[1]}: its convolutions and pooling would leave nothing of them."
        )
    return shape


def shaped(x: jax.Array, *shape: int) -> jax.Array:
    """Returns inputs [B, ...] as [B, *shape]; refuses bytes, which nobody has scaled.

    Raises:
      ValueError: If x is uint8.
    """
    if x.dtype == np.uint8:
        raise ValueError(
            "x is uint8, values up to 255, and this model expects floats around 1. Give the data "
            "set a preprocess, such as fljax.data.image_scaling(None), or scale x yourself: "
            "x.astype(numpy.float32) / 255."
        )
    return x.reshape(x.shape[0], *shape)
