"""Profiles of devices: distributions, tiers, lists; a client's device is its own."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.systems import profiles
from fljax.systems.drawn import by_shares, entries

N = 40_000
SOME = {
    "lognormal": lambda n: profiles.lognormal(n, 3, uplink_mbps=5, link_sigma=0.5, memory_gb=4),
    "flops": lambda n: profiles.lognormal(n, 3, gflops=2.0),
    "half_normal": lambda n: profiles.half_normal(n, 3, 2.0, least=0.1, downlink_mbps=8),
    "tiers": lambda n: profiles.tiers(n, 3, compute_watts=[1, 2, 3]),
    "given": lambda n: profiles.given(n, 3, step_seconds=[1, 2, 3], in_turn=False),
}


@pytest.mark.parametrize("name", SOME)
def test_a_population_that_grows_keeps_its_devices(name):
    small, large = SOME[name](7), SOME[name](5000)
    assert (small.num_clients, large.num_clients) == (7, 5000)
    for field, before, after in zip(small._fields, small, large, strict=True):
        if isinstance(before, np.ndarray):
            assert np.array_equal(before, after[:7]), field
            assert before.dtype == (np.int32 if field == "tier" else np.float64)
        else:
            assert before == after


def test_log_normal_steps_and_links():
    devices = profiles.lognormal(
        N, 1, sigma=0.8, step_seconds=3, uplink_mbps=5, downlink_mbps=20, link_sigma=0.4
    )
    logs = np.log(devices.step_seconds)
    assert abs(np.median(logs) - np.log(3)) < 0.02 and abs(logs.std() - 0.8) < 0.02
    assert abs(np.log(devices.uplink_mbps).std() - 0.4) < 0.01
    assert np.allclose(devices.downlink_mbps, 4 * devices.uplink_mbps)
    assert abs(np.corrcoef(logs, np.log(devices.uplink_mbps))[0, 1]) < 0.02
    assert np.isinf(devices.memory_gb).all() and not devices.compute_watts.any()
    assert np.array_equal(profiles.lognormal(5, sigma=0).step_seconds, np.ones(5))


def test_flops_are_those_of_the_same_devices():
    seconds, flops = profiles.lognormal(50, 2), profiles.lognormal(50, 2, gflops=3)
    assert flops.step_seconds is None and seconds.flops is None
    assert np.allclose(flops.flops * seconds.step_seconds, 3e9)


def test_half_normal_steps():
    steps = profiles.half_normal(N, 1, step_seconds=2, least=0.5).step_seconds
    assert steps.min() > 0.5
    assert abs(steps.mean() - (0.5 + 2 * (2 / np.pi) ** 0.5)) < 0.02
    assert abs(((steps - 0.5) ** 2).mean() - 4) < 0.1


def test_tiers_have_their_shares_and_speeds():
    devices = profiles.tiers(
        N, 5, [0.7, 0.0001, 0.2999], [1, 2, 5], ["a", "b", "c"], step_seconds=10,
        uplink_mbps=[1, 2, 3], memory_gb=6,
    )  # fmt: skip
    shares = np.bincount(devices.tier, minlength=3) / N
    assert np.allclose(shares, [0.7, 0.0001, 0.2999], atol=0.01)
    assert np.array_equal(devices.step_seconds, np.array([10, 5, 2.0])[devices.tier])
    assert np.array_equal(devices.uplink_mbps, 1.0 + devices.tier)
    assert devices.tiers == ("a", "b", "c") and (devices.memory_gb == 6).all()
    fast = profiles.tiers(9, gflops=2)
    assert np.array_equal(fast.flops, 2e9 * np.array([1, 2, 4.0])[fast.tier])
    assert fast.tiers == ("tier 0", "tier 1", "tier 2") and fast.step_seconds is None


def test_devices_of_a_list():
    devices = profiles.given(5, step_seconds=[1, 2], radio_watts=3)
    assert devices.step_seconds.tolist() == [1, 2, 1, 2, 1] and (devices.radio_watts == 3).all()
    drawn = profiles.given(N, 1, gflops=np.array([1.0, 2, 4]), in_turn=False)
    counts = np.unique(drawn.flops, return_counts=True)
    assert counts[0].tolist() == [1e9, 2e9, 4e9] and np.allclose(counts[1] / N, 1 / 3, atol=0.01)


def test_kinds_and_entries():
    assert entries(4, 0, 9, in_turn=True).tolist() == [0, 1, 2, 3]
    assert set(entries(1000, 0, 3, in_turn=False).tolist()) == {0, 1, 2}
    kinds = np.bincount(by_shares(N, 0, [0, 3, 0, 1]), minlength=4) / N
    assert kinds[[0, 2]].tolist() == [0, 0] and abs(kinds[1] - 0.75) < 0.01


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (profiles.lognormal, {"sigma": -1}, "sigma = -1"),
        (profiles.lognormal, {"step_seconds": 0}, "step_seconds = 0"),
        (profiles.lognormal, {"uplink_mbps": "fast"}, "uplink_mbps = 'fast'"),
        (profiles.half_normal, {"step_seconds": -2}, "step_seconds"),
        (profiles.tiers, {"shares": [0.5, 0.4, 0.3]}, "add up to 1.2"),
        (profiles.tiers, {"shares": []}, "add up to 0"),
        (profiles.tiers, {"speeds": [1, 2]}, "speeds .* has 2 entries, and others have 3"),
        (profiles.tiers, {"names": ["a", "a", "b"]}, "3 different names"),
        (profiles.given, {"step_seconds": [1, 2], "memory_gb": [1, 2, 3]}, "2 entries"),
        (profiles.given, {"step_seconds": []}, "empty"),
        (profiles.given, {"gflops": [1, 0]}, r"gflops\[1\] = 0"),
        (profiles.given, {"in_turn": 2}, "in_turn"),
    ],
)
def test_what_are_no_devices_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(10, **arguments)
    with pytest.raises(ValueError, match="num_clients"):
        make(0)
