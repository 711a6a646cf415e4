"""Records of a round: bytes of all and of each client, and simulated transfers."""

import numpy as np
import pytest

from fljax.engine.plan.round_plan import HostPlan
from fljax.training.round_records import LinkSpeeds, round_record
from fljax.training.totals import RoundTotals

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# two passes of two devices with three places each; two places are padding, one client is lost
UP = ([[800, 1601, 0], [0, 24, 0]], [[8, 8, 0], [0, 8, 0]])
DOWN = ([[64, 64, 64], [0, 64, 0]], [[32, 32, 32], [0, 32, 0]])
FACTS = HostPlan(
    round=4, clients=np.zeros((2, 3)), trials=np.zeros((2, 3)), keepers=np.zeros((2, 3)),
    num_jobs=4, without_rows=np.array([0]), steps=np.array([7]), rows_real=9, rows_computed=12,
    sampler_state=None,
)  # fmt: skip


def record(totals=None, speeds=LinkSpeeds(), up=UP):  # noqa: B008
    nothing = np.zeros((2, 3), np.int32)
    stats = [
        {"jobs": nothing, "nonfinite": nothing, "lost": nothing}
        | {"uplink_bits": np.array(bits, np.uint32), "downlink_bits": np.array(other, np.uint32)}
        for bits, other in zip(up, DOWN, strict=True)
    ]
    return round_record(FACTS, stats, totals or RoundTotals(), 1.0, speeds)


def test_bytes_of_the_round_join_those_before():
    totals = RoundTotals(uplink_bits=3, downlink_bits=1)
    found = record(totals)
    assert totals.uplink_bits == 3 + 2425 + 24 and totals.downlink_bits == 1 + 256 + 128
    assert found["comm/round_uplink_bytes"] == 307  # 2449 bits
    assert found["comm/uplink_bytes"] == 307  # 2452 bits
    assert (found["comm/round_downlink_bytes"], found["comm/downlink_bytes"]) == (48, 49)


def test_clients_that_sent_are_described():
    found = record()
    # 808, 1609 and 32 bits over both passes
    assert found["comm/client_uplink_bytes_min"] == 4
    assert found["comm/client_uplink_bytes_max"] == 202
    assert found["comm/client_uplink_bytes_mean"] == pytest.approx(2449 / 8 / 3)
    nobody = record(up=np.zeros((2, 2, 3)))
    assert not any("client_uplink" in key for key in nobody)


def test_bits_of_many_passes_do_not_overflow():
    found = record(up=np.full((2, 2, 3), 2**32 - 1))
    assert found["comm/client_uplink_bytes_max"] == -(-2 * (2**32 - 1) // 8)
    assert found["comm/round_uplink_bytes"] == -(-12 * (2**32 - 1) // 8)


@pytest.mark.parametrize(
    ("speeds", "seconds"),
    [
        # the slowest of each pass: 1601 bits up with 64 down, then 8 up with 32 down
        (LinkSpeeds(2.0, 0.5), 1601 / 2e6 + 64 / 0.5e6 + 8 / 2e6 + 32 / 0.5e6),
        (LinkSpeeds(uplink_mbps=2.0), 1601 / 2e6 + 8 / 2e6),
        (LinkSpeeds(downlink_mbps=0.5), 64 / 0.5e6 + 32 / 0.5e6),
    ],
)
def test_a_round_waits_for_the_slowest_client_of_each_pass(speeds, seconds):
    totals = RoundTotals(transfer=5.0)
    found = record(totals, speeds)
    assert found["comm/round_transfer_seconds"] == pytest.approx(seconds, rel=1e-12)
    assert found["comm/transfer_seconds"] == totals.transfer == pytest.approx(5 + seconds)


def test_without_speeds_nothing_is_said_of_transfers():
    assert not any("transfer" in key for key in record())
