"""Tries layouts until one fits, on half as many lanes each time."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import TypeVar

from fljax.engine.devices.memory import DoesNotFit
from fljax.training.execution import JobLayout

T = TypeVar("T")


def narrowing(use: Callable[[JobLayout | None], T], wave: int = 0) -> T:
    """Returns what is made of the first layout that fits.

    Args:
      use: (layout) -> what is made of it; None is the layout by rule. It raises DoesNotFit.
      wave: The slots of a wave that somebody asked for; 0 leaves them to the rule.

    Raises:
      DoesNotFit: If not even one lane fits.
    """
    layout = None
    while True:
        try:
            return use(layout)
        except DoesNotFit as error:
            layout = narrower(error, wave)
        # what has run stands in cycles, and holds arrays on the devices until they are found
        gc.collect()


def narrower(error: DoesNotFit, wave: int = 0) -> JobLayout:
    """Returns a layout of half the lanes of one that does not fit, and says so."""
    execution = error.execution
    if execution.lanes == 1:
        raise error
    lanes = execution.lanes // 2
    warnings.warn(
        f"{execution.lanes} lanes do not fit into the memory of a device: {error.reason} Going on "
        f"with {lanes}.",
        stacklevel=2,
    )
    return JobLayout(execution.devices, lanes, wave)
