"""Audits a configuration: runs it under each defence, attacks what it releases, writes it down.

    run ─► shadow federations ─► attacks on membership ─► what they prove of epsilon
                              └► reconstruction                        └► audit.json, audit.html

Each defence leaves a folder: `run/`, an ordinary run of all rows, and `signals.npz`, what attackers
of membership have. What is there already is read, so that an audit that was stopped goes on.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.audits.bounds.one_run import audit_one_run
from fljax.config import ConfigError, resolve, to_plain, with_keys
from fljax.config.experiment import Experiment, plain_experiment, simulate_config, with_protection
from fljax.core.files import atomic_file
from fljax.core.settings import affecting
from fljax.core.values import checked_path
from fljax.data.checks.report import check
from fljax.recording import load_run, say, versions
from fljax.recording.jsonio import plain
from fljax.recording.models import FINAL, model_path
from fljax.recording.runs import SUMMARY, Run
from fljax.studies.audit.canaries import canary_runs
from fljax.studies.audit.evidence import Evidence, Targets, choose_targets, gather
from fljax.studies.audit.evidence_file import load_evidence, save_evidence
from fljax.studies.audit.inverted_model import invert_model
from fljax.studies.audit.promises import promised_to
from fljax.studies.audit.reconstructions import check_inversion, reconstruct_rows
from fljax.studies.audit.released import attack_released
from fljax.studies.audit.report import write_audit_report
from fljax.studies.audit.secrets import exposed_secrets
from fljax.studies.audit.settings import Audit
from fljax.studies.audit.threats import not_claimed, threat_model
from fljax.studies.audit.utility import utility_of
from fljax.studies.audit.verdicts import Attacks, Verdicts, judge_evidence, make_attacks
from fljax.training.options import split_options

AUDIT, SIGNALS = "audit.json", "signals.npz"
_FORMAT = 1


class Defence(NamedTuple):
    """One of the configurations that are attacked.

    Attributes:
      name: Of the defence.
      changes: {key: value} of what it changes in the audit's configuration.
      config: The configuration.
      plain: Its experiment before its protection is drawn.
      folder: Where its files are.
      run: Where its run is, or will be.
    """

    name: str
    changes: Mapping[str, Any]
    config: Any
    plain: Experiment
    folder: Path
    run: Path


class Prepared(NamedTuple):
    """The questions that are asked about a defence.

    Attributes:
      targets: Whose membership is asked of.
      attacks: On membership.
    """

    targets: Targets
    attacks: Attacks


def audit(
    config: Any,
    workdir: str | Path,
    settings: Audit | None = None,
    command: Sequence[str] = (),
    *,
    run: str | Path | None = None,
) -> dict[str, Any]:
    """Audits a configuration; an audit that was begun in the workdir goes on.

    Args:
      config: From `fljax.config`.
      workdir: Receives `audit.json`, `audit.html`, `audit.md`, pictures, and a folder a defence.
      settings: What is attacked, and how; the usual where left out.
      command: What was called, for the line that repeats it.
      run: Directory of a finished run of the configuration, which stands for that of the defence
        that changes nothing; None trains it.

    Returns:
      What `audit.json` holds.

    Raises:
      ConfigError: For a configuration or settings that cannot be.
      ValueError: For data or algorithms that cannot be audited, and for a workdir, or a run, of
        another configuration.

    Example:
      >>> config = fljax.load_config("configs/hospitals_heart.py")  # doctest: +SKIP
      >>> fljax.audit(config, "runs/audit")["defences"]["protected"]["bound"]  # doctest: +SKIP
    """
    settings = settings or Audit()
    workdir = checked_path("workdir", workdir)
    _check_folders(settings.defences)
    if run is not None:
        _check_given(Path(run), settings.defences)
    defences = [
        _defence(config, name, changes, workdir, run) for name, changes in settings.defences.items()
    ]
    chosen = [_prepared(defence, settings) for defence in defences]
    found: dict[str, Any] = {
        "format": _FORMAT,
        "config": to_plain(resolve(config)),
        "settings": plain(settings._asdict()),
        "data": _data(defences[0].plain, chosen[0].targets),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "command": list(command),
        "defences": {},
    }
    curves = {}
    for defence, (targets, attacks) in zip(defences, chosen, strict=True):
        say(f"{defence.name}: {defence.folder}")
        found["defences"][defence.name], curves[defence.name] = _audited(
            defence, targets, attacks, settings
        )
    with atomic_file(workdir / AUDIT) as file:
        file.write((json.dumps(found, indent=2) + "\n").encode())
    write_audit_report(found, curves, workdir)
    return found


def _defence(
    config, name: str, changes: Mapping[str, Any], workdir: Path, run: str | Path | None
) -> Defence:
    try:
        own = with_keys(copy.deepcopy(config), changes)
        made = plain_experiment(own)
    except ConfigError as error:
        raise ConfigError(f"defences[{name!r}]: {error}") from error
    folder = workdir / _folder(name)
    place = folder / "run" if run is None or changes else Path(run)
    return Defence(name, changes, own, made, folder, place)


def _check_given(run: Path, defences: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError for a given run that has not ended, or that no defence stands for."""
    if not (run / SUMMARY).exists():
        raise ValueError(f"run = {str(run)!r} holds no run that has ended: finish it first.")
    if all(defences.values()):
        raise ValueError(
            f"run = {str(run)!r} stands for a defence that changes nothing, and each of "
            f"{', '.join(defences)} changes something. Add one, such as 'as trained': {{}}."
        )


