"""Availability that depends on what clients hold, as FLGo has it: sizes, labels, and the hour.

FLGo (Wang et al., 2023, arXiv:2306.12079) took these modes from FedGS (Wang et al., 2022,
arXiv:2211.13975), MIFA (Gu et al., 2021, arXiv:2106.04159) and F3AST (Ribero et al., 2022,
arXiv:2205.06730). In each slot of time, a round in FLGo, a client is online with a chance that beta
spreads; slots are drawn independently. Its mode IDL is `always`, and HOMO is `bernoulli(1 - beta)`.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, DECAY, NON_NEGATIVE, POSITIVE, Field, Interval, checked, wrong
from fljax.systems.availability import Availability
from fljax.systems.cells import by_slots

_BETA = Field(None, float, Interval(0, 1))
_BELOW_ONE = Field(None, float, DECAY)
_EXPONENT = Field(None, float, NON_NEGATIVE)
_SECONDS = Field(None, float, POSITIVE)
_SLOTS = Field(None, int, COUNT)


def more_data_first(
    sizes: np.ndarray, seed: int = 0, beta: float = 0.0001, slot_seconds: float = 3600.0
) -> Availability:
    """Lets clients with more data be online more often: MDF, p_i = n_i^beta / max_j n_j^beta.

    Args:
      sizes: int64[N] rows of each client; without any, a client is never online.
      seed: Of the draws.
      beta: 0 treats all alike.
      slot_seconds: Length of a slot.

    Raises:
      ValueError: If beta is negative.

    Example:
      >>> from fljax.systems.flgo_availability import more_data_first
      >>> rare = more_data_first(np.repeat([1, 100], 5000), beta=0.5)
      >>> online = rare.online(np.arange(10_000), 0.0)
      >>> round(float(online[:5000].mean()), 1), float(online[5000:].mean())
      (0.1, 1.0)
    """
    return _by_size(sizes, seed, checked("beta", beta, _EXPONENT), slot_seconds)


def less_data_first(
    sizes: np.ndarray, seed: int = 0, beta: float = 0.5, slot_seconds: float = 3600.0
) -> Availability:
    """Lets clients with less data be online more often: LDF, p_i = n_i^-beta / max_j n_j^-beta.

    Args:
      sizes, seed, beta, slot_seconds: As in `more_data_first`.

    Raises:
      ValueError: If beta is negative.

    Example:
      >>> from fljax.systems.flgo_availability import less_data_first
      >>> bool(less_data_first(np.array([1, 100])).online(np.array([0]), 0.0)[0])
      True
    """
    return _by_size(sizes, seed, -checked("beta", beta, _EXPONENT), slot_seconds)


def largest_label_first(
    labels: np.ndarray, seed: int = 0, beta: float = 0.1, slot_seconds: float = 3600.0
) -> Availability:
    """Lets clients be online more often the larger their smallest label is: YMF.

        p_i = beta min(Y_i) / max(Y) + 1 - beta

    Args:
      labels: int64[N, C] how many rows of each class each client has. Who has none counts as if it
        had class 0.
      seed: Of the draws.
      beta: From 0 to 1; 0 lets all be online always.
      slot_seconds: Length of a slot.

    Raises:
      ValueError: If beta is no share.

    Example:
      >>> from fljax.systems.flgo_availability import largest_label_first
      >>> by_label = largest_label_first(np.eye(3, dtype=int), beta=1)
      >>> by_label.online(np.array([0, 2]), 0.0).tolist()
      [False, True]
    """
    beta = checked("beta", beta, _BETA)
    lowest, _ = _label_range(labels)
    return _online(beta * lowest / _largest(labels) + 1 - beta, seed, slot_seconds)


def fewer_labels_first(
    labels: np.ndarray, seed: int = 0, beta: float = 0.2, slot_seconds: float = 3600.0
) -> Availability:
    """Lets clients be online by how many different labels they have: YFF.

        p_i = beta |Y_i| / |Y| + 1 - beta

    As published, and in spite of the mode's name, the chance rises with the number of labels.

    Args:
      labels, seed, beta, slot_seconds: As in `largest_label_first`.

    Raises:
      ValueError: If beta is no share.

    Example:
      >>> from fljax.systems.flgo_availability import fewer_labels_first
      >>> one_or_two = fewer_labels_first(np.array([[3, 0], [3, 3]]), beta=1)
      >>> bool(one_or_two.online(np.array([1]), 0.0)[0])
      True
    """
    beta = checked("beta", beta, _BETA)
    held = np.count_nonzero(labels, axis=1)
    return _online(beta * held / np.shape(labels)[1] + 1 - beta, seed, slot_seconds)


def label_cycle(
    labels: np.ndarray,
    seed: int = 0,
    beta: float = 0.5,
    slots: int = 24,
    slot_seconds: float = 3600.0,
) -> Availability:
    """Lets clients be online when it is their labels' turn, over and over: YC.

        p_i(t) = beta 1[min(Y_i) / max(Y) <= (1 + t mod T) / T <= max(Y_i) / max(Y)] + 1 - beta

    Args:
      labels, seed, beta, slot_seconds: As in `largest_label_first`.
      slots: T, the slots of a cycle.

    Raises:
      ValueError: If beta is no share.

    Example:
      >>> from fljax.systems.flgo_availability import label_cycle
      >>> turns = label_cycle(np.array([[1, 1, 0], [0, 1, 1]]), beta=1, slots=4, slot_seconds=60)
      >>> [turns.online(np.array([0, 1]), 60.0 * slot).tolist() for slot in (0, 3)]
      [[True, False], [False, True]]
    """
    beta = checked("beta", beta, _BETA)
    slots = checked("slots", slots, _SLOTS)
    low, high = (edge / _largest(labels) for edge in _label_range(labels))

    def chance(clients, slot):
        turn = (1 + slot % slots) / slots
        return beta * ((low[clients] <= turn) & (turn <= high[clients])) + 1 - beta

    return _online(chance, seed, slot_seconds)


def log_normal(
    num_clients: int, seed: int = 0, beta: float = 0.1, slot_seconds: float = 3600.0
) -> Availability:
    """Lets clients be online with chances that are log-normal: LN, p_i = c_i / max_j c_j.

    The logarithm of c_i is normal with mean 0 and standard deviation -ln(1 - beta). The largest of
    all c divides them, so that a client's chance depends on how many others there are.

    Args:
      num_clients: N.
      seed: Of the draws.
      beta: From 0 to below 1; 0 lets all be online always.
      slot_seconds: Length of a slot.

    Raises:
      ValueError: If beta is out of its range.

    Example:
      >>> from fljax.systems.flgo_availability import log_normal
      >>> bool(log_normal(5, beta=0).online(np.arange(5), 0.0).all())
      True
    """
    return _online(_log_normal_chances(num_clients, seed, beta), seed, slot_seconds)


def sine_log_normal(
    num_clients: int,
    seed: int = 0,
    beta: float = 0.1,
    slots: int = 24,
    slot_seconds: float = 3600.0,
) -> Availability:
    """Lets clients be online with log-normal chances that go up and down together: SLN.

        p_i(t) = (0.4 sin(2 pi (1 + t mod T) / T) + 0.5) c_i / max_j c_j

    The official code puts (t mod T) / (T - 1) in place of (1 + t mod T) / T.

    Args:
      num_clients, seed, beta, slot_seconds: As in `log_normal`.
      slots: T, the slots of a cycle.

    Raises:
      ValueError: If beta is out of its range.

    Example:
      >>> from fljax.systems.flgo_availability import sine_log_normal
      >>> tide = sine_log_normal(10_000, beta=0, slots=4)
      >>> [round(float(tide.online(np.arange(10_000), 3600.0 * t).mean()), 1) for t in range(4)]
      [0.9, 0.5, 0.1, 0.5]
    """
    slots = checked("slots", slots, _SLOTS)
    chances = _log_normal_chances(num_clients, seed, beta)

    def chance(clients, slot):
        tide = 0.4 * np.sin(2 * np.pi * ((1 + slot % slots) / slots)) + 0.5
        return tide * chances[clients]

    return _online(chance, seed, slot_seconds)


def _online(chance, seed: int, slot_seconds: float) -> Availability:
    """Returns slots of a chance: float64[N], or (clients, slots) -> float64."""

    def online(clients, slots):
        p = chance(clients, slots) if callable(chance) else chance[clients]
        return random.uniform(seed, "systems/online", clients, slots) < p

    return by_slots(online, checked("slot_seconds", slot_seconds, _SECONDS))


def _by_size(sizes: np.ndarray, seed: int, power: float, slot_seconds: float) -> Availability:
    sizes = np.asarray(sizes, np.float64)
    if (sizes < 0).any():
        raise wrong("sizes", sizes, "at least 0")
    # logarithms, since a power of a number may be too large or too small for one
    logs = np.where(sizes > 0, power * np.log(np.maximum(sizes, 1)), -np.inf)
    largest = logs.max(initial=-np.inf)
    chances = np.exp(logs - largest) if np.isfinite(largest) else np.zeros(len(logs))
    return _online(chances, seed, slot_seconds)


def _log_normal_chances(num_clients: int, seed: int, beta: float) -> np.ndarray:
    num_clients = checked("num_clients", num_clients, _SLOTS)
    deviation = -np.log1p(-checked("beta", beta, _BELOW_ONE))
    drawn = random.normal(seed, "systems/flgo/chance", np.arange(num_clients))
    return np.exp(deviation * (drawn - drawn.max()))


def _label_range(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64[N] the lowest and the highest class of each client; 0 of who has none."""
    held = np.asarray(labels) > 0
    lowest = np.argmax(held, axis=1)
    highest = held.shape[1] - 1 - np.argmax(held[:, ::-1], axis=1)
    return lowest.astype(float), np.where(held.any(axis=1), highest, 0).astype(float)


def _largest(labels: np.ndarray) -> int:
    """Returns the largest label, by which others are divided."""
    return max(1, np.shape(labels)[1] - 1)
