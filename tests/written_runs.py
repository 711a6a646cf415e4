"""Runs of a few rounds for tests of reports, written as a run writes them, without training one."""

from __future__ import annotations

import numpy as np

from fljax.recording import Recorder, summarize


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
