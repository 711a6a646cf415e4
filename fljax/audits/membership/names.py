"""Names of attacks on membership, as texts have them."""

from __future__ import annotations

from collections.abc import Callable

from fljax.audits.membership.lira import lira
from fljax.audits.membership.observed import MembershipAttack
from fljax.audits.membership.rmia import rmia
from fljax.audits.membership.sequences import loss_trend
from fljax.audits.membership.signals import SIGNALS
from fljax.audits.membership.thresholds import cosine, entropy, loss, modified_entropy
from fljax.core import parts
from fljax.core.values import shown

__all__ = ["ATTACKS", "make_membership"]

# name -> function (literals) -> MembershipAttack
ATTACKS: dict[str, Callable[..., MembershipAttack]] = {
    "loss": loss,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
    "lira": lira,
    "rmia": rmia,
    "loss_trend": loss_trend,
    "cosine": cosine,
}


def make_membership(text: str) -> MembershipAttack:
    """Returns an attack by name.

    Args:
      text: One of `ATTACKS`, a call of one, or "module:function" of your own, which returns a
        `MembershipAttack`.

    Raises:
      ValueError: For an unknown name or argument, or where a function of your own returns something
        else.

    Example:
      >>> make_membership("lira(online=False, variance='global')").needs
      ('out',)
    """
    call = parts.read_one("membership", text, ATTACKS)
    attack = parts.make(call)
    if not isinstance(attack, MembershipAttack):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(attack)} ({type(attack).__name__}), and an "
            "attack is a fljax.audits.membership.observed.MembershipAttack."
        )
    if attack.signal not in SIGNALS:
        raise ValueError(
            f"{call.where}: {call.name} reads the signal {attack.signal!r}, which is not one of "
            f"{', '.join(SIGNALS)}."
        )
    return attack
