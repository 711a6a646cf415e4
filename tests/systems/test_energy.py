"""Energy and cost: watts times seconds, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.systems.energy import cost, energy
from fljax.systems.jobs import JobTimes
from fljax.systems.profiles import given


def test_energy_is_watts_times_seconds():
    devices = given(3, compute_watts=[1, 2, 4], radio_watts=[0.5, 0, 3])
    times = JobTimes(np.array([1.0, 2]), np.array([10.0, 0]), np.array([3.0, 5]))
    drawn = energy(devices, np.array([2, 0]), times)
    assert drawn.compute.tolist() == [40, 0] and drawn.radio.tolist() == [12, 3.5]
    assert drawn.total.tolist() == [52, 3.5]
    nobody = JobTimes(*[np.zeros(0)] * 3)
    assert not len(energy(devices, np.zeros(0, int), nobody).total)


def test_cost_is_energy_and_bytes_at_their_prices():
    joules = np.array([3.6e6, 0])
    assert cost(joules, np.array([1e9, 2e9]), 0.25, 4).tolist() == [4.25, 8]
    assert cost(joules).tolist() == [0, 0]
    for price in ("price_per_kwh", "price_per_gb"):
        with pytest.raises(ValueError, match=price):
            cost(joules, **{price: -1})
