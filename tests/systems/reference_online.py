"""Availability client by client: loops over intervals, slots and days, in plain Python."""

from __future__ import annotations

import math


def merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns sorted spans of which those that touch or overlap are one."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def repeated(spans, period: float, origin: float, until: float) -> list[tuple[float, float]]:
    """Returns the spans of all periods from two before the origin to a moment."""
    laps = range(-8, math.ceil((until - origin) / period) + 2)
    copies = [(origin + k * period + a, origin + k * period + b) for k in laps for a, b in spans]
    return merged(copies)


def at(spans: list[tuple[float, float]], moment: float) -> tuple[bool, float, float]:
    """Returns whether somebody is online, until when, and since when, by looking at all spans."""
    for start, end in spans:
        if start <= moment < end:
            return True, end, moment
        if start > moment:
            return False, moment, start
    return False, moment, math.inf
