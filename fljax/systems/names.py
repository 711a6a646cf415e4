"""Names of time: schedules as texts have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fljax.core import parts
from fljax.core.schedule import Schedule
from fljax.core.values import shown
from fljax.systems import asynchronous, synchronous

# name -> function (offered values, literals) -> Schedule
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "wait_for_all": synchronous.wait_for_all,
    "deadline": synchronous.deadline,
    "over_selection": synchronous.over_selection,
    "fedbuff": asynchronous.fedbuff,
    "fedasync": asynchronous.fedasync,
}
# Those in which clients start from older versions of the model.
ASYNCHRONOUS = ("fedbuff", "fedasync")
OFFERED = ("fleet", "sampler_of", "clients_per_round", "num_rounds")


def check_schedule(text: str) -> None:
    """Raises ValueError for a text that names no schedule, or arguments that it does not have.

    Example:
      >>> from fljax.systems.names import check_schedule
      >>> check_schedule("deadline(60, late='partial')")
    """
    call = parts.read_one("schedule", text, SCHEDULES)
    parts.bound(call, offered=dict.fromkeys(OFFERED))


def make_schedule(text: str, offered: Mapping[str, Any]) -> Schedule:
    """Returns the schedule that a text names.

    Args:
      text: One of `SCHEDULES` with its arguments, or "module:function" of your own, which gets
        those of the offered values that it names.
      offered: {parameter: value}, as in `OFFERED`.

    Raises:
      ValueError: For an unknown name or argument, or a function that returns something else.
    """
    call = parts.read_one("schedule", text, SCHEDULES)
    schedule = parts.make(call, offered=dict(offered))
    if not isinstance(schedule, Schedule):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(schedule)} ({type(schedule).__name__}), "
            "and a schedule is a fljax.core.schedule.Schedule."
        )
    return schedule
