"""Ways to skew features, a domain for each: rotation, noise, blur, colour, the order of pixels.

rotations(4)                   turned by 0, 90, 180, 270 degrees, as IFCA's (arXiv:2006.04088)
gaussian_noise(0.5, levels=4)  noise that grows from domain to domain, as in NIID-Bench
blur(2.0, levels=3)            Gaussian blur
colour(4)                      hue, contrast and gains of channels, as of several cameras
pixel_permutation(4)           pixels in another order, as in permuted MNIST
scanners(4)                    medical images of several scanners, see `scanners.py`
rotations(2), blur(1.0)        every pair of both
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.values import (
    COUNT,
    DECAY,
    NON_NEGATIVE,
    POSITIVE,
    SEED,
    Field,
    Interval,
    checked,
)


class Skew(NamedTuple):
    """Changes that some domains make to features.

    Attributes:
      names: Of the domains, such as "rotated_90".
      apply: (x [rows, ...], number of a domain, NumPy generator) -> x of the same shape and type.
      moves: Whether pixels change their places, and targets of single pixels would have to follow.

    Example:
      >>> brighter = data.Skew(["plain", "brighter"], lambda x, domain, rng: x + domain)
      >>> brighter.apply(np.zeros(2), 1, None).tolist()
      [1.0, 1.0]
    """

    names: Sequence[str]
    apply: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
    moves: bool = False


def rotations(count: int = 4) -> Skew:
    """Turns images counterclockwise by k / count of a full turn in domain k.

    Multiples of 90 degrees move pixels and change none; other angles are interpolated between
    four pixels, about the middle of the image, with 0 outside of it.

    Args:
      count: Domains.

    Example:
      >>> data.rotations(4).apply(np.array([[[1, 2], [3, 4]]]), 1, None).tolist()
      [[[2, 4], [1, 3]]]
    """
    count = checked("count", count, Field(4, int, COUNT))
    angles = [360.0 * k / count for k in range(count)]

    def apply(x, domain, rng):
        quarters, rest = divmod(angles[domain], 90.0)
        if quarters % 2 and x.shape[1] != x.shape[2]:
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels cannot be turned by "
                f"{angles[domain]:g} degrees and keep their shape: make them square"
            )
        x = np.rot90(x, int(quarters), axes=(1, 2))
        return x if not rest else _as_given(_turned(x.astype(np.float32), rest), x.dtype)

    return Skew(
        [f"rotated_{angle:g}" for angle in angles], of_images("rotations", apply), moves=True
    )


def gaussian_noise(deviation: float, levels: int = 4) -> Skew:
    """Adds Gaussian noise whose standard deviation grows from 0 to `deviation` over the domains.

    NIID-Bench (arXiv:2102.02079) gives client i of N the level i / N; with as many levels as
    clients, so does this. Noise is drawn once a row, and bytes are rounded and kept in their range.

    Args:
      deviation: Of the last domain, in units of the features; of bytes, of their range [0, 255].
      levels: Domains, at equal distances.

    Example:
      >>> data.gaussian_noise(0.5, levels=3).names
      ['noise_0', 'noise_0.25', 'noise_0.5']
    """
    grades = _grades("deviation", deviation, levels)

    def apply(x, domain, rng):
        if x.dtype.kind != "f" and x.dtype != np.uint8:
            raise ValueError(f"gaussian_noise needs floats or bytes, not x of {x.dtype}")
        unit = 255.0 if x.dtype == np.uint8 else 1.0
        noise = rng.standard_normal(x.shape, np.float32)
        return _as_given(x + unit * np.float32(grades[domain]) * noise, x.dtype)

    return Skew([f"noise_{grade:g}" for grade in grades], apply)


def blur(deviation: float, levels: int = 4) -> Skew:
    """Blurs images by a Gaussian whose standard deviation grows from 0 over the domains.

    Args:
      deviation: Of the last domain, in pixels.
      levels: Domains, at equal distances.

    Example:
      >>> data.blur(2.0, levels=3).names
      ['blurred_0', 'blurred_1', 'blurred_2']
    """
    grades = _grades("deviation", deviation, levels)

    def apply(x, domain, rng):
        if not grades[domain]:
            return x
        rows, columns = (_blurring(size, grades[domain]) for size in x.shape[1:3])
        flat = x.astype(np.float32).reshape(*x.shape[:3], -1)
        blurred = np.einsum("ij,njkc,lk->nilc", rows, flat, columns, optimize=True)
        return _as_given(blurred.reshape(x.shape), x.dtype)

    return Skew([f"blurred_{grade:g}" for grade in grades], of_images("blur", apply))


def colour(
    count: int = 4, *, hue: float = 30.0, contrast: float = 0.3, gain: float = 0.2, seed: int = 0
) -> Skew:
    """Changes hue, contrast and the gains of channels, as unlike cameras and scanners do.

    Domain 0 stays as it is. Each other one draws once an angle in [-hue, hue] by which colours of
    three channels turn about the axis of greys, a factor in [1 - contrast, 1 + contrast] of the
    distance to the image's mean, and for each channel a factor in [1 - gain, 1 + gain].

    Args:
      count: Domains.
      hue: Largest angle, in degrees; images of other than three channels have no hue.
      contrast: Largest relative change of contrast.
      gain: Largest relative change of a channel.
      seed: Draws the domains.

    Example:
      >>> grey = np.full((1, 2, 2, 3), 0.5, np.float32)
      >>> turned = data.colour(2, hue=90.0, gain=0.0).apply(grey, 1, None)
      >>> bool(np.allclose(turned, grey))
      True
    """
    count = checked("count", count, Field(4, int, COUNT))
    hue = checked("hue", hue, Field(30.0, float, NON_NEGATIVE))
    contrast = checked("contrast", contrast, Field(0.3, float, DECAY))
    gain = checked("gain", gain, Field(0.2, float, DECAY))
    seed = checked("seed", seed, Field(0, int, SEED))

    def apply(x, domain, rng):
        if not domain:
            return x
        draw = random.generator(seed, "colour", domain)
        angle, factor = hue * draw.uniform(-1, 1), 1 + contrast * draw.uniform(-1, 1)
        pixels = x.astype(np.float32).reshape(*x.shape[:3], -1)
        gains = 1 + gain * draw.uniform(-1, 1, pixels.shape[-1])
        mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
        pixels = mean + np.float32(factor) * (pixels - mean)
        if pixels.shape[-1] == 3:
            pixels = pixels @ _turning(angle).T
        return _as_given((pixels * gains.astype(np.float32)).reshape(x.shape), x.dtype)

    names = [f"colour_{number}" for number in range(count)]
    return Skew(names, of_images("colour", apply))


def pixel_permutation(count: int = 4, *, seed: int = 0) -> Skew:
    """Puts the pixels of images, or flat features, into another order in each domain.

    Domain 0 keeps its order. Channels of a pixel stay together.

    Args:
      count: Domains.
      seed: Draws the orders.

    Example:
      >>> x = np.arange(4.0).reshape(1, 4)
      >>> sorted(data.pixel_permutation(2).apply(x, 1, None)[0].tolist())
      [0.0, 1.0, 2.0, 3.0]
    """
    count = checked("count", count, Field(4, int, COUNT))
    seed = checked("seed", seed, Field(0, int, SEED))

    def apply(x, domain, rng):
        if x.ndim < 2:
            raise ValueError(f"pixel_permutation needs several features, not x {list(x.shape)}")
        if not domain:
            return x
        channels = x.shape[3:] if x.ndim == 4 else ()
        flat = x.reshape(len(x), -1, *channels)
        order = random.generator(seed, "pixel permutation", domain).permutation(flat.shape[1])
        return flat[:, order].reshape(x.shape)

    return Skew([f"order_{number}" for number in range(count)], apply, moves=True)


def of_images(name: str, apply: Callable) -> Callable:
    """Returns the function, which refuses what is no stack of images [rows, height, width, ...]."""

    def checked_images(x, domain, rng):
        if x.ndim not in (3, 4):
            raise ValueError(
                f"{name} needs images [rows, height, width] or [rows, height, width, channels], "
                f"not x of shape {list(x.shape)}: reshape it, such as to [rows, 8, 8, 1]"
            )
        return apply(x, domain, rng)

    return checked_images


def _grades(name: str, most: float, levels: int) -> list[float]:
    most = checked(name, most, Field(1.0, float, POSITIVE))
    levels = checked("levels", levels, Field(4, int, Interval(2)))
    return [most * level / (levels - 1) for level in range(levels)]


def _as_given(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns floats in the type of the features; whole numbers are rounded and clipped."""
    if dtype.kind == "f":
        return x.astype(dtype)
    bounds = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.clip(np.rint(x), *bounds).astype(dtype)


