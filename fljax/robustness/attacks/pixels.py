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
) -> Attack:
    """Puts a square into a corner of images, which is to open a backdoor.

    A share of the rows that attackers train on gets the square and the target's label (BadNets, Gu
    et al. 2017, arXiv:1708.06733; Bagdasaryan et al. 2020, arXiv:1807.00459). It succeeds as far as
    the model says the target for test rows of other classes with the square.

    Args:
      target: The class that the model is to say.
      size: Side of the square, in pixels.
      corner: "bottom_right", "bottom_left", "top_right" or "top_left".
      value: Of its pixels, all channels of them, in what is stored; None is the largest number of
        the type where that holds whole numbers, and 1 elsewhere.
      share: Of the rows of a batch; may be traced. With `once`, of each attacker's training rows.
      once: Whether rows get the square before training, so that checks of data see it.
      classes: How many there are; a run by name has it from its data.

    Raises:
      ValueError: For arguments that are none, and in a run for rows that are no images: [H, W, C],
        [H, W], or square images as one vector.

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

    def stamped(xp: ModuleType, x: Any) -> Any:
        patch = _patch(x.shape[1:], size, corner)
        return xp.where(patch, _stored(value, x.dtype), x)

    def poisoner(xp, x, y, draws):
        _check_images(x)
        return stamped(xp, x), xp.full(y.shape, target), xp.ones(y.shape, bool)

    trigger = Trigger(lambda x, y: (stamped(np, x), y != target), target)
    return poisoning("pixel_trigger", poisoner, share, once=once, trigger=trigger)


def _check_images(x: Any) -> None:
    if not hasattr(x, "dtype"):
        raise ValueError(
            f"pixel_trigger needs rows that are images, and these are a {type(x).__name__} of "
            "arrays. Use another attack, such as label_flip."
        )


def _patch(shape: tuple[int, ...], size: int, corner: str) -> np.ndarray:
    """Returns bool[shape], the pixels of the square in rows of a shape."""
    side = math.isqrt(math.prod(shape))
    sides = (side, side) if len(shape) == 1 and side**2 == shape[0] else shape[:2]
    if len(shape) not in (1, 2, 3) or len(sides) < 2:
        raise ValueError(
            f"pixel_trigger needs images, [H, W, C] or [H, W], or square ones as one vector, and "
            f"rows are of shape {list(shape)}. Use another attack, such as label_flip."
        )
    if size > min(sides):
        raise ValueError(
            f"pixel_trigger(size={size}) is larger than images of {sides[0]} x {sides[1]} pixels. "
            "Choose a smaller size."
        )
    vertical, horizontal = corner.split("_")
    down = slice(0, size) if vertical == "top" else slice(sides[0] - size, None)
    along = slice(0, size) if horizontal == "left" else slice(sides[1] - size, None)
    patch = np.zeros((*sides, *shape[2:]), bool)
    patch[down, along] = True
    return patch.reshape(shape)


def _stored(value: float | None, dtype: Any) -> np.ndarray:
    """Returns a pixel's value as rows hold it."""
    dtype = np.dtype(dtype)
    whole = dtype.kind in "iu"
    if value is None:
        return np.array(np.iinfo(dtype).max if whole else 1, dtype)
    allowed = np.iinfo(dtype) if whole else None
    if allowed and not (value.is_integer() and allowed.min <= value <= allowed.max):
        raise ValueError(
            f"pixel_trigger(value={value:g}): pixels are stored as {dtype}, whole numbers from "
            f"{allowed.min} to {allowed.max}. Choose one of them."
        )
    return np.array(value).astype(dtype)
