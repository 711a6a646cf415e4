"""Makes the mechanisms and the secure aggregation that texts in a configuration name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fljax.core import parts
from fljax.core.transforms import UplinkLink
from fljax.core.values import shown
from fljax.privacy.adaptive import adaptive_clipping
from fljax.privacy.banded import banded_matrix
from fljax.privacy.distributed import discrete_gaussian, skellam
from fljax.privacy.dpsgd import dpsgd
from fljax.privacy.gaussian import gaussian
from fljax.privacy.local import local_gaussian
from fljax.privacy.mechanism import Mechanism
from fljax.privacy.privunit import privunit
from fljax.privacy.randomized_sign import randomized_sign
from fljax.privacy.secagg.link import secure_aggregation
from fljax.privacy.trees import tree_aggregation

__all__ = ["MECHANISMS", "SECURE_AGGREGATION", "make", "make_secure_aggregation"]

# What `privacy` may name: functions that return a Mechanism.
MECHANISMS: dict[str, Callable[..., Mechanism]] = {
    "gaussian": gaussian,
    "adaptive_clipping": adaptive_clipping,
    "tree_aggregation": tree_aggregation,
    "banded_matrix": banded_matrix,
    "dpsgd": dpsgd,
    "local_gaussian": local_gaussian,
    "privunit": privunit,
    "randomized_sign": randomized_sign,
    "discrete_gaussian": discrete_gaussian,
    "skellam": skellam,
}
# What `secure_aggregation` may name: functions that return the last link of the uplink.
SECURE_AGGREGATION: dict[str, Callable[..., UplinkLink]] = {
    "secure_aggregation": secure_aggregation,
}

# Where calibration starts from.
_ANY_NOISE = 1.0


def make(
    text: str, given: Mapping[str, Any], *, calibrated: bool = False
) -> tuple[Mechanism, bool]:
    """Returns the mechanism that a text names, and whether its noise is still to be found.

    Args:
      text: A name of `MECHANISMS`, a call of one, or "module:function" of the user's own, which
        returns a Mechanism.
      given: {parameter: value} of the options that are set beside the text.
      calibrated: Whether a noise multiplier that nobody sets is found later.

    Raises:
      ValueError: For unknown names or arguments, those that are missing or refused, and where a
        function of the user's own returns something else.

    Example:
      >>> from fljax.privacy import names
      >>> mechanism, _ = names.make("gaussian(0.3)", {"noise_multiplier": 2.0, "delta": 1e-5})
      >>> mechanism.name, mechanism.hparams["clip_norm"]
      ('gaussian', 0.3)
    """
    call = parts.read_one("privacy", text, MECHANISMS)
    named = {parameter.name for parameter in parts.parameters_of(call.function)}
    is_open = (
        calibrated
        and "noise_multiplier" in named
        and "noise_multiplier" not in {**parts.written(call), **given}
    )
    if is_open:
        given = {**given, "noise_multiplier": _ANY_NOISE}
    mechanism = parts.make(call, given=given)
    if not isinstance(mechanism, Mechanism):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(mechanism)} ({type(mechanism).__name__}), "
            "and a mechanism is a fljax.privacy.Mechanism."
        )
    return mechanism, is_open


def without_numbers(text: str, traced: Collection[str]) -> str:
    """Returns a text's call without the numbers that a program takes as arguments.

    Args:
      text: As for `make`.
      traced: Names of those numbers.
    """
    call = parts.read_one("privacy", text, MECHANISMS)
    arguments = parts.arguments_of(call)
    kept = {name: value for name, value in arguments.items() if name not in traced}
    return repr((call.name, sorted(kept.items())))


def make_secure_aggregation(text: str, offered: Mapping[str, Any]) -> UplinkLink:
    """Returns the link that a text names.

    Args:
      text: A name of `SECURE_AGGREGATION`, a call of one, or "module:function" of the user's own.
      offered: {parameter: value} of what the run knows, passed where the function names it; None
        for a largest weight that nobody knows before the run.

    Raises:
      ValueError: For unknown names or arguments, for a largest weight that must be written and is
        not, and where a function returns something else.
    """
    call = parts.read_one("secure_aggregation", text, SECURE_AGGREGATION)
    named = {parameter.name for parameter in parts.parameters_of(call.function)}
    if (
        "max_weight" in named - parts.written(call, offered).keys()
        and offered["max_weight"] is None
    ):
        raise ValueError(
            f"{call.where}: the weights of clients follow from what the algorithm makes of their "
            "data, so that their bound is not known before the run, and larger ones would be cut "
            "off. Write it, as in secure_aggregation(max_weight=10.0); train/capped_share shows "
            "whether it is large enough."
        )
    offered = {name: value for name, value in offered.items() if value is not None}
    link = parts.make(call, offered=offered)
    if not isinstance(link, UplinkLink):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(link)} ({type(link).__name__}), and secure "
            "aggregation is a fljax.core.transforms.UplinkLink."
        )
    return link
