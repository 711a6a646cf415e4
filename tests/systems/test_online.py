"""Availability by formula: shares, hours, windows, and moments of change, as a loop finds them."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.systems import cells
from fljax.systems.availability import always
from fljax.systems.online import DAY, bernoulli, charging, diurnal

WHO = np.arange(400)
SOME = {
    "bernoulli": bernoulli(3, 0.4, 600),
    "rare": bernoulli(3, 0.02, 0.1),
    "diurnal": diurnal(3),
    "charging": charging(3),
    "seldom": charging(3, days=0.2),
}


@pytest.mark.parametrize("name", SOME)
def test_clients_come_and_go_when_it_says_so(name):
    found, rng = SOME[name], np.random.default_rng(1)
    length = 0.1 if name == "rare" else 600.0
    moments = rng.uniform(0, 50 * length, len(WHO))
    online, since = found.online(WHO, moments), found.since(WHO, moments)
    assert np.array_equal(online, since == moments) and (since >= moments).all()
    assert found.online(WHO, since).all()
    until = found.until(WHO, since)
    assert (until > since).all() and not found.online(WHO, until).any()
    assert np.array_equal(found.until(WHO[~online], moments[~online]), moments[~online])
    for at in rng.uniform(0, 1, (40, len(WHO))):  # nothing changes in between
        assert not found.online(WHO, moments + at * (since - moments))[~online].any()
        assert found.online(WHO, since + np.minimum(at, 0.999) * (until - since)).all()


@pytest.mark.parametrize("name", SOME)
def test_a_client_is_the_same_whoever_else_is_asked(name):
    found = SOME[name]
    for answer in found:
        everybody = answer(WHO, 5000.0)
        assert np.array_equal(answer(WHO[::7], 5000.0), everybody[::7])
        assert not len(answer(WHO[:0], 5000.0))


def test_chances_are_those_given():
    who = np.arange(40_000)
    for p in (0.1, 0.75):
        found = bernoulli(0, p, 60)
        share = np.mean([found.online(who, 60.0 * slot) for slot in range(5)])
        assert abs(share - p) < 4 * (p * (1 - p) / 200_000) ** 0.5


def test_chances_of_zero_and_one_never_end():
    assert np.isinf(bernoulli(p=1).until(WHO, 3.0)).all()
    assert np.isinf(bernoulli(p=0).since(WHO[:3], 3.0)).all()
    assert not bernoulli(p=0).online(WHO, 3.0).any()


def test_the_share_online_follows_the_hour():
    who, found = np.arange(50_000), diurnal(0, 0.9, 0.3, peak_hour=3, zones=0, slot_seconds=1800)
    for hour in (0.0, 3.5, 9.0, 15.0, 20.5):
        middle = np.floor(2 * hour) / 2 + 0.25
        chance = 0.3 + 0.6 * (1 + np.cos(2 * np.pi * (middle - 3) / 24)) / 2
        assert abs(found.online(who, 3600 * hour).mean() - chance) < 0.01


def test_zones_level_the_share_online():
    who = np.arange(50_000)
    shares = [diurnal(0).online(who, 3600.0 * hour).mean() for hour in range(0, 24, 4)]
    assert np.ptp(shares) < 0.02 and abs(np.mean(shares) - 0.5) < 0.01


def test_charging_windows_have_their_hours():
    who, found = np.arange(20_000), charging(0, 22, 1.0, 6, 0.5, days=0.8, zones=0)
    noon = 2.5 * DAY
    since = found.since(who, noon)
    tonight = since < noon + DAY
    assert abs(tonight.mean() - 0.8) < 0.02
    began = (since[tonight] - 2 * DAY) / 3600
    lasted = (found.until(who, since) - since)[tonight] / 3600
    assert abs(began.mean() - 22) < 0.05 and abs(began.std() - 1) < 0.05
    assert abs(lasted.mean() - 6) < 0.05 and abs(lasted.std() - 0.5) < 0.05


def test_cells_are_looked_at_in_order():
    first = np.array([0, 7, 300, 5000, cells.MOST_CELLS * 2])
    found = cells.first_cell(
        np.arange(5), np.zeros(5, np.int64), lambda who, cell: cell >= first[who]
    )
    assert found.tolist() == [0, 7, 300, 5000, cells.NEVER]
    assert not len(cells.first_cell(first[:0], first[:0], lambda who, cell: cell > 0))


def test_those_who_are_always_there():
    for answer, wanted in zip(always(), (True, np.inf, 5.0), strict=True):
        assert answer(WHO[:2], 5.0).tolist() == [wanted] * 2


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (bernoulli, {"p": 1.5}, "p = 1.5"),
        (bernoulli, {"slot_seconds": 0}, "slot_seconds"),
        (diurnal, {"peak": 0.1, "trough": 0.2}, "below trough"),
        (diurnal, {"zones": 25}, "zones"),
        (charging, {"hours": 20}, "hours = 20"),
        (charging, {"days": -1}, "days"),
    ],
)
def test_what_is_out_of_range_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
