"""Scales images of bytes inside the compiled program, so that they stay bytes in memory."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np

from fljax.core.values import POSITIVE, Field, checked, sequence, wrong
from fljax.data.dataset import Preprocess


def image_scaling(moments: tuple[tuple[float, ...], tuple[float, ...]] | None) -> Preprocess:
    """Returns a `preprocess` that maps uint8 images [..., C] to float32.

    Args:
      moments: (mean, standard deviation) of each channel in units of [0, 1], or None for [0, 1].

    Raises:
      ValueError: If the moments are no such pair, or a deviation is not above 0.

    Example:
      >>> scale = data.image_scaling(((0.5,), (0.25,)))
      >>> print(scale({'x': jnp.array([[[[0]], [[255]]]], jnp.uint8)})['x'].ravel())
      [-2.  2.]
    """
    mean, std = _moments(((0.0,), (1.0,)) if moments is None else moments)
    return functools.partial(_scale, mean=mean, std=std)


def _moments(moments) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, standard deviation) of each channel as floats."""
    what = "(means, standard deviations), each with a number for each channel"
    pair = sequence("moments", moments, what)
    if len(pair) != 2 or any(isinstance(moment, str) or np.ndim(moment) != 1 for moment in pair):
        raise wrong("moments", moments, what)
    means = tuple(checked("moments[0]", mean, Field(0.0, float)) for mean in pair[0])
    deviations = tuple(
        checked("moments[1]", deviation, Field(1.0, float, POSITIVE)) for deviation in pair[1]
    )
    if len(means) != len(deviations) or not means:
        raise wrong("moments", moments, what)
    return means, deviations


def _scale(batch, *, mean, std):
    if len(mean) > 1 and batch["x"].shape[-1:] != (len(mean),):
        raise ValueError(
            f"image_scaling has moments of {len(mean)} channels, but the images are of shape "
            f"{list(batch['x'].shape)}, channels last: give one moment a channel"
        )
    x = batch["x"].astype(jnp.float32) / 255.0
    return {**batch, "x": (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)}


def moments_of(preprocess: Preprocess | None) -> tuple[tuple, tuple] | None:
    """Returns (mean, standard deviation) that a `preprocess` of `image_scaling` has; else None."""
    if not isinstance(preprocess, functools.partial) or preprocess.func is not _scale:
        return None
    return preprocess.keywords["mean"], preprocess.keywords["std"]
