"""Detectors of drift: they watch the errors of a deployed model and say when these have changed.

    adwin(delta=0.002)          two means of a window differ     Bifet and Gavaldà 2007
    page_hinkley(threshold=50)  a sum of rises is large          Page 1954
    ddm(drift_threshold=3)      errors left their lowest level   Gama et al. 2004
    loss_rise(delta=0.1)        a moment's mean is above the last one's, as FedDrift has it
                                (Jothimurugesan et al. 2022, arXiv:2206.00799)
    every(moments=50)           no error is looked at: the plan of those who monitor nothing

The first three are those of the package `river` (the extra `monitoring`). What a detector says
depends on the errors since it was started, and on nothing else; so no checkpoint has to hold its
state: `replayed` finds it again from the recorded errors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fljax.core import optional, parts
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, Interval, checked, shown

_SHARE = Field(None, float, Interval(0, 1, low_open=True, high_open=True))
_LEAST = Field(None, float, NON_NEGATIVE)
_ABOVE = Field(None, float, POSITIVE)
_FORGET = Field(None, float, Interval(0, 1, low_open=True))
_ROWS = Field(None, int, COUNT)


class Detector(NamedTuple):
    """Watches errors, moment after moment.

    Attributes:
      start: () -> state of one that has seen nothing.
      observe: (state, float64[n] errors of a moment in their order) -> (state', place of the error
        at which it raised an alarm, or -1). It reads no further than that place. The state before
        is used up.

    Example:
      >>> from fljax.systems.detectors import loss_rise
      >>> detector = loss_rise(delta=0.2)
      >>> state, alarm = detector.observe(detector.start(), np.array([0.0, 0.0, 1.0]))
      >>> alarm
      -1
      >>> detector.observe(state, np.array([1.0, 0.0, 1.0]))[1]
      2
    """

    start: Callable[[], Any]
    observe: Callable[[Any, np.ndarray], tuple[Any, int]]


def adwin(delta: float = 0.002, *, clock: int = 32) -> Detector:
    """Raises an alarm when two parts of a window of the last errors have unlike means.

    Bifet and Gavaldà 2007, "Learning from time-changing data with adaptive windowing", their
    ADWIN2, whose window has logarithmically many buckets. It looks in both directions: a model that
    has become better raises an alarm as well. river's asks for 10 errors first, and for 5 in each
    part.

    Args:
      delta: Bounds the chance of a false alarm at each check.
      clock: Errors between two checks.

    Raises:
      ValueError: If delta is no share, or clock no count.
      ImportError: Once it starts, without the package `river`.

    Example:
      >>> from fljax.systems.detectors import adwin
      >>> callable(adwin(0.01).start)
      True
    """
    numbers = {"delta": checked("delta", delta, _SHARE), "clock": checked("clock", clock, _ROWS)}
    return _of_river("ADWIN", numbers)


def page_hinkley(
    threshold: float = 50.0, *, delta: float = 0.005, alpha: float = 0.9999, min_errors: int = 30
) -> Detector:
    """Raises an alarm when errors have been above their running mean for long enough.

    Page 1954, "Continuous inspection schemes", as river has it: with the mean m_t of all errors so
    far, the sum s_t = alpha s_(t-1) + x_t - m_t - delta exceeds its lowest value so far by the
    threshold. Page has no alpha, which is 1 for him.

    Args:
      threshold: Of the sum; many clients' errors reach it in few moments.
      delta: By how much errors may rise unnoticed.
      alpha: What of the sum is kept from one error to the next.
      min_errors: Before the first alarm.

    Raises:
      ValueError: For numbers outside of their range.
      ImportError: Once it starts, without the package `river`.

    Example:
      >>> from fljax.systems.detectors import page_hinkley
      >>> callable(page_hinkley(20).start)
      True
    """
    numbers = {
        "threshold": checked("threshold", threshold, _ABOVE),
        "delta": checked("delta", delta, _LEAST),
        "alpha": checked("alpha", alpha, _FORGET),
        "min_instances": checked("min_errors", min_errors, _ROWS),
    }
    return _of_river("PageHinkley", numbers | {"mode": "up"})


def ddm(drift_threshold: float = 3.0, *, min_errors: int = 30) -> Detector:
    """Raises an alarm when the error rate is well above the lowest that there was.

    Gama et al. 2004, "Learning with drift detection": with the rate p_t of all errors so far and
    s_t = sqrt(p_t (1 - p_t) / t), and p, s those of the moment at which p_t + s_t was lowest,
    p_t + s_t exceeds p + drift_threshold s. Errors are 0 or 1; after none but zeros, the first 1 is
    an alarm. Their warning zone is left out.

    Args:
      drift_threshold: In standard deviations.
      min_errors: Before the first alarm.

    Raises:
      ValueError: For numbers outside of their range; once it observes, for errors that are neither
        0 nor 1.
      ImportError: Once it starts, without the package `river`.

    Example:
      >>> from fljax.systems.detectors import ddm
      >>> callable(ddm(2.5).start)
      True
    """
    numbers = {
        "drift_threshold": checked("drift_threshold", drift_threshold, _ABOVE),
        "warm_start": checked("min_errors", min_errors, _ROWS),
    }
    detector = _of_river("DDM", numbers)

    def observe(state, errors):
        wrong = errors[(errors != 0) & (errors != 1)]
        if len(wrong):
            raise ValueError(
                f"ddm watches errors that are 0 or 1, and one is {wrong[0]:g}. Choose adwin or "
                "page_hinkley for other numbers."
            )
        return detector.observe(state, errors)

    return detector._replace(observe=observe)


def loss_rise(delta: float = 0.1) -> Detector:
    """Raises an alarm when the mean error of a moment is above that of the last one by some margin.

    FedDrift's rule (arXiv:2206.00799), which a client there asks of its loss. A moment without
    errors is passed over.

    Args:
      delta: The margin.

    Raises:
      ValueError: If delta is negative.

    Example:
      >>> from fljax.systems.detectors import alarms, loss_rise
      >>> alarms(loss_rise(0.3), [np.zeros(4), np.array([0.0, 1.0]), np.ones(3)])
      [(1, 1), (2, 2)]
    """
    delta = checked("delta", delta, _LEAST)

    def observe(last, errors):
        if not len(errors):
            return last, -1
        mean = float(np.mean(errors))
        return mean, len(errors) - 1 if mean > last + delta else -1

    return Detector(lambda: math.inf, observe)


def every(moments: int) -> Detector:
    """Raises an alarm after so many moments, whatever the errors.

    Args:
      moments: From its start, or its last alarm, to the next one.

    Raises:
      ValueError: If it is no count.

    Example:
      >>> from fljax.systems.detectors import alarms, every
      >>> alarms(every(2), [np.zeros(1)] * 5)
      [(1, 0), (3, 0)]
    """
    moments = checked("moments", moments, _ROWS)

    def observe(passed, errors):
        due = len(errors) > 0 and passed + 1 >= moments
        return (0, len(errors) - 1) if due else (passed + 1, -1)

    return Detector(lambda: 0, observe)


DETECTORS: dict[str, Callable[..., Detector]] = {
    "adwin": adwin,
    "page_hinkley": page_hinkley,
    "ddm": ddm,
    "loss_rise": loss_rise,
    "every": every,
}


def make_detector(text: str) -> Detector:
    """Returns a detector by name.

    Args:
      text: One of `DETECTORS`, a call of one, or "module:function" of your own, which returns a
        Detector.

    Raises:
      ValueError: For an unknown name or argument, or where a function of your own returns something
        else.

    Example:
      >>> from fljax.systems.detectors import make_detector
      >>> make_detector("loss_rise(0.2)").start()
      inf
    """
    call = parts.read_one("detector", text, DETECTORS)
    detector = parts.make(call)
    if not isinstance(detector, Detector):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(detector)} ({type(detector).__name__}), "
            "and a detector is a fljax.systems.detectors.Detector."
        )
    return detector


def alarms(detector: Detector, moments: Iterable[np.ndarray]) -> list[tuple[int, int]]:
    """Returns all alarms of a detector that goes on after each, (moment, place in it).

    Args:
      detector: What watches.
      moments: float64[n] errors of each moment.

    Example:
      >>> from fljax.systems.detectors import alarms, loss_rise
      >>> alarms(loss_rise(0.5), [[0.0], [1.0], [0.0], [1.0]])
      [(1, 0), (3, 0)]
    """
    state, found = detector.start(), []
    for moment, errors in enumerate(moments):
        rest, begin, place = np.asarray(errors, np.float64), 0, 0
        while place >= 0 and (begin == 0 or len(rest)):
            state, place = detector.observe(state, rest)
            if place >= 0:
                found.append((moment, begin + place))
                begin, rest = begin + place + 1, rest[place + 1 :]
    return found


def replayed(detector: Detector, moments: Iterable[np.ndarray]) -> Any:
    """Returns the state of a detector that has seen the moments since it was started.

    Example:
      >>> from fljax.systems.detectors import loss_rise, replayed
      >>> replayed(loss_rise(), [np.array([0.5, 0.0])])
      0.25
    """
    state = detector.start()
    for errors in moments:
        state, _ = detector.observe(state, np.asarray(errors, np.float64))
    return state


def _of_river(name: str, numbers: dict[str, Any]) -> Detector:
    """Returns one of river's detectors, whose objects are the state."""

    def observe(watch, errors):
        for place, error in enumerate(errors.tolist()):
            watch.update(error)
            if watch.drift_detected:
                return watch, place
        return watch, -1

    return Detector(lambda: getattr(_river(), name)(**numbers), observe)


@functools.cache
def _river() -> SimpleNamespace:
    """Returns the detectors of river."""
    with optional.needed("river"):
        from river import drift
        from river.drift import binary
    return SimpleNamespace(ADWIN=drift.ADWIN, PageHinkley=drift.PageHinkley, DDM=binary.DDM)
