"""Incidents of a deployed model: what changed, when it was noticed, and what retraining recovered.

A model serves from one deployment to the next. The world changes in rounds in which it is on its
way; the first of each such stretch begins an incident, which lasts to the next one or to the end.
Means of the error are taken over the rounds of the incident in which one model serves:

    before    of the model that serves as the world changes, until then
    drifted   of the model that errs most from the change on: what the change comes to cost
    after     of the last model that was deployed in the incident, whatever its training was due to
    recovered (drifted - after) / (drifted - before), which ends at 1: a model that is better than
              the one before the change has recovered all

So the share lies between 0 and 1. It counts from the change, not from the alarm: what is left by
then may be next to nothing, if training has begun before.

An alarm is false where the world has not been on its way since the training of the serving model
began, that model's first round of training left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Deployment(NamedTuple):
    """A model that serves.

    Attributes:
      trained: The first round of its training.
      serves: The first round in which it serves, and the first behind its training.
    """

    trained: int
    serves: int


class Incident(NamedTuple):
    """A change of the world, and what came of it.

    Attributes:
      change: Its first round.
      alarm: Round of the first alarm, or -1 where nobody noticed.
      delay: Rounds from one to the other, or -1.
      before, drifted, after: Mean errors; NaN where there is no such round.
      recovered: Share of the cost that retraining took back; NaN where nothing was lost, or no
        model was deployed.
    """

    change: int
    alarm: int
    delay: int
    before: float
    drifted: float
    after: float
    recovered: float


class Account(NamedTuple):
    """The incidents and false alarms of monitoring.

    Attributes:
      incidents: One a change, oldest first.
      false_alarms: Rounds of alarms without a change.
    """

    incidents: tuple[Incident, ...]
    false_alarms: tuple[int, ...]


def account(
    errors: Sequence[float],
    on_its_way: Sequence[bool],
    alarms: Sequence[int],
    deployments: Sequence[Deployment],
) -> Account:
    """Sorts alarms by what they are due to, and reckons what changes cost and retraining saved.

    Args:
      errors: float[rounds] mean error of the serving model, NaN where none was watched.
      on_its_way: bool[rounds] whether the world changed from the round before to this one.
      alarms: Rounds of alarms, ascending.
      deployments: In their order.

    Example:
      >>> from fljax.systems.incidents import Deployment, account
      >>> errors = [np.nan, 0.1, 0.1, 0.5, 0.5, 0.2]
      >>> changed = [False, False, False, True, False, False]
      >>> found = account(errors, changed, [4], [Deployment(0, 1), Deployment(4, 5)])
      >>> (incident,) = found.incidents
      >>> incident.change, incident.delay, round(incident.recovered, 2)
      (3, 1, 0.75)
    """
    errors, moving = np.asarray(errors, np.float64), np.asarray(on_its_way, bool)
    begins = np.flatnonzero(moving & ~np.concatenate([[False], moving[:-1]])).tolist()
    first = deployments[0].serves if deployments else len(errors)
    begins = [begin for begin in begins if begin >= first]
    ends = [*begins[1:], len(errors)]
    incidents = [
        _incident(errors, begin, end, alarms, deployments)
        for begin, end in zip(begins, ends, strict=False)
    ]
    false = [
        alarm
        for alarm in alarms
        if not moving[_serving(deployments, alarm).trained + 1 : alarm + 1].any()
    ]
    return Account(tuple(incidents), tuple(false))


def _incident(errors, begin, end, alarms, deployments) -> Incident:
    """Returns the incident of the rounds from one change to the next."""
    before = _mean(errors[_serving(deployments, begin).serves : begin])
    alarm = next((alarm for alarm in alarms if begin <= alarm < end), -1)
    starts = [begin, *(made.serves for made in deployments if begin < made.serves < end)]
    served = [
        _mean(errors[start:stop]) for start, stop in zip(starts, [*starts[1:], end], strict=True)
    ]
    drifted = max((error for error in served if not math.isnan(error)), default=math.nan)
    after = served[-1] if len(served) > 1 else math.nan
    lost = drifted - before
    recovered = (drifted - max(after, before)) / lost if lost > 0 else math.nan
    delay = -1 if alarm < 0 else alarm - begin
    return Incident(begin, alarm, delay, before, drifted, after, recovered)


def _serving(deployments: Sequence[Deployment], round: int) -> Deployment:
    """Returns the deployment that serves in a round."""
    return [made for made in deployments if made.serves <= round][-1]


def _mean(values: np.ndarray) -> float:
    """Returns the mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
