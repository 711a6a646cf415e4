"""Evidence for attackers of membership: signals of rows, of federations with and without them.

For each defence, federations are trained on halves of the targets (`shadows`), and each view takes
its signals from them while they train: models after the last round and after some rounds before,
and what single clients send in these, alone or summed (`updates`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.audits.membership import designs
from fljax.audits.membership.signals import of_logits, of_losses
from fljax.config.experiment import Experiment
from fljax.core import random
from fljax.data.dataset import FederatedDataset
from fljax.studies.audit.federations import Snapshot, train_federations
from fljax.studies.audit.settings import Audit
from fljax.studies.audit.shadows import shadow_group
from fljax.studies.audit.statements import Asked, Statements, asked, make_statements
from fljax.studies.audit.updates import make_alignments, make_watcher, summed
from fljax.studies.groups import Group

# The signal that views of updates have.
COSINE = "cosine"
OF_UPDATES = ("updates", "sums")


class Targets(NamedTuple):
    """The rows whose membership is asked of, in federations with and without them.

    Attributes:
      rows: int64[T] row numbers of the training examples.
      owners: int64[T] the client of each.
      members: bool[M, T], which of them each federation trains on; the first one by coins.
      population: int64[Z] row numbers of the test examples, which nobody trains on.
    """

    rows: np.ndarray
    owners: np.ndarray
    members: np.ndarray
    population: np.ndarray


class Evidence(NamedTuple):
    """The attackers' evidence about one defence.

    Attributes:
      signals: {view: {signal: float64[M, T, Q]}} of the targets.
      population: {view: {signal: float64[M, Z, Q]}} of rows that nobody trains on.
      skipped: {view: why it was not looked at}.
      privacy: What the first federation has spent, see `train_federations`.
    """

    signals: dict[str, dict[str, np.ndarray]]
    population: dict[str, dict[str, np.ndarray]]
    skipped: dict[str, str]
    privacy: dict[str, Any] | None


def choose_targets(dataset: FederatedDataset, settings: Audit) -> Targets:
    """Draws the targets of an audit, and which federations train on them.

    Raises:
      ValueError: For data without rows to leave out, or a single client that cannot be left out.
    """
    partition = dataset.train.partition
    rows, owners = partition.all_rows(), partition.owners()
    # the server's own rows are nobody's secret
    rows, owners = rows[owners < dataset.members], owners[owners < dataset.members]
    units = owners if settings.unit == "client" else rows
    known = np.unique(units)
    if 0 <= settings.targets < len(known):
        words = random.bits(settings.seed, "audit/targets", known)
        known = known[np.argsort(words, kind="stable")[: settings.targets]]
        # of a client, whose rows are in and out together, all are targets
        taken = np.isin(units, known)
        rows, owners = rows[taken], owners[taken]
    if len(known) < 2:
        raise ValueError(
            f"The audit has {len(rows)} targets of {len(np.unique(owners))} clients, and needs two "
            f"{settings.unit}s to leave one out. Raise targets, or take more data."
        )
    return Targets(rows, owners, _members(rows, owners, settings), _population(dataset, settings))


def _members(rows: np.ndarray, owners: np.ndarray, settings: Audit) -> np.ndarray:
    """Returns bool[M, T], which targets each federation trains on."""
    together = settings.unit == "client"
    tossed = designs.coins(settings.shadows, owners if together else rows, settings.seed)
    if settings.design == "coins":
        return tossed
    draw = designs.whole if together else designs.within
    # the first one is left to its coins, on which bounds of epsilon rest
    return np.concatenate([tossed[:1], draw(settings.shadows - 1, owners, settings.seed)])


def _population(dataset: FederatedDataset, settings: Audit) -> np.ndarray:
    if dataset.test is None:
        return np.zeros(0, np.int64)
    rows = dataset.test.rows()
    words = random.bits(settings.seed, "audit/population", rows)
    return np.sort(rows[np.argsort(words, kind="stable")[: settings.population]])


def gather(
    plain: Experiment, targets: Targets, settings: Audit, signals: Collection[str]
) -> Evidence:
    """Trains the federations of one defence, and takes the signals of all views from them.

    Args:
      plain: The defence's experiment, before its protection is drawn.
      targets: Whose membership is asked of.
      settings: Of the audit.
      signals: Names of those that the attacks on models read, which the task offers.

    Raises:
      ValueError: As `shadow_group` does.
    """
    group = shadow_group(plain, targets.rows, targets.members, settings.seed)
    task, dataset = group.experiment.task, group.experiment.dataset
    gathered = _Gathered(len(targets.members), _looks(settings, plain.options["num_rounds"]))
    examples = plain.dataset.train.examples
    known = asked(task, examples, targets.rows)
    others = None
    if len(targets.population):
        others = asked(task, plain.dataset.test.examples, targets.population)
    watch, skipped = _watcher(group, plain, settings, gathered.rounds)

    state, lay = make_statements(task, dataset), make_alignments(task, dataset)

    def look(snapshot: Snapshot) -> None:
        for where, rows in ((gathered.targets, known), (gathered.population, others)):
            if rows is not None:
                said = state(snapshot.models, snapshot.frozen, rows)
                for name in signals:
                    gathered.keep(where, name, snapshot, signal_of(name, said))
        if watch is not None and snapshot.round in gathered.rounds[:-1]:
            for view, values in _watched(watch, lay, snapshot, known, targets).items():
                gathered.keep(gathered.targets, view, snapshot, values)

    spent = train_federations(group, look, gathered.rounds)
    return gathered.evidence(settings, signals, skipped, spent)


def _watcher(group: Group, plain: Experiment, settings: Audit, rounds: Sequence[int]):
    """Returns what watches updates, or None, and {view: why there is none}."""
    asked_for = [view for view in OF_UPDATES if view in settings.views]
    if not asked_for:
        return None, {}
    if settings.unit == "client":
        return None, dict.fromkeys(asked_for, "A server sees which clients take part.")
    if len(rounds) == 1:
        why = "Clients are watched after a round that is not the last, and there is no other."
        return None, dict.fromkeys(asked_for, why)
    try:
        return make_watcher(group, plain), {}
    except ValueError as error:
        return None, dict.fromkeys(asked_for, str(error))


def _looks(settings: Audit, num_rounds: int) -> list[int]:
    """Returns the rounds after which attackers look: some before the last, and the last."""
    if set(settings.views) == {"model"}:
        return [num_rounds]
    spaced = np.linspace(0, num_rounds, settings.looks + 2)[1:-1]
    return sorted({*np.maximum(np.round(spaced).astype(int), 1).tolist(), num_rounds})


def signal_of(name: str, said: Statements) -> np.ndarray:
    """Returns float64[M, R], a signal of what models say of rows."""
    if said.logits is None:
        return of_losses(name, said.losses)
    return np.stack([of_logits(name, logits, said.y) for logits in said.logits])


def _watched(watch, lay, snapshot: Snapshot, known: Asked, targets: Targets):
    """Returns {view: float64[S, T]} cosines of rows' gradients and what their clients send."""
    updates, weights = watch(snapshot)
    sums = summed(updates, weights)
    pairs = {"updates": (updates, targets.owners), "sums": (sums, np.zeros_like(targets.owners))}
    found = {}
    for view, (sent, owners) in pairs.items():
        laid = lay(snapshot.models, snapshot.frozen, sent, known, owners)
        # a client sends its model minus the broadcast one, which goes against gradients
        inner, gradients = -laid.inner, np.sqrt(laid.gradients)
        lengths = np.sqrt(laid.updates)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[view] = np.where(lengths * gradients > 0, inner / (lengths * gradients), 0.0)
    return found


class _Gathered:
    """Signals of each round and federation, as they come."""

    def __init__(self, count: int, rounds: Sequence[int]):
        self.rounds = list(rounds)
        self.targets: dict[str, np.ndarray] = {}
        self.population: dict[str, np.ndarray] = {}
        self._count = count

    def keep(self, where, name: str, snapshot: Snapshot, values: np.ndarray) -> None:
        """Keeps float64[S, T] of the federations of a snapshot."""
        if name not in where:
            shape = (self._count, values.shape[1], len(self.rounds))
            where[name] = np.full(shape, np.nan)
        where[name][snapshot.numbers, :, self.rounds.index(snapshot.round)] = values

    def evidence(self, settings: Audit, signals, skipped, privacy) -> Evidence:
        """Returns what attackers of each view have."""
        found, population = {}, {}
        for view in settings.views:
            if view in OF_UPDATES:
                if view in self.targets:
                    found[view] = {COSINE: self.targets[view][..., :-1]}
                continue
            looks = slice(-1, None) if view == "model" else slice(None)
            found[view] = {name: self.targets[name][..., looks] for name in signals}
            population[view] = {
                name: self.population[name][..., looks] for name in signals if self.population
            }
        return Evidence(found, population, skipped, privacy)
