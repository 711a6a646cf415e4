"""The options of simulated time: devices, when they are there, whom the server waits for."""

from __future__ import annotations

from fljax.core.values import Field, Interval

SYSTEMS: dict[str, Field] = {
    "preset": Field(
        None, str, ("cross_device", "cross_silo"), optional=True,
        meaning="Fills those of the keys below that are unset with what such federations assume: "
        "see fljax.systems.presets.",
    ),
    "profiles": Field(
        None, str, optional=True,
        meaning="Says what clients' devices can do, and gives the run simulated time: a call such "
        "as 'lognormal(1.0)', named in fljax.systems.names; unset beside the keys below: all "
        "alike, a second a step.",
    ),
    "availability": Field(
        None, str, optional=True,
        meaning="Says when clients' devices are online: a call, named in fljax.systems.names; "
        "unset: always.",
    ),
    "dropout": Field(
        None, float, Interval(0, 1, high_open=True), optional=True,
        meaning="Loses a client's work with this probability; unset: never, or what the preset "
        "says.",
    ),
    "connectivity": Field(
        None, str, optional=True,
        meaning="Loses clients' work with a probability of each client's own instead of dropout: a "
        "call such as 'uniform_loss(0.5)', named in fljax.systems.names.",
    ),
    "completeness": Field(
        None, str, optional=True,
        meaning="Lets clients do a part of their local steps: a call such as "
        "'part_dynamic_uniform(0.5)', named in fljax.systems.completeness; unset: all.",
    ),
    "schedule": Field(
        None, str, optional=True,
        meaning="Says how long the server waits, and for whom: a call such as 'deadline(60)', "
        "'over_selection(1.3)' or 'fedbuff(concurrency=100)', named in fljax.systems.names; "
        "unset: for all.",
    ),
}  # fmt: skip
