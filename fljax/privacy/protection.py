"""The protection of a run: its mechanism, with the numbers that count, and what it promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from fljax.core.transforms import Pipeline, PipelineSpec, UplinkLink, hparams_of, pipeline_at
from fljax.privacy.accounting import last_kept, smallest_noise
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting

__all__ = ["Protection", "calibrated", "protected", "rounds_within", "smallest"]

NOISE, CLIP_NORM = "noise_multiplier", "clip_norm"
# Digits of noise multipliers that are found, and rounded up.
_DIGITS = 4


class Protection(NamedTuple):
    """The protection of the clients of a run.

    Attributes:
      mechanism: The mechanism of privacy; None where there is secure aggregation alone.
      setting: The facts of the run.
      secure_aggregation: The last link of the uplink, or None.
      target_epsilon: The budget, or None.
      is_calibrated: Whether the noise was found for the budget.
      unit: Name of the hyperparameter that is the unit of what secure aggregation sums, such as
        "clip_norm": a sweep over it is one program then. None for numbers as they are.
      fixed_norm: Bound of what secure aggregation sums where that is no hyperparameter; trials that
        share a program share it. None where there is no such bound.
    """

    mechanism: Mechanism | None
    setting: Setting
    secure_aggregation: UplinkLink | None = None
    target_epsilon: float | None = None
    is_calibrated: bool = False
    unit: str | None = None
    fixed_norm: float | None = None

    def guarantee(self, hparams: Mapping[str, float]) -> Guarantee | None:
        """Returns what a run of these hyperparameters promises; None without a mechanism."""
        if self.mechanism is None:
            return None
        own = {name: float(hparams[name]) for name in self.mechanism.hparams}
        return self.mechanism.guarantee(own, self.setting)


def protected(pipeline: Pipeline | PipelineSpec, protection: Protection) -> Pipeline | PipelineSpec:
    """Returns a pipeline between the link of the mechanism and that of secure aggregation.

    Links of what clients make of their updates before they protect them stand first.

    The mechanism's hyperparameters join those of the pipeline, and are traced as they are.
    """
    mechanism, secure = protection.mechanism, protection.secure_aggregation

    def build(hparams: Mapping[str, Any]) -> Pipeline:
        inner, first = pipeline_at(pipeline, hparams), ()
        last = () if secure is None else (secure,)
        if protection.unit is not None:
            last = (in_units(secure, hparams[protection.unit]),)
        if mechanism is not None and mechanism.link is not None:
            own = {name: hparams[name] for name in mechanism.hparams}
            first = (mechanism.link(own, protection.setting),)
        before = tuple(link for link in inner.uplink if link.precedes)
        behind = tuple(link for link in inner.uplink if not link.precedes)
        return inner._replace(uplink=(*before, *first, *behind, *last))

    own = {} if mechanism is None else mechanism.hparams
    given = hparams_of(pipeline)
    if both := sorted(own.keys() & given.keys()):
        raise ValueError(
            f"The mechanism {mechanism.name} and the pipeline both have a hyperparameter "
            f"{both[0]!r}. Rename that of the pipeline."
        )
    numbers = {**given, **own}
    return PipelineSpec(build, numbers) if numbers else build({})


def in_units(link: UplinkLink, unit: Any) -> UplinkLink:
    """Returns a link of whole messages that measures them in a unit, which may be traced.

    Args:
      link: One that decodes sums.
      unit: A number above 0.

    Example:
      >>> from fljax.core.algorithm import Aggregate
      >>> link = UplinkLink(
      ...     lambda message, *rest: (jax.tree.map(jnp.round, message), ()),
      ...     lambda payload, state: payload,
      ...     decode_sum=lambda sums, state, agreed, arrived: sums,
      ... )
      >>> halves = in_units(link, 0.5)
      >>> payload, _ = halves.encode({"update": jnp.array([1.4])}, ())
      >>> total = {"update": Aggregate(payload["update"], jnp.ones(()), jnp.ones(()))}
      >>> halves.decode_sum(total, (), None, None)["update"].sum.tolist()
      [1.5]
    """

    def encode(message, *rest):
        return link.encode(jax.tree.map(lambda leaf: leaf / unit, message), *rest)

    def decode_sum(sums, *rest):
        decoded = link.decode_sum(sums, *rest)
        return {
            name: total._replace(sum=jax.tree.map(lambda leaf: leaf * unit, total.sum))
            for name, total in decoded.items()
        }

    return link._replace(encode=encode, decode_sum=decode_sum)


def smallest(epsilons: Mapping[str, float]) -> float:
    """Returns the smallest epsilon that an accountant shows, each being an upper bound.

    Example:
      >>> smallest({"rdp": 3.1, "pld": 2.6})
      2.6
    """
    return min(epsilons.values())


def quickly(guarantee: Guarantee, rounds: int) -> float:
    """Returns epsilon after some rounds by the accountant that takes microseconds."""
    if not rounds:
        return 0.0
    if guarantee.quick is not None:
        return float(guarantee.quick(rounds))
    return smallest(guarantee.epsilon(rounds))


def calibrated(mechanism: Mechanism, setting: Setting, target_epsilon: float) -> Mechanism:
    """Returns the mechanism with the smallest noise that keeps to a budget in all rounds.

    Args:
      mechanism: With the hyperparameter "noise_multiplier", whose value says nothing.
      setting: The facts of the run.
      target_epsilon: Of the best accountant there is.

    Returns:
      The mechanism with a noise multiplier of four digits, rounded up.

    Raises:
      ValueError: If no noise does, or as `mechanism.guarantee` does.
    """

    rounds = setting.num_rounds

    def promised(noise: float) -> Guarantee:
        return mechanism.guarantee({**mechanism.hparams, NOISE: noise}, setting)

    # what the quick accountant finds bounds what the best one finds
    noise = smallest_noise(target_epsilon, lambda noise: quickly(promised(noise), rounds))
    noise = smallest_noise(
        target_epsilon, lambda noise: smallest(promised(noise).epsilon(rounds)), start=noise
    )
    return mechanism._replace(hparams={**mechanism.hparams, NOISE: _rounded_up(noise)})


def _rounded_up(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.{_DIGITS}g}")


def rounds_within(guarantee: Guarantee, target_epsilon: float, num_rounds: int) -> int:
    """Returns how many rounds, of at most `num_rounds`, keep to a budget.

    Example:
      >>> spends = lambda rounds: {"rdp": rounds / 4}
      >>> promise = Guarantee("user", "", "", 1.0, 1.0, 1e-5, "", spends)
      >>> rounds_within(promise, 2.0, 100)
      8
    """

    def keeps(rounds: int) -> bool:
        return smallest(guarantee.epsilon(rounds)) <= target_epsilon

    return num_rounds if keeps(num_rounds) else last_kept(keeps, 0, num_rounds)