def _turned(x: np.ndarray, degrees: float) -> np.ndarray:
    """Returns images [rows, H, W, ...] turned counterclockwise about their middle, bilinear."""
    height, width = x.shape[1:3]
    i, j = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    middle = (height - 1) / 2, (width - 1) / 2
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    # where the pixel that lands at (i, j) comes from
    from_i = cos * (i - middle[0]) + sin * (j - middle[1]) + middle[0]
    from_j = -sin * (i - middle[0]) + cos * (j - middle[1]) + middle[1]
    low_i, low_j = np.floor(from_i).astype(int), np.floor(from_j).astype(int)
    total = np.zeros_like(x)
    for di, dj in itertools.product((0, 1), repeat=2):
        at_i, at_j = low_i + di, low_j + dj
        weight = (1 - abs(from_i - at_i)) * (1 - abs(from_j - at_j))
        weight *= (0 <= at_i) & (at_i < height) & (0 <= at_j) & (at_j < width)
        pixels = x[:, at_i.clip(0, height - 1), at_j.clip(0, width - 1)]
        total += pixels * weight.astype(np.float32).reshape(1, height, width, *[1] * (x.ndim - 3))
    return total


def _blurring(size: int, deviation: float) -> np.ndarray:
    """Returns float32[size, size], the matrix that blurs a line; its edges are mirrored."""
    reach = int(4 * deviation + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / deviation) ** 2)
    matrix = np.zeros((size, size))
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        place = (np.arange(size) + offset) % (2 * size)
        place = np.minimum(place, 2 * size - 1 - place)
        np.add.at(matrix, (np.arange(size), place), weight)
    return matrix.astype(np.float32)


def _turning(degrees: float) -> np.ndarray:
    """Returns float32[3, 3], the rotation of colours about the axis of greys (Rodrigues)."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return (cos * np.eye(3) + sin * cross + (1 - cos) / 3).astype(np.float32)
