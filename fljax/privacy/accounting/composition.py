"""Composition: epsilon of a whole run, and of its first rounds.

Two accountants count the same events, and what both show is an upper bound. "rdp" adds Rényi
divergences: it takes microseconds, and is some tenths above the truth. "pld" convolves
distributions of privacy losses: it takes a fraction of a second, and is tight.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.privacy.accounting import pld, rdp
from fljax.privacy.accounting.checks import check_delta
from fljax.privacy.accounting.conversion import epsilon_of_rdp
from fljax.privacy.accounting.events import Event, Run, parts_of

__all__ = ["ACCOUNTANTS", "epsilon", "epsilons", "spending"]

ACCOUNTANTS = ("rdp", "pld")


def epsilon(events: Run, delta: float, accountant: str = "pld") -> float:
    """Returns epsilon of a run.

    Args:
      events: An event, or a list of (event, how often).
      delta: Probability of a failure, above 0 and below 1.
      accountant: "pld" or "rdp".

    Raises:
      ValueError: For events that this accountant has no theorem for, and for those of different
        relations.

    Example:
      >>> from fljax.privacy import accounting
      >>> run = [(accounting.poisson_gaussian(1.0, 0.1), 100), (accounting.gaussian(10.0), 1)]
      >>> f"{accounting.epsilon(run, delta=1e-5):.2f}"
      '7.06'
    """
    check_delta(delta)
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant = {accountant!r} is not one of {', '.join(ACCOUNTANTS)}.")
    parts = parts_of(events)
    missing = [event.name for event, _ in parts if not _known(event, accountant)]
    if missing:
        other = {"rdp": "pld", "pld": "rdp"}[accountant]
        raise ValueError(
            f"accountant = {accountant!r} has no theorem for {', '.join(missing)}. Use {other!r}."
        )
    if not parts:
        return 0.0
    return _epsilon_by_rdp(parts, delta) if accountant == "rdp" else _epsilon_by_pld(parts, delta)


def epsilons(events: Run, delta: float) -> dict[str, float]:
    """Returns {accountant: epsilon} of a run, of the accountants that have a theorem for it.

    Example:
      >>> from fljax.privacy import accounting
      >>> run = [(accounting.poisson_gaussian(1.0, 0.1), 100)]
      >>> {name: round(value, 2) for name, value in accounting.epsilons(run, 1e-5).items()}
      {'rdp': 7.9, 'pld': 7.05}
    """
    parts = parts_of(events)
    return {
        accountant: epsilon(parts, delta, accountant)
        for accountant in ACCOUNTANTS
        if all(_known(event, accountant) for event, _ in parts)
    }


def spending(events: Run, delta: float) -> Callable[..., dict[str, float]]:
    """Returns what tells epsilon of the first rounds of a run, each of which has the same events.

    What one round costs is computed once. After that "rdp" takes microseconds for any number of
    rounds, and "pld" some milliseconds.

    Args:
      events: Those of one round.
      delta: As `epsilon` takes it.

    Returns:
      (rounds, accountants=("rdp", "pld")) -> {accountant: epsilon}.

    Example:
      >>> from fljax.privacy import accounting
      >>> spent = accounting.spending(accounting.poisson_gaussian(1.0, 0.1), delta=1e-5)
      >>> round(spent(100, ["rdp"])["rdp"], 4), round(spent(0)["pld"], 4)
      (7.9039, 0.0)
    """
    check_delta(delta)
    parts = parts_of(events)
    known = [
        accountant
        for accountant in ACCOUNTANTS
        if all(_known(event, accountant) for event, _ in parts)
    ]
    divergences = _divergences(parts) if "rdp" in known else None

    def spent(rounds: int, accountants=ACCOUNTANTS) -> dict[str, float]:
        found = {}
        if "rdp" in known and "rdp" in accountants:
            found["rdp"] = epsilon_of_rdp(rounds * divergences, delta)[0] if rounds else 0.0
        if "pld" in known and "pld" in accountants:
            all_parts = [(event, times * rounds) for event, times in parts]
            found["pld"] = _epsilon_by_pld(all_parts, delta) if rounds else 0.0
        return found

    return spent


def _known(event: Event, accountant: str) -> bool:
    return (event.rdp if accountant == "rdp" else event.pairs) is not None


def _divergences(parts: list[tuple[Event, int]]) -> np.ndarray:
    return sum((times * event.rdp(rdp.ORDERS) for event, times in parts), np.zeros(len(rdp.ORDERS)))


def _epsilon_by_rdp(parts: list[tuple[Event, int]], delta: float) -> float:
    return epsilon_of_rdp(_divergences(parts), delta)[0]


def _epsilon_by_pld(parts: list[tuple[Event, int]], delta: float) -> float:
    """Returns the larger epsilon of both directions, each of which all events take alike."""
    pairs = [(event.pairs(), times) for event, times in parts]
    directions = max(len(both) for both, _ in pairs)
    found = []
    for direction in range(directions):
        directed = [(both[direction % len(both)], times) for both, times in pairs]
        largest = sum(pair.largest * times for pair, times in directed)
        found.append(min(largest, pld.epsilon_of_losses(pld.compose(directed), delta)))
    return max(found)
