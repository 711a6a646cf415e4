"""Synchronous rounds in simulated time: who is there, who is late, how long the server waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, Selection
from fljax.core.schedule import FATES, Arrivals, Schedule, Spans
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, Interval, checked
from fljax.systems.fleet import Fleet

ARRIVED, PARTIAL, LATE, LOST = range(len(FATES))
# What a round's record says of time.
KEYS = (
    "time/simulated_seconds",
    "systems/round_seconds",
    "systems/clients_partial",
    "systems/clients_late",
    "systems/clients_lost",
)
# Of several attempts at one job, each has a number of its own.
_ATTEMPT = 1 << 40
# Draws of further clients, each four times as large, before all are asked whether they are online.
_DRAWS = 4


# The spans of nobody.
NOBODY = Spans(np.zeros(0, np.int32), np.zeros(0), np.zeros(0), np.zeros(0, np.int8))


class _State(NamedTuple):
    """The state of a schedule: the sampler's, and the clock in seconds."""

    sampler: tuple
    seconds: np.ndarray


class Jobs(NamedTuple):
    """The jobs of a round, as they turned out; arrays have one entry a job."""

    clients: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    fate: np.ndarray
    steps: np.ndarray


def wait_for_all(
    fleet: Fleet, sampler_of: Callable[[float], Sampler], clients_per_round: float, retries: int = 0
) -> Schedule:
    """Lets the server wait until all whom it asked have answered, or are lost.

    Args:
      fleet: The clients.
      sampler_of: (clients per round) -> Sampler.
      clients_per_round: Clients that are asked.
      retries: How often a client that was lost is asked again, as soon as it is back.
    """
    retries = checked("retries", retries, Field(None, int, NON_NEGATIVE))
    return _rounds(fleet, sampler_of(clients_per_round), retries=retries)


def deadline(
    fleet: Fleet,
    sampler_of: Callable[[float], Sampler],
    clients_per_round: float,
    seconds: float,
    late: str = "drop",
    retries: int = 0,
) -> Schedule:
    """Ends a round so many seconds after it began, or once all have answered.

    Args:
      fleet, sampler_of, clients_per_round, retries: As for `wait_for_all`.
      seconds: The longest round.
      late: What becomes of clients that need longer: "drop"; or "partial", they take as many local
        steps as fit, and are dropped where none does (Li et al. 2018, arXiv:1812.06127, let
        stragglers do so).
    """
    seconds = checked("seconds", seconds, Field(None, float, POSITIVE))
    late = checked("late", late, Field(None, str, ("drop", "partial")))
    retries = checked("retries", retries, Field(None, int, NON_NEGATIVE))
    return _rounds(
        fleet, sampler_of(clients_per_round), seconds=seconds, partial=late == "partial",
        retries=retries,
    )  # fmt: skip


def over_selection(
    fleet: Fleet,
    sampler_of: Callable[[float], Sampler],
    clients_per_round: int,
    factor: float = 1.3,
    seconds: float | None = None,
) -> Schedule:
    """Asks more clients than it needs, and ends a round with the last answer that it needs.

    So Bonawitz et al. (2019, arXiv:1902.01046) do, with 1.3 times as many.

    Args:
      fleet, sampler_of: As for `wait_for_all`.
      clients_per_round: Answers that the server needs.
      factor: How many times as many clients are asked, rounded up.
      seconds: The longest round; None is without end.

    Raises:
      ValueError: If more clients would be asked than there are.
    """
    factor = checked("factor", factor, Field(None, float, Interval(1)))
    if seconds is not None:
        seconds = checked("seconds", seconds, Field(None, float, POSITIVE))
    needed = checked("clients_per_round", clients_per_round, Field(None, int, COUNT))
    asked, there_are = int(np.ceil(factor * needed - 1e-9)), len(fleet.steps)
    try:
        sampler = sampler_of(asked)
    except ValueError as error:
        if not needed <= there_are < asked:
            raise
        raise ValueError(
            f"factor = {factor:g} times clients_per_round = {needed} are {asked} clients, and the "
            f"population has {there_are}. Lower clients_per_round to "
            f"{int(there_are / factor + 1e-9)} at most, or the factor."
        ) from error
    return _rounds(fleet, sampler, needed=needed, seconds=seconds)


