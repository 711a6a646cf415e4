"""FedCS: as many clients as can compute and send before a deadline, one sending after another.

Nishio and Yonetani 2019, "Client selection for federated learning with heterogeneous resources in
mobile edge" (arXiv:1804.08333), Algorithm 3, with u_k a client's seconds of computing and s_k those
of sending. All compute at once, and one sends at a time: with Theta the moment at which the clients
chosen so far have sent, a further one has sent at

    Theta + s_k + max(0, u_k - Theta)

The client that adds least to Theta is chosen next, until this would pass the deadline. Seconds of
selecting, distributing the model and aggregating, which the paper subtracts from the deadline, are
one number here; in the paper that of distributing falls where slow receivers are left out.
"""

from __future__ import annotations

import heapq

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, checked_numbers
from fljax.core.values import NON_NEGATIVE, POSITIVE, Field, checked
from fljax.selection.checks import checked_numbers_of_clients

_DEADLINE = Field(None, float, POSITIVE)
_OVERHEAD = Field(None, float, NON_NEGATIVE)


def fedcs(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    compute_seconds: np.ndarray,
    upload_seconds: np.ndarray,
    deadline: float,
    overhead: float = 0.0,
) -> Sampler:
    """Asks `clients_per_round` random clients, and takes those that meet a deadline.

    Args:
      num_clients: N, size of the population.
      clients_per_round: How many are asked what they can do; a cohort has as many at most, and none
        where nobody meets the deadline.
      seed: Of the run.
      compute_seconds: float64[N] seconds from a round's start until a client has trained.
      upload_seconds: float64[N] seconds that it then sends for.
      deadline: Seconds that a round may take.
      overhead: Seconds of a round in which nobody computes or sends: selection, distribution,
        aggregation.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> sampler = fedcs(3, 3, 0, np.array([1.0, 5.0, 2.0]), np.ones(3), deadline=4.0)
      >>> sampler.select((), 0)[0].tolist()  # client 1 would have sent at 6
      [0, 2]
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    left = checked("deadline", deadline, _DEADLINE) - checked("overhead", overhead, _OVERHEAD)
    compute = checked_numbers_of_clients("compute_seconds", compute_seconds, num_clients)
    upload = checked_numbers_of_clients("upload_seconds", upload_seconds, num_clients)

    def select(state, round):
        generator = random.generator(seed, "sampler/fedcs", round)
        asked = generator.choice(num_clients, count, replace=False)
        return asked[in_time(compute[asked], upload[asked], left)], state

    return Sampler(lambda: (), select, count, separation=1)


def in_time(compute: np.ndarray, upload: np.ndarray, deadline: float) -> np.ndarray:
    """Returns who sends before a deadline when each next one adds least to the time, in this order.

    Those that have computed by Theta add what they send for, the others their whole time less
    Theta; so the next one is the least of either kind, and two heaps find it. As Theta only grows,
    once that one is late, all are.

    Args:
      compute: float64[n] seconds until each has trained.
      upload: float64[n] seconds that it then sends for.
      deadline: Seconds.

    Returns:
      int64[k] places; of equal ones the first.

    Example:
      >>> in_time(np.array([3.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0]), deadline=7.0).tolist()
      [2, 0, 1]
    """
    ends, sends = (compute + upload).tolist(), upload.tolist()
    training = list(zip(ends, range(len(ends)), strict=True))
    heapq.heapify(training)
    trained: list[tuple[float, int]] = []
    to_come = np.argsort(-compute, kind="stable").tolist()  # the first to have trained stands last
    is_training = [True] * len(ends)
    now, chosen = 0.0, []
    while True:
        while to_come and compute[to_come[-1]] <= now:
            place = to_come.pop()
            if is_training[place]:
                is_training[place] = False
                heapq.heappush(trained, (sends[place], place))
        while training and not is_training[training[0][1]]:
            heapq.heappop(training)
        # (seconds that one adds, its place) of either kind
        least = trained[:1] + [(end - now, place) for end, place in training[:1]]
        if not least or now + min(least)[0] >= deadline:
            return np.array(chosen, np.int64)
        added, place = min(least)
        heapq.heappop(training if is_training[place] else trained)
        is_training[place] = False
        now += added
        chosen.append(place)
