"""Promises of a mechanism, by the account of a run, and to whom."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Whom a mechanism promises something, as its account calls them, by the unit of an audit.
_HIDDEN = {"row": "example", "client": "user"}


def least_epsilon(spent: Mapping[str, Any]) -> float | None:
    """Returns the smallest epsilon that accountants find; None where none of them is finite.

    Args:
      spent: The part "privacy" of a run's summary.

    Example:
      >>> least_epsilon({"epsilon": {"rdp": 1.5, "pld": 1.2}}), least_epsilon({"epsilon": {}})
      (1.2, None)
    """
    known = [value for value in spent["epsilon"].values() if value is not None]
    return min(filter(math.isfinite, known), default=None)


def promised_to(unit: str, spent: Mapping[str, Any] | None) -> tuple[float | None, float]:
    """Returns (epsilon, delta) of what is promised to rows, or to clients; (None, 0) of nothing.

    A promise is one to its own unit: the rows of a client add up, and without one of its rows a
    client sends something else, while a promise to clients compares it with sending nothing.

    Args:
      unit: "row" or "client".
      spent: The part "privacy" of a run's summary, or None.

    Example:
      >>> spent = {"unit": "example", "epsilon": {"rdp": 1.5}, "delta": 1e-5}
      >>> promised_to("row", spent), promised_to("client", spent)
      ((1.5, 1e-05), (None, 0.0))
    """
    if spent is None or spent["unit"] != _HIDDEN[unit]:
        return None, 0.0
    return least_epsilon(spent), spent["delta"]
