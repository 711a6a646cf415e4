"""Events: what accountants know of one release of a mechanism.

An event is a record of its Rényi divergences and of the pairs of distributions whose privacy losses
are the worst; either may be missing where there is no theorem. A run is events with how often each
occurs: `[(poisson_gaussian(1.0, 0.1), 200)]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fljax.core.values import NON_NEGATIVE, Field, Interval, checked, shown
from fljax.privacy.accounting import pld, rdp

__all__ = [
    "Event",
    "gaussian",
    "laplace",
    "poisson_gaussian",
    "pure",
    "sampled",
    "without_replacement",
    "zcdp",
]

_NOISE = Field(None, float, NON_NEGATIVE)
_RATE = Field(None, float, Interval(0, 1))
_EPSILON = Field(None, float, NON_NEGATIVE)


class Event(NamedTuple):
    """One release of a mechanism, as accountants see it.

    Attributes:
      name: What it is, in words.
      rdp: float64[n] orders -> float64[n] Rényi divergences; None where no theorem bounds them.
      pairs: () -> the dominating pairs of neighbouring distributions, one for each direction, or
        one where both are alike; None where no theorem names them.
      relation: Between neighbouring data sets: "add_or_remove_one", "replace_one", or "any" where
        the promise holds for both.

    Example:
      A mechanism that is 0.1-zCDP, which only the Rényi accountant knows:

      >>> event = Event("own", lambda orders: 0.1 * orders)
    """

    name: str
    rdp: Callable[[np.ndarray], np.ndarray] | None
    pairs: Callable[[], tuple[pld.Pair, ...]] | None = None
    relation: str = "any"


def gaussian(noise_multiplier: float) -> Event:
    """Returns Gaussian noise on a sum that one record moves by at most 1.

    Args:
      noise_multiplier: Standard deviation of the noise over the sensitivity. With 0 there is no
        privacy, and epsilon is infinite.

    Example:
      >>> from fljax.privacy import accounting
      >>> f"{accounting.epsilon(accounting.gaussian(1.0), delta=1e-5):.3f}"
      '4.377'
    """
    noise = checked("noise_multiplier", noise_multiplier, _NOISE)
    return Event(
        f"gaussian({noise:g})",
        lambda orders: rdp.gaussian(orders, noise),
        (lambda: pld.gaussian_pairs(noise)) if noise else _nothing_hidden,
    )


def poisson_gaussian(
    noise_multiplier: float, sampling_rate: float, exact_rdp: bool = False
) -> Event:
    """Returns Gaussian noise on the sum of a sample that each record joins by its own coin.

    Mironov, Talwar and Zhang, 1908.10530; Zhu, Dong and Wang, 2106.08567.

    Args:
      noise_multiplier: Standard deviation of the noise over the bound of one contribution.
      sampling_rate: Probability that a record takes part.
      exact_rdp: Whether Rényi divergences at fractional orders are exact, as Opacus computes them,
        and not the slightly larger ones of dp_accounting.

    Example:
      >>> from fljax.privacy import accounting
      >>> run = [(accounting.poisson_gaussian(1.0, 0.1), 200)]
      >>> f"{accounting.epsilon(run, delta=1e-3):.2f}"
      '7.10'
    """
    noise = checked("noise_multiplier", noise_multiplier, _NOISE)
    rate = checked("sampling_rate", sampling_rate, _RATE)
    if rate == 0:
        return Event("nothing", np.zeros_like, lambda: pld.pure_pairs(0.0), "add_or_remove_one")
    return Event(
        f"poisson_gaussian({noise:g}, {rate:g})",
        lambda orders: rdp.poisson_gaussian(orders, noise, rate, exact_rdp),
        (lambda: pld.gaussian_pairs(noise, rate)) if noise else _nothing_hidden,
        "add_or_remove_one",
    )


def without_replacement(noise_multiplier: float, sample: int, population: int) -> Event:
    """Returns Gaussian noise on the sum of a sample of fixed size, where one record is replaced.

    Wang, Balle and Kasiviswanathan, 1808.00087. Whoever is replaced moves the sum by twice the
    bound of a contribution, so this costs far more than a Poisson sample does: 100 of 1,000, noise
    1, 100 rounds, delta 1e-5 is epsilon 83.9, and 7.9 with Poisson samples.

    Args:
      noise_multiplier: Standard deviation of the noise over the bound of one contribution.
      sample: Records that are drawn.
      population: Records there are.

    Example:
      >>> from fljax.privacy import accounting
      >>> run = [(accounting.without_replacement(1.0, 100, 1000), 100)]
      >>> f"{accounting.epsilon(run, delta=1e-5, accountant='rdp'):.2f}"
      '83.94'
    """
    noise = checked("noise_multiplier", noise_multiplier, _NOISE)
    rate = checked("sample / population", sample / population, _RATE)
    return Event(
        f"without_replacement({noise:g}, {sample} of {population})",
        lambda orders: rdp.without_replacement(orders, noise, rate),
        None,
        "replace_one",
    )


def pure(epsilon: float) -> Event:
    """Returns a mechanism of which nothing is known but its epsilon, with delta 0.

    Randomized response is the worst of them (Kairouz, Oh and Viswanath, 1311.0776).

    Example:
      >>> from fljax.privacy import accounting
      >>> f"{accounting.epsilon([(accounting.pure(0.1), 100)], delta=1e-5):.3f}"
      '4.307'
    """
    epsilon = checked("epsilon", epsilon, _EPSILON)
    return Event(
        f"pure({epsilon:g})",
        lambda orders: rdp.pure(orders, epsilon),
        lambda: pld.pure_pairs(epsilon),
    )


def laplace(noise_multiplier: float) -> Event:
    """Returns Laplace noise on a sum that one record moves by at most 1.

    Args:
      noise_multiplier: Scale of the noise over the sensitivity, so that epsilon is its inverse.

    Example:
      >>> from fljax.privacy import accounting
      >>> f"{accounting.epsilon(accounting.laplace(2.0), delta=1e-12):.3f}"
      '0.500'
    """
    noise = checked("noise_multiplier", noise_multiplier, _NOISE)
    return Event(
        f"laplace({noise:g})",
        lambda orders: rdp.laplace(orders, noise),
        (lambda: pld.laplace_pairs(noise)) if noise else _nothing_hidden,
    )


def zcdp(rho: float) -> Event:
    """Returns a mechanism of which nothing is known but its rho-zCDP (Bun, Steinke, 1605.02065).

    Example:
      >>> from fljax.privacy import accounting
      >>> f"{accounting.epsilon(accounting.zcdp(0.5), delta=1e-5, accountant='rdp'):.3f}"
      '4.729'
    """
    rho = checked("rho", rho, _EPSILON)
    return Event(f"zcdp({rho:g})", lambda orders: rho * orders)


def sampled(event: Event, sampling_rate: float) -> Event:
    """Returns any mechanism on a sample that each record joins by its own coin.

    Zhu and Wang, "Poisson subsampled Rényi differential privacy", ICML 2019, which holds for every
    mechanism. For Gaussian noise `poisson_gaussian` is much tighter.

    Args:
      event: The mechanism on the whole data.
      sampling_rate: Probability that a record takes part.

    Raises:
      ValueError: If the event has no Rényi divergences, or is one where a record is replaced.

    Example:
      >>> from fljax.privacy import accounting
      >>> run = [(accounting.sampled(accounting.gaussian(2.0), 0.01), 1000)]
      >>> f"{accounting.epsilon(run, delta=1e-5, accountant='rdp'):.2f}"
      '0.90'
    """
    rate = checked("sampling_rate", sampling_rate, _RATE)
    if event.rdp is None or event.relation == "replace_one":
        raise ValueError(
            f"event = {event.name} has no Rényi divergences for records that are added or removed, "
            "which Poisson sampling asks for. Use an event that has, such as gaussian."
        )
    return Event(
        f"sampled({event.name}, {rate:g})",
        lambda orders: np.minimum(rdp.sampled(orders, event.rdp, rate), event.rdp(orders)),
        None,
        "add_or_remove_one",
    )


def _nothing_hidden() -> tuple[pld.Pair, ...]:
    """Returns the pair of a release without noise: its loss is infinite."""

    def masses(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own, other = np.zeros(len(losses) + 1), np.zeros(len(losses) + 1)
        own[-1], other[0] = 1.0, 1.0
        return own, other

    return (pld.Pair(masses, lambda tail: (0.0, 1.0)),)


Run = Event | list[tuple[Event, int]]


def parts_of(events: Run) -> list[tuple[Event, int]]:
    """Returns the events of a run with how often each occurs; raises ValueError for unlike ones."""
    parts = [(events, 1)] if isinstance(events, Event) else list(events)
    for part in parts:
        pair = isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], Event)
        if not pair or not float(part[1]).is_integer() or part[1] < 0:
            raise ValueError(
                f"events has {shown(part)}; it must be an event, or a list of (event, how often)."
            )
    relations = {event.relation for event, times in parts if times} - {"any"}
    if len(relations) > 1:
        raise ValueError(
            f"events are counted for the relations {' and '.join(sorted(relations))}, whose "
            "epsilons do not add up. Use one way of sampling for all of them."
        )
    return [(event, int(times)) for event, times in parts if times]
