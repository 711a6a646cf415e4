"""Settings of the checks of data."""

from __future__ import annotations

from typing import NamedTuple

from fljax.core.values import COUNT, FACTOR, POSITIVE, Field, checked, wrong


class Settings(NamedTuple):
    """The limits beyond which data count as wrong.

    Attributes:
      min_rows: Fewest training rows of a client.
      value_range: (lowest, highest) value of x; None: any.
      neighbours: How many of the nearest rows tell whether a label is suspect.
      share: Of these, the share that must agree on another label.
      deviations: How far from the median client another one must be, in robust deviations (1.4826
        times the median distance from the median).
    """

    min_rows: int = 2
    value_range: tuple[float, float] | None = None
    neighbours: int = 10
    share: float = 0.8
    deviations: float = 5.0


_FIELDS = {
    "min_rows": Field(2, int, COUNT),
    "neighbours": Field(10, int, COUNT),
    "share": Field(0.8, float, FACTOR),
    "deviations": Field(5.0, float, POSITIVE),
}


def settings_of(values: dict) -> Settings:
    """Returns checked settings.

    Raises:
      ValueError: For a value that is out of range.
    """
    bounds = values.get("value_range")
    if bounds is not None:
        is_pair = isinstance(bounds, tuple | list) and len(bounds) == 2
        numbers = is_pair and all(isinstance(bound, int | float) for bound in bounds)
        if not numbers or not bounds[0] < bounds[1]:
            raise wrong("value_range", bounds, "(lowest, highest), two numbers, or None")
        values = values | {"value_range": tuple(map(float, bounds))}
    given = {
        name: checked(name, value, _FIELDS[name]) if name in _FIELDS else value
        for name, value in values.items()
    }
    return Settings(**given)
