"""Availability as FLASH records it: phones that are locked, charging, and on Wi-Fi.

FLASH (Yang et al., WWW 2021, arXiv:2006.06983) keeps what happened on each phone: when it was
plugged in, when its screen was locked, which network it had. A phone may train while it is idle,
charging and on an unmetered network, as Bonawitz et al. (2019, arXiv:1902.01046) let it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fljax.core.archives import refused
from fljax.core.data_files import located, read_json
from fljax.systems.availability import Availability
from fljax.systems.drawn import entries
from fljax.systems.intervals import intervals

# Simulated time begins at midnight of this day.
_ORIGIN = datetime.datetime(2020, 1, 2)
_CHARGING, _LOCKED, _WIFI = range(3)
# What a message changes: the condition, and what it is from then on; None changes nothing.
_MESSAGES: dict[str, tuple[int, bool] | None] = {
    "battery_charged_on": (_CHARGING, True),
    "battery_charged_off": (_CHARGING, False),
    "screen_lock": (_LOCKED, True),
    "screen_unlock": (_LOCKED, False),
    "wifi": (_WIFI, True),
    **dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), (_WIFI, False)),
    **dict.fromkeys(("screen_on", "screen_off")),
}


class States(NamedTuple):
    """The times at which R phones were ready, and what phones they are.

    Attributes:
      starts, ends: float64[M] seconds from a phone's first message at which it became ready, and
        was so no longer.
      offsets: int64[R + 1]; phone r has the entries offsets[r]:offsets[r + 1].
      period: float64[R] seconds from a phone's first message to its last one.
      origin: float64[R] seconds of the first one since midnight of January 2, 2020.
      models: R codes of models, which `fljax.systems.phones.phones` understands.
      left_out: Phones whose messages cannot be read, that were never ready, or have no two moments.
    """

    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    period: np.ndarray
    origin: np.ndarray
    models: tuple[str, ...]
    left_out: int


def read_states(path: str | os.PathLike = "state_traces.json") -> States:
    """Reads when the phones of FLASH were ready.

    The file is {user: {"model": code, "messages": lines}}, and a line is a moment such as
    2020-01-31 22:15:03, a tab, and what happened. As in FLASH, phones whose messages cannot be read
    or that were never ready are left out. A phone that is still ready at its last message was so
    until then; the official code drops that interval.

    Args:
      path: Of the file; also looked for in the data directory.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is of another form, or no phone in it was ever ready.

    Example:
      >>> states = read_states("state_traces.json")  # doctest: +SKIP
    """
    place = located(path)
    found = read_json(place)
    if not isinstance(found, Mapping):
        raise refused(place, "holds no {user: {'model', 'messages'}}")
    spans, models, periods, origins, counts = [], [], [], [], []
    for user, entry in found.items():
        try:
            model, messages = str(entry["model"]), entry["messages"].split("\n")
        except (TypeError, KeyError, AttributeError):
            raise refused(place, f"says of {user!r} no model and messages") from None
        try:
            moments = sorted(_moments(messages), key=lambda moment: moment[0])
        except ValueError:
            continue
        ready = [*_ready(moments)]
        if not ready:
            continue
        first, last = moments[0][0], moments[-1][0]
        spans += [(start - first, end - first) for start, end in ready]
        models.append(model)
        periods.append(last - first)
        origins.append(first)
        counts.append(len(ready))
    if not spans:
        raise refused(place, "holds no phone that was ever locked, charging and on Wi-Fi")
    starts, ends = np.array(spans, np.float64).T
    return States(
        starts,
        ends,
        np.concatenate([[0], np.cumsum(counts)]),
        np.array(periods, np.float64),
        np.array(origins, np.float64),
        tuple(models),
        len(found) - len(models),
    )


def flash_availability(
    num_clients: int,
    seed: int = 0,
    path: str | os.PathLike = "state_traces.json",
    in_turn: bool = False,
) -> Availability:
    """Lets clients be online as the phones of FLASH were ready, over and over.

    Args:
      num_clients: N.
      seed: Of the draws.
      path: Of the file, see `read_states`.
      in_turn: Whether client i has the i-th phone of the file, which starts again at its end;
        otherwise each client's is drawn, as in FLASH.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is of another form, or no phone in it was ever ready.

    Example:
      >>> phones = flash_availability(1000, path="state_traces.json")  # doctest: +SKIP
    """
    states = read_states(path)
    row = entries(num_clients, seed, len(states.models), in_turn)
    return intervals(states.starts, states.ends, states.offsets, states.period, states.origin, row)


def _moments(messages: list[str]) -> Iterator[tuple[float, tuple[int, bool] | None]]:
    """Yields (seconds, what changes) of lines; raises ValueError for what is no message."""
    for line in messages:
        if not line.strip():
            continue
        moment, what = (part.strip() for part in line.strip().split("\t"))
        what = what.lower()
        if what.endswith("%"):
            float(what[:-1])  # how full the battery is
            change = None
        elif what in _MESSAGES:
            change = _MESSAGES[what]
        else:
            raise ValueError(what)
        yield (datetime.datetime.fromisoformat(moment) - _ORIGIN).total_seconds(), change


def _ready(moments: list) -> Iterator[tuple[float, float]]:
    """Yields (start, end) of the times at which all conditions held, in order and apart."""
    conditions, start = [False, False, False], None
    for seconds, change in moments:
        if change is not None:
            conditions[change[0]] = change[1]
        if all(conditions) and start is None:
            start = seconds
        elif start is not None and not all(conditions):
            if seconds > start:
                yield start, seconds
            start = None
    if start is not None and moments[-1][0] > start:
        yield start, moments[-1][0]
