"""Shows on a terminal how far a long reading or download is."""

from __future__ import annotations

import contextlib
import types


def progress(what: str, unit: str, total: int | None = None, done: int = 0):
    """Returns a line on standard error, where that is a terminal and it takes over a second.

    Args:
      what: Is read, for people.
      unit: Of what is counted.
      total: How many there will be; None where that is not known.
      done: How many there are already.

    Returns:
      A context whose `update(amount)` counts; one that shows nothing where tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return contextlib.nullcontext(types.SimpleNamespace(update=lambda amount: None))
    return tqdm(
        desc=what, unit=unit, total=total, initial=done, unit_scale=True,
        delay=1, disable=None, leave=False,
    )  # fmt: skip
