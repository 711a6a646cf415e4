"""Schedules of one's own are refused where they break the contract."""

import numpy as np
import pytest

from fljax.core.schedule import Arrivals, Schedule
from fljax.systems.own import checked_schedule

STEPS = np.array([4, 2, 0, 3])
TWO = np.array([0, 1])


def drawn(found, **promises):
    schedule = Schedule(lambda: (), lambda state, round: found, 2, **promises)
    return checked_schedule(schedule, STEPS).draw((), 7)


def arrivals(**columns):
    return Arrivals(TWO, **columns), ()


@pytest.mark.parametrize(
    ("found", "promises", "message"),
    [
        (Arrivals(TWO), {}, "round 7: draw returned Arrivals.*; return .fljax.core.schedule.Arr"),
        (TWO, {}, "draw returned .*ndarray.; return"),
        (((0, 1), ()), {}, "draw returned .*tuple.; return"),
        ((Arrivals([0.5]), ()), {}, "clients = .0.5. must be an array of whole numbers"),
        (arrivals(version=-1), {}, "version of client 0 is -1; give 0 or more"),
        (arrivals(version=[0, -2]), {}, "version of client 1 is -2"),
        (arrivals(version=[0, 0, 0]), {}, "version has the shape .3,., and there are 2 clients"),
        (arrivals(version=[0.5, 0.0]), {}, "version = .* must be whole numbers"),
        (arrivals(accepted=[True]), {}, "accepted has the shape .1,."),
        (arrivals(steps=[4, 3]), {"has_steps": True}, "client 1 is to take 3 local steps.* for 2"),
        (arrivals(steps=[4, -1]), {"has_steps": True}, "steps of client 1 is -1"),
        (arrivals(steps=4), {"has_steps": True}, "steps has the shape .., and there are 2"),
        (arrivals(), {"has_steps": True}, "has_steps = True, and steps = None"),
        (arrivals(steps=[1, 1]), {}, "has_steps = False, and steps = .1, 1."),
        (arrivals(scale=[1, np.nan]), {"has_scale": True}, "scale of client 1 is nan; give a fin"),
        (arrivals(place=[0, -1]), {}, "place of client 1 is -1"),
    ],
)
def test_what_breaks_the_contract_is_refused(found, promises, message):
    with pytest.raises(ValueError, match=message):
        drawn(found, **promises)


def test_what_keeps_it_passes():
    full = arrivals(version=[0, 1], accepted=[True, False], steps=[4, 2], scale=[-0.5, 1])
    assert drawn(full, has_steps=True, has_scale=True) is full
    empty = (Arrivals(np.array([]), steps=np.array([])), ())
    assert drawn(empty, has_steps=True) is empty
