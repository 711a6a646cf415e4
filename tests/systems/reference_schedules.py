"""Schedules by hand: events one after another, client by client, in plain Python floats.

What is random is looked up where the code looks it up, one number at a time: a factor of a job's
time, whether it is lost and when, who is a candidate. All else is written from the descriptions.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.systems.candidates import TRIES
from fljax.systems.devices import equal
from fljax.systems.fleet import Fleet
from fljax.systems.intervals import intervals

RETRY = 1 << 40


class World(NamedTuple):
    """Clients as lists; `windows` are the spans in which each is online, None: always."""

    steps: list
    step_seconds: list
    uplink: list
    downlink: list
    sends: float = 0.0
    receives: float = 0.0
    spread: float = 0.0
    dropout: float = 0.0
    windows: list | None = None
    seed: int = 0

    def fleet(self) -> Fleet:
        """Returns the same as the code has it."""
        devices = equal(len(self.steps))._replace(
            step_seconds=np.array(self.step_seconds, float),
            uplink_mbps=np.array(self.uplink, float),
            downlink_mbps=np.array(self.downlink, float),
            spread=self.spread,
        )
        availability = None
        if self.windows is not None:
            spans = [span for own in self.windows for span in own]
            starts, ends = (np.array([span[at] for span in spans], float) for at in (0, 1))
            offsets = np.cumsum([0, *map(len, self.windows)])
            availability = intervals(starts, ends, offsets)
        return Fleet(
            devices, availability, np.array(self.steps), self.receives, self.sends, self.dropout,
            self.seed,
        )  # fmt: skip

    def times(self, client, number) -> tuple[float, float, float]:
        """Returns seconds to receive, of a step, and to send."""
        factor = 1.0
        if self.spread:
            factor = math.exp(
                self.spread * float(random.normal(self.seed, "systems/jobs", client, number))
            )
        return (
            factor * 8 * self.receives / 1e6 / self.downlink[client],
            factor * self.step_seconds[client],
            factor * 8 * self.sends / 1e6 / self.uplink[client],
        )

    def job(self, client, begin, number, steps) -> tuple[float, bool]:
        """Returns when a job ends, and whether it is lost."""
        if self.steps[client] == 0:
            return begin, False
        receive, step, send = self.times(client, number)
        total = receive + steps * step + send
        end, lost = begin + total, False
        if self.dropout:
            word = float(random.uniform(self.seed, "systems/lost", client, number))
            if word < self.dropout:
                share = float(random.uniform(self.seed, "systems/lost/when", client, number))
                end, lost = begin + share * total, True
        leaves = self.leaves(client, begin)
        return (leaves, True) if leaves < end else (end, lost)

    def online(self, client, moment) -> bool:
        if self.windows is None:
            return True
        return any(start <= moment < end for start, end in self.windows[client])

    def leaves(self, client, moment) -> float:
        if self.windows is None:
            return math.inf
        return next(end for start, end in self.windows[client] if start <= moment < end)

    def comes(self, client, moment) -> float:
        """Returns the first moment, from a given one on, at which a client is online."""
        if self.online(client, moment):
            return moment
        return min((start for start, _ in self.windows[client] if start > moment), default=math.inf)


class Asked(NamedTuple):
    """A client of a synchronous round, as it turned out."""

    client: int
    fate: str
    steps: int


def synchronous(
    world, clients, round, begin, *, seconds=math.inf, needed=math.inf, partial=False, retries=0
):
    """Lets one round go by, event after event.

    Returns ([Asked], its end, [(client, begin, end) of each attempt with another one behind it]).
    """
    closes = begin + seconds
    order = {"lost": 0, "begins": 1, "answers": 2}
    events = [(begin, order["begins"], client, place) for place, client in enumerate(clients)]
    heapq.heapify(events)
    attempts, fates, steps = [0] * len(clients), ["late"] * len(clients), {}
    answers, end, began, again = 0, begin, {}, []
    while events and "late" in fates:
        now, kind, client, place = heapq.heappop(events)
        if now > closes:
            break
        if kind == order["begins"]:
            number, began[place] = round + RETRY * attempts[place], now
            steps[place] = world.steps[client]
            ends, lost = world.job(client, now, number, steps[place])
            if partial and world.steps[client]:
                receive, step, send = world.times(client, number)
                fitting = math.floor((closes - now - receive - send) / step + 1e-9)
                if 0 < fitting < steps[place]:
                    steps[place] = fitting
                    ends, lost = world.job(client, now, number, fitting)
            heapq.heappush(events, (ends, order["lost" if lost else "answers"], client, place))
        elif kind == order["lost"]:
            fates[place], end = "lost", now
            attempts[place] += 1
            back = world.comes(client, now)
            if attempts[place] <= retries and back < closes:
                fates[place] = "late"
                again.append((client, began[place], now))
                heapq.heappush(events, (back, order["begins"], client, place))
        else:
            fates[place] = "arrived" if steps[place] == world.steps[client] else "partial"
            end = now
            answers += steps[place] > 0
            if answers == needed:
                closes = now
                break
    if "late" in fates:
        end = closes
    table = zip(clients, fates, range(len(clients)), strict=True)
    return [Asked(client, fate, steps.get(place, 0)) for client, fate, place in table], end, again


class Step(NamedTuple):
    """A step of an asynchronous server; `kept` counts the versions that it leaves in use."""

    clients: list
    staleness: list
    seconds: float
    lost: list
    given_up: list
    kept: int


class Job(NamedTuple):
    end: float
    client: int
    version: int
    lost: bool


def asynchronous(world, buffer, concurrency, rounds, max_staleness=math.inf) -> list[Step]:
    """Lets clients work at all times until the server has stepped so often."""
    able = [client for client, steps in enumerate(world.steps) if steps]
    working: list[Job] = []
    taken: list[Job] = []
    lost: list[int] = []
    given_up: list[int] = []
    made: list[Step] = []
    now, considered = 0.0, 0
    while len(made) < rounds:
        # 1. what arrives now, by client, and the steps of the server that it fills a buffer for
        while working and min(working).end <= now and len(made) < rounds:
            job = min(working)
            working.remove(job)
            if job.lost:
                lost.append(job.client)
                continue
            taken.append(job)
            if len(taken) == buffer:
                version = len(made)
                late = [job for job in working if version + 1 - job.version > max_staleness]
                working = [job for job in working if job not in late]
                kept = len({job.version for job in working} | {version + 1})
                clients, staleness = zip(
                    *((job.client, version - job.version) for job in taken), strict=True
                )
                made.append(Step(list(clients), list(staleness), now, lost, given_up, kept))
                taken, lost, given_up = [], [], sorted(job.client for job in late)
        # 2. clients begin
        busy = {job.client for job in working + taken}
        places = min(concurrency - len(working), len(able) - len(busy))
        begin, considered = candidates(world, able, busy, now, considered, places)
        for who, number in begin:
            end, is_lost = world.job(who, now, number, world.steps[who])
            working.append(Job(end, who, len(made), is_lost))
        # 3. the next moment at which something happens
        busy = {job.client for job in working + taken}
        moments = [job.end for job in working]
        if len(working) < concurrency:
            moments += [world.comes(client, now) for client in able if client not in busy]
        now = min(moments)
    return made


def candidates(world, able, busy, now, considered, places):
    """Returns ([(who begins, number of the job)], candidates considered)."""
    found, number, tries, busy = [], considered, 0, set(busy)
    while len(found) < places and tries < TRIES:
        who = able[int(float(random.uniform(world.seed, "systems/begin", number)) * len(able))]
        tries += 1
        if who not in busy and world.online(who, now):
            found.append((who, number))
            busy.add(who)
            tries = 0
        number += 1
    free = [client for client in able if client not in busy and world.online(client, now)]
    free.sort(
        key=lambda client: float(random.uniform(world.seed, "systems/begin/all", number, client))
    )
    rest = [(who, number + place) for place, who in enumerate(free[: places - len(found)])]
    found += rest
    return found, number + len(rest) if found else considered
