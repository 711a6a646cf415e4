"""Skews images as scanners of several makes do: contrast, field, sharpness, noise.

Hospitals' images of one organ differ by device and protocol, which no data set at hand tells apart.
Here each domain is a scanner whose settings are drawn once, the same in every run:

    v -> v ** gamma               contrast of the protocol
      -> v * gain * field         brightness; a field that falls off across the image, as of a coil
      -> blurred                  resolution
      -> |v + a + b i|            Rician noise: a, b normal (Gudbjartsson and Patz 1995)

Values are in [0, 1] between the steps; results are clipped to it.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, NON_NEGATIVE, Field, checked
from fljax.data.heterogeneity.skews import Skew, blur, of_images

# The range of each setting at strength 1; without any, an image stays as it is.
_RANGES = {
    "log_gamma": (-0.5, 0.5),
    "log_gain": (-0.4, 0.2),
    "slope": (0.0, 0.5),
    "direction": (0.0, 2 * np.pi),
    "blurring": (0.0, 0.8),
    "noise": (0.0, 0.05),
}


def scanners(count: int = 4, strength: float = 1.0) -> Skew:
    """Makes images look as from one of several scanners; the first leaves them as they are.

    Noise is drawn once a row, and bytes stay bytes.

    Args:
      count: Scanners, hence domains.
      strength: How unlike they are; 0: all alike.

    Example:
      >>> skew = data.scanners(3)
      >>> skew.names
      ['scanner_0', 'scanner_1', 'scanner_2']
      >>> skew.apply(np.full((1, 4, 4), 100, np.uint8), 0, None)[0, 0].tolist()
      [100, 100, 100, 100]
    """
    count = checked("count", count, Field(4, int, COUNT))
    strength = checked("strength", strength, Field(1.0, float, NON_NEGATIVE))

    def apply(x, domain, rng):
        unit = 255.0 if x.dtype == np.uint8 else 1.0
        is_scaled = x.dtype == np.uint8 or x.dtype.kind == "f"
        if not is_scaled or (x.size and not 0 <= x.min() <= x.max() <= unit):
            raise ValueError(
                f"scanners needs bytes, or floats from 0 to 1, not {x.dtype} from {x.min():g} to "
                f"{x.max():g}: scale the images, and standardize in `preprocess`"
            )
        if not domain or not strength:
            return x
        values = _scanned(x.astype(np.float32) / np.float32(unit), _settings(domain, strength), rng)
        values = np.clip(values, 0, 1) * unit
        return np.rint(values).astype(x.dtype) if x.dtype == np.uint8 else values.astype(x.dtype)

    return Skew([f"scanner_{k}" for k in range(count)], of_images("scanners", apply))


def _settings(domain: int, strength: float) -> dict[str, float]:
    """Returns what distinguishes a scanner, from its number alone."""
    rng = random.generator(domain, "scanners")
    drawn = {name: rng.uniform(*bounds) for name, bounds in _RANGES.items()}
    direction = drawn.pop("direction")
    return {name: strength * value for name, value in drawn.items()} | {"direction": direction}


def _scanned(v: np.ndarray, setting: dict[str, float], rng) -> np.ndarray:
    """Returns images float32[rows, height, width, ...] as the scanner would show them."""
    height, width = v.shape[1:3]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    along = np.cos(setting["direction"]) * x + np.sin(setting["direction"]) * y
    field = np.exp(setting["log_gain"] + setting["slope"] * (along - 1) / 2).astype(np.float32)
    v = v ** np.float32(np.exp(setting["log_gamma"]))
    v = np.clip(v * field.reshape(1, height, width, *[1] * (v.ndim - 3)), 0, 1)
    if setting["blurring"]:
        v = blur(setting["blurring"], levels=2).apply(v, 1, rng)
    noise = np.float32(setting["noise"]) * rng.standard_normal((2, *v.shape), np.float32)
    return np.hypot(v + noise[0], noise[1])