def _prepared(defence: Defence, settings: Audit) -> Prepared:
    """Returns what is asked about a defence; whatever cannot be is refused before anything runs."""
    if (defence.run / SUMMARY).exists():
        _check_run(defence)
    check_inversion(defence.plain, settings)
    attacks = make_attacks(settings, defence.plain.task)
    return Prepared(choose_targets(defence.plain.dataset, settings), attacks)


def _check_run(defence: Defence) -> None:
    """Raises ValueError for a finished run that cannot stand for a defence."""
    if not model_path(defence.run, FINAL).exists():
        raise ValueError(
            f"{defence.run} holds a run without its model, which is attacked: run it again."
        )
    here, there = to_plain(resolve(defence.config)), load_run(defence.run).config
    # where a configuration leaves it open, the data say how many clients there are
    here["num_clients"] = defence.plain.dataset.members
    # rounds and budgets are of the record, and of the model that is attacked, too
    free = affecting("speed", "files")
    for name, value in here.items():
        if name not in free and name in there and there[name] != plain(value):
            raise ValueError(
                f"{defence.run} holds a run of another configuration: {name} is {there[name]!r} "
                f"there, and {value!r} in defence {defence.name!r}. Take another workdir."
            )


def _check_folders(names: Iterable[str]) -> None:
    """Raises ConfigError for names whose files would be in one place."""
    owners: dict[str, str] = {}
    for name in names:
        other = owners.setdefault(_folder(name), name)
        if other != name:
            raise ConfigError(
                f"defences {other!r} and {name!r} would have one folder, {_folder(name)}: call one "
                "of them otherwise."
            )


def _folder(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", name, flags=re.ASCII).strip("_.") or "defence"


def _audited(
    defence: Defence, targets: Targets, attacks: Attacks, settings: Audit
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Returns what an audit says of a defence, and the curves of its attacks."""
    run = _run_of(defence)
    released = with_protection(defence.plain)
    options, _ = split_options(released.options)
    evidence = _evidence(defence, targets, attacks, settings)
    classes, groups = _classes(defence, targets), _groups(defence, targets)
    verdicts = judge_evidence(evidence, targets, attacks, settings, classes, groups)
    return {
        "changes": plain(dict(defence.changes)),
        "folder": defence.folder.name,
        "utility": utility_of(run),
        "privacy": run.summary.get("privacy"),
        "parties": [party._asdict() for party in threat_model(options)],
        "membership": verdicts.judged,
        "released": attack_released(
            run, released, targets, evidence, attacks.on_models, settings.seed
        ),
        "skipped": evidence.skipped | verdicts.skipped,
        "bound": _bound(verdicts, evidence, settings),
        "canaries": canary_runs(defence.config, settings),
        "secrets": exposed_secrets(defence.plain, settings),
        "reconstruction": reconstruct_rows(released, defence.folder, settings),
        "inversion": invert_model(run, released, defence.folder, settings.seed),
        "not_claimed": not_claimed(options),
    }, verdicts.curves


def _run_of(defence: Defence) -> Run:
    """Returns the run of a defence, which trains on all rows."""
    if not (defence.run / SUMMARY).exists():
        simulate_config(defence.config, defence.run, resume=defence.run.exists())
    return load_run(defence.run)


def _evidence(defence: Defence, targets: Targets, attacks: Attacks, settings: Audit) -> Evidence:
    """Returns what attackers have; what was gathered for the same question is read."""
    if not settings.views:
        return Evidence({}, {}, {}, None)
    path = defence.folder / SIGNALS
    question = _question(defence, settings, attacks)
    known = load_evidence(path, question)
    if known is not None:
        return known
    evidence = gather(defence.plain, targets, settings, attacks.signals)
    save_evidence(path, evidence, question)
    return evidence


def _question(defence: Defence, settings: Audit, attacks: Attacks) -> str:
    """Returns a text that is the same where the signals would be."""
    shaping = ("shadows", "targets", "unit", "design", "population", "views", "looks", "seed")
    asked = {name: getattr(settings, name) for name in shaping} | {"signals": attacks.signals}
    text = json.dumps(plain([to_plain(resolve(defence.config)), asked]))
    return hashlib.sha256(text.encode()).hexdigest()


def _classes(defence: Defence, targets: Targets) -> np.ndarray | None:
    """Returns int64[T] classes of the targets of tasks that have them."""
    dataset = defence.plain.dataset
    if dataset.kind != "classification":
        return None
    return np.asarray(dataset.train.examples.take(targets.rows)["y"], np.int64)


def _groups(defence: Defence, targets: Targets) -> dict[str, np.ndarray]:
    """Returns {name: [T] texts} of the groups of rows, such as sex."""
    dataset = defence.plain.dataset
    if not dataset.row_groups:
        return {}
    held = dataset.train.examples.take(targets.rows)["groups"]
    return {
        name: np.array(texts)[np.asarray(held[name], np.int64)]
        for name, texts in dataset.row_groups.items()
    }


def _bound(verdicts: Verdicts, evidence: Evidence, settings: Audit) -> dict[str, Any] | None:
    """Returns what the first federation proves of epsilon; None where no attack was to do that."""
    if verdicts.scores is None:
        return None
    promised, delta = promised_to(settings.unit, evidence.privacy)
    found = audit_one_run(verdicts.scores, verdicts.members, delta=delta)
    return found.plain() | {"attack": settings.bound, "promised": promised}


def _data(experiment: Experiment, targets: Targets) -> dict[str, Any]:
    dataset = experiment.dataset
    return {
        "name": dataset.name,
        "described": dataset.describe(),
        "clients": dataset.members,
        "rows": int(dataset.train.num_rows),
        "targets": len(targets.rows),
        "checks": str(check(dataset)),
    }
