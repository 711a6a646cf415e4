"""Incidents: delays, false alarms and recovered shares, by hand."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fljax.systems.incidents import Account, Deployment, account

NAN = math.nan


def changing(rounds, *at):
    moving = np.zeros(rounds, bool)
    moving[list(at)] = True
    return moving


def test_a_change_that_is_noticed_and_recovered():
    errors = [NAN, NAN, 0.1, 0.1, 0.6, 0.5, 0.5, 0.3, 0.2, 0.1]
    deployments = [Deployment(0, 2), Deployment(5, 7)]
    found = account(errors, changing(10, 4), [5], deployments)
    (incident,) = found.incidents
    assert incident[:3] == (4, 5, 1)
    # before: rounds 2 and 3; drifted: 4 to 6; after: 7 to 9
    np.testing.assert_allclose(incident[3:], [0.1, 1.6 / 3, 0.2, 10 / 13])
    assert found.false_alarms == ()


def test_a_change_that_nobody_notices_costs_until_the_next_one():
    errors = [NAN, 0.1, 0.3, 0.3, 0.1, 0.2]
    found = account(errors, changing(6, 2, 4), [], [Deployment(0, 1)])
    first, second = found.incidents
    assert first[:3] == (2, -1, -1) and second[:3] == (4, -1, -1)
    np.testing.assert_allclose(first[3:], [0.1, 0.3, NAN, NAN])
    np.testing.assert_allclose(second.drifted, 0.15)


def test_an_alarm_without_a_change_is_false():
    errors = [NAN, 0.1, 0.1, 0.1, 0.1, 0.5, 0.5]
    deployments = [Deployment(0, 1), Deployment(2, 4)]
    found = account(errors, changing(7, 5), [2, 6], deployments)
    assert found.false_alarms == (2,)
    assert found.incidents[0][:3] == (5, 6, 1)
    assert math.isnan(found.incidents[0].after)  # no model was deployed any more


def test_an_alarm_after_a_change_amid_training_is_not_false():
    """The model was trained on what there was before, too."""
    deployments = [Deployment(0, 1), Deployment(3, 6)]
    moving = changing(9, 2, 5)
    assert account([0.1] * 9, moving, [3, 7], deployments).false_alarms == ()
    # what changed into the first round of training is what the model was trained on
    moving = changing(9, 3)
    assert account([0.1] * 9, moving, [3, 7], deployments).false_alarms == (7,)


def test_a_change_that_takes_long_is_one_incident_of_several_alarms():
    errors = [NAN, 0.1, 0.2, 0.4, 0.4, 0.3, 0.3, 0.3, 0.1, 0.1]
    deployments = [Deployment(0, 1), Deployment(3, 5), Deployment(6, 8)]
    found = account(errors, changing(10, 2, 3, 4, 5, 6), [3, 6], deployments)
    (incident,) = found.incidents
    assert incident[:3] == (2, 3, 1)
    # drifted until the first new model, after the last one
    np.testing.assert_allclose(incident[3:], [0.1, 1 / 3, 0.1, 1.0])
    assert found.false_alarms == ()


def test_what_was_recovered_before_the_alarm_counts():
    """Training began before the change; the alarm behind it finds next to nothing left."""
    errors = [NAN, 0.1, 0.1, 0.5, 0.5, 0.101, 0.101, 0.05]
    deployments = [Deployment(0, 1), Deployment(2, 5), Deployment(6, 7)]
    (incident,) = account(errors, changing(8, 3), [2, 6], deployments).incidents
    assert incident[:3] == (3, 6, 3)
    # better than before the change is as good as all
    np.testing.assert_allclose(incident[3:], [0.1, 0.5, 0.05, 1.0])
    # nobody notices any more, since training came of itself
    (incident,) = account(errors[:6], changing(6, 3), [2], deployments[:2]).incidents
    assert incident[:3] == (3, -1, -1)
    np.testing.assert_allclose(incident[3:], [0.1, 0.5, 0.101, 0.399 / 0.4])


def test_a_model_that_is_trained_too_early_recovers_nothing():
    errors = [NAN, 0.1, 0.1, 0.12, 0.4, 0.6, 0.6]
    deployments = [Deployment(0, 1), Deployment(3, 4)]
    (incident,) = account(errors, changing(7, 3, 4, 5), [3], deployments).incidents
    np.testing.assert_allclose(incident[3:], [0.1, 1.6 / 3, 1.6 / 3, 0.0])


@hypothesis.given(
    errors=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    changes=st.sets(st.integers(3, 11)),
    serves=st.sets(st.integers(3, 11)),
)
@hypothesis.settings(max_examples=60, deadline=None, database=None)
def test_the_recovered_share_lies_between_0_and_1(errors, changes, serves):
    deployments = [Deployment(0, 1), *(Deployment(at - 2, at) for at in sorted(serves))]
    alarms = [made.trained for made in deployments[1:]]
    for incident in account(errors, changing(12, *changes), alarms, deployments).incidents:
        assert math.isnan(incident.recovered) or 0 <= incident.recovered <= 1


def test_changes_before_the_first_model_serves_are_none():
    found = account([NAN, NAN, 0.1], changing(3, 1), [], [Deployment(0, 2)])
    assert found.incidents == ()
    # on its way as the model begins to serve: the stretch began before
    found = account([NAN, NAN, 0.1], changing(3, 1, 2), [], [Deployment(0, 2)])
    assert found.incidents == ()


def test_what_gets_no_worse_has_nothing_to_recover():
    errors = [NAN, 0.3, 0.3, 0.1, 0.1]
    found = account(errors, changing(5, 2), [2], [Deployment(0, 1), Deployment(2, 3)])
    assert math.isnan(found.incidents[0].recovered)


@pytest.mark.parametrize("rounds", [0, 3])
def test_nothing_at_all_is_accounted_for(rounds):
    assert account([NAN] * rounds, changing(rounds), [], []) == Account((), ())
