"""The contract of schedules: who works in a round, from which version, and what of it arrives when.

Time is planned: how long a job takes, who is lost, who arrives late and from which version of the
model each started are functions of seeds, sizes and device profiles. A schedule computes them on
the host, ahead of the devices, and they reach the round program as columns of the plan; so
asynchronous training runs the same compiled program as synchronous training. What waits for all and
takes no time is `untimed`; schedules with a clock are in `fljax.systems`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fljax.core.sampler import Sampler, Selection

__all__ = ["FATES", "Arrivals", "Schedule", "Spans", "untimed"]

# What becomes of a job, as `Spans.fate` numbers it.
FATES = ("arrived", "partial", "late", "lost")


class Spans(NamedTuple):
    """Working times: the jobs that a round heard of, or gave up, each attempt for itself.

    Attributes:
      client: int32[n] clients.
      begin: float64[n] simulated seconds at which each job began.
      end: float64[n] simulated seconds at which it ended, or was given up.
      fate: int8[n] what became of it, by its place in `FATES`.
    """

    client: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    fate: np.ndarray


class Arrivals(NamedTuple):
    """The jobs of one trial in one round, in cohort order.

    Attributes:
      clients: int[n] client numbers.
      version: int[n], how many versions of the model have followed the one that each job starts
        from; or one number for all.
      accepted: bool[n], false for clients that are lost after their work; or one for all.
      steps: int64[n] local steps, instead of the configured local work; None where the schedule
        leaves it alone.
      scale: float[n] factors of what the server takes in of each update; weights stay what they
        are. None where nothing is scaled.
      place: int[n] where the program keeps the version that each job starts from, below the
        schedule's `num_versions`; None where versions lie in turn, that of round r in place r
        modulo `num_versions`.
      newest: Where the newest version goes, over one that no job starts from any more; counts with
        `place` alone.
      record: {key: number} that joins the round's record.
      spans: Who worked when; None without a clock.
      downlink_bytes: What clients have received for jobs that are not among these: lost ones that
        were tried again, and those of which the program hears nothing.
    """

    clients: np.ndarray
    version: np.ndarray | int = 0
    accepted: np.ndarray | bool = True
    steps: np.ndarray | None = None
    scale: np.ndarray | None = None
    place: np.ndarray | None = None
    newest: int = 0
    record: Mapping[str, float] = {}
    spans: Spans | None = None
    downlink_bytes: float = 0.0


class Schedule(NamedTuple):
    """A rule that says round by round which jobs the server has, and since when.

    Attributes:
      init: () -> state, a pytree of arrays; checkpoints keep it.
      draw: (state, round) -> (Arrivals, state'), called once a round and in their order.
      max_cohort: The most jobs of a round.
      num_versions: Versions of the model that are kept at a time, the newest one included; without
        places in its arrivals, those that jobs may start from.
      has_steps: Whether arrivals bring their own numbers of local steps, none of them above the
        configured ones.
      has_scale: Whether arrivals bring a scale.
      rebased: Whether the server counts an update from the newest model: what lies between it and
        the model that the client started from is added.
      observe: As of `fljax.core.sampler.Sampler`.
      feedback: Likewise.
    """

    init: Callable[[], Any]
    draw: Callable[[Any, int], tuple[Arrivals, Any]]
    max_cohort: int
    num_versions: int = 1
    has_steps: bool = False
    has_scale: bool = False
    rebased: bool = False
    observe: Callable[[Any, int, Any], Any] = lambda state, round, statistics: state
    feedback: str = "none"


def untimed(sampler: Sampler) -> Schedule:
    """Waits for all whom a sampler draws, and knows no time.

    Example:
      >>> from fljax.core.sampler import replay
      >>> from fljax.core.schedule import untimed
      >>> schedule = untimed(replay([[0, 2], [1]], num_clients=3))
      >>> schedule.draw(schedule.init(), 0)[0].clients.tolist()
      [0, 2]
    """

    def draw(state, round):
        selected, state = sampler.select(state, round)
        if isinstance(selected, Selection):
            return Arrivals(selected.clients, scale=selected.scale), state
        return Arrivals(selected), state

    return Schedule(
        sampler.init,
        draw,
        sampler.max_cohort,
        has_scale=sampler.has_scale,
        observe=sampler.observe,
        feedback=sampler.feedback,
    )
