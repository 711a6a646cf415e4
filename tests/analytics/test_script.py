"""The command line: what it prints, and what it leaves."""

import json
from functools import partial
from pathlib import Path

import consoles
import pytest
from sklearn.datasets import load_digits

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.py"


def test_a_query_leaves_its_answer_and_a_table(tmp_path, monkeypatch, capsys):
    run = partial(consoles.call, monkeypatch, capsys, "analytics", f"--config={QUICKSTART}")
    done = run("--query=mean", "--column=x[0][3]", f"--workdir={tmp_path}")
    assert done.code == 1 and "no such column" in done.err
    done = run(
        "--config.val_fraction=0.0", "--query=histogram(-0.5, 9.5, 10)", f"--workdir={tmp_path}"
    )
    assert done.code == 0, done.err
    assert (tmp_path / "analytics.txt").read_text() in done.out
    found = json.loads((tmp_path / "analytics.json").read_text())
    (reply,) = found["replies"].values()
    counts = reply["answers"][0]["value"]
    # a fifth of the digits is for tests
    assert sum(counts) == reply["facts"]["rows_read"] < len(load_digits().target)
    assert found["clients"] == 100 and reply["privacy"] is None
