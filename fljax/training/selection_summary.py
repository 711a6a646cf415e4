"""Says how evenly a run in simulated time chose its clients: what `summary.json` has of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.recording.timeline import Timeline
from fljax.selection.participation import participation_report
from fljax.systems.devices import Devices
from fljax.training.client_tables import TRAINING, groups_of
from fljax.training.federation import Federation
from fljax.training.options import RoundOptions
from fljax.training.timing import devices_of

TIER, SPEED = "tier", "speed_decile"
_DECILES = 10


def of_selection(federation: Federation, timeline: Timeline) -> dict[str, Any]:
    """Returns {"selection": how jobs are spread over the clients of a run}; {} without a clock.

    Args:
      federation: That was trained.
      timeline: Its jobs.

    Returns:
      {"selection": {"asked", "arrived": as `fljax.selection.participation.participation_report`
      has it, of the jobs that clients were asked for, and of those of which an update arrived; by
      "tier" and "speed_decile" of the devices, where they differ, and by the groups of the data
      set}}, as JSON values.
    """
    if timeline.asked is None:
        return {}
    dataset, seed = federation.dataset, federation.trials[0].seed
    groups = groups_of(dataset, TRAINING)
    groups |= device_groups(federation.options, dataset.num_clients, seed)
    groups = {name: values[: dataset.members] for name, values in groups.items()}
    counts = {name: getattr(timeline, name)[: dataset.members] for name in ("asked", "arrived")}
    return {"selection": {name: _reported(each, groups) for name, each in counts.items()}}


def _reported(counts: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {str(group): found._asdict() for group, found in report.items()}
        for name, report in participation_report(counts, groups).items()
    }


def device_groups(options: RoundOptions, num_clients: int, seed: int) -> dict[str, np.ndarray]:
    """Returns {"tier", "speed_decile": [N] of each client}, as far as devices have them."""
    devices = devices_of(options, num_clients, seed)
    found = {}
    if devices.tier is not None:
        found[TIER] = np.array(devices.tiers)[devices.tier]
    if (deciles := speed_deciles(devices)) is not None:
        found[SPEED] = deciles
    return found


def speed_deciles(devices: Devices) -> np.ndarray | None:
    """Returns int64[N], the tenth of the clients by computing speed that each is in.

    1 are the slowest. Devices that are alike are in the same tenth, so that there may be fewer.

    Returns:
      None where all devices are alike.

    Example:
      >>> from fljax.systems.devices import equal
      >>> phones = equal(20)._replace(step_seconds=np.arange(20.0, 0.0, -1.0))
      >>> speed_deciles(phones).tolist()[:5], speed_deciles(equal(20))
      ([1, 1, 2, 2, 3], None)
    """
    speed = devices.flops if devices.step_seconds is None else 1 / devices.step_seconds
    if not len(speed) or speed.min() == speed.max():
        return None
    slower = np.asarray(np.searchsorted(np.sort(speed), speed))
    return _DECILES * slower // len(speed) + 1
