"""Invariant 2, across processes: two of them with two devices each are one with four."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
import quick
import toy

pytestmark = pytest.mark.usefixtures("quick_compilation")

PATIENCE_SECONDS = 300


@contextlib.contextmanager
def started(directory, name, *arguments):
    """Starts two processes, and ends them; yields them and the files of what they say."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **quick.ENVIRONMENT,  # as here
    }
    logs, running = [directory / f"{name}{number}.log" for number in (0, 1)], []
    try:
        for number, log in enumerate(logs):
            command = [sys.executable, processes.__file__, str(number), str(port), str(directory)]
            with open(log, "wb") as output:
                running.append(
                    subprocess.Popen(
                        [*command, *arguments], stdout=output, stderr=output, env=environment
                    )
                )
        yield running, logs
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory):
    """A run that one of two processes ends; returns (directory, what that one says)."""
    directory = tmp_path_factory.mktemp("two")
    with started(directory, "first", "narrowed") as (both, logs):
        # as launchers do: the other one waits, and is ended with it
        assert both[1].wait(PATIENCE_SECONDS) == 1, logs[1].read_text()[-3000:]
    return directory, logs[1].read_text()


@pytest.fixture(scope="module")
def two(exhausted):
    """Runs everything in two processes; returns (directory, arrays that each of them saved)."""
    directory, _ = exhausted
    with started(directory, "all") as (both, logs):
        codes = [process.wait(PATIENCE_SECONDS) for process in both]
    assert codes == [0, 0], "\n\n".join(log.read_text()[-3000:] for log in logs)
    return directory, [dict(np.load(directory / f"process{number}.npz")) for number in (0, 1)]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The same runs in one process with as many devices: (directory, {"run/leaf": parameters})."""
    directory = tmp_path_factory.mktemp("one")
    found = {
        name: processes.run(directory / name, name, devices=processes.DEVICES)
        for name in processes.RUNS
    }
    return directory, processes.params_of(found)


def records(workdir: Path) -> list[dict]:
    """Returns the records of a run without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    clock = ("time/", "throughput/")
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith(clock)}
        for line in lines
    ]


def test_two_processes_equal_one(two, single):
    first, second = two[1]
    for name, values in single[1].items():
        np.testing.assert_array_equal(first[name], second[name])
        toy.assert_close(first[name], values, 1e-9)
        # where devices add nothing up, not even the order of a sum can differ
        if name.startswith(("median", "local_only")):
            np.testing.assert_array_equal(first[name], values)


def test_their_records_and_client_metrics_are_equal(two, single):
    for name in processes.RUNS:
        for found, expected in zip(*(records(at / name) for at, _ in (two, single)), strict=True):
            assert found == pytest.approx(expected, rel=1e-9)
    for name in ("scaffold", "median"):
        found, expected = (
            dict(np.load(at / name / "client_metrics.npz")) for at, _ in (two, single)
        )
        assert len(expected["accuracy"]) == np.count_nonzero(toy.SIZES)
        for key, values in expected.items():
            if values.dtype.kind == "U":  # split and groups are texts
                np.testing.assert_array_equal(found[key], values)
            else:
                np.testing.assert_allclose(found[key], values, rtol=1e-9)


def test_two_processes_equal_one_device_up_to_rounding(two):
    alone = processes.params_of({"scaffold": processes.run(None, "scaffold", devices=1)})
    for leaf, values in alone.items():
        toy.assert_close(two[1][0][leaf], values, 1e-9)


def test_a_stop_in_one_process_stops_both_and_the_run_can_be_resumed(two):
    for found in two[1]:
        for leaf in ("w", "b"):
            np.testing.assert_array_equal(found[f"resumed/{leaf}"], found[f"scaffold/{leaf}"])
    assert records(two[0] / "resumed") == records(two[0] / "scaffold")


def test_one_process_goes_on_from_a_checkpoint_of_two(two):
    rounds = processes.ROUNDS + 1
    longer = processes.run(two[0] / "resumed", "scaffold", resume=True, num_rounds=rounds)
    whole = processes.run(None, "scaffold", num_rounds=rounds, devices=processes.DEVICES)
    toy.assert_close(longer.variables.params, whole.variables.params, 1e-9)


def test_the_first_process_alone_writes(two):
    runs = len(processes.RUNS) + 3
    assert [found["wrote"].tolist() for found in two[1]] == [[True] * runs, [False] * runs]


def test_what_differs_between_processes_is_refused_in_both(two):
    first, second = (found["said"].tolist() for found in two[1])
    assert second[0] == "ValueError: no such file"
    assert first[0] == "ConnectionAbortedError: Process 1 of 2 failed: ValueError: no such file"
    assert first[1:] == second[1:]
    assert "settings, data or initial models of process 1" in first[1]
    assert "devices = 3 cannot be shared equally by 2 processes" in first[2]


def test_processes_share_the_cores_of_their_machine(two):
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    assert [int(found["cores"]) for found in two[1]] == [max(1, cores // 2)] * 2


def test_where_memory_runs_out_in_one_process_all_go_on_with_fewer_lanes(exhausted, two, single):
    directory, said = exhausted
    told = "they go on with 2 lanes, from the last checkpoint if there is one, as "
    assert "lanes = 4 with waves of 4 do not fit" in said and "allocate 1234 bytes" in said
    assert f"Start all 2 again: {told}{directory / 'narrowed' / 'narrower.json'} tells" in said
    for found in two[1]:
        for leaf in ("w", "b"):
            toy.assert_close(found[f"narrowed/{leaf}"], single[1][f"scaffold/{leaf}"], 1e-9)
    config = json.loads((directory / "narrowed" / "config.json").read_text())
    assert config["execution"]["lanes"] == 2 and config["lanes"] == 0
    assert [row["round"] for row in records(directory / "narrowed")] == list(
        range(processes.ROUNDS + 1)
    )
    assert not (directory / "narrowed" / "narrower.json").exists(), "it is over"
