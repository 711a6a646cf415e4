"""Killed runs and flipped bits, a few of them; docs/trust.md has many."""

import json
import shutil

import pytest

from fljax.benchmarks import bit_flips, kills
from fljax.benchmarks.same_files import differences


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kills")
    return kills.endure("scaffold", 2, directory), directory / "scaffold" / "whole"


def test_killed_runs_lose_nothing(outcome):
    found, _ = outcome
    assert found.kills == 2 and found.runs >= 1 and found.problems == ()
    assert "| SCAFFOLD |" in kills.table([("scaffold", found)])


def test_what_differs_is_seen(outcome, tmp_path):
    whole = outcome[1]
    copy = shutil.copytree(whole, tmp_path / "copy")
    assert differences(whole, copy) == []
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    record = json.loads(lines[3])
    lines[3] = json.dumps(record | {"time/round_seconds": 1.0})
    (copy / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert differences(whole, copy) == [], "seconds do not count"
    lines[3] = json.dumps(record | {"train/loss": record["train/loss"] * (1 + 1e-15)})
    (copy / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (copy / "client_metrics.npz").unlink()
    shutil.rmtree(copy / "checkpoints" / "24")
    assert differences(whole, copy) == [
        "client_metrics.npz is in one of them only",
        "metrics.jsonl differs",
        "the newest of checkpoints differ",
    ]


def test_flipped_bits_are_found_or_change_nothing(outcome):
    whole = outcome[1]
    whole.rename(whole.parent.parent / "scaffold-whole")
    fates = bit_flips.flips("scaffold", 3, whole.parent.parent)
    assert sum(fates.values()) == 3 and "not noticed" not in fates
