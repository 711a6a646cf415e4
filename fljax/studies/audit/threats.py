"""The threat model: who sees what of a federation, and which attacks stand for whom."""

from __future__ import annotations

from typing import NamedTuple

from fljax.core.parts import name_of
from fljax.privacy.protection import Protection
from fljax.training.options import RoundOptions

# Mechanisms by where their noise is added.
_IN_GRADIENTS = ("dpsgd",)
_AT_CLIENTS = ("local_gaussian", "privunit", "randomized_sign")
SHARED_OUT = ("discrete_gaussian", "skellam")


class Party(NamedTuple):
    """Somebody who may be curious.

    Attributes:
      name: Who it is.
      sees: What it sees, in the configuration.
      hidden: What keeps the rest from it.
      view: Which view of an audit stands for it; see `fljax.studies.audit.settings`.
    """

    name: str
    sees: str
    hidden: str
    view: str


def threat_model(options: RoundOptions) -> list[Party]:
    """Returns who sees what of a run with these options.

    Args:
      options: With what protects the clients drawn.

    Example:
      >>> options = RoundOptions(num_rounds=5, clients_per_round=10)
      >>> [(party.name, party.view) for party in threat_model(options)]
      [('outsider', 'model'), ('client', 'rounds'), ('server', 'updates')]
    """
    noise, sent = _noise(options), _noise_before_server(options)
    outsider = Party("outsider", "the model of the last round", noise or "nothing", "model")
    client = Party(
        "client",
        "its own rows, and the model of each round in which it takes part",
        noise or "nothing",
        "rounds",
    )
    if _is_secure(options):
        sees = "the sum of each round's updates, who took part, and every model"
        hidden = "secure aggregation hides single updates"
        hidden += f"; {sent}" if sent else ""
        return [outsider, client, Party("server", sees, hidden, "sums")]
    sees = "the update of each client in each of its rounds, and every model"
    server = Party("server", sees, sent or "nothing", "updates")
    return [outsider, client, server]


def not_claimed(options: RoundOptions) -> list[str]:
    """Returns sentences on what an audit of such a run does not say.

    Example:
      >>> len(not_claimed(RoundOptions(num_rounds=5, clients_per_round=10)))
      5
    """
    said = [
        "Attacks show what leaks at least. That one of them fails does not show that all would.",
        "A lower bound of epsilon holds with the confidence that stands beside it, for the rows "
        "that were audited and the attackers described here.",
        "The federation is simulated: nothing is said of the software, the network or the keys of "
        "a deployment, nor of parties who break the protocol.",
        "This page is no statement of compliance with any law or standard, and no legal advice.",
    ]
    if _is_secure(options):
        said.append(
            "Secure aggregation is honest here: parties who collude learn the sums of those who do "
            "not, which the views above do not cover."
        )
    if not _noise(options):
        said.append("Nothing bounds what the model keeps of a row: there is no epsilon.")
    return said


def _is_secure(options: RoundOptions) -> bool:
    if _mechanism_name(options) in SHARED_OUT:  # it is part of these
        return True
    privacy = options.privacy
    if isinstance(privacy, Protection):
        return privacy.secure_aggregation is not None
    return options.secure_aggregation is not None


def _mechanism_name(options: RoundOptions) -> str:
    """Returns the mechanism's name; "" where there is none."""
    privacy = options.privacy
    if isinstance(privacy, Protection):
        privacy = privacy.mechanism
    if privacy is None:
        return ""
    return name_of(privacy) if isinstance(privacy, str) else privacy.name


def _noise(options: RoundOptions) -> str:
    """Says what noise lies over released models; "" where there is none."""
    name = _mechanism_name(options)
    if name in _IN_GRADIENTS:
        return f"clipped gradients of rows, with noise ({name})"
    return f"clipped updates of clients, with noise ({name})" if name else ""


def _noise_before_server(options: RoundOptions) -> str:
    """Says what noise lies over what a server sees; "" where it adds all of it by itself."""
    name = _mechanism_name(options)
    if name in _IN_GRADIENTS:
        return f"clipped gradients of rows, with noise ({name})"
    if name in _AT_CLIENTS:
        return f"noise that clients add to their updates ({name})"
    if name in SHARED_OUT:
        return f"noise that clients have shared out among them ({name})"
    return ""
