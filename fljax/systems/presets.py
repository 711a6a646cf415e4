"""Presets: what two kinds of federations assume of their clients, each as options by name.

A preset fills the options that are left unset; each of them may be set to something else.

  * `cross_device`: phones, as Bonawitz et al. (2019, arXiv:1902.01046) describe Google's fleet.
    They are there when they charge over night, in all time zones; speeds and links differ by an
    order of magnitude (about 5 Mbit/s down and up in the middle, which is what FLASH's users
    measured); 8 % drop out (they report 6 to 10); 1.3 times as many as needed are asked, and a
    round ends after half an hour at the latest.
  * `cross_silo`: organizations, as Kairouz et al. (2019, arXiv:1912.04977, table 1) describe them:
    always there, none is lost, servers of similar speed on fast links, and all answers are waited
    for. `clients_per_round` is usually the number of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# name -> {option: value}
PRESETS: dict[str, Mapping[str, Any]] = {
    "cross_device": {
        "profiles": "lognormal(sigma=1.0, step_seconds=0.6, uplink_mbps=5.0, downlink_mbps=5.0, "
        "link_sigma=1.0)",
        "availability": "charging()",
        "dropout": 0.08,
        "schedule": "over_selection(1.3, seconds=1800)",
    },
    "cross_silo": {
        "profiles": "lognormal(sigma=0.3, step_seconds=0.05, uplink_mbps=1000, downlink_mbps=1000)",
        "schedule": "wait_for_all",
    },
}


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a preset sets of the options that are unset, which are None.

    Args:
      values: Options, `preset` among them.

    Example:
      >>> from fljax.systems.presets import filled
      >>> given = {"preset": "cross_silo", "profiles": "equal", "schedule": None}
      >>> filled(given)
      {'schedule': 'wait_for_all'}
    """
    preset = PRESETS.get(values["preset"], {})
    return {name: value for name, value in preset.items() if values[name] is None}
