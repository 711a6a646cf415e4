"""Devices and availability as FedScale records them: capacities, and when phones were there.

Both are pickle files of FedScale (Lai et al., 2022, arXiv:2105.11367), `client_device_capacity` and
`client_behave_trace`, read as plain values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fljax.core.archives import refused
from fljax.core.data_files import located
from fljax.core.plain_pickles import read_plain
from fljax.core.values import COUNT, POSITIVE, Field, checked
from fljax.systems.availability import Availability
from fljax.systems.devices import Devices
from fljax.systems.drawn import entries
from fljax.systems.intervals import intervals
from fljax.systems.profiles import given

_COUNT = Field(None, int, COUNT)
_FACTOR = Field(None, float, POSITIVE)


def fedscale_devices(
    num_clients: int,
    seed: int = 0,
    path: str | os.PathLike = "client_device_capacity",
    batch_size: int = 20,
    factor: float = 3.0,
    spread: float = 0.0,
    in_turn: bool = True,
) -> Devices:
    """Gives clients devices of FedScale's capacities.

    A capacity is {"computation": milliseconds in which a device runs a model on one example,
    "communication": kilobits (10^3 bits) a second}. A step takes factor x batch_size of the first:
    going backward costs twice of going forward. Both links have the second.

    Args:
      num_clients: N.
      seed: Of the draws, where there are any.
      path: Of the pickle file, {id: capacity}; also looked for in the data directory.
      batch_size: Examples of a local step.
      factor: How often the cost of running a model a step of training costs; 3 in FedScale.
      spread: See `Devices`.
      in_turn: Whether client i has the i-th capacity of the file, which starts again at its end, as
        in FedScale; otherwise each client's is drawn.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file holds no capacities.

    Example:
      >>> phones = fedscale_devices(1000, path="client_device_capacity")  # doctest: +SKIP
    """
    place = located(path)
    batch_size = checked("batch_size", batch_size, _COUNT)
    factor = checked("factor", factor, _FACTOR)
    found = _entries_of(place)

    def column(name: str) -> np.ndarray:
        values = [_part(place, key, entry, name, float) for key, entry in found.items()]
        return np.array(values, np.float64)

    computation, communication = column("computation"), column("communication")
    if not ((computation > 0) & (communication > 0)).all():
        raise refused(place, "holds a capacity that is not positive")
    return given(
        num_clients,
        seed,
        step_seconds=factor * batch_size * computation / 1000,
        uplink_mbps=communication / 1000,
        downlink_mbps=communication / 1000,
        spread=spread,
        in_turn=in_turn,
    )


def fedscale_availability(
    num_clients: int,
    seed: int = 0,
    path: str | os.PathLike = "client_behave_trace",
    in_turn: bool = True,
) -> Availability:
    """Lets clients be online as the phones of FedScale's trace were, over and over.

    A trace is {"active": [seconds], "inactive": [seconds], "finish_time": seconds}: a phone is
    online from each active moment to the inactive one of the same place, and its trace starts again
    at the finish time. What else a trace says (duration, model) is not needed.

    Args:
      num_clients: N.
      seed: Of the draws, where there are any.
      path: Of the pickle file, {id: trace}; also looked for in the data directory.
      in_turn: Whether client i has the i-th trace of the file, which starts again at its end, as in
        FedScale; otherwise each client's is drawn.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file holds no traces.

    Example:
      >>> phones = fedscale_availability(1000, path="client_behave_trace")  # doctest: +SKIP
    """
    place = located(path)
    found = _entries_of(place)
    columns: dict[str, list] = {"active": [], "inactive": []}
    counts, periods = [], []
    for key, entry in found.items():
        active, inactive = (_part(place, key, entry, name, list) for name in columns)
        if len(active) != len(inactive):
            raise refused(
                place,
                f"says of {key!r} that it is active {len(active)} times, and inactive "
                f"{len(inactive)} times",
            )
        columns["active"] += active
        columns["inactive"] += inactive
        counts.append(len(active))
        periods.append(_part(place, key, entry, "finish_time", float))
    try:
        starts, ends = (np.array(column, np.float64) for column in columns.values())
        offsets = np.concatenate([[0], np.cumsum(counts)])
        row = entries(num_clients, seed, len(found), in_turn)
        return intervals(starts, ends, offsets, np.array(periods), row=row)
    except (TypeError, ValueError) as error:
        raise refused(place, f"holds what is no trace: {error}") from error


def _entries_of(place) -> Mapping[Any, Mapping[str, Any]]:
    """Returns {id: entry} of a file."""
    found = read_plain(place)
    if not isinstance(found, Mapping) or not found:
        raise refused(place, "holds no {id: entry}")
    return found


def _part(place, key: Any, entry: Any, name: str, kind: Callable[[Any], Any]) -> Any:
    """Returns a part of an entry as a number or a list."""
    try:
        return kind(entry[name])
    except (KeyError, TypeError, ValueError, IndexError):
        raise refused(place, f"says nothing of {key!r} that is its {name!r}") from None
