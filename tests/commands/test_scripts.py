"""The command line, as a person uses it: processes, exit codes, and what they print."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import quick

import fljax
from fljax.config import experiment
from fljax.core.safetensors import read_tensors
from fljax.core.trees import leaf_paths

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "scripts/simulate.py", "--config=configs/quickstart.py"]
# a few rounds of small programs: compiling them well would take most of the time
ENVIRONMENT = os.environ | quick.ENVIRONMENT
# as on a new machine: libraries tell what they find and keep there
FOLDERS = tempfile.TemporaryDirectory(prefix="fljax-scripts-")
ENVIRONMENT |= {"MPLCONFIGDIR": FOLDERS.name}


def simulate(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env=ENVIRONMENT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run of the quickstart with overrides; returns (process, workdir)."""
    workdir = tmp_path_factory.mktemp("runs") / "first"
    done = simulate(
        f"--workdir={workdir}", "--config.num_rounds=3", "--config.eval_every=1",
        "--config.client_lr=0.05", "--config.target_accuracy=0.01", "--config.seed=3",
        f"--export={workdir}.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, workdir


def test_a_run_leaves_the_documented_files(finished):
    _, workdir = finished
    files = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    assert {"config.json", "metrics.jsonl", "summary.json", "client_metrics.npz"} <= files
    assert {f"plots/{name}.png" for name in ("loss", "accuracy", "bytes")} <= files
    for name in ("centralized", "local_only"):
        assert {f"baselines/{name}/{file}" for file in ("metrics.jsonl", "summary.json")} <= files
    assert (workdir / "checkpoints" / "3").is_dir()
    for path in (workdir / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_overrides_reach_the_run(finished):
    _, workdir = finished
    run = fljax.load_run(workdir)
    assert run.rounds.tolist() == [0, 1, 2, 3]
    assert run.config["client_lr"] == run.config["hparams"]["client_lr"] == 0.05
    assert run.config["seed"] == run.summary["seed"] == 3
    assert np.isfinite(run.curves["eval/val/accuracy"]).all()
    # evaluated on validation rows, which not every client has
    clients = run.client_metrics["client"]
    assert 0 < len(clients) <= clients.max() + 1 <= run.config["num_clients"] == 100


def test_the_closing_lines_name_results_and_places(finished):
    done, workdir = finished
    final = json.loads((workdir / "summary.json").read_text())["final"]
    assert f"federated: final test accuracy {final['eval/test/accuracy']:.4f}" in done.stdout
    assert "centralized: final" in done.stdout and "local_only: final" in done.stdout
    assert f"run directory: {workdir}" in done.stdout
    assert str(workdir / "plots" / "accuracy.png") in done.stdout


def test_the_best_weights_are_exported(finished):
    done, workdir = finished
    assert f"best weights: {workdir}.safetensors" in done.stdout
    arrays, _ = read_tensors(f"{workdir}.safetensors")
    best = fljax.load_run(workdir).best_variables.params
    names = [path.replace("/", ".") for path in leaf_paths(best)]
    assert sorted(arrays) == sorted(names)
    for name, leaf in zip(names, jax.tree.leaves(best), strict=True):
        np.testing.assert_array_equal(arrays[name], leaf)


def test_nothing_but_own_lines_is_shown(finished):
    done, _ = finished
    layout, *progress = done.stderr.splitlines()
    assert re.fullmatch(r"\d+ devices? x 1 lane", layout)
    for line, name in zip(progress, ("fedavg", "centralized", "local_only"), strict=True):
        assert line.startswith(f"{name}: round 3/3, loss ")
    own = r"(federated|centralized|local_only): final|best |target|\d+ rounds in|run dir"
    own += r"|plot: |report: "
    assert all(re.match(own, line) for line in done.stdout.splitlines())
    (local,) = (line for line in done.stdout.splitlines() if line.startswith("local_only"))
    assert "clients' own models on everybody's rows" in local


def run_here(workdir, resume, **overrides):
    """Does in this process what the script does with these flags."""
    config = fljax.config.load_config(ROOT / "configs/quickstart.py", overrides)
    return experiment.run_config(config, workdir, resume=resume)


def assert_refused(done, *words):
    """The process failed with a message for people and no traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_second_start_in_the_same_place_is_refused(finished):
    _, workdir = finished
    before = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match="already holds a run.*--resume.*--workdir"):
        run_here(workdir, False, num_rounds=3)
    assert {path: path.read_bytes() for path in before} == before


def start(*arguments):
    """Starts a run that minds signals, wherever the tests themselves run."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 15)],
    )  # fmt: skip


def minds_sigterm(pid):
    """Returns whether a process has a handler of SIGTERM, as Linux tells."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> signal.SIGTERM - 1 & 1)


def endless(arguments, workdir):
    """Starts an endless run; returns its process after a few rounds."""
    process = start(*arguments, "--config.num_rounds=1000000")
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def interrupted(arguments, workdir, *signals):
    """Sends signals to an endless run; returns (code, out, err)."""
    process = endless(arguments, workdir)
    for number in signals:
        process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    return process.returncode, output, errors


def test_a_signal_finishes_the_round_and_resume_completes_the_run(tmp_path):
    workdir = tmp_path / "run"
    arguments = [f"--workdir={workdir}", "--config.clients_per_round=4", "--config.baselines=()"]
    arguments += ["--config.calibrate=False"]  # of a run of a million rounds
    code, output, _ = interrupted(arguments, workdir, signal.SIGTERM)
    assert code == 143
    stopped = int(re.search(r"Stopped after round (\d+)", output)[1])
    assert "--resume" in output and str(workdir) in output
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == list(range(stopped + 1))
    assert (workdir / "checkpoints" / str(stopped)).is_dir()
    assert not (workdir / "summary.json").exists()

    fewer = {"clients_per_round": 4, "baselines": (), "calibrate": False}
    with pytest.raises(ValueError, match=f"has completed {stopped} rounds"):
        run_here(workdir, True, **fewer, num_rounds=stopped - 1)
    last = stopped + 5
    done = simulate(*arguments, f"--config.num_rounds={last}", "--resume")
    assert done.returncode == 0, done.stderr
    run = fljax.load_run(workdir)
    assert run.rounds.tolist() == list(range(last + 1))
    assert run.summary["rounds"] == last and np.isfinite(run.curves["eval/test/loss"][-1])


def test_a_second_signal_ends_at_once_with_a_line(tmp_path):
    arguments = [f"--workdir={tmp_path / 'run'}", "--config.calibrate=False"]
    code, output, errors = interrupted(
        arguments, tmp_path / "run", signal.SIGINT, signal.SIGHUP, signal.SIGINT
    )
    assert code in (129, 130) and "Stopped at once" in errors and not output


@pytest.mark.parametrize(("seconds", "number", "code"), [(0.0, 2, 130), (1.0, 15, 143)])
def test_a_signal_during_start_up_ends_with_a_line(seconds, number, code, tmp_path):
    process = start(f"--workdir={tmp_path / 'run'}")
    while not minds_sigterm(process.pid):  # until then it is Python's own start
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (code, "")
    assert errors.splitlines()[-1] == "Stopped at once. What was saved until now stays."


@pytest.mark.parametrize("where", ["2>&1 | head -1", "<&- >&- 2>/dev/full"])
def test_closed_or_full_output_ends_no_run(where, tmp_path):
    workdir = tmp_path / "run"
    command = [*COMMAND, f"--workdir={workdir}", "--config.num_rounds=2", "--config.baselines=()"]
    command += ["--config.eval_clients=0"]
    shell = f"({shlex.join(command)}; echo $? >{tmp_path / 'code'}) {where}"
    subprocess.run(["bash", "-c", shell], cwd=ROOT, env=ENVIRONMENT, timeout=300)
    while not (tmp_path / "code").exists():  # the reader may be gone before
        time.sleep(0.05)
    assert (tmp_path / "code").read_text().strip() == "0"
    run = fljax.load_run(workdir)
    assert run.summary["rounds"] == 2 and run.rounds.tolist() == [0, 1, 2]


def test_a_full_standard_output_is_said(tmp_path):
    command = [*COMMAND, "--config_help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert_refused(done, "Standard output cannot be written: No space left on device")


def test_a_workdir_that_cannot_be_is_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = set(ROOT.iterdir())
    with pytest.raises(ValueError, match="--workdir is empty"):
        run_here("", False)
    with pytest.raises(NotADirectoryError, match="it is a file.*LICENSE|LICENSE.*it is a file"):
        run_here("LICENSE", False)
    assert set(ROOT.iterdir()) == before


def test_a_directory_in_use_is_refused_and_a_vanished_one_is_no_success(tmp_path):
    workdir = tmp_path / "run"
    arguments = [f"--workdir={workdir}", "--config.calibrate=False", "--config.baselines=()"]
    process = endless(arguments, workdir)
    # frozen meanwhile: it neither writes between removals nor fails before it is told to stop
    process.send_signal(signal.SIGSTOP)
    assert_refused(simulate(*arguments), "is in use by process", str(process.pid))
    with pytest.raises(BlockingIOError, match=f"is in use by process {process.pid}"):
        run_here(workdir, True, calibrate=False, baselines=())
    shutil.rmtree(workdir)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and not output, "it is not said to be saved"
    assert "Traceback" not in errors and str(workdir) in errors.splitlines()[-1]
