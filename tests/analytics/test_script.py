"""The command line: what it prints, and what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import quick
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/analytics.py", "--config=configs/quickstart.py", *arguments],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | quick.ENVIRONMENT, timeout=300,
    )  # fmt: skip


def test_a_query_leaves_its_answer_and_a_table(tmp_path):
    done = run(
        "--config.val_fraction=0.0", "--query=mean", "--column=x[0][3]", f"--workdir={tmp_path}"
    )
    assert done.returncode == 1 and "no such column" in done.stderr
    done = run(
        "--config.val_fraction=0.0", "--query=histogram(-0.5, 9.5, 10)", f"--workdir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "analytics.txt").read_text() in done.stdout
    found = json.loads((tmp_path / "analytics.json").read_text())
    (reply,) = found["replies"].values()
    counts = reply["answers"][0]["value"]
    # a fifth of the digits is for tests
    assert sum(counts) == reply["facts"]["rows_read"] < len(load_digits().target)
    assert found["clients"] == 100 and reply["privacy"] is None
