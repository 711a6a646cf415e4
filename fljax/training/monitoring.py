"""Deploys a model, lets the world drift, watches its errors, and trains again when they have risen.

    train ─► deploy ─► watch ─► alarm ─► train again ─► deploy ─► watch ─► ...

All of it has one clock, the round, by which data drift (`concept_drift`). In the first rounds
clients train; then the model serves, nobody trains, and in each round its errors on what the
clients meet go to a detector. An alarm calls for some rounds of training, on the rows that clients
hold in these; it begins in the round of the alarm and goes on from the model that serves, which
does so until the new one takes its place. The detector then starts anew.

Rounds are those of `fljax.simulate`, in the same compiled program, and each is keyed by its number:
whatever came before it, the alarms of a run are the same whenever it is repeated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.algorithm import AlgorithmSpec, Variables
from fljax.core.values import COUNT, Field, Interval, checked, checked_path, wrong
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.execution import use_all_cores
from fljax.recording import Recorder
from fljax.recording.jsonio import plain
from fljax.recording.recorder import holds_run
from fljax.recording.runs import SUMMARY
from fljax.selection.growth import Membership
from fljax.systems.detectors import Detector, make_detector
from fljax.systems.incidents import Account, Deployment, account
from fljax.training import federation as federations
from fljax.training.federation import Federation
from fljax.training.loop import check_diverged
from fljax.training.options import RoundOptions
from fljax.training.preflight import check_kinds
from fljax.training.privacy import with_privacy
from fljax.training.robustness import with_robustness
from fljax.training.round_records import LinkSpeeds, diverged, round_record
from fljax.training.task_choice import as_task, fitted
from fljax.training.totals import RoundTotals
from fljax.training.watching import Watch, errors_of, make_watch

_ROUNDS = Field(None, int, COUNT)
_CLIENTS = Field(None, int, Interval(-1))


class Monitored(NamedTuple):
    """The findings of a monitored deployment.

    Attributes:
      records: One a round: those of `fljax.simulate` where clients trained, and "monitor/error" of
        the serving model, "monitor/alarm", "monitor/retraining", "monitor/changing".
      account: Changes, alarms, and what retraining recovered.
      summary: The same in numbers, with what it cost.
      variables: The model that serves at the end.
    """

    records: list[dict[str, Any]]
    account: Account
    summary: dict[str, Any]
    variables: Variables


def monitor(
    dataset: FederatedDataset,
    model: Any,
    algorithm: AlgorithmSpec,
    *,
    detector: str | Detector | None = "adwin",
    deploy_after: int,
    retrain_rounds: int,
    watch_clients: int = -1,
    watch_rows: int = 1,
    membership: Membership | None = None,
    workdir: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> Monitored:
    """Runs a deployment that is monitored, over `num_rounds` rounds.

    Args:
      dataset: Data that drift, whose clients have test or validation rows of their own.
      model: As for `fljax.simulate`.
      algorithm: Likewise; one that has a global model.
      detector: What watches the errors, see `fljax.systems.detectors`; None never asks for
        training.
      deploy_after: Rounds of training before the first model serves.
      retrain_rounds: Rounds of training that an alarm calls for.
      watch_clients: Clients that are watched, a seeded sample; -1 for all.
      watch_rows: Rows that each of them meets in a round.
      membership: Who is there when: errors of others are not heard of. None for everybody. Cohorts
        are drawn by `sampler`, such as `fljax.selection.growth.among`.
      workdir: Directory for records and summary; None keeps them in memory. What an interrupted
        deployment left there makes way for this one, which goes the same way.
      config: Written to config.json.
      **options: The fields of `RoundOptions`; num_rounds counts all rounds of the world.

    Raises:
      ValueError: For options that do not fit the data, the model or each other; of private runs, in
        which errors of clients would decide who trains.
      ImportError: If the detector needs a package that is not installed.
      FloatingPointError: If all clients of a round end with non-finite updates.
      FileExistsError: If the workdir holds a finished run.

    Example:
      >>> dataset = data.digits(partition='iid', num_clients=20, own_test_fraction=0.3,
      ...                       concept_drift='label_rotations(2), sudden(12)')
      >>> found = monitor(dataset, "softmax_regression", algorithms.fedavg(0.1),
      ...                 detector="loss_rise(0.3)", deploy_after=6, retrain_rounds=4,
      ...                 watch_rows=5, num_rounds=18, clients_per_round=10, batch_size=10)
      >>> found.account.incidents[0].change, found.account.incidents[0].delay
      (12, 0)
    """
    check_kinds(dataset, algorithm)
    rounds = RoundOptions(**options)
    deploy_after, retrain_rounds, watch_rows = (
        checked(name, value, _ROUNDS)
        for name, value in (
            ("deploy_after", deploy_after),
            ("retrain_rounds", retrain_rounds),
            ("watch_rows", watch_rows),
        )
    )
    watch_clients = checked("watch_clients", watch_clients, _CLIENTS)
    watching = _watching(detector)
    _check(dataset, rounds, deploy_after, watch_clients, membership)
    begun = workdir is not None and _was_begun(checked_path("workdir", workdir))
    use_all_cores()
    use_compilation_cache()
    task = fitted(as_task(model, dataset), dataset, None)
    dataset, rounds = with_robustness(dataset, task, algorithm, rounds)
    rounds = with_privacy(dataset, task, algorithm, rounds)
    federation = federations.build(dataset, task, algorithm, rounds)
    _check_built(federation)
    watch = make_watch(federation, watch_clients, watch_rows)
    with Recorder(workdir, resume_round=-1 if begun else None) as recorder:
        recorder.write_config(plain(dict(config or {})))
        course = _Course(federation, watch, watching, membership, recorder)
        course.run(deploy_after, retrain_rounds)
        found = account(course.errors, course.changing, course.alarms, course.deployments)
        summary = _summary(found, course)
        recorder.write_summary(summary)
    return Monitored(recorder.records, found, summary, course.serving)


class _Course:
    """The rounds of a deployment; holds what changes from round to round.

    Attributes:
      errors: Mean error of the serving model in each round; NaN before the first one.
      changing: Whether what watched clients hold changed into each round.
      alarms: Rounds of alarms.
      deployments: Models that served.
      serving: The one that does.
    """

    def __init__(
        self,
        federation: Federation,
        watch: Watch,
        detector: Detector,
        membership: Membership | None,
        recorder: Recorder,
    ):
        self.federation, self.watch, self.detector = federation, watch, detector
        self.membership, self.recorder = membership, recorder
        self.errors: list[float] = []
        self.changing: list[bool] = []
        self.alarms: list[int] = []
        self.deployments: list[Deployment] = []
        self.serving: Variables | None = None
        self.trained_rounds = 0
        self.totals = RoundTotals()
        self._sampler_state = None
        self._state: Any = None

    def run(self, deploy_after: int, retrain_rounds: int) -> None:
        """Trains and serves in turn, until the last round."""
        last = self.federation.options.num_rounds
        begin, until = 0, deploy_after
        while begin < last:
            self._train(begin, min(until, last))
            if until > last:
                return
            self.serving, self._state = self.federation.variables, self.detector.start()
            self.deployments.append(Deployment(begin, until))
            begin = self._serve(until, last)
            until = begin + retrain_rounds

    def _train(self, begin: int, end: int) -> None:
        """Trains in some rounds, while the model before, if there is one, serves."""
        federation, dataset = self.federation, self.federation.dataset
        for plan, facts in federation.plans(begin, end, self._sampler_state):
            since, heard = time.perf_counter(), {}
            # of the round of an alarm the errors are known
            if len(self.errors) == facts.round:
                heard = self._hear(facts.round)
            elif self.serving is not None:
                heard = self._told(facts.round)
            stats = jax.device_get(federation.step(plan, facts))
            self._sampler_state = facts.sampler_state
            self.trained_rounds += 1
            seconds = time.perf_counter() - since
            record = round_record(
                facts, stats, self.totals, seconds, LinkSpeeds(), dataset.groups, dataset.root
            )
            self.recorder.write(record | heard | {"monitor/retraining": int(bool(begin))})
            check_diverged(record, facts.clients[diverged(stats)], federation)

    def _serve(self, begin: int, last: int) -> int:
        """Watches the serving model; returns the round of an alarm, or the last one."""
        for round in range(begin, last):
            heard = self._hear(round, self.detector)
            if self.alarms and self.alarms[-1] == round:
                return round
            self.recorder.write({"round": round + 1} | heard | {"monitor/retraining": 0})
        return last

    def _hear(self, round: int, detector: Detector | None = None) -> dict[str, Any]:
        """Hears of a round's errors, and lets a detector judge them; returns what to record."""
        self.changing.append(self.watch.on_its_way(round))
        errors = np.zeros(0)
        if self.serving is not None:
            frozen = self.federation.inputs.frozen
            errors = errors_of(self.watch.dispatch(self.serving, frozen, round))
            errors = errors[np.repeat(self._present(round), self.watch.rows)]
        self.errors.append(float(errors.mean()) if len(errors) else math.nan)
        if detector is not None:
            self._state, place = detector.observe(self._state, errors)
            if place >= 0:
                self.alarms.append(round)
        return {} if self.serving is None else self._told(round)

    def _present(self, round: int) -> np.ndarray:
        """Returns bool[M], which watched clients are there."""
        clients = self.watch.clients
        if self.membership is None:
            return np.ones(len(clients), bool)
        return self.membership.holds(clients, round)

    def _told(self, round: int) -> dict[str, Any]:
        """Returns what a record says of the serving model."""
        return {
            "monitor/error": self.errors[round],
            "monitor/alarm": int(round in self.alarms[-1:]),
            "monitor/changing": int(self.changing[round]),
        }


