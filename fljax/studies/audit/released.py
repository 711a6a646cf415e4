"""Attacks the model that a run has released, which trained on all rows: members beside test rows.

Shadow federations know what a model is like that has not seen a row, whether the row is one of the
targets or of the test split; so attacks that need models without the row alone, or none, apply.
That members and test rows come from one source is taken as given: where they differ, an attack
tells them apart for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fljax.audits.membership import designs
from fljax.audits.membership.curves import judge, plain
from fljax.audits.membership.observed import MembershipAttack, Observed
from fljax.config.experiment import Experiment
from fljax.config.prediction import fitted_model
from fljax.recording.models import load_saved
from fljax.recording.runs import Run
from fljax.studies.audit.evidence import Evidence, Targets, signal_of
from fljax.studies.audit.statements import asked, make_statements

# What an attack on the released model may need: of members there is no model without them to hand.
_OFFERED = {"out"}


def attack_released(
    run: Run,
    experiment: Experiment,
    targets: Targets,
    evidence: Evidence,
    attacks: Mapping[str, MembershipAttack],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Returns {attack: what it achieves on the final model of a run}, as JSON values.

    Args:
      run: The run, which kept its model.
      experiment: What it did.
      targets: Rows that it trained on, and rows of the test split.
      evidence: Signals of these under shadow federations.
      attacks: On models, of which those that need more are left out.
      seed: Of the audit.
    """
    known = {name: attack for name, attack in attacks.items() if set(attack.needs) <= _OFFERED}
    if not known or not len(targets.population) or "model" not in evidence.signals:
        return {}
    task, dataset = experiment.task, experiment.dataset
    variables, frozen = fitted_model(task, load_saved(run.directory))
    state = make_statements(task, dataset)
    models = jax.tree.map(lambda leaf: np.asarray(leaf)[None], variables)
    said = [
        state(models, frozen, asked(task, split.examples, rows))
        for split, rows in ((dataset.train, targets.rows), (dataset.test, targets.population))
    ]
    is_member = np.arange(len(targets.rows) + len(targets.population)) < len(targets.rows)
    # of a target as many federations are without it as coins say; no more are told of a test row,
    # whose score the mean of more would hold nearer to the middle
    hidden = designs.coins(len(targets.members), np.arange(len(targets.population)), seed)
    members = np.concatenate([targets.members, hidden], 1)
    judged = {}
    for name, attack in known.items():
        shadows = [part["model"][attack.signal] for part in (evidence.signals, evidence.population)]
        signal = np.concatenate([signal_of(attack.signal, each)[0] for each in said])
        observed = Observed.of(signal, np.concatenate(shadows, 1), members)
        with contextlib.suppress(ValueError):  # which says so of shadow federations, too
            judged[name] = plain(judge(attack.score(observed), is_member))
    return judged
