"""Makes queries private: the clip norm that they need, refusals, and the noise in answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from fljax.analytics.query import Query
from fljax.core import parts
from fljax.core.settings import PRIVACY
from fljax.core.transforms import UplinkLink, as_configured
from fljax.privacy import names
from fljax.privacy.mechanism import Mechanism
from fljax.privacy.protection import CLIP_NORM, NOISE, Protection
from fljax.training.options import RoundOptions
from fljax.training.privacy_records import ledger_of

# Mechanisms whose noise in a sum has a known deviation of z C, once a round, or once a message.
_A_ROUND = ("gaussian", "discrete_gaussian", "skellam")
_A_MESSAGE = ("local_gaussian",)
_NOT_COVERED = (
    "how many rows there are, and how many do not count: the simulator's own view",
    "other queries of the same clients: epsilons and deltas add up",
    "answers of other seeds: each spends epsilon and delta anew",
)


def drawn_privacy(
    query: Query, options: Mapping[str, Any]
) -> tuple[Mechanism | None, dict[str, Any]]:
    """Returns (the mechanism as far as it is known, options with what the query needs in them).

    A clip norm that nobody sets is the query's sensitivity, and the unit of a secure sum is that of
    its messages: 1, where they are whole numbers, so that nothing is rounded.

    Args:
      query: The query.
      options: Those of `RoundOptions` that are given.

    Raises:
      ValueError: For a query whose messages have no bound, or that is private by itself, and a
        mechanism that is none of sums.
    """
    given, text = dict(options), options.get("privacy")
    if text is None:
        if given.get("secure_aggregation") is not None:
            given["secure_aggregation"] = _secure_sums(query, given["secure_aggregation"])
        return None, given
    if query.promise is not None:
        raise ValueError(
            f"{query.name} is private by how it is put, with epsilon = {query.promise.epsilon:.3g} "
            f"and delta = {query.promise.delta:.2g}. Leave out privacy."
        )
    if math.isinf(query.sensitivity):
        raise ValueError(
            f"{query.name} under differential privacy: what one client sends has no bound, so no "
            f"noise hides it. Give {query.bounds}."
        )
    if not isinstance(text, str):
        return text, given
    call = parts.read_one("privacy", text, names.MECHANISMS)
    takes = {parameter.name for parameter in parts.parameters_of(call.function)}
    if CLIP_NORM in takes - parts.written(call).keys() and given.get(CLIP_NORM) is None:
        given[CLIP_NORM] = query.sensitivity * _room(query, given.get("secure_aggregation"))
    numbers = {
        name: given[name] for name in PRIVACY if name in takes and given.get(name) is not None
    }
    mechanism, _ = names.make(text, numbers, calibrated=given.get("target_epsilon") is not None)
    return mechanism, given


def _room(query: Query, secure: str | UplinkLink | None) -> float:
    """Returns the factor of a clip norm that leaves room for secure sums to round messages."""
    if not isinstance(secure, str):
        return 1.0
    call = parts.read_one("secure_aggregation", secure, names.SECURE_AGGREGATION)
    bits = parts.arguments_of(call).get("bits")
    if bits is None:
        return 1.0
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(query.message))
    return (1 + 1e-4) / max(0.5, 1 - math.sqrt(numbers) / (2 ** (bits - 1) - 1))


def _secure_sums(query: Query, secure: str | UplinkLink) -> UplinkLink:
    """Returns the link of secure sums, in the unit of a query's messages."""
    if not isinstance(secure, str):
        return secure
    call = parts.read_one("secure_aggregation", secure, names.SECURE_AGGREGATION)
    arguments = parts.arguments_of(call)
    offered: dict[str, Any] = {"max_weight": 1.0}
    if "clip" not in parts.written(call, offered) and "bits" in arguments:
        if query.whole:
            offered["clip"] = float(2 ** (arguments["bits"] - 1) - 1)
        elif math.isfinite(query.largest):
            offered["clip"] = query.largest
        else:
            raise ValueError(
                f"{call.where}: numbers that clients send to {query.name} have no bound, and what "
                f"is larger than the clip of a secure sum is cut off. Give {query.bounds}, or clip."
            )
    return names.make_secure_aggregation(secure, offered)


