"""Judges attacks on membership: each federation is attacked with the help of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fljax.audits.membership.curves import Judgement, judge_models, judge_subsets, plain, roc
from fljax.audits.membership.names import make_membership
from fljax.audits.membership.observed import MembershipAttack
from fljax.audits.membership.signals import offered
from fljax.audits.membership.turns import in_turn
from fljax.audits.membership.users import scores_of_users
from fljax.core.task import Task
from fljax.studies.audit.evidence import OF_UPDATES, Evidence, Targets
from fljax.studies.audit.settings import Audit
from fljax.studies.audit.statements import has_logits

_USUAL = ("loss", "modified_entropy", "lira(online=False)", "lira", "rmia")
# Where curves are drawn: false positive rates.
_DRAWN = np.concatenate([[0.0], np.logspace(-3, 0, 61)])
# Subsets that are told apart, at most.
_MOST_SUBSETS = 50


class Attacks(NamedTuple):
    """Attacks by the views that they are for.

    Attributes:
      on_models: {name: attack}.
      on_updates: Likewise.
    """

    on_models: Mapping[str, MembershipAttack]
    on_updates: Mapping[str, MembershipAttack]

    def of(self, view: str) -> Mapping[str, MembershipAttack]:
        """Returns those of a view."""
        return self.on_updates if view in OF_UPDATES else self.on_models

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals of models that they read."""
        return tuple(dict.fromkeys(attack.signal for attack in self.on_models.values()))


def make_attacks(settings: Audit, task: Task) -> Attacks:
    """Returns the attacks of an audit; the usual ones that a task does not offer are left out.

    Raises:
      ValueError: For unknown ones, those that read what the task does not offer, and for a bound by
        an attack that is not among them.
    """
    given = settings.attacks
    on_models = {text: make_membership(text) for text in (_USUAL if given is None else given)}
    # without logits a task tells what losses tell, whatever its kind is
    known = offered(task.kind if has_logits(task) else "")
    if given is None:
        on_models = {text: attack for text, attack in on_models.items() if attack.signal in known}
    for text, attack in on_models.items():
        if attack.signal not in known:
            raise ValueError(
                f"attacks has {text!r}, which reads {attack.signal!r}, and a {task.kind} task "
                f"tells {', '.join(known)}. Leave it out."
            )
    on_updates = {text: make_membership(text) for text in settings.update_attacks}
    if settings.bound not in on_models:
        raise ValueError(
            f"bound = {settings.bound!r}; it must be one of attacks, {', '.join(on_models)}."
        )
    return Attacks(on_models, on_updates)


class Verdicts(NamedTuple):
    """The achievements of attacks on membership under one defence.

    Attributes:
      judged: {view: {attack: what it achieves, as JSON values}}; "pooled" and "spread" over the
        federations, and by "clients", "classes" and groups of rows.
      curves: {view: {attack: (false positive rates, true positive rates)}}, pooled.
      scores: float64[units] of the attack that bounds epsilon on federation 0, of the released
        model; None where it was not attacked.
      members: bool[units], which it trained on.
      skipped: {view: which attacks could not be made, and why}, such as on models that diverged.
    """

    judged: dict[str, dict[str, dict[str, Any]]]
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
    scores: np.ndarray | None
    members: np.ndarray
    skipped: dict[str, str]


def judge_evidence(
    evidence: Evidence,
    targets: Targets,
    attacks: Attacks,
    settings: Audit,
    classes: np.ndarray | None,
    groups: Mapping[str, np.ndarray],
) -> Verdicts:
    """Attacks all federations, view by view.

    Args:
      evidence: What attackers have.
      targets: Whose membership is asked of.
      attacks: The attacks.
      settings: Of the audit.
      classes: int[T] class of each target, or None.
      groups: {name: [T] texts}, groups of rows that are told apart.
    """
    labels = {"clients": targets.owners, **groups}
    labels |= {} if classes is None else {"classes": classes}
    judged: dict[str, dict[str, dict[str, Any]]] = {}
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    bounding, members = None, _of_units(targets.members, targets, settings)
    skipped: dict[str, str] = {}
    for view, signals in evidence.signals.items():
        judged[view], curves[view] = {}, {}
        for name, attack in attacks.of(view).items():
            population = evidence.population.get(view, {}).get(attack.signal)
            if "population" in attack.needs and population is None:
                continue
            own = classes if "classes" in attack.needs else None
            try:
                scores = in_turn(attack, signals[attack.signal], targets.members, population, own)
            except ValueError as error:
                skipped[view] = " ".join([*filter(None, [skipped.get(view)]), f"`{name}`: {error}"])
                continue
            if settings.unit == "client":
                _, scores = scores_of_users(scores, targets.owners)
            judgement = judge_models(scores, members)
            judged[view][name] = _told(judgement) | _subsets(scores, members, labels)
            curve = roc(scores.ravel(), members.ravel())
            curves[view][name] = (_DRAWN, curve.rates(_DRAWN))
            if view == "model" and name == settings.bound:
                bounding = scores[0]
    return Verdicts(judged, curves, bounding, members[0], skipped)


def _of_units(members: np.ndarray, targets: Targets, settings: Audit) -> np.ndarray:
    """Returns bool[M, units]: of rows, or of clients in the order of their numbers."""
    if settings.unit == "row":
        return members
    _, first = np.unique(targets.owners, return_index=True)
    return members[:, first]


def _told(judgement: Judgement) -> dict[str, Any]:
    found = plain(judgement)
    return {"pooled": found["pooled"], "spread": found["spread"]}


def _subsets(
    scores: np.ndarray, members: np.ndarray, labels: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns what an attack achieves on the rows of each client, class and group."""
    return {
        name: plain(judge_subsets(scores, members, own))
        for name, own in labels.items()
        if len(own) == scores.shape[1] and len(np.unique(own)) <= _MOST_SUBSETS
    }
