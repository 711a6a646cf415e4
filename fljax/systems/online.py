"""Availability of devices by formula: by chance, by the hour of the day, or while they charge.

All are functions of (seed, client, slot or day): a population of any size costs nothing to hold.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.values import (
    NON_NEGATIVE,
    POSITIVE,
    Field,
    Interval,
    checked,
)
from fljax.systems.availability import Availability, always
from fljax.systems.cells import by_slots, by_windows

DAY = 86_400.0
_CHANCE = Field(None, float, Interval(0, 1))
_SECONDS = Field(None, float, POSITIVE)
_HOUR = Field(None, float, Interval(0, 24))
# A client begins to charge within so many hours of its usual hour, and for so many at most, so that
# the windows of two days never meet.
_EARLY, _LONGEST = 4.0, 15.0
_HOURS = Field(None, float, Interval(0, _LONGEST, low_open=True))
_DEVIATION = Field(None, float, NON_NEGATIVE)


def bernoulli(seed: int = 0, p: float = 0.5, slot_seconds: float = 3600.0) -> Availability:
    """Lets each client be online with a chance in each slot of time, all of them independently.

    Args:
      seed: Of the draws.
      p: Chance that a client is online in a slot.
      slot_seconds: Length of a slot.

    Raises:
      ValueError: If p is no chance, or a slot takes no time.

    Example:
      >>> from fljax.systems.online import bernoulli
      >>> half = bernoulli(p=0.5)
      >>> round(float(half.online(np.arange(10_000), 0.0).mean()), 1)
      0.5
    """
    p = checked("p", p, _CHANCE)
    if p == 1:
        return always()
    slot_seconds = checked("slot_seconds", slot_seconds, _SECONDS)

    def online(clients, slots):
        return random.uniform(seed, "systems/online", clients, slots) < p

    return by_slots(online, slot_seconds)


def diurnal(
    seed: int = 0,
    peak: float = 0.8,
    trough: float = 0.2,
    peak_hour: float = 2.0,
    zones: float = 24.0,
    slot_seconds: float = 3600.0,
) -> Availability:
    """Lets clients be online with a chance that follows the hour of their day.

    In each slot, a client is online with the chance

        trough + (peak - trough) (1 + cos(2 pi (h - peak_hour) / 24)) / 2,

    h being the hour of its own day at the middle of the slot; slots are drawn independently.
    Clients live in time zones: the hours by which their days begin later are spread evenly over
    `zones`. With 24 of them the share of the population that is online is level; with few it goes
    up and down as a country's does. By default four times as many devices are there at night as by
    day, as in a production fleet (Bonawitz et al., 2019, arXiv:1902.01046).

    Args:
      seed: Of the draws.
      peak, trough: Chances at the hour at which most are online, and 12 hours later.
      peak_hour: That hour of a client's day.
      zones: Hours over which the clients' days are spread; 0 lets all live in one time zone.
      slot_seconds: Length of a slot.

    Raises:
      ValueError: If peak or trough are no chances, or peak is below trough.

    Example:
      >>> from fljax.systems.online import diurnal
      >>> country = diurnal(zones=0)
      >>> [round(float(country.online(np.arange(20_000), 3600.0 * h).mean()), 1) for h in (2, 14)]
      [0.8, 0.2]
    """
    peak, trough = checked("peak", peak, _CHANCE), checked("trough", trough, _CHANCE)
    if peak < trough:
        raise ValueError(f"peak = {peak} is below trough = {trough}; exchange them.")
    peak_hour = checked("peak_hour", peak_hour, _HOUR)
    zones = checked("zones", zones, _HOUR)
    slot_seconds = checked("slot_seconds", slot_seconds, _SECONDS)

    def online(clients, slots):
        later = zones * random.uniform(seed, "systems/zones", clients)
        hour = (slots + 0.5) * (slot_seconds / 3600) - later
        high = (1 + np.cos(2 * np.pi * (hour - peak_hour) / 24)) / 2
        chance = trough + (peak - trough) * high
        return random.uniform(seed, "systems/online", clients, slots) < chance

    return by_slots(online, slot_seconds)


def charging(
    seed: int = 0,
    hour: float = 22.0,
    hour_sd: float = 1.5,
    hours: float = 7.0,
    hours_sd: float = 1.5,
    days: float = 0.9,
    zones: float = 24.0,
) -> Availability:
    """Lets clients be online while they charge overnight: in one window on most days.

    A client's window begins `hour` + `hour_sd` z hours into its own day and lasts `hours` +
    `hours_sd` z' hours, with z and z' from N(0, 1) drawn for each client and day. It begins within
    4 hours of the usual hour, and takes 15 hours at most.

    Args:
      seed: Of the draws.
      hour: Usual hour of the day at which clients begin to charge.
      hour_sd: Standard deviation of that hour, in hours.
      hours: How long they usually charge.
      hours_sd: Standard deviation of that, in hours.
      days: Chance that a client charges on a day at all.
      zones: As in `diurnal`.

    Raises:
      ValueError: If a number is out of its range.

    Example:
      >>> from fljax.systems.online import charging
      >>> nightly = charging(hour=22, hours=7, hour_sd=0, hours_sd=0, days=1, zones=0)
      >>> plugged = nightly.since(np.array([0]), 12 * 3600.0)
      >>> (plugged / 3600).tolist(), (nightly.until(np.array([0]), plugged) / 3600).tolist()
      ([22.0], [29.0])
    """
    hour, hour_sd = checked("hour", hour, _HOUR), checked("hour_sd", hour_sd, _DEVIATION)
    hours, hours_sd = checked("hours", hours, _HOURS), checked("hours_sd", hours_sd, _DEVIATION)
    days = checked("days", days, _CHANCE)
    zones = checked("zones", zones, _HOUR)

    def origin(clients):
        return 3600 * (hour - _EARLY + zones * random.uniform(seed, "systems/zones", clients))

    def window(clients, day):
        begins = hour_sd * random.normal(seed, "systems/charging/begin", clients, day)
        lasts = hours + hours_sd * random.normal(seed, "systems/charging/length", clients, day)
        starts = np.clip(_EARLY + begins, 0, 2 * _EARLY)
        charges = random.uniform(seed, "systems/charging/days", clients, day) < days
        ends = starts + np.where(charges, np.clip(lasts, 0, _LONGEST), 0)
        return 3600 * starts, 3600 * ends

    return by_windows(window, DAY, origin)
