"""FedScale's files: capacities become devices, traces of phones availability."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fljax.systems.fedscale import fedscale_availability, fedscale_devices
from fljax.systems.jobs import job_times

CAPACITIES = {
    1: {"computation": 60.0, "communication": 7500.0},
    2: {"computation": np.float64(15), "communication": 1000},
}
# the first is FedScale's own example of a trace
TRACES = {
    1: {
        "duration": 211625,
        "inactive": [65881, 133574, 208292, 276575, 295006, 356236, 400906, 475099],
        "finish_time": 518400,
        "active": [12788, 100044, 188992, 271372, 276663, 352625, 356267, 441193],
        "model": "CPH1801",
    },
    2: {"duration": 3, "inactive": [3, 9], "finish_time": 10, "active": [2, 7], "model": "?"},
    3: {"duration": 0, "inactive": [], "finish_time": 10, "active": [], "model": "?"},
}


def written(tmp_path, value):
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(value))
    return path


def active(trace, moment: float) -> bool:
    """FedScale's rule, with an open end."""
    moment %= trace["finish_time"]
    pairs = zip(trace["active"], trace["inactive"], strict=True)
    return any(start <= moment < end for start, end in pairs)


def test_capacities_are_devices(tmp_path, monkeypatch):
    path = written(tmp_path, CAPACITIES)
    devices = fedscale_devices(3, path=path, batch_size=20)
    assert np.allclose(devices.step_seconds, [3.6, 0.9, 3.6])
    assert devices.uplink_mbps.tolist() == devices.downlink_mbps.tolist() == [7.5, 1, 7.5]
    # FedScale: 3 x batch x steps x ms / 1000, and (kilobits up and down) / (kilobits a second)
    kilobits = 5e6 * 8 / 1000
    total = job_times(devices, np.array([1]), 5, 5e6, 5e6).total
    assert total[0] == pytest.approx(3 * 20 * 5 * 15 / 1000 + 2 * kilobits / 1000)
    monkeypatch.setenv("FLJAX_DATA_DIR", str(tmp_path))
    assert fedscale_devices(2, path="file", factor=1).step_seconds.tolist() == [1.2, 0.3]
    drawn = fedscale_devices(1000, path=path, in_turn=False)
    assert 400 < (drawn.uplink_mbps == 1).sum() < 600


def test_phones_are_there_when_the_trace_says_so(tmp_path):
    found = fedscale_availability(4, path=written(tmp_path, TRACES))
    moments = np.concatenate([np.arange(0, 25, 0.5), np.arange(0, 2e6, 9_999.0)])
    for client, trace in enumerate([TRACES[1], TRACES[2], TRACES[3], TRACES[1]]):
        who = np.full(len(moments), client)
        expected = [active(trace, moment) for moment in moments]
        assert found.online(who, moments).tolist() == expected
    share = found.online(np.zeros(518_400, int), np.arange(518_400.0)).sum()
    assert share == TRACES[1]["duration"]
    assert np.isinf(found.since(np.array([2]), 0.0)).all()


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (fedscale_devices, {}, "no {id: entry}"),
        (fedscale_devices, [1], "no {id: entry}"),
        (fedscale_devices, {1: {"computation": 1}}, "nothing of 1 that is its 'communication'"),
        (fedscale_devices, {1: 5}, "nothing of 1"),
        (fedscale_devices, {1: {"computation": 0, "communication": 1}}, "not positive"),
        (fedscale_availability, {7: {"active": [1], "inactive": []}}, "active 1 times"),
        (
            fedscale_availability,
            {7: {"active": [1], "inactive": [0], "finish_time": 5}},
            "ends before it starts",
        ),
        (
            fedscale_availability,
            {7: {"active": ["x"], "inactive": [0], "finish_time": 5}},
            "no trace",
        ),
    ],
)
def test_other_files_are_refused_by_name(read, value, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read(3, path=written(tmp_path, value))
    assert "file" in str(caught.value)


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FLJAX_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="FLJAX_DATA_DIR"):
        fedscale_devices(3)