def _rounds(
    fleet: Fleet,
    sampler: Sampler,
    *,
    needed: int | None = None,
    seconds: float | None = None,
    partial: bool = False,
    retries: int = 0,
) -> Schedule:
    """Returns the schedule of rounds that end with the last answer, or by a rule.

    Args:
      fleet: The clients.
      sampler: Draws those who are asked.
      needed: Answers that end a round; None for all.
      seconds: The longest round; None is without end.
      partial: Whether clients take as many steps as fit into it.
      retries: How often a lost job is tried again.
    """
    loses = fleet.loses or needed is not None or seconds is not None

    def turned_out(clients, begin, round) -> tuple[Jobs, Spans, float]:
        """Returns jobs, the lost attempts with another one behind them, and the round's end."""
        closes = np.inf if seconds is None else begin + seconds
        whole = fleet.steps[clients]
        start, steps, ahead = np.full(len(clients), begin), whole.copy(), np.arange(len(clients))
        end, lost, fits = start.copy(), np.ones(len(clients), bool), np.zeros(len(clients), bool)
        before = [_lost(ahead[:0], start[:0], end[:0])]
        for attempt in range(retries + 1):
            if attempt:
                ahead, back = _back(fleet, clients, end, lost, closes)
                if not len(ahead):
                    break
                before.append(_lost(clients[ahead], start[ahead], end[ahead]))
                start[ahead] = back
            who, number = clients[ahead], round + attempt * _ATTEMPT
            if partial:
                fitting = _fitting(fleet, who, start[ahead], number, closes)
                fits[ahead] = fitting > 0
                steps[ahead] = np.where(fitting > 0, fitting, whole[ahead])
            end[ahead], lost[ahead] = fleet.ends(who, start[ahead], number, steps[ahead])
        # the last step that fits may end a rounding error later
        end = np.where(fits, np.minimum(end, closes), end)
        fate = np.where(lost, LOST, np.where(steps < whole, PARTIAL, ARRIVED))
        fate[end > closes] = LATE
        if needed is not None:
            in_order = np.lexsort((clients, end))
            # who has nothing to train on does not answer
            answers = in_order[(fate[in_order] <= PARTIAL) & (steps[in_order] > 0)]
            if len(answers) >= needed:
                closes = float(end[answers[needed - 1]])
                fate[answers[needed:]] = LATE
                # a loss behind the end of the round is never heard of
                fate[end > closes] = LATE
        finish = closes if (fate == LATE).any() else float(end.max(initial=begin))
        jobs = Jobs(clients, start, np.minimum(end, finish), fate, steps)
        return jobs, Spans(*map(np.concatenate, zip(*before, strict=True))), finish

    return in_rounds(fleet, sampler, turned_out, has_steps=loses)


def in_rounds(
    fleet: Fleet,
    sampler: Sampler,
    turned_out: Callable[[np.ndarray, float, int], tuple[Jobs, Spans, float]],
    has_steps: bool,
) -> Schedule:
    """Returns the schedule of rounds in which a sampler's cohort works, one after another.

    Args:
      fleet: The clients.
      sampler: Draws those who are asked.
      turned_out: (clients who begin, simulated seconds, round) -> their jobs, the lost attempts
        with another one behind them, and the end of the round.
      has_steps: Whether jobs may be lost, or take fewer steps than configured.
    """

    def init():
        return _State(sampler.init(), np.float64(0))

    def draw(state: _State, round: int):
        selected, inner = sampler.select(state.sampler, round)
        clients, scale = selected, None
        if isinstance(selected, Selection):
            clients, scale = selected
        begin = float(state.seconds)
        clients, scale, begin = who_begin(fleet, sampler, clients, scale, begin, round)
        jobs, before, end = turned_out(clients, begin, round)
        accepted = jobs.fate <= PARTIAL
        arrivals = Arrivals(
            clients=jobs.clients,
            accepted=accepted,
            # a job of which nothing arrives is not worth its computation
            steps=np.where(accepted, jobs.steps, np.minimum(jobs.steps, 1)) if has_steps else None,
            scale=scale,
            record=recorded(jobs, float(state.seconds), end),
            spans=Spans(*map(np.concatenate, zip(_spans(jobs), before, strict=True))),
            # the model is sent again with each attempt
            downlink_bytes=fleet.downlink_bytes * len(before.client),
        )
        return arrivals, _State(inner, np.float64(end))

    return Schedule(
        init,
        draw,
        sampler.max_cohort,
        has_steps=has_steps,
        has_scale=sampler.has_scale,
        observe=lambda state, round, told: state._replace(
            sampler=sampler.observe(state.sampler, round, told)
        ),
        feedback=sampler.feedback,
    )


def recorded(jobs: Jobs, before: float, end: float) -> dict[str, float]:
    """Returns what a round's record says of time."""
    counts = np.bincount(jobs.fate, minlength=len(FATES)).tolist()
    told = (end, end - before, counts[PARTIAL], counts[LATE], counts[LOST])
    return dict(zip(KEYS, told, strict=True))


