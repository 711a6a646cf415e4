"""Oort: explores fast clients, and exploits those whose losses are large and work is quick.

Lai et al. 2021, "Oort: Efficient federated learning via guided participant selection"
(arXiv:2010.06081), Algorithm 1. With R the number of the round, from 1, and of client i: U its
statistical utility, L the round it was last heard of, D its seconds:

    explored clients        (min(U, 95th percentile) + sqrt(0.1 log R / L)) (T / D)^alpha if D > T
    (1 - epsilon) K of them by utility, among those within 95 % of the (1 - epsilon) K-th one
    epsilon K others        by speed
    pacer                   T <- T + Delta, if the utility of W rounds fell behind the W before

The paper's U is |B| sqrt(mean of squared losses of rows). Devices report sums of losses: here it
is |B| times the mean loss over local training, which is the same where a client's rows have equal
losses, and less elsewhere. (The authors' code divides U by its range, counts T in percentiles, and
weights sqrt(0.1 log R / L) anew; here is the paper.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, checked_numbers
from fljax.core.values import COUNT, FACTOR, NON_NEGATIVE, POSITIVE, Field, Interval, checked
from fljax.selection.checks import checked_numbers_of_clients
from fljax.selection.draws import distinct
from fljax.selection.losses import FEEDBACK, mean_losses

_UNIT = Interval(0, 1)
_LEAST = 1e-300
_FIELDS = {
    "exploration": Field(None, float, _UNIT),
    "exploration_decay": Field(None, float, FACTOR),
    "least_exploration": Field(None, float, _UNIT),
    "penalty": Field(None, float, NON_NEGATIVE),
    "cutoff": Field(None, float, FACTOR),
    "clip_percentile": Field(None, float, Interval(0, 100, low_open=True)),
    "window": Field(None, int, COUNT),
    "pacer_seconds": Field(None, float, POSITIVE, optional=True),
    "most_rounds": Field(None, int, COUNT, optional=True),
    "feedback": FEEDBACK,
}


class OortState(NamedTuple):
    """The server's knowledge of clients and rounds.

    Attributes:
      utility: float64[N] U.
      last: int32[N] L, 0 before a client was heard of.
      times: int32[N] rounds in which it was heard of.
      earned: float64[2 W] utility of the last rounds, NaN before there were any.
      preferred: float64 scalar T, seconds.
    """

    utility: np.ndarray
    last: np.ndarray
    times: np.ndarray
    earned: np.ndarray
    preferred: np.ndarray


def oort(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    sizes: np.ndarray,
    durations: np.ndarray,
    exploration: float = 0.9,
    exploration_decay: float = 0.98,
    least_exploration: float = 0.2,
    penalty: float = 2.0,
    cutoff: float = 0.95,
    clip_percentile: float = 95.0,
    window: int = 20,
    pacer_seconds: float | None = None,
    most_rounds: int | None = None,
    feedback: str = "delayed",
) -> Sampler:
    """Draws clients as Oort does.

    Args:
      num_clients: N, size of the population.
      clients_per_round: K, size of a cohort.
      seed: Of the run.
      sizes: int64[N] |B|, training rows; clients without any are never drawn.
      durations: float64[N] D, seconds that a client's work takes.
      exploration: epsilon of the first round.
      exploration_decay: What it is multiplied by after each round.
      least_exploration: Where it stops falling.
      penalty: alpha, of clients that take longer than T.
      cutoff: Share of the (1 - epsilon) K-th utility that lets a client take part in the draw.
      clip_percentile: Percentile of the utilities that none may exceed, against outliers.
      window: W, rounds that the pacer compares.
      pacer_seconds: Delta, with which T begins and by which it grows; None is the 30th percentile
        of the durations.
      most_rounds: Rounds after which a client is drawn no more, as long as enough others are left;
        None is never.
      feedback: "immediate" as in the paper, or "delayed" by two rounds, so that nothing waits:
        until it has come, clients under way count as they were.

    Raises:
      ValueError: If a number is out of range, or fewer clients have rows than are to be drawn.

    Example:
      >>> sampler = oort(6, 2, 0, np.full(6, 10), np.arange(1.0, 7.0), exploration=0.5)
      >>> state, told = sampler.init(), {"client": [0, 5], "loss": [10, 20], "weight": [10, 10]}
      >>> state = sampler.observe(state, 0, told)
      >>> state.utility[[0, 5]].tolist(), len(set(sampler.select(state, 3)[0].tolist()))
      ([10.0, 20.0], 2)
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    given = dict(locals())
    options = {name: checked(name, given[name], field) for name, field in _FIELDS.items()}
    rows = checked_numbers_of_clients("sizes", sizes, num_clients, count, "oort")
    durations = checked_numbers_of_clients("durations", durations, num_clients)
    step = options["pacer_seconds"]
    step = float(np.percentile(durations, 30)) if step is None else step
    window = options["window"]
    speeds = np.where(rows > 0, _speeds(durations), 0.0)
    cumulative = np.cumsum(speeds)

    def init() -> OortState:
        none = np.zeros(num_clients, np.int32)
        earned = np.full(2 * window, np.nan)
        return OortState(np.zeros(num_clients), none, none, earned, np.float64(step))

    def select(state, round):
        state = OortState(*state)
        known, unknown = _eligible(state, rows, options["most_rounds"], count)
        epsilon = options["exploration"] * options["exploration_decay"] ** round
        epsilon = max(epsilon, options["least_exploration"])
        # who there are too few of is made up for by the others
        explored = min(int(np.rint(epsilon * count)), unknown)
        exploited = min(count - explored, len(known))
        explored = min(count - exploited, unknown)

        def uniforms(purpose):
            return lambda batch, numbers: random.uniform(
                seed, f"sampler/oort/{purpose}", round, numbers, batch
            )

        chosen = known[:0]
        if exploited:
            scores = _scores(state, known, durations, round + 1, options)
            bound = options["cutoff"] * np.partition(scores, -exploited)[-exploited]
            admitted = scores >= bound
            known, scores = known[admitted], scores[admitted]
            drawn = distinct(scores, np.cumsum(scores), exploited, uniforms("exploit"))
            chosen = known[drawn]
        if explored:
            new = distinct(speeds, cumulative, explored, uniforms("explore"), state.last > 0)
            chosen = np.concatenate([chosen, new])
        return chosen, state

    def observe(state, round, statistics):
        state = OortState(*state)
        clients, losses = mean_losses(statistics)
        utility, last, times = state.utility.copy(), state.last.copy(), state.times.copy()
        utility[clients] = rows[clients] * losses
        last[clients] = round + 1
        times[clients] += 1
        earned = np.append(state.earned[1:], utility[clients].sum())
        before, after = earned[:window].sum(), earned[window:].sum()  # NaN is never above
        preferred = np.float64(state.preferred + (step if before > after else 0))
        return OortState(utility, last, times, earned, preferred)

    return Sampler(init, select, count, observe, options["feedback"], separation=1)