def report(monitored: Monitored) -> str:
    """Returns a table of changes and what came of them, as text."""
    lines = ["change  alarm  delay   before  drifted    after  recovered"]
    for found in monitored.account.incidents:
        alarm, delay = ("-" if number < 0 else str(number) for number in (found.alarm, found.delay))
        lines.append(
            f"{found.change:>6}  {alarm:>5}  {delay:>5}  {found.before:>7.4f}  "
            f"{found.drifted:>7.4f}  {found.after:>7.4f}  {found.recovered:>9.3f}"
        )
    summary = monitored.summary
    lines.append(
        f"{summary['alarms']} alarms, {summary['false_alarms']} of them false; "
        f"{summary['missed']} of {summary['changes']} changes missed; clients trained in "
        f"{summary['trained_rounds']} of {summary['rounds']} rounds; mean error "
        f"{summary['error']:.4f}"
    )
    return "\n".join(lines)


def _summary(found: Account, course: _Course) -> dict[str, Any]:
    """Returns the numbers of summary.json; None where there is none."""
    errors = np.array(course.errors)
    noticed = [incident for incident in found.incidents if incident.alarm >= 0]
    # training that began before the change may have recovered what nobody noticed
    shares = (incident.recovered for incident in found.incidents)
    recovered = [share for share in shares if not math.isnan(share)]
    heard = errors[~np.isnan(errors)]
    return {
        "rounds": len(errors),
        "trained_rounds": course.trained_rounds,
        "uplink_bytes": course.totals.uplink_bits // 8,
        "downlink_bytes": course.totals.downlink_bits // 8,
        "error": float(heard.mean()) if len(heard) else None,
        "changes": len(found.incidents),
        "missed": len(found.incidents) - len(noticed),
        "alarms": len(course.alarms),
        "false_alarms": len(found.false_alarms),
        "delay": float(np.mean([each.delay for each in noticed])) if noticed else None,
        "recovered": float(np.mean(recovered)) if recovered else None,
        "incidents": [
            {name: None if number != number else number for name, number in each._asdict().items()}
            for each in found.incidents
        ],
    }


