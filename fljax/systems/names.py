"""Names of time: schedules as texts have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fljax.core import parts
from fljax.core.schedule import Schedule
from fljax.core.values import shown
from fljax.systems import (
    asynchronous,
    availability,
    completeness,
    devices,
    edge,
    fedscale,
    flash,
    flgo_availability,
    flgo_work,
    online,
    phones,
    profiles,
    synchronous,
)
from fljax.systems.availability import Availability
from fljax.systems.devices import Devices
from fljax.systems.stragglers import stragglers

# name -> function (offered values, literals) -> Schedule
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "wait_for_all": synchronous.wait_for_all,
    "deadline": synchronous.deadline,
    "over_selection": synchronous.over_selection,
    "stragglers": stragglers,
    "fedbuff": asynchronous.fedbuff,
    "fedasync": asynchronous.fedasync,
}
OFFERED = ("fleet", "sampler_of", "clients_per_round", "num_rounds")
# name -> function (num_clients, seed, literals) -> Devices
PROFILES: dict[str, Callable[..., Devices]] = {
    "equal": devices.equal,
    "lognormal": profiles.lognormal,
    "half_normal": profiles.half_normal,
    "tiers": profiles.tiers,
    "given": profiles.given,
    "log_normal_response": profiles.log_normal_response,
    "uniform_response": profiles.uniform_response,
    "edge": edge.edge,
    "phones": phones.phones,
    "fedscale": fedscale.fedscale_devices,
}
# name -> function (what it names of `OF_CLIENTS`, literals) -> Availability
AVAILABILITIES: dict[str, Callable[..., Availability]] = {
    "always": availability.always,
    "bernoulli": online.bernoulli,
    "diurnal": online.diurnal,
    "charging": online.charging,
    "fedscale": fedscale.fedscale_availability,
    "flash": flash.flash_availability,
    "log_normal": flgo_availability.log_normal,
    "sine_log_normal": flgo_availability.sine_log_normal,
    "more_data_first": flgo_availability.more_data_first,
    "less_data_first": flgo_availability.less_data_first,
    "largest_label_first": flgo_availability.largest_label_first,
    "fewer_labels_first": flgo_availability.fewer_labels_first,
    "label_cycle": flgo_availability.label_cycle,
}
# name -> function (clients, seed, literals) -> float64[n], the chances that their work is lost
LOSSES: dict[str, Callable[..., Any]] = {
    "same_loss": flgo_work.same_loss,
    "uniform_loss": flgo_work.uniform_loss,
}
# What a function of one's own is, where a table says it of names alone.
_OWN = {
    "completeness": (
        "Your own function takes literals, and returns a function (clients, seed, number of the "
        "round) -> float64[n], the shares of their local steps that the clients do."
    ),
    "connectivity": (
        "Your own function takes (clients, seed) and literals, and returns float64[n], the chances "
        "that the clients' work is lost."
    ),
}
# What is offered of the clients: how many there are, the run's seed, int64[N] their rows and
# int64[N, classes] how many of each class these are.
OF_CLIENTS = ("num_clients", "seed", "sizes", "labels")


# key -> (what it may name, what a run offers to it)
TABLES: dict[str, tuple[Mapping[str, Callable], tuple[str, ...]]] = {
    "profiles": (PROFILES, OF_CLIENTS[:2]),
    "availability": (AVAILABILITIES, OF_CLIENTS),
    "connectivity": (LOSSES, ("clients", "seed")),
    "completeness": (completeness.SHARES, ()),
    "schedule": (SCHEDULES, OFFERED),
}


def record_keys(schedule: str | None) -> tuple[str, ...]:
    """Returns the keys that a named schedule adds to records; of None, those of `wait_for_all`.

    Example:
      >>> from fljax.systems.names import record_keys
      >>> record_keys("fedbuff(concurrency=10)")[2]
      'systems/staleness_mean'
    """
    named = parts.name_of(schedule or "wait_for_all")
    if ":" in named:
        return ()
    return asynchronous.KEYS if named in ("fedbuff", "fedasync") else synchronous.KEYS


def check_name(key: str, text: str) -> None:
    """Raises ValueError for a text that names nothing in a key's table, or wrong arguments.

    Example:
      >>> from fljax.systems.names import check_name
      >>> check_name("schedule", "deadline(60, late='partial')")
    """
    parts.bound(_read(key, text), offered=dict.fromkeys(TABLES[key][1]))


def _read(key: str, text: str) -> parts.Call:
    """Returns the call that a key's text names; errors say what a function of one's own is."""
    try:
        return parts.read_one(key, text, TABLES[key][0])
    except ValueError as error:
        if key not in _OWN:
            raise
        raise ValueError(f"{error} {_OWN[key]}") from None


def asks_for(key: str, given: Any) -> set[str]:
    """Returns the parameters of what a key's text names; none where no text is given.

    Example:
      >>> from fljax.systems.names import asks_for
      >>> "labels" in asks_for("availability", "label_cycle(0.5)")
      True
    """
    if not isinstance(given, str):
        return set()
    function = parts.read_one(key, given, TABLES[key][0]).function
    return {parameter.name for parameter in parts.parameters_of(function)}


def make_devices(profiles: str | Devices, num_clients: int, seed: int) -> Devices:
    """Returns the devices that a text names, or those given, if they are as many as the clients.

    Raises:
      ValueError: For a text that names none, devices of another number, or such as there are not.

    Example:
      >>> from fljax.systems.names import make_devices
      >>> make_devices("equal(0.5)", num_clients=3, seed=0).step_seconds.tolist()
      [0.5, 0.5, 0.5]
    """
    found = _made("profiles", profiles, Devices, {"num_clients": num_clients, "seed": seed})
    return devices.checked_devices(found, num_clients)


def make_availability(given: str | Availability, offered: Mapping[str, Any]) -> Availability:
    """Returns the availability that a text names, or the one given.

    Args:
      given: The text, or the availability.
      offered: {parameter: value}, as in `OF_CLIENTS`.

    Raises:
      ValueError: For a text that names none.
    """
    return _made("availability", given, Availability, offered)


def _made(key: str, given: Any, kind: type, offered: Mapping[str, Any]) -> Any:
    if isinstance(given, kind):
        return given
    table, _ = TABLES[key]
    call = parts.read_one(key, given, table)
    if "labels" in asks_for(key, given) and offered.get("labels") is None:
        raise ValueError(
            f"{call.where}: {call.name} goes by the clients' classes, and these data have none. "
            f"Name another {key}."
        )
    found = parts.make(call, offered=dict(offered))
    if not isinstance(found, kind):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(found)} ({type(found).__name__}), and what "
            f"{key} names is of {kind.__module__}.{kind.__name__}."
        )
    return found


def make_part(key: str, text: str, offered: Mapping[str, Any]) -> Any:
    """Returns what the text of `connectivity` or `completeness` stands for.

    Raises:
      ValueError: For a text that names none, or one whose function returns something else.

    Example:
      >>> from fljax.systems.names import make_part
      >>> make_part("connectivity", "same_loss(0.1)", {"clients": np.arange(2), "seed": 0}).tolist()
      [0.1, 0.1]
    """
    call = _read(key, text)
    found = parts.make(call, offered=dict(offered))
    if key == "completeness" and not callable(found):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(found)} ({type(found).__name__}). "
            f"{_OWN[key]}"
        )
    return found


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
    offered = {**offered, "sampler_of": _of_its_own(offered["sampler_of"])}
    schedule = parts.make(call, offered=offered)
    if not isinstance(schedule, Schedule):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(schedule)} ({type(schedule).__name__}), "
            "and a schedule is a fljax.core.schedule.Schedule."
        )
    return schedule


def _of_its_own(sampler_of: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what makes samplers, and whose errors are not said to be those of a schedule."""

    def made(clients_per_round: float) -> Any:
        try:
            return sampler_of(clients_per_round)
        except ValueError as error:
            raise parts.FailedCall(str(error)) from error

    return made
