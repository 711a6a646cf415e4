"""Settings of an audit, as `get_audit()` of a config file gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fljax.config import ConfigError, call_in_file
from fljax.core.names import nearest
from fljax.core.values import COUNT, FACTOR, Field, Interval, checked, shown
from fljax.studies.study import parse_variants

# What attackers look at, and who they are: see `fljax.studies.audit.threats`.
VIEWS = ("model", "rounds", "updates", "sums")
# Fewer shadows make attacks look worse than they are.
FEW_SHADOWS = 12
UNITS = ("row", "client")
_UPDATE_ATTACKS = ("cosine", "lira(online=False, signal='cosine')", "lira(signal='cosine')")


class Audit(NamedTuple):
    """The settings of an audit.

    Attributes:
      defences: {name: {key: value}}: the configurations that are attacked, by what they change in
        that of the file. By default the file's alone.
      shadows: Federations that are trained for the attacks on membership, each without a half of
        the targets, and each attacked with the help of the others. Of fewer than twelve, attacks
        that know nothing are below chance, see `fljax.audits.membership.designs`.
      targets: Rows that are audited, or clients with all of their rows, a seeded sample; -1 for all
        that take part in training.
      unit: "row", or "client", whose rows are in and out together.
      design: How targets are left out: by "coins", one for each federation and target; or
        "balanced", each target in half of the federations, and half of each client's targets in
        each. An attack that knows nothing is then below chance, the more the fewer there are.
      population: Rows of the test split that the attackers know, at most.
      attacks: Attacks on membership, by name; see `fljax.audits.membership.names`. None for the
        usual ones, of those that the task offers signals for.
      update_attacks: Likewise, on single updates and on their sums.
      bound: The one of `attacks` by whose guesses epsilon is bounded from below: chosen beforehand,
        since the best of several would prove too much.
      views: What attackers look at: "model", the released one; "rounds", the models of several
        rounds; "updates", those of single clients; "sums", their sums.
      looks: Rounds that the last three of these look at.
      canaries: Runs in which a share of the clients are canaries, for mechanisms that hide clients;
        0 for none.
      canary_share: That share.
      secrets: Random texts that clients hold, of each number of copies, in a run of their own, for
        language models; 0 for none.
      reconstructed: Rows that are drawn again from what their clients send; 0 for none.
      inverted: Which attack draws them, by name; see `fljax.audits.reconstruction.settings`. None
        for one that suits images, or rows of numbers.
      seed: Of everything random in the audit. Federation m has the seed `seed + m`.

    Example:
      >>> Audit(shadows=8).views
      ('model', 'rounds', 'updates', 'sums')
    """

    defences: Mapping[str, Mapping[str, Any]] = {"as configured": {}}
    shadows: int = 16
    targets: int = -1
    unit: str = "row"
    design: str = "coins"
    population: int = 1000
    attacks: Sequence[str] | None = None
    update_attacks: Sequence[str] = _UPDATE_ATTACKS
    bound: str = "lira"
    views: Sequence[str] = VIEWS
    looks: int = 3
    canaries: int = 0
    canary_share: float = 0.5
    secrets: int = 0
    reconstructed: int = 4
    inverted: str | None = None
    seed: int = 0


_FIELDS = {
    # one is attacked, and the others must hold and lack each target
    "shadows": Field(16, int, Interval(5)),
    "design": Field("coins", str, ("coins", "balanced")),
    "targets": Field(-1, int, Interval(-1)),
    "unit": Field("row", str, UNITS),
    "population": Field(1000, int, Interval(0)),
    "looks": Field(3, int, COUNT),
    "canaries": Field(0, int, Interval(0)),
    "canary_share": Field(0.5, float, FACTOR),
    "secrets": Field(0, int, Interval(0)),
    "reconstructed": Field(4, int, Interval(0)),
    "inverted": Field(None, str, optional=True),
    "seed": Field(0, int, Interval(0, 2**31)),
}


def load_audit(path: str | os.PathLike) -> Audit:
    """Returns the settings that a config file names in `get_audit()`; the usual ones without it.

    Raises:
      ConfigError: If it returns something else.
    """
    found = call_in_file(path, "get_audit")
    if found is None:
        return Audit()
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{path} returns {shown(found)} as its audit; it must return a dict of settings, such "
            "as {'shadows': 16, 'defences': {'plain': {'privacy': None}}}."
        )
    return make_audit(found)


def make_audit(settings: Mapping[str, Any]) -> Audit:
    """Returns the settings of an audit, checked.

    Raises:
      ConfigError: For unknown names and values that cannot be.

    Example:
      >>> make_audit({"shadows": 8, "unit": "client"}).unit
      'client'
    """
    for name in settings:
        if name not in Audit._fields:
            near = nearest(name, Audit._fields)
            hint = f"did you mean {near!r}?" if near else f"they are {', '.join(Audit._fields)}."
            raise ConfigError(f"an audit has no setting {name!r}: {hint}")
    try:
        values = {
            name: checked(name, value, _FIELDS[name]) if name in _FIELDS else value
            for name, value in settings.items()
        }
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    audit = Audit(**values)
    _check_defences(audit.defences)
    for view in audit.views:
        if view not in VIEWS:
            raise ConfigError(f"views has {view!r}; choose among {', '.join(VIEWS)}.")
    return audit


def parse_defences(texts: Sequence[str], settings: Audit) -> dict[str, Mapping[str, Any]]:
    """Returns the defences that texts name, or describe: "NAME: KEY=VALUE, KEY=VALUE".

    Args:
      texts: Such as "protected", or "plain: privacy=None".
      settings: Whose defences can be called by name.

    Raises:
      ConfigError: If a text has another form, or names no defence.

    Example:
      >>> parse_defences(["plain: privacy=None"], Audit())
      {'plain': {'privacy': None}}
    """
    return parse_variants(texts, settings.defences)


def _check_defences(defences: Any) -> None:
    is_named = isinstance(defences, Mapping) and all(
        isinstance(name, str) and name and isinstance(values, Mapping)
        for name, values in defences.items()
    )
    if not is_named or not defences:
        raise ConfigError(
            f"defences = {shown(defences)}; it must be a dict of dicts, such as "
            "{'protected': {}, 'plain': {'privacy': None}}."
        )
