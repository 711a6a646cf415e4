"""Devices of one's own are arrays of numbers in their ranges, or are refused by name."""

import numpy as np
import pytest

from fljax.systems.devices import Devices, equal
from fljax.systems.names import make_devices

THREE = equal(3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"step_seconds": [1.0, np.nan, 1.0]}, "step_seconds of client 1 is nan and must be above"),
        ({"step_seconds": [1.0, 1.0, np.inf]}, "step_seconds of client 2 is inf and must be above"),
        ({"step_seconds": np.array([0.0, 1, 1])}, "step_seconds of client 0 is 0 and must be abo"),
        ({"flops": np.array([1.0, -1, 1])}, "flops of client 1 is -1"),
        ({"uplink_mbps": [1, 2]}, "devices of 2 clients .uplink_mbps., and the population has 3"),
        ({"downlink_mbps": np.ones((3, 1))}, r"the shape .3, 1. .downlink_mbps."),
        ({"uplink_mbps": [1, -np.inf, 2]}, "client 1 is -inf and must be above 0, or inf"),
        ({"memory_gb": None}, "memory_gb = None must be an array of numbers"),
        ({"memory_gb": ["much"] * 3}, "memory_gb = .* must be an array of numbers"),
        ({"radio_watts": [[1], [1, 2], 3]}, "radio_watts = .* must be an array of numbers"),
        ({"compute_watts": [0, 0, -1]}, "compute_watts of client 2 is -1 and must be at least 0"),
        ({"response_seconds": 3.0}, r"the shape .. .response_seconds."),
        ({"uplink_sd": [np.nan] * 3}, "uplink_sd of client 0 is nan"),
        ({"tier": [0, 1, 2], "tiers": ("a", "b")}, "tier of client 2 is 2 and must be a whole num"),
        ({"spread": -1}, "spread = -1"),
        ({"step_seconds": None}, "step_seconds and flops are both None"),
    ],
)
def test_what_no_device_has_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        make_devices(THREE._replace(**columns), 3, 0)


def test_lists_become_arrays():
    listed = Devices([1, 2], None, [np.inf, 2], [1, 1], [4, np.inf], [0, 1], [0, 0], [0, 1], "ab")
    found = make_devices(listed, 2, 0)
    assert found.step_seconds.dtype == np.float64 and found.step_seconds.tolist() == [1, 2]
    assert found.tier.dtype == np.int32 and found.memory_gb.tolist() == [4, np.inf]


def test_what_is_right_stays_as_it_is():
    for name, column in make_devices(THREE, 3, 0)._asdict().items():
        assert np.array_equal(column, getattr(THREE, name)), name
