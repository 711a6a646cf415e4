"""The scripts of studies as processes: a study, two that share a sweep, and a mistake in a line."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import quick

from fljax.reports import write_report

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | quick.ENVIRONMENT
SMALL = [
    "--config=configs/quickstart.py", "--config.num_rounds=4", "--config.eval_every=2",
    "--config.eval_clients=0", "--axis=client_lr=0.05,0.3", "--seeds=2",
]  # fmt: skip


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "scripts/sweep.py", *map(str, arguments)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=ENVIRONMENT | environment,
    )  # fmt: skip


def test_two_processes_share_a_sweep(tmp_path):
    processes = [
        start(*SMALL, f"--workdir={tmp_path}", FLJAX_SWEEP_RANK=str(rank), FLJAX_SWEEP_COUNT="2")
        for rank in range(2)
    ]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [code for *_, code in ended] == [0, 0], ended
    trials = json.loads((tmp_path / "trials.json").read_text())
    assert [trial["state"] for trial in trials] == ["finished"] * 4
    parts = [json.loads((tmp_path / f"parts/{n:04d}/sweep.json").read_text()) for n in range(2)]
    assert [part["trials"] for part in parts] == [2, 2]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["seeds"] == [0, 1]
    # the last one to end says what was found
    assert any("best by eval/val/accuracy" in out for out, *_ in ended)
    table = (tmp_path / "results.csv").read_text().splitlines()
    assert len(table) == 1 + 4 * 5 and table[0].startswith("trial,client_lr,seed,round")


def test_the_script_shows_the_help_of_all_its_flags():
    command = [sys.executable, "scripts/study.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    listed = set(re.findall(r"^  --(?:\[no\])?(\w+):", done.stdout, re.MULTILINE))
    own = {"variant", "axis", "seeds", "share", "parallel_trials", "memory_gb"}
    assert listed >= own | {"config", "config_help", "workdir"}


def test_the_script_runs_a_study(tmp_path):
    command = [
        sys.executable, "scripts/study.py", "--config=configs/quickstart.py",
        f"--workdir={tmp_path}", "--seeds=1", "--variant=slow: client_lr=0.01",
        "--variant=fast: client_lr=0.3", "--config.num_rounds=2", "--config.eval_every=1",
        "--config.eval_clients=0",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "study.csv").open(newline="") as file:
        assert [line["variant"] for line in csv.DictReader(file)] == ["slow", "fast"]
    assert f"report: {tmp_path / 'report.html'}" in done.stdout
    # the command that writes reports writes the same page
    page = (tmp_path / "report.html").read_text()
    assert "Curves by variant" in page and write_report(tmp_path).read_text() == page
    assert "--variant=slow: client_lr=0.01" in (tmp_path / "report.md").read_text()
