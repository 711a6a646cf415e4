"""Devices of the edge: a roofline by hand, and the clock that goes by it."""

import numpy as np
import pytest

from fljax.systems.hardware import HARDWARE, hardware
from fljax.systems.jobs import with_flops
from fljax.systems.names import make_devices
from fljax.systems.phones import MEASURED
from fljax.systems.roofline import REACHED, estimate

BOARD = hardware("raspberry_pi_5")  # 154 GFLOP/s, 17.1 GB/s, 9.8 W


@pytest.mark.parametrize(
    ("flops", "moved", "bound", "seconds"),
    [
        (15.4e9, 1e6, "arithmetic", 1e-4 + 15.4 / (0.06 * 154)),
        (1e6, 17.1e9, "memory", 1e-4 + 1 / 0.6),
        (0, 0, "overhead", 1e-4),
    ],
)
def test_the_slower_of_arithmetic_and_memory_decides(flops, moved, bound, seconds):
    found = estimate(BOARD, flops, moved, work="training")
    assert found.bound == bound and found.seconds == pytest.approx(seconds)
    assert found.joules == pytest.approx(9.8 * seconds)
    assert (found.least * 6, found.most / 6) == pytest.approx((seconds, seconds))


def test_what_a_device_cannot_compute_has_no_estimate():
    accelerator = hardware("edge_tpu")
    assert estimate(accelerator, 1, 1) is None
    assert estimate(accelerator, 1, 1, work="training", dtype="int8") is None
    assert estimate(accelerator, 1.2e12, 0, dtype="int8").seconds == pytest.approx(1.0005)
    with pytest.raises(ValueError, match="flops = -1"):
        estimate(BOARD, -1, 0)


@pytest.mark.parametrize(
    ("gflops", "seconds"),
    [
        (219, 0.179),  # Pixel 4: a Cortex-A76 at 2.84 GHz, 3 at 2.42, 4 A55 at 1.78
        (146, 0.588),  # Redmi Note 7 Pro: 2 Cortex-A76 at 2.0 GHz, 6 A55 at 1.7
        (4, 1.642),  # Nexus S: a Cortex-A8 at 1 GHz
    ],
)
def test_what_flash_measured_lies_within_the_estimates(gflops, seconds):
    """FLASH timed ten rows of FEMNIST; LEAF's CNN takes 1.02 GFLOP and some 100 MB for them."""
    phone = hardware("phone_mid")._replace(peak={"float32": 1e9 * gflops})
    assert 1000 * seconds in MEASURED["femnist"]
    found = estimate(phone, 1.02e9, 1e8, work="training")
    assert found.least < seconds < found.most


def test_what_coral_measured_lies_within_the_estimate():
    """Its data sheet: MobileNet v2 at almost 400 images a second, a multiplication as an operation.

    It has 300 million products, 3.5 million weights, and writes and reads 6.7 million activations.
    """
    found = estimate(hardware("edge_tpu"), 0.6e9, 3.5e6 + 2 * 6.7e6, dtype="int8")
    assert found.least < 1 / 400 < found.most


def test_every_device_says_where_its_figures_are_from():
    for device in HARDWARE.values():
        assert device.sources and set(device.estimated) < set(device._fields)
        assert device.kind in REACHED and device.bandwidth < min(device.peak.values()) * 8


def test_clients_have_devices_by_their_shares_and_train_at_their_speed():
    text = "edge(['raspberry_pi_5', 'jetson_orin_nano'], shares=[0.25, 0.75], uplink_mbps=2)"
    found = make_devices(text, 4000, seed=0)
    assert found.tiers == ("raspberry_pi_5", "jetson_orin_nano")
    assert (found.tier == 0).mean() == pytest.approx(0.25, abs=0.03)
    timed = with_flops(found, 1e9, 1e6)
    board = estimate(BOARD, 1e9, 1e6, work="training").seconds
    np.testing.assert_allclose(timed.step_seconds[found.tier == 0], board)
    # much traffic: memory decides
    slow = with_flops(found, 1.0, 17.1e9).step_seconds[found.tier == 0]
    np.testing.assert_allclose(slow, 1e-4 + 1 / 0.6)
    assert set(found.uplink_mbps) == {2.0} and set(found.memory_gb) == {4.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edge('raspbery_pi_5')", "did you mean 'raspberry_pi_5'"),
        ("edge('edge_tpu')", "does not train. Name devices with float32"),
        ("edge([])", "different names, one at least"),
        ("edge(['phone_low', 'phone_low'])", "different names, one at least"),
        ("edge(['phone_low'], shares=[0.5])", "must be 1 numbers with the sum 1"),
        ("edge('phone_low', uplink_mbps=0)", "uplink_mbps = 0.0 must be above 0"),
    ],
)
def test_wrong_devices_are_refused(text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make_devices(text, 3, seed=0)
