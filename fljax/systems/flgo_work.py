"""Losses, partial work and times of answers, as FLGo has them.

Three of the axes of FLGo (Wang et al., 2023, arXiv:2306.12079), each a function of clients:
connectivity (the chance that a job is lost), completeness (the share of local steps that is done)
and responsiveness (seconds until the answer). The ideal of each is 0, 1 and 0. The fourth,
availability, is in `fljax.systems.flgo_availability`.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, Interval, checked

_CHANCE = Field(None, float, Interval(0, 1))
_EPOCHS = Field(None, int, COUNT)
_POSITIVE = Field(None, float, POSITIVE)
_NOT_NEGATIVE = Field(None, float, NON_NEGATIVE)


def same_loss(clients: np.ndarray, gamma: float = 0.05) -> np.ndarray:
    """Returns float64[n] chances that jobs are lost, the same for all: HOMO.

    Args:
      clients: int64[n].
      gamma: The chance.

    Raises:
      ValueError: If gamma is no chance.

    Example:
      >>> from fljax.systems.flgo_work import same_loss
      >>> same_loss(np.array([4, 7]), 0.1).tolist()
      [0.1, 0.1]
    """
    return np.full(np.shape(clients), checked("gamma", gamma, _CHANCE))


def uniform_loss(clients: np.ndarray, seed: int = 0, gamma: float = 0.5) -> np.ndarray:
    """Returns float64[n] chances that jobs are lost: uniform for some clients, 0 for others.

    The mode UNI, which the official code has and the paper does not name.

    Args:
      clients: int64[n].
      seed: Of the draws; a client's chance depends on (seed, client) alone.
      gamma: Chance that a client loses jobs at all.

    Raises:
      ValueError: If gamma is no chance.

    Example:
      >>> from fljax.systems.flgo_work import uniform_loss
      >>> round(float(uniform_loss(np.arange(100_000), gamma=0.5).mean()), 2)
      0.25
    """
    gamma = checked("gamma", gamma, _CHANCE)
    some = random.uniform(seed, "systems/flgo/lossy", clients) < gamma
    return np.where(some, random.uniform(seed, "systems/flgo/loss", clients), 0.0)


def lost(
    chances: np.ndarray, clients: np.ndarray, seed: int = 0, number: np.ndarray | int = 0
) -> np.ndarray:
    """Returns bool[n] whether jobs are lost.

    Args:
      chances: float64[n].
      clients: int64[n].
      seed: Of the draws, which depend on (seed, client, number) alone.
      number: int64[n], or one for all, the client's how manieth job it is.

    Example:
      >>> from fljax.systems.flgo_work import lost
      >>> lost(np.array([0.0, 1.0]), np.array([3, 4])).tolist()
      [False, True]
    """
    return random.uniform(seed, "systems/flgo/lost", clients, number) < chances


def part_dynamic_uniform(
    clients: np.ndarray, seed: int = 0, number: np.ndarray | int = 0, p: float = 0.5
) -> np.ndarray:
    """Returns float64[n] shares of local steps: uniform of some jobs, all of the others: PDU.

    The stragglers of FedProx (Li et al., 2020, arXiv:1812.06127): in each round, a share p of the
    clients does part of the work. The official code also keeps the reduced number of steps, so that
    a client's work shrinks from round to round; here each job is drawn anew.

    Args:
      clients: int64[n].
      seed: Of the draws, which depend on (seed, client, number) alone.
      number: int64[n], or one for all, the client's how manieth job it is.
      p: Chance that a job is done in part.

    Raises:
      ValueError: If p is no chance.

    Example:
      >>> from fljax.systems.flgo_work import part_dynamic_uniform
      >>> round(float(part_dynamic_uniform(np.arange(100_000), p=0.5).mean()), 2)
      0.75
    """
    p = checked("p", p, _CHANCE)
    in_part = random.uniform(seed, "systems/flgo/partial", clients, number) < p
    return np.where(in_part, random.uniform(seed, "systems/flgo/share", clients, number), 1.0)


def full_static_uniform(clients: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns float64[n] shares of local steps: uniform, and a client always does its own: FSU.

    Args:
      clients: int64[n].
      seed: Of the draws, which depend on (seed, client) alone.

    Example:
      >>> from fljax.systems.flgo_work import full_static_uniform
      >>> round(float(full_static_uniform(np.arange(100_000)).mean()), 2)
      0.5
    """
    return random.uniform(seed, "systems/flgo/share", clients)


