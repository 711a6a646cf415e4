"""A backdoor that a patch of pixels opens."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from fljax.core.transforms import Trigger
from fljax.core.values import COUNT, FINITE, Field, checked
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.poisoners import fixed_class, poisoning

__all__ = ["pixel_trigger"]

CORNERS = ("bottom_right", "bottom_left", "top_right", "top_left")


def pixel_trigger(
    target: int,
    *,
    size: int = 3,
    corner: str = "bottom_right",
    value: float | None = None,
    share: Any = 0.5,
    once: bool = False,
    classes: int | None = None,
    largest: float | None = None,
) -> Attack:
    """Puts a square into a corner of images, which is to open a backdoor.

    A share of the rows that attackers train on gets the square and the target's label (BadNets, Gu
    et al. 2017, arXiv:1708.06733; Bagdasaryan et al. 2020, arXiv:1807.00459). It succeeds as far as
    the model says the target for test rows of other classes with the square.

    Args:
      target: The class that the model is to say.
      size: Side of the square, in pixels.
      corner: "bottom_right", "bottom_left", "top_right" or "top_left".
      value: Of its pixels, all channels of them, in what is stored; None is 255 in unsigned bytes,
        else `largest`, or 1 where nobody says it.
      share: Of the rows of a batch; may be traced. With `once`, of each attacker's training rows.
      once: Whether rows get the square before training, so that checks of data see it.
      classes: How many there are; a run by name has it from its data.
      largest: The largest number that is stored; a run by name has it from its data, of a thousand
        training rows.

    Raises:
      ValueError: For arguments that are none, and in a run for rows that are no images: [H, W, C],
        [H, W], square ones as [1, H, H], [3, H, H] or one vector, which holds no tokens: whole
        numbers of 32 bits. So for other whole numbers than bytes without `value` and `largest`.

    Example:
      >>> attack = pixel_trigger(0, size=1)
      >>> x, chosen = attack.trigger.rows(np.zeros((2, 4), np.uint8), np.array([0, 3]))
      >>> x.tolist(), chosen.tolist()
      ([[0, 0, 0, 255], [0, 0, 0, 255]], [False, True])
    """
    target = fixed_class("target", target, classes)
    size = checked("size", size, Field(3, int, COUNT))
    corner = checked("corner", corner, Field(CORNERS[0], str, CORNERS))
    value = checked("value", value, Field(None, float, FINITE, optional=True))
    largest = checked("largest", largest, Field(None, float, FINITE, optional=True))

    def stamped(xp: ModuleType, x: Any) -> Any:
        _check_images(x)
        patch = _patch(x.shape[1:], size, corner)
        return xp.where(patch, _stored(value, largest, x.dtype), x)

    def poisoner(xp, x, y, draws):
        return stamped(xp, x), xp.full(y.shape, target), xp.ones(y.shape, bool)

    trigger = Trigger(lambda x, y: (stamped(np, x), y != target), target)
    return poisoning("pixel_trigger", poisoner, share, once=once, trigger=trigger)


def _check_images(x: Any) -> None:
    """Raises ValueError for rows that hold something else than pixels."""
    if not hasattr(x, "dtype"):
        raise ValueError(
            f"pixel_trigger needs rows that are images, and these are a {type(x).__name__} of "
            "arrays. Use another attack, such as label_flip."
        )
    dtype = np.dtype(x.dtype)
    if x.ndim == 2 and dtype.kind in "iu" and dtype.itemsize >= 4:
        raise ValueError(
            f"pixel_trigger needs images, and rows are vectors of {dtype}, such as tokens. Give "
            "pixels as floats or bytes, or use another attack, such as label_flip."
        )


def _patch(shape: tuple[int, ...], size: int, corner: str) -> np.ndarray:
    """Returns bool[shape], the pixels of the square in rows of a shape."""
    side = math.isqrt(math.prod(shape))
    image = (side, side) if len(shape) == 1 and side**2 == shape[0] else shape
    if len(image) not in (2, 3):
        raise ValueError(
            f"pixel_trigger needs images, [H, W, C] or [H, W], or square ones as one vector, and "
            f"rows are of shape {list(shape)}. Use another attack, such as label_flip."
        )
    channels_first = len(image) == 3 and image[0] in (1, 3) and image[0] < image[1] == image[2]
    height, width = image[1:] if channels_first else image[:2]
    if size > min(height, width):
        raise ValueError(
            f"pixel_trigger(size={size}) is larger than images of {height} x {width} pixels. "
            "Choose a smaller size."
        )
    vertical, horizontal = corner.split("_")
    down = slice(0, size) if vertical == "top" else slice(height - size, None)
    along = slice(0, size) if horizontal == "left" else slice(width - size, None)
    patch = np.zeros(image, bool)
    patch[(slice(None), down, along) if channels_first else (down, along)] = True
    return patch.reshape(shape)


def _stored(value: float | None, largest: float | None, dtype: Any) -> np.ndarray:
    """Returns a pixel's value as rows hold it."""
    dtype = np.dtype(dtype)
    allowed = np.iinfo(dtype) if dtype.kind in "iu" else None
    if value is None:
        value = {"uint8": 255.0, "bool": 1.0}.get(dtype.name, largest)
    if value is None and allowed:
        raise ValueError(
            f"pixel_trigger cannot tell how bright pixels are that are stored as {dtype}. Say it: "
            "value=..."
        )
    value = 1.0 if value is None else value
    if allowed and not (value.is_integer() and allowed.min <= value <= allowed.max):
        raise ValueError(
            f"pixel_trigger(value={value:g}): pixels are stored as {dtype}, whole numbers from "
            f"{allowed.min} to {allowed.max}. Choose one of them."
        )
    return np.array(value).astype(dtype)
