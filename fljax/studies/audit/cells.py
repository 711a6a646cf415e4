"""Cells of the tables of an audit's report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fljax.core.digits import figures

NOTHING = "–"


def number(value: float | None) -> str:
    """Returns a number with four digits, and a dash of none.

    Example:
      >>> number(0.75), number(0.0), number(None)
      ('0.7500', '0', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0:
        return "0"
    return figures(value) if abs(value) >= 1e-3 else f"{value:.1e}"


def percent(share: float | None) -> str:
    """Returns a share in percent.

    Example:
      >>> percent(0.0125)
      '1.25 %'
    """
    return NOTHING if share is None else f"{100 * share:.3g} %"


def interval(rate: Mapping[str, Any]) -> str:
    """Returns a true positive rate in percent, with its interval."""
    low, high = (f"{100 * rate[side]:.2g}" for side in ("low", "high"))
    return f"{100 * rate['tpr']:.2g} % ({low}–{high})"


def spread(values: Sequence[float | None]) -> str:
    """Returns the mean of the numbers that there are, and between which they lie."""
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    mean = sum(known) / len(known)
    return f"{mean:.3g} ({min(known):.3g} to {max(known):.3g})"
