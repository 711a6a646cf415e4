"""Invariant 3: a run that was stopped or killed goes on as if nothing had happened."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import quick
import toy

import fljax
from fljax import algorithms

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROUNDS = 12
SPECS = {
    "fedadam": algorithms.fedopt("adam", 0.2, 0.05),
    "scaffold": algorithms.scaffold(0.2),
    "apfl": algorithms.apfl(0.4, 0.2),
    "feddyn": algorithms.feddyn(0.5, 0.2),
    "mime": algorithms.mime(0.2, base_optimizer="adam"),
}


def run(workdir, spec, num_rounds=ROUNDS, parts=None, **options):
    defaults = {"eval_every": 3, "checkpoint_every": 4, "progress": False, "eval_clients": -1}
    return fljax.simulate(
        toy.dataset(parts or toy.clients(dtype=np.float32)),
        toy.softmax_task(np.float32),
        spec,
        num_rounds=num_rounds,
        clients_per_round=4,
        batch_size=4,
        workdir=workdir,
        devices=2,
        **(defaults | {"sampler": "poisson", "uplink_mbps": 0.3} | options),
    )


def lines(workdir):
    """Records without what depends on the clock."""
    found = []
    for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.append(
            {k: v for k, v in record.items() if not k.startswith(("time/", "throughput/"))}
        )
    return found


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert lines(first.directory) == lines(second.directory)


def stop_after(round):
    """Returns a hook that presses Ctrl-C once."""

    def hook(federation, record):
        if record["round"] == round:
            os.kill(os.getpid(), signal.SIGINT)

    return hook


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the uninterrupted run of an algorithm, by its name."""
    return functools.cache(lambda name: run(tmp_path_factory.mktemp(name) / "whole", SPECS[name]))


@pytest.mark.parametrize("name", SPECS)
def test_interrupted_and_resumed_equals_uninterrupted(name, whole, tmp_path):
    half = run(tmp_path / "parts", SPECS[name], hooks=(stop_after(5),))
    assert half.interrupted and half.summary["rounds"] < ROUNDS
    assert not (tmp_path / "parts" / "summary.json").exists()
    resumed = run(tmp_path / "parts", SPECS[name], resume=True)
    assert not resumed.interrupted
    assert_same(whole(name), resumed)
    for figure in ("uplink_bytes", "transfer_seconds"):
        assert resumed.summary[figure] == whole(name).summary[figure] > 0


def test_resume_uses_the_execution_plan_of_the_checkpoint(tmp_path):
    run(tmp_path, SPECS["fedadam"], hooks=(stop_after(5),), lanes=2)
    run(tmp_path, SPECS["fedadam"], resume=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["execution"]["lanes"] == 2


def test_resume_dispatches_as_many_rounds_together(tmp_path):
    first = tmp_path / "first"
    run(first, SPECS["fedadam"], num_rounds=8, rounds_per_dispatch=2)
    copy = shutil.copytree(first, tmp_path / "copy")
    for workdir, given, expected in ((first, {}, 2), (copy, {"rounds_per_dispatch": 1}, 1)):
        run(workdir, SPECS["fedadam"], resume=True, **given)
        config = json.loads((workdir / "config.json").read_text())
        assert config["execution"]["rounds_per_dispatch"] == expected


def test_resume_of_a_finished_run_changes_nothing(whole, tmp_path):
    first = whole("fedadam")
    workdir = shutil.copytree(first.directory, tmp_path / "copy")
    before = lines(workdir)
    second = run(workdir, SPECS["fedadam"], resume=True)
    assert lines(workdir) == before
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)


def test_resume_starts_where_there_is_no_run(whole, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("of the user")
    assert_same(whole("fedadam"), run(tmp_path / "new", SPECS["fedadam"], resume=True))
    assert f"{tmp_path / 'new'} holds no run yet: nothing is resumed" in capsys.readouterr().err


def test_a_finished_run_can_be_extended(whole, tmp_path):
    run(tmp_path / "short", SPECS["scaffold"], num_rounds=8)
    longer = run(tmp_path / "short", SPECS["scaffold"], resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole("scaffold").variables, longer.variables)


def nesterov(hp):
    return optax.sgd(hp["client_lr"], momentum=0.5, nesterov=True)


CHANGES = {
    "algorithm was": {"spec": algorithms.fedavg(0.2)},
    "client_lr was 0.2 and is 0.3": {"spec": algorithms.fedopt("adam", 0.3, 0.05)},
    "server_lr was 0.05 and is 0.06": {"spec": algorithms.fedopt("adam", 0.2, 0.06)},
    "sampler was 'poisson' and is 'uniform'": {"sampler": "uniform"},
    "client_lr_schedule was None": {"client_lr_schedule": lambda round: 0.9**round},
    "uplink_mbps was 0.3 and is None": {"uplink_mbps": None},
    "matmul_precision was None": {"matmul_precision": "highest"},
    "compute_dtype was 'float32'": {"compute_dtype": "bfloat16"},
    "alpha was 0.3 and is 100": {"config": {"alpha": 100, "num_rounds": 4}},
    "data was": {"parts": [(2 * x, y) for x, y in toy.clients(dtype=np.float32)]},
    "client_optimizer computes something else": {
        "spec": algorithms.fedopt("adam", 0.2, 0.05, client_optimizer=nesterov)
    },
    "partition's rows was": {"parts": toy.clients(toy.SIZES[::-1], dtype=np.float32)},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("saved")
    run(workdir, SPECS["fedadam"], num_rounds=4, config={"alpha": 0.3, "num_rounds": 3})
    return workdir


@pytest.mark.parametrize("message", CHANGES)
def test_resume_refuses_another_configuration_and_touches_nothing(saved, message):
    before = {path: path.read_bytes() for path in saved.glob("*.*") if path.is_file()}
    change = {"spec": SPECS["fedadam"], "config": {"alpha": 0.3}, **CHANGES[message]}
    with pytest.raises(ValueError, match=message) as error:
        run(saved, resume=True, **change)
    assert "another configuration" in str(error.value)
    assert "client_optimizer" in message or "client_optimizer" not in str(error.value)
    after = {path: path.read_bytes() for path in saved.glob("*.*") if path.is_file()}
    assert len(before) >= 3
    assert before == after


def test_a_second_run_does_not_overwrite(saved):
    with pytest.raises(FileExistsError, match="--resume"):
        run(saved, SPECS["fedadam"], num_rounds=1)


def test_killed_and_resumed_equals_uninterrupted(whole, tmp_path):
    """SIGKILL at some moment after the first checkpoint; the resumed run repeats the rest."""
    script = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "import jax; jax.config.update('jax_num_cpu_devices', 2)\n"
        "import test_resume\n"
        "slow = lambda federation, record: time.sleep(0.2)\n"
        "test_resume.run(sys.argv[1], test_resume.SPECS['scaffold'], hooks=(slow,))\n"
    )
    here = Path(__file__).parent
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(workdir), str(here), str(here.parent)],
        env=os.environ | quick.ENVIRONMENT,
    )
    checkpoint = workdir / "checkpoints" / "4"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert checkpoint.exists()
    resumed = run(workdir, SPECS["scaffold"], resume=True)
    assert_same(whole("scaffold"), resumed)