def _speeds(durations: np.ndarray) -> np.ndarray:
    """Returns float64[N] 1 / durations; those that take no time are as fast as the fastest."""
    timed = durations > 0
    fastest = durations[timed].min() if timed.any() else 1.0
    return 1 / np.where(timed, durations, fastest)


def _eligible(
    state: OortState, rows: np.ndarray, most_rounds: int | None, count: int
) -> tuple[np.ndarray, int]:
    """Returns the explored clients that may be drawn, and how many are unexplored."""
    explored = state.last > 0
    unknown = int(np.count_nonzero(rows)) - int(np.count_nonzero(explored))
    known = np.flatnonzero(explored)
    if most_rounds is not None:
        fresh = known[state.times[known] < most_rounds]
        if len(fresh) + unknown >= count:
            known = fresh
    return known, unknown


def _scores(
    state: OortState, known: np.ndarray, durations: np.ndarray, number: int, options: dict
) -> np.ndarray:
    """Returns float64[k] utilities of the explored clients in round `number`, which is R."""
    utility = state.utility[known]
    utility = np.minimum(utility, np.percentile(utility, options["clip_percentile"]))
    score = utility + np.sqrt(0.1 * np.log(number) / state.last[known])
    seconds = durations[known]
    late = seconds > state.preferred
    ratio = np.divide(state.preferred, seconds, out=np.ones(len(known)), where=late)
    # losses below 0, as of densities, would be no weights of a draw
    return np.maximum(score * ratio ** options["penalty"], _LEAST)
