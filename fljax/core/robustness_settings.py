"""The options of hostile clients, and of rules that aggregate in spite of them."""

from __future__ import annotations

from fljax.core.values import DECAY, Field, Interval

ROBUSTNESS: dict[str, Field] = {
    "aggregator": Field(
        "mean", str,
        meaning="Makes one update of those of a cohort: calls such as 'median' or 'bucketing(2), "
        "krum(5)', named in fljax.robustness.names.",
    ),
    "worker_momentum": Field(
        None, float, DECAY, optional=True,
        meaning="Lets clients send a momentum of their updates, which they keep from round to "
        "round: this factor times the last one, and one minus it times the update.",
    ),
    "worker_dampened": Field(
        True, bool,
        meaning="Multiplies the update by one minus worker_momentum before it joins that momentum.",
    ),
    "attacker_momentum": Field(
        True, bool, meaning="Lets hostile clients send momentum too, before their attack."
    ),
    "attack": Field(
        None, str, optional=True,
        meaning="Says what hostile clients do: calls such as 'label_flip' or 'pixel_trigger(0), "
        "scaling(10)', named in fljax.robustness.names; unset: all are honest.",
    ),
    "attackers": Field(
        None, float, Interval(0, 1), optional=True,
        meaning="Makes this share of the clients hostile, chosen by the seed; 0: nobody, beside "
        "other shares of a study.",
    ),
    "attacker_clients": Field(
        None, str, optional=True,
        meaning="Names hostile clients by their numbers instead, such as '3, 20-24'.",
    ),
    "attackers_drawn": Field(
        "once", str, ("once", "each_round"),
        meaning="Makes the same clients hostile in all rounds, or such a share of each cohort.",
    ),
    "attack_rounds": Field(
        None, str, optional=True, unit="rounds",
        meaning="Lets hostile clients attack in one round or a range of them, such as '100', "
        "'10-50' or '10-'; unset: in all.",
    ),
}  # fmt: skip