def arbitrary_dynamic_uniform(
    clients: np.ndarray,
    seed: int = 0,
    number: np.ndarray | int = 0,
    least: int = 1,
    most: int = 5,
) -> np.ndarray:
    """Returns float64[n] shares of local epochs: whole ones, uniform, anew for each job: ADU.

    The setting of FedNova (Wang et al., 2020, arXiv:2007.07481): a client does from `least` to
    `most` local epochs, and a run is configured with `most`. The official code never draws `most`
    itself, and lowers `least` to 1.

    Args:
      clients: int64[n].
      seed: Of the draws, which depend on (seed, client, number) alone.
      number: int64[n], or one for all, the client's how manieth job it is.
      least, most: Local epochs, both included.

    Returns:
      Epochs drawn over `most`.

    Raises:
      ValueError: If least is above most.

    Example:
      >>> from fljax.systems.flgo_work import arbitrary_dynamic_uniform
      >>> sorted({*arbitrary_dynamic_uniform(np.arange(99), least=1, most=4).tolist()})
      [0.25, 0.5, 0.75, 1.0]
    """
    return _epochs(random.uniform(seed, "systems/flgo/epochs", clients, number), least, most)


def arbitrary_static_uniform(
    clients: np.ndarray, seed: int = 0, least: int = 1, most: int = 5
) -> np.ndarray:
    """Returns float64[n] shares of local epochs: whole ones, uniform, a client's own always: ASU.

    Args:
      clients, seed, least, most: As in `arbitrary_dynamic_uniform`.

    Returns:
      Epochs drawn over `most`.

    Raises:
      ValueError: If least is above most.

    Example:
      >>> from fljax.systems.flgo_work import arbitrary_static_uniform
      >>> sorted({*arbitrary_static_uniform(np.arange(99), least=3, most=4).tolist()})
      [0.75, 1.0]
    """
    return _epochs(random.uniform(seed, "systems/flgo/epochs", clients), least, most)


def steps_done(shares: np.ndarray, steps: np.ndarray | int) -> np.ndarray:
    """Returns int64[n] local steps of shares of the work: rounded down, and at least one.

    Args:
      shares: float64[n].
      steps: int64[n], or one for all, of the whole work; of none, none is done.

    Example:
      >>> from fljax.systems.flgo_work import steps_done
      >>> steps_done(np.array([0.05, 0.5, 1.0]), 5).tolist()
      [1, 2, 5]
    """
    # a share such as 3 epochs of 5 is not exact, and its product may lie a little below
    done = np.floor(shares * np.asarray(steps) + 1e-9).astype(np.int64)
    return np.minimum(np.maximum(done, 1), steps)


def log_normal_response(
    clients: np.ndarray, seed: int = 0, mean: float = 100.0, variance: float = 10.0
) -> np.ndarray:
    """Returns float64[n] seconds until answers come: log-normal, a client's own always: LN.

    The logarithm is normal with mean ln(mean) - s^2 / 2 and variance s^2 = ln(1 + variance /
    mean^2), so that the seconds have the mean and variance given. The official code cuts them to
    whole numbers.

    Args:
      clients: int64[n].
      seed: Of the draws, which depend on (seed, client) alone.
      mean: Seconds.
      variance: Seconds squared.

    Raises:
      ValueError: If mean or variance are out of their range.

    Example:
      >>> from fljax.systems.flgo_work import log_normal_response
      >>> seconds = log_normal_response(np.arange(100_000), mean=10, variance=4)
      >>> round(float(seconds.mean()), 1), round(float(seconds.var()), 1)
      (10.0, 4.0)
    """
    mean = checked("mean", mean, _POSITIVE)
    squared = np.log1p(checked("variance", variance, _NOT_NEGATIVE) / mean**2)
    drawn = random.normal(seed, "systems/flgo/response", clients)
    return np.exp(np.log(mean) - squared / 2 + np.sqrt(squared) * drawn)


def uniform_response(
    clients: np.ndarray, seed: int = 0, least: float = 0.0, most: float = 1.0
) -> np.ndarray:
    """Returns float64[n] seconds until answers come: uniform, a client's own always: UNI.

    The official code draws whole numbers below `most`.

    Args:
      clients: int64[n].
      seed: Of the draws, which depend on (seed, client) alone.
      least, most: Seconds.

    Raises:
      ValueError: If least is negative, or above most.

    Example:
      >>> from fljax.systems.flgo_work import uniform_response
      >>> round(float(uniform_response(np.arange(100_000), least=1, most=3).mean()), 2)
      2.0
    """
    least, most = (
        checked(name, value, _NOT_NEGATIVE) for name, value in (("least", least), ("most", most))
    )
    _check_range(least, most)
    return least + (most - least) * random.uniform(seed, "systems/flgo/response", clients)


def _epochs(drawn: np.ndarray, least: int, most: int) -> np.ndarray:
    least, most = checked("least", least, _EPOCHS), checked("most", most, _EPOCHS)
    _check_range(least, most)
    return (least + np.floor(drawn * (most - least + 1))) / most


def _check_range(least: float, most: float) -> None:
    if least > most:
        raise ValueError(f"least = {least:g} is above most = {most:g}; exchange them.")
