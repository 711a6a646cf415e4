"""Says what a private run has spent and promises: in each record, in its summary, as a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import figures
from fljax.privacy.mechanism import Guarantee
from fljax.privacy.protection import Protection, quickly, rounds_within, smallest
from fljax.training.options import RoundOptions

# Keys of the record, of all rounds so far: by the quick accountant, and of the last round by PLD.
PLD = "pld"
EPSILON, EPSILON_PLD = "privacy/epsilon", f"privacy/epsilon_{PLD}"
# Clients that a summary lists one by one.
_MOST_LISTED = 100
# What a record holds, and nobody but the simulator sees.
NOT_COVERED = (
    "statistics of training (train/*, drift/*, client_metrics.npz, hooks): the simulator's own "
    "view, which a deployment would not have",
    "evaluations on rows of the clients that train (eval/val/*), and whatever is chosen by them: "
    "the best round, patience, hyperparameters",
    "baselines, which train without privacy",
)
# What choosing among several private runs adds to that.
OF_CHOICES = (
    "the choice of the best of several, which all have spent theirs on the same clients, nor the "
    "release of several of one seed, whose noise is the same"
)


class Ledger(NamedTuple):
    """The account of one trial: what its rounds spend.

    Attributes:
      guarantee: What the mechanism promises.
      target_epsilon: The budget, or None.
      is_calibrated: Whether the noise was found for the budget.
    """

    guarantee: Guarantee
    target_epsilon: float | None
    is_calibrated: bool

    def record(self, rounds: int, *, is_last: bool = False) -> dict[str, float]:
        """Returns what joins the record after so many rounds; of the last one, by PLD as well."""
        found = {EPSILON: quickly(self.guarantee, rounds)}
        if is_last and PLD in (spent := self.guarantee.epsilon(rounds)):
            found[EPSILON_PLD] = spent[PLD]
        return found

    def last_round(self, num_rounds: int) -> int:
        """Returns the round that a run of at most `num_rounds` ends with."""
        if self.target_epsilon is None or self.is_calibrated:
            return num_rounds
        return rounds_within(self.guarantee, self.target_epsilon, num_rounds)

    def why_over(self) -> str:
        """Returns why a run ends at its `last_round`."""
        return f"another round would spend more than target_epsilon = {self.target_epsilon:g}"

    def summary(self, rounds: int, client_ids: Sequence[Any] | None = None) -> dict[str, Any]:
        """Returns the part "privacy" of the summary.

        Args:
          rounds: How many there were.
          client_ids: Of the clients; None numbers them.
        """
        guarantee = self.guarantee
        spent = guarantee.epsilon(rounds) if rounds else {"rdp": 0.0}
        return {
            "epsilon": spent,
            "delta": guarantee.delta,
            "noise_multiplier": guarantee.noise_multiplier,
            "clip_norm": guarantee.clip_norm,
            "unit": guarantee.unit,
            "relation": guarantee.relation,
            "sampling": guarantee.sampling,
            "covers": guarantee.covers,
            "not_covered": list(NOT_COVERED),
            "target_epsilon": self.target_epsilon,
            **_of_clients(guarantee, rounds, client_ids),
        }


def _of_clients(
    guarantee: Guarantee, rounds: int, client_ids: Sequence[Any] | None
) -> dict[str, Any]:
    """Returns what is said of each client's own epsilon, or, of many clients, of their spread."""
    if guarantee.by_client is None:
        return {}
    values = np.asarray(guarantee.by_client(rounds), np.float64)
    if len(values) > _MOST_LISTED:
        spread = zip(("min", "median", "max"), np.quantile(values, (0, 0.5, 1)), strict=True)
        return {"epsilon_of_clients": dict(spread)}
    names = range(len(values)) if client_ids is None else np.asarray(client_ids).tolist()
    return {"epsilon_by_client": dict(zip(map(str, names), values.tolist(), strict=True))}


def ledger_of(
    options: RoundOptions, hparams: Mapping[str, float], facts: Mapping[str, Any] | None = None
) -> Ledger | None:
    """Returns the account of a trial; None where nothing is private.

    Args:
      options: Of its rounds, with what protects the clients drawn.
      hparams: Its hyperparameters.
      facts: Of its setting, where it is not the one that the options were drawn for.
    """
    protection = options.privacy
    if not isinstance(protection, Protection) or protection.mechanism is None:
        return None
    setting = protection.setting._replace(**(facts or {}))
    promised = protection._replace(setting=setting).guarantee(hparams)
    return Ledger(promised, protection.target_epsilon, protection.is_calibrated)


def named_protection(options: RoundOptions) -> dict[str, Any]:
    """Returns {option: what protects the clients}, as JSON values; a resumed run must keep them."""
    protection = options.privacy
    if not isinstance(protection, Protection):
        return {}
    found: dict[str, Any] = {}
    if protection.secure_aggregation is not None:
        found["secure_aggregation"] = True
    if (mechanism := protection.mechanism) is not None:
        delta = protection.guarantee(mechanism.hparams).delta
        found |= {"privacy": mechanism.name, "delta": delta}
        if mechanism.fixed_rounds:
            found["num_rounds of privacy"] = protection.setting.num_rounds
    return found


def described(ledger: Ledger, num_rounds: int) -> list[tuple[str, str]]:
    """Returns (what, text) of all that a run of so many rounds promises."""
    guarantee, last = ledger.guarantee, ledger.last_round(num_rounds)
    spent = guarantee.epsilon(last)
    rows = [
        ("privacy", f"of single {guarantee.unit}s: {guarantee.covers}"),
        ("sampling", guarantee.sampling),
        ("neighbours", _in_words(guarantee.relation)),
        ("noise", _noise(guarantee)),
        (
            "epsilon",
            ", ".join(f"{_number(value)} ({name.upper()})" for name, value in spent.items())
            + f" at delta = {guarantee.delta:g} after {last:,} rounds",
        ),
    ]
    if ledger.target_epsilon is not None:
        how = f"kept in all {last:,} rounds"
        if ledger.is_calibrated:
            how = "the noise was chosen for it"
        elif last < num_rounds:
            how = f"the run ends after {last:,} of {num_rounds:,} rounds"
        rows.append(("budget", f"epsilon = {ledger.target_epsilon:g}, {how}"))
    return rows + [("not covered", text) for text in NOT_COVERED]


def in_a_line(ledger: Ledger, num_rounds: int) -> str:
    """Returns what is said of a private run as it starts."""
    last = ledger.last_round(num_rounds)
    spent = _number(smallest(ledger.guarantee.epsilon(last)))
    return (
        f"privacy of single {ledger.guarantee.unit}s: epsilon {spent} at delta = "
        f"{ledger.guarantee.delta:g} after {last:,} rounds"
    )


def _in_words(relation: str) -> str:
    return {
        "add_or_remove_one": "data sets with and without one of them",
        "replace_one": "data sets that differ in one of them",
        "replace_special": "data sets in which one of them is zero, or is not",
    }.get(relation, relation)


def _noise(guarantee: Guarantee) -> str:
    if guarantee.noise_multiplier is None:
        return "said above"
    clip = "" if guarantee.clip_norm is None else f", clipping norm {guarantee.clip_norm:g}"
    return f"multiplier {guarantee.noise_multiplier:g}{clip}"


def _number(epsilon: float) -> str:
    return figures(epsilon) if math.isfinite(epsilon) else "infinite: there is no noise"