def check_protected(query: Query, options: RoundOptions) -> None:
    """Refuses a mechanism that cuts messages off, or whose budget ends before the last question.

    Args:
      query: The query.
      options: With what protects the clients drawn.

    Raises:
      ValueError: With the reason and the remedy.
    """
    protection = options.privacy
    if not isinstance(protection, Protection) or protection.mechanism is None:
        return
    mechanism = protection.mechanism
    guarantee = protection.guarantee(mechanism.hparams)
    if mechanism.link is None or guarantee.clip_norm is None:
        raise ValueError(
            f"privacy = {mechanism.name} clips no messages to a fixed norm, and a query has "
            "nothing else. Use gaussian, local_gaussian, discrete_gaussian or skellam."
        )
    norm = guarantee.clip_norm
    if norm < query.sensitivity * (1 - 1e-6):
        raise ValueError(
            f"clip_norm = {norm:g} would cut off messages of {query.name}, whose norm is up to "
            f"{query.sensitivity:.6g}, and bend its answer. Leave clip_norm out, or let clients "
            "count for less."
        )
    ledger = ledger_of(options, mechanism.hparams)
    if ledger.last_round(options.num_rounds) < options.num_rounds:
        raise ValueError(
            f"{query.name} needs {options.num_rounds} rounds, and {ledger.why_over()} after "
            f"{ledger.last_round(options.num_rounds)}. Leave {NOISE} unset, so that it is found, "
            "or ask fewer questions."
        )


def noise_of(
    query: Query, options: RoundOptions, given: Mapping[str, Any], cohorts: int, messages: float
) -> float | None:
    """Returns the standard deviation of the noise in each number of a total; None if unknown.

    What secure sums round at random is noise, too, of at most half a step a message.

    Args:
      query: The query.
      options: With what protects the clients drawn.
      given: As the caller gave them.
      cohorts: Rounds of a question.
      messages: Of a question.
    """
    if given.get("pipeline") is not None and as_configured(given["pipeline"]).uplink:
        return None
    protection = options.privacy
    mechanism = protection.mechanism if isinstance(protection, Protection) else None
    step = _step_of(given.get("secure_aggregation"), query, mechanism)
    if step is None:
        return None
    squares = messages * step**2 / 4
    if mechanism is not None:
        times = {
            **dict.fromkeys(_A_ROUND, cohorts),
            **dict.fromkeys(_A_MESSAGE, messages),
        }.get(mechanism.name)
        if times is None:
            return None
        squares += times * (mechanism.hparams[NOISE] * mechanism.hparams[CLIP_NORM]) ** 2
    return math.sqrt(squares)


def _step_of(secure: Any, query: Query, mechanism: Mechanism | None) -> float | None:
    """Returns the distance of numbers that secure sums tell apart, 0 where nothing is rounded.

    Of a link of one's own nobody knows it: None.
    """
    if secure is None:
        return 0.0
    if not isinstance(secure, str):
        return None
    call = parts.read_one("secure_aggregation", secure, names.SECURE_AGGREGATION)
    arguments = parts.arguments_of(call)
    if "bits" not in arguments:
        return None
    clip = parts.written(call).get("clip")
    if clip is None and query.whole and mechanism is None:
        return 0.0
    if clip is None:
        clip = query.largest if mechanism is None else mechanism.hparams[CLIP_NORM]
    return clip / (2 ** (arguments["bits"] - 1) - 1)


def told_privacy(
    query: Query, options: RoundOptions, numbers: Mapping[str, float]
) -> dict[str, Any] | None:
    """Returns what a reply says of privacy, None of one that promises nothing.

    Args:
      query: The query.
      options: With what protects the clients drawn.
      numbers: The hyperparameters.
    """
    if (promise := query.promise) is not None:
        return {
            "mechanism": query.name, "epsilon": {"published": promise.epsilon},
            "delta": promise.delta, "unit": "user", "covers": promise.covers,
            "not_covered": list(_NOT_COVERED),
        }  # fmt: skip
    ledger = ledger_of(options, numbers)
    if ledger is None:
        return None
    told = ledger.summary(options.num_rounds)
    told["mechanism"] = options.privacy.mechanism.name
    told["not_covered"] = list(_NOT_COVERED)
    return told
