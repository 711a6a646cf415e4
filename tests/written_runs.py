"""Runs and studies of a few rounds for tests of reports, written without training any."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np

from fljax.config import default_config, resolve, to_plain
from fljax.core.metrics import ACCURACY, LOSS, plain
from fljax.recording import Recorder, jsonio, summarize
from fljax.recording.line_file import LineFile
from fljax.studies import Criterion, Study, results
from fljax.studies.results import Status
from fljax.studies.study import listed_trials


def write_run(workdir, *, rounds=4, config=None, records=None, finished=True, clients=True):
    """Writes a run whose accuracy grows; returns its directory."""
    config = {"algorithm": "fedavg", "seed": 0, "num_clients": 3, "num_rounds": rounds} | (
        config or {}
    )
    with Recorder(workdir) as recorder:
        recorder.write_config(config)
        for record in records or map(record_of, range(1, rounds + 1)):
            recorder.write(record)
        if clients:
            values = np.array([0.2, 0.9, 0.7])
            table = {"client": np.arange(3), "examples": np.array([4, 2, 9]), "accuracy": values}
            recorder.write_clients(table | {"loss": 1 - values, "id": np.array(["<b>", "b", "c"])})
        if finished:
            seed = config["seed"]
            told = summarize(recorder.records, num_clients=3, clients_per_round=2, seed=seed)
            recorder.write_summary(told)
    return workdir


def record_of(round, **more):
    """Returns the record of a round."""
    found = {
        "round": round,
        "train/loss": 2.0 / round,
        "eval/test/accuracy": 1 - 0.5 / round,
        "eval/test/loss": 1.0 / round,
        "eval/val/accuracy": 1 - 0.4 / round,
        "comm/uplink_bytes": 1000 * round,
        "comm/downlink_bytes": 2000 * round,
    }
    return found | {key.replace("__", "/"): value for key, value in more.items()}


def write_study(workdir, *, over=4, rounds=2):
    """Writes a study of two variants and two seeds, of which so many trials are over."""
    study = Study(variants={"a < b": {}, "prox": {"mu": 0.1}}, seeds=(0, 1), reference="a < b")
    study = dataclasses.replace(study, criterion=Criterion("eval/val/accuracy", maximize=True))
    trials = listed_trials(study)
    workdir.mkdir()
    versions = {"fljax": "0.1.0"}
    config = to_plain(resolve(default_config()))
    told = {"config": config, "sweep": study.as_plain(), "metrics": plain([ACCURACY, LOSS])}
    jsonio.write_json(workdir / "config.json", told | {"versions": versions})
    states = {trial.number: Status("finished", rounds) for trial in trials[:over]}
    results.write_trials(workdir, trials, states)
    with contextlib.closing(LineFile(workdir / results.ROWS, [])) as file:
        for trial in trials[:over]:
            records = (record_of(r, train__loss=trial.seed + r) for r in range(1, rounds + 1))
            results.append_rows(file, (results.row(trial, record) for record in records))
    if over == len(trials):
        spent = {"complete": True, "device": "2 x cpu", "versions": versions}
        jsonio.write_json(workdir / results.SUMMARY, spent)
    return workdir
