"""FLASH's states: phones are ready while locked, charging and on Wi-Fi."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fljax.systems.flash import flash_availability, read_states

A_DAY = """
2020-01-02 00:00:10\tbattery_charged_on
2020-01-02 00:00:20\tWIFI
2020-01-02 00:00:30\tscreen_lock
2020-01-02 00:00:35\t55%
2020-01-02 00:00:40\tscreen_on
2020-01-02 00:01:00\tscreen_unlock
2020-01-02 00:01:10\tscreen_lock
2020-01-02 00:01:30\t4G
2020-01-02 00:01:40\twifi
2020-01-02 00:01:50\tbattery_charged_off
"""
# its lines are not in order, it is ready at its last message, and it begins before the clock does
AT_THE_END = (
    "2020-01-02 00:00:50\tscreen_off\n2020-01-01 23:59:50\tbattery_charged_on\n"
    "2020-01-02 00:00:10\twifi\n2020-01-02 00:00:30\tscreen_lock"
)
NEVER = "2020-01-02 00:00:10\twifi\n2020-01-02 00:00:20\tscreen_lock"
BROKEN = ["yesterday\twifi", "2020-01-02 00:00:10\tsmoke", "2020-01-02 00:00:10 wifi", ""]


def written(tmp_path, messages):
    traces = {
        str(user): {"guid": str(user), "model": f"model {user}", "messages": text}
        for user, text in enumerate(messages)
    }
    path = tmp_path / "states.json"
    path.write_text(json.dumps(traces))
    return path


def test_states_are_intervals(tmp_path):
    states = read_states(written(tmp_path, [NEVER, A_DAY, *BROKEN, AT_THE_END]))
    assert states.models == ("model 1", "model 6") and states.left_out == 5
    assert states.offsets.tolist() == [0, 3, 4]
    assert states.starts.tolist() == [20, 60, 90, 40]
    assert states.ends.tolist() == [50, 80, 100, 60]
    assert states.period.tolist() == [100, 60] and states.origin.tolist() == [10, -10]


def test_phones_are_there_while_they_are_ready(tmp_path):
    found = flash_availability(3, path=written(tmp_path, [A_DAY, AT_THE_END]), in_turn=True)
    who, moments = np.array([0, 1, 2]), np.array([30.0, 30, 29.5])
    assert found.online(who, moments).tolist() == [True, True, False]
    assert found.until(who, moments).tolist() == [60.0, 50.0, 29.5]
    assert found.since(who, moments).tolist() == [30.0, 30.0, 30.0]
    # over and over: the first phone's 100 seconds begin at 10, the second's 60 at -10
    assert found.online(np.array([0, 1]), np.array([330.0, 330.0])).tolist() == [True, True]
    assert found.since(np.array([0, 1]), np.array([310.5, 290.5])).tolist() == [330.0, 330.0]
    drawn = flash_availability(1000, 1, tmp_path / "states.json")
    assert 400 < drawn.online(np.arange(1000), 55.0).sum() < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no {user"),
        ("{}", "no phone"),
        ('{"a": {"model": "b"}}', "says of 'a'"),
        ('{"a": {"model": "b", "messages": "2020-01-02 00:00:10\\twifi"}}', "no phone"),
        ("{", "not JSON"),
    ],
)
def test_other_files_are_refused_by_name(content, message, tmp_path):
    path = tmp_path / "states.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_states(path)
    assert "states.json" in str(caught.value)
