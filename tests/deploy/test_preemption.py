"""A pod that is preempted goes on: the commands of the manifests, ended by SIGTERM, run again."""

import json
import re
import socket
from pathlib import Path

import jax
import manifests
import numpy as np
import pods
import pytest
import quick

import fljax

KUBERNETES = manifests.kubernetes()
CONFIG = Path(__file__).with_name("preempted.py")


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick.ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("FLJAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # as in every pod
        yield


def arguments(manifest, workdir, **flags):
    """Returns the arguments of a manifest's pods, with another configuration, place and network."""
    name, _, *given = manifests.container_of(KUBERNETES[manifest])["args"]
    flags = {"workdir": workdir} | flags
    given = [text for text in given if re.match(r"--(\w+)", text)[1] not in flags]
    return [name, str(CONFIG), *given, *(f"--{flag}={value}" for flag, value in flags.items())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops: its directory."""
    directory = tmp_path_factory.mktemp("whole")
    pod = pods.start(arguments("job Job", directory / "run"), directory / "log")
    assert pods.codes(pod) == [0], (directory / "log").read_text()
    return directory / "run"


def records(workdir):
    """Returns the records of a run, without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    clock = ("time/", "throughput/")
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith(clock)}
        for line in lines
    ]


def ended_early(log, workdir):
    """Returns the round after which a run was stopped and saved, as its log says."""
    found = re.search(r"Stopped after round (\d+); everything is saved", log.read_text())
    assert found and (workdir / "checkpoints" / found[1]).is_dir(), log.read_text()
    return int(found[1])


def test_a_pod_that_is_started_anew_goes_on(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("TO_BE_STOPPED", "yes")
    workdir, command = tmp_path / "run", arguments("job Job", tmp_path / "run")
    first = pods.start(command, tmp_path / "first")
    pods.stop_on_its_way(first, workdir)
    assert pods.codes(first) == [143]
    assert 0 < ended_early(tmp_path / "first", workdir) < len(records(whole)) - 1
    monkeypatch.delenv("TO_BE_STOPPED")
    second = pods.start(command, tmp_path / "second")
    assert pods.codes(second) == [0], (tmp_path / "second").read_text()
    assert "no run yet" not in (tmp_path / "second").read_text()
    assert records(workdir) == records(whole)
    final, expected = (fljax.load_run(at).variables.params for at in (workdir, whole))
    jax.tree.map(np.testing.assert_array_equal, final, expected)


def test_where_one_pod_of_two_is_stopped_both_save_and_go_on(whole, tmp_path, monkeypatch):
    workdir = tmp_path / "run"

    def start(life, **flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        return [
            pods.start(
                arguments(
                    "jobset JobSet", workdir, coordinator_address=address, process_id=index, **flags
                ),
                tmp_path / f"{life}{index}",
            )
            for index in (0, 1)
        ]

    monkeypatch.setenv("TO_BE_STOPPED", "yes")
    both = start("first")
    pods.stop_on_its_way(both[1], workdir)
    # as the manifest's rules have them: 143 where the signal came, 130 elsewhere
    assert pods.codes(*both) == [130, 143], (tmp_path / "first0").read_text()
    assert 0 < ended_early(tmp_path / "first0", workdir) < len(records(whole)) - 1
    # JAX's advice to install what finds the others is for those who do not name them
    assert "kubernetes" not in (tmp_path / "first1").read_text()
    monkeypatch.delenv("TO_BE_STOPPED")
    assert pods.codes(*start("second")) == [0, 0], (tmp_path / "second0").read_text()
    for found, expected in zip(records(workdir), records(whole), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    # what process 0 alone finds ends all, before anything is built
    assert pods.codes(*start("third", resume=False)) == [1, 1]
    for index, words in enumerate(("already holds a run", "Process 0 of 2 failed")):
        assert words in (tmp_path / f"third{index}").read_text()