def _was_begun(workdir: Path) -> bool:
    """Returns whether a directory holds an interrupted deployment; refuses a finished one."""
    if (workdir / SUMMARY).exists():
        raise FileExistsError(f"{workdir} already holds a run: give another workdir")
    return holds_run(workdir)


def _watching(detector: str | Detector | None) -> Detector:
    """Returns the detector, having tried whether it can start."""
    if detector is None:
        return Detector(lambda: None, lambda state, errors: (state, -1))
    made = make_detector(detector) if isinstance(detector, str) else detector
    if not isinstance(made, Detector):
        raise wrong("detector", made, "a text, a fljax.systems.detectors.Detector, or None")
    made.start()
    return made


def _check(dataset, options, deploy_after, watch_clients, membership) -> None:
    """Refuses what does not fit together, before anything is built."""
    if deploy_after > options.num_rounds:
        raise ValueError(
            f"deploy_after = {deploy_after}, but there are {options.num_rounds} rounds in all. "
            "Deploy earlier, or raise num_rounds."
        )
    if watch_clients == 0:
        raise ValueError("watch_clients = 0 watches nobody. Give a number, or -1 for all clients.")
    if options.privacy is not None:
        raise ValueError(
            f"privacy = {options.privacy!r}: the errors that decide when clients train again are "
            "covered by no noise. Leave privacy out."
        )
    if membership is not None and len(membership.joins) != dataset.members:
        raise ValueError(
            f"membership is of {len(membership.joins)} clients, and {dataset.name!r} has "
            f"{dataset.members}."
        )


def _check_built(federation: Federation) -> None:
    """Refuses algorithms and schedules that cannot rest for some rounds."""
    if not federation.algorithm.has_global_model:
        raise ValueError(
            f"{federation.spec.name} trains no global model, so there is none to deploy."
        )
    if federation.cohorts.num_versions > 1:
        raise ValueError(
            "late work starts from models of the rounds before, and between a deployment and the "
            "next training there are none. Choose a schedule that waits for its jobs."
        )
