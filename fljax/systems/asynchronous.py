"""Asynchronous training: clients work at all times, and the server steps as their updates arrive.

A round is a step of the server. So many clients work at a time; as one ends, another begins from
the newest model. All of it is planned: the heap of arrivals is advanced on the host, and each job
of a round reaches the program with the version that it started from. Of events at the same moment,
arrivals come first, by client; then the server's step; then new clients begin. A place that nobody
can take is taken as soon as an idle client is online.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np

from fljax.core.schedule import FATES, Arrivals, Schedule, Spans
from fljax.core.values import COUNT, FACTOR, NON_NEGATIVE, Field, checked
from fljax.systems.candidates import drawn_among
from fljax.systems.fleet import Fleet
from fljax.systems.staleness import Discount, discount_of

ARRIVED, _, LATE, LOST = range(len(FATES))
# What a round's record says of time.
KEYS = (
    "time/simulated_seconds",
    "systems/round_seconds",
    "systems/staleness_mean",
    "systems/staleness_max",
    "systems/clients_late",
    "systems/clients_lost",
)


class _State(NamedTuple):
    """The clients at work, and since when; columns have one entry a place, in the heap's order.

    Attributes:
      seconds: float64, the clock.
      begun: int64, candidates that were considered so far.
      client, version: int64[C] who works, and from which version, counted from the first; -1
        where nobody does.
      place: int64[C] where the program keeps that version.
      begin, end: float64[C] seconds.
      lost: bool[C], whether the job ends without an update.
    """

    seconds: np.ndarray
    begun: np.ndarray
    client: np.ndarray
    version: np.ndarray
    place: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    lost: np.ndarray


class _Working(NamedTuple):
    """A job under way, as the heap of arrivals orders it."""

    end: float
    client: int
    begin: float
    version: int
    place: int
    lost: bool


def fedbuff(
    fleet: Fleet,
    clients_per_round: int,
    num_rounds: int,
    concurrency: int,
    staleness: str = "polynomial(0.5)",
    max_staleness: int | None = None,
) -> Schedule:
    """Lets the server step whenever a buffer of updates is full: FedBuff.

    The step is the mean over the buffer of the updates, each multiplied by its discount: with
    `weighting = "uniform"` and a discount of (1 + staleness)^-0.5 it is the paper's (Nguyen et al.
    2021, arXiv:2106.06639). A client works on one job at a time, and again only once its update has
    been stepped with.

    Args:
      fleet: The clients.
      clients_per_round: Size of the buffer.
      num_rounds: Steps of the server; as many are planned ahead where `max_staleness` is None.
      concurrency: Clients that work at a time.
      staleness: Discount of late updates; see `fljax.systems.staleness`.
      max_staleness: Clients that would arrive later are given up; None waits for all.

    Raises:
      ValueError: If fewer clients would work than the server waits for.
    """
    buffer = checked("clients_per_round", clients_per_round, Field(None, int, COUNT))
    concurrency = checked("concurrency", concurrency, Field(None, int, COUNT))
    if concurrency < buffer:
        raise ValueError(
            f"concurrency = {concurrency} clients work at a time, but the server waits for "
            f"clients_per_round = {buffer} of them. Raise the one or lower the other."
        )
    return _continuous(
        fleet, buffer, num_rounds, concurrency, discount_of(staleness), max_staleness
    )


def fedasync(
    fleet: Fleet,
    clients_per_round: int,
    num_rounds: int,
    alpha: float = 0.6,
    staleness: str = "polynomial(0.5)",
    max_staleness: int | None = None,
) -> Schedule:
    """Lets the server mix every model that arrives into its own: FedAsync.

    The new model is (1 - a) times the old one and a times the client's, where a is `alpha` times
    the discount of its staleness (Xie et al. 2019, arXiv:1903.03934, which has the discounts
    constant, polynomial and hinge). Every round has one client.

    Args:
      fleet: The clients.
      clients_per_round: Clients that work at a time.
      num_rounds, staleness, max_staleness: As for `fedbuff`.
      alpha: Share of a fresh model, from 0 to 1.
    """
    concurrency = checked("clients_per_round", clients_per_round, Field(None, int, COUNT))
    alpha = checked("alpha", alpha, Field(None, float, FACTOR))
    discount = discount_of(staleness)
    mixed = _continuous(
        fleet, 1, num_rounds, concurrency, lambda late: alpha * discount(late), max_staleness
    )
    return mixed._replace(rebased=True)


def _continuous(
    fleet: Fleet,
    buffer: int,
    num_rounds: int,
    concurrency: int,
    discount: Discount,
    max_staleness: int | None,
) -> Schedule:
    """Returns the schedule of a server that steps with so many updates at a time."""
    if max_staleness is not None:
        max_staleness = checked("max_staleness", max_staleness, Field(None, int, NON_NEGATIVE))
    num_rounds = checked("num_rounds", num_rounds, Field(None, int, NON_NEGATIVE))
    num_eligible = int((fleet.steps > 0).sum())
    if num_eligible < concurrency:
        raise ValueError(
            f"{concurrency} clients are to work at a time, but {num_eligible} have data to train "
            "on. Lower the number, or give more clients data."
        )
    next_beginners = drawn_among(fleet)

    def init() -> _State:
        nobody = np.full(concurrency, -1, np.int64)
        never = np.zeros(concurrency)
        nothing = np.zeros(concurrency, bool)
        return _State(np.float64(0), np.int64(0), nobody, nobody, nobody, never, never, nothing)

    def draw(state: _State, round: int):
        now, begun = float(state.seconds), int(state.begun)
        working, given_up = _resumed(state, round, max_staleness)
        busy, newest = {job.client for job in working}, _free_place(working)
        taken: list[_Working] = []
        lost: list[_Working] = []
        # the first moment at which somebody may begin who has not, if there is a place
        comes = -math.inf
        while len(taken) < buffer:
            if comes <= now and not (working and working[0].end <= now):
                begun, comes = _begin(working, busy, now, begun, round, newest)
            if now < comes < (working[0].end if working else math.inf):
                now = comes
                continue
            if not working:
                raise _nobody_left(now, round)
            job = heapq.heappop(working)
            now = job.end
            (lost if job.lost else taken).append(job)
            if job.lost:
                busy.discard(job.client)
                if comes > now:
                    back = fleet.availability.since(np.array([job.client]), now)
                    comes = min(comes, float(back[0]))
        staleness = np.array([round - job.version for job in taken], np.int64)
        told = (
            *(now, now - float(state.seconds), float(staleness.mean()), int(staleness.max())),
            *(len(given_up), len(lost)),
        )
        arrivals = Arrivals(
            clients=np.array([job.client for job in taken], np.int32),
            version=staleness,
            scale=np.asarray(discount(staleness), np.float64),
            place=np.array([job.place for job in taken], np.int32),
            newest=newest,
            record=dict(zip(KEYS, told, strict=True)),
            spans=_spans(taken, lost, given_up, float(state.seconds)),
            downlink_bytes=fleet.downlink_bytes * (len(lost) + len(given_up)),
        )
        return arrivals, _saved(working, concurrency, now, begun)

    def _begin(working, busy, now, begun, round, place) -> tuple[int, float]:
        """Lets clients begin until as many work as may, or nobody else can.

        Returns:
          (candidates considered, the next moment at which another one can begin if there is a place
          left, otherwise -inf).
        """
        places = min(concurrency - len(working), num_eligible - len(busy))
        if places <= 0:
            return begun, -math.inf
        found, begun, comes = next_beginners(now, busy, begun, places)
        for client, end, is_lost in found:
            heapq.heappush(working, _Working(end, client, now, round, place, is_lost))
        return begun, comes

    schedule = Schedule(init, draw, buffer, has_scale=True)
    if max_staleness is None:
        return schedule._replace(num_versions=_versions_kept(schedule, num_rounds))
    # as a step begins, all but one may work, each from a version of its own
    return schedule._replace(num_versions=min(max_staleness + 1, concurrency))


def _resumed(state: _State, round: int, max_staleness: int | None):
    """Returns the heap of those who work, and those who are given up since they are too late."""
    columns = (getattr(state, name) for name in _Working._fields)
    jobs = map(_Working._make, zip(*(column.tolist() for column in columns), strict=True))
    working = [job for job in jobs if job.client >= 0]
    oldest = -1 if max_staleness is None else round - max_staleness
    given_up = sorted(job for job in working if job.version < oldest)
    if given_up:
        working = [job for job in working if job.version >= oldest]
    heapq.heapify(working)
    return working, given_up


def _saved(working: list[_Working], concurrency: int, now: float, begun: int) -> _State:
    """Returns the state behind a round."""
    idle = _Working(0.0, -1, 0.0, -1, -1, False)
    jobs = working + [idle] * (concurrency - len(working))
    columns = _Working(*map(np.array, zip(*jobs, strict=True)))
    return _State(np.float64(now), np.int64(begun), **columns._asdict())


def _free_place(working: list[_Working]) -> int:
    """Returns the first place of a version that nobody works from."""
    taken = {job.place for job in working}
    return next(place for place in range(len(taken) + 1) if place not in taken)


def _nobody_left(now: float, round: int) -> ValueError:
    return ValueError(
        f"Round {round} waits at {now:g} simulated seconds, and no client that is idle is ever "
        "online again. Let the availability go on, or run fewer rounds."
    )


def _spans(
    taken: list[_Working], lost: list[_Working], given_up: list[_Working], now: float
) -> Spans:
    """Returns who worked when, of the jobs that ended; those given up end as the round begins."""
    fates = [ARRIVED] * len(taken) + [LOST] * len(lost) + [LATE] * len(given_up)
    jobs = [*taken, *lost, *(job._replace(end=now) for job in given_up)]
    return Spans(
        np.array([job.client for job in jobs], np.int32),
        np.array([job.begin for job in jobs]),
        np.array([job.end for job in jobs]),
        np.array(fates, np.int8),
    )


def _versions_kept(schedule: Schedule, num_rounds: int) -> int:
    """Plans a whole run, and returns the versions that are kept at a time, the newest included."""
    state, most = schedule.init(), 0
    for round in range(num_rounds):
        arrivals, state = schedule.draw(state, round)
        most = max(most, arrivals.newest)
    # a run that is gone on with starts from what this one leaves behind
    working, _ = _resumed(state, num_rounds, None)
    return max(most, _free_place(working)) + 1