def _spans(jobs: Jobs) -> Spans:
    """Returns who worked when, in the order of jobs."""
    clients, fate = jobs.clients.astype(np.int32), jobs.fate.astype(np.int8)
    return Spans(clients, jobs.begin, jobs.end, fate)


def _lost(clients, begin, end) -> Spans:
    """Returns the spans of attempts that were lost."""
    return Spans(clients.astype(np.int32), begin, end, np.full(len(clients), LOST, np.int8))


def _back(fleet: Fleet, clients, end, lost, closes: float):
    """Lets clients whose job was lost begin again once they are back, before the round ends.

    Returns:
      (int64[m] those who do, float64[m] seconds at which they begin).
    """
    again = np.flatnonzero(lost)
    back = end[again]
    if fleet.availability is not None:
        back = fleet.availability.since(clients[again], back)
    return again[back < closes], back[back < closes]


def _fitting(fleet: Fleet, clients, start, number: int, closes: float) -> np.ndarray:
    """Returns int64[n] how many steps of jobs end in time, at most the configured ones."""
    times, whole = fleet.times(clients, number), fleet.steps[clients]
    room = closes - start - times.download - times.upload
    each = np.where(whole > 0, times.compute / np.maximum(whole, 1), np.inf)
    return np.clip(np.floor(room / each + 1e-9), 0, whole).astype(np.int64)


def who_begin(fleet: Fleet, sampler: Sampler, clients, scale, begin: float, round: int):
    """Returns who begins of a cohort that a sampler drew, what scales them, and when they can.

    Args:
      fleet: The clients.
      sampler: What drew the cohort.
      clients: int[n] of it.
      scale: float[n], or None.
      begin: Seconds at which the round would begin.
      round: Its number.

    Returns:
      (int64[m] clients that are online then, float[m] or None, float seconds).
    """
    clients = np.asarray(clients, np.int64)
    if fleet.availability is None:
        return clients, scale, begin
    if not sampler.is_uniform:
        return _of_cohort(fleet, clients, scale, begin, round)
    clients, begin = _online(fleet, clients, begin, round)
    return clients, None, begin


def _of_cohort(fleet: Fleet, clients, scale, begin: float, round: int):
    """Returns those of a cohort who are online, what scales them, and when they can begin.

    Where nobody is, the round begins once somebody of the cohort is who has something to train on;
    for a cohort of which nobody has, nobody waits.
    """
    seconds = begin
    here = fleet.availability.online(clients, seconds)
    works = clients[fleet.steps[clients] > 0]
    if len(works) and not here.any():
        seconds = float(np.min(fleet.availability.since(works, seconds)))
        if not np.isfinite(seconds):
            raise _never_again(begin, round, "no client of its cohort is")
        here = fleet.availability.online(clients, seconds)
    return clients[here], None if scale is None else scale[here], seconds


def _never_again(begin: float, round: int, who: str) -> ValueError:
    return ValueError(
        f"Round {round} begins after {begin:g} simulated seconds, and {who} ever online again. Let "
        "the availability go on, or run fewer rounds."
    )


def _online(fleet: Fleet, clients, begin: float, round: int):
    """Returns a uniform cohort of clients that are online, and when they can begin.

    Those of the cohort who are online stay; others who are, drawn uniformly, come in the place of
    the rest, so that the cohort is uniform among those online. Where nobody is, the round begins
    once somebody is.
    """
    eligible = len(fleet.steps)
    seconds = begin
    here = fleet.availability.online(clients, seconds)
    kept, missing = clients[here], int((~here).sum())
    for draw in range(_DRAWS):
        if not missing:
            break
        count = min(4 ** (draw + 1) * missing + 16, 4 * eligible)
        words = random.uniform(fleet.seed, "systems/online", round, draw, np.arange(count))
        others = _firsts(np.floor(words * eligible).astype(np.int64), kept)
        others = others[fleet.availability.online(others, seconds)][:missing]
        kept, missing = np.concatenate([kept, others]), missing - len(others)
    if missing:
        everybody = np.setdiff1d(np.arange(eligible), kept)
        if not len(kept):
            seconds = float(np.min(fleet.availability.since(everybody, seconds), initial=np.inf))
            if not np.isfinite(seconds):
                raise _never_again(begin, round, "no client is")
        here = everybody[fleet.availability.online(everybody, seconds)]
        words = random.uniform(fleet.seed, "systems/online/all", round, here)
        kept = np.concatenate([kept, here[np.argsort(words, kind="stable")][:missing]])
    return kept, seconds


def _firsts(drawn: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Returns the drawn clients without repetitions, in their order, and without those taken."""
    _, first = np.unique(drawn, return_index=True)
    firsts = drawn[np.sort(first)]
    return firsts[~np.isin(firsts, taken)]
