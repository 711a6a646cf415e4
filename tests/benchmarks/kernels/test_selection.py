"""The benchmark of selection: every kernel and form has a row, with figures that fit each other."""

import json

import pytest

from fljax.benchmarks.kernels import bandwidth, selection, timed_loop


def test_rows_and_files(tmp_path, monkeypatch, capsys, quick_compilation):
    monkeypatch.setattr(timed_loop, "SECONDS", 1e-4)
    monkeypatch.setattr(timed_loop, "REPEATS", 1)
    path = tmp_path / "selection.json"
    selection.main([f"--out={path}", "--sizes", "200", "--clients", "2"])
    result = json.loads(path.read_text())
    (copy,) = result["copies"]
    printed = capsys.readouterr().out
    assert len({(row["kernel"], row["form"]) for row in result["rows"]}) == len(result["rows"])
    for row in result["rows"]:
        rate = row["gigabytes_per_second"]
        assert row["share_of_copying"] == pytest.approx(rate / copy["gigabytes_per_second"])
        assert f"| {row['kernel']} | {row['form']} | 200 | 2 |" in printed


def test_bytes_are_those_of_the_mathematics(monkeypatch):
    monkeypatch.setattr(selection, "milliseconds", lambda *args, clients: 1.0)
    devices = bandwidth.gigabytes_per_second(10**6, 1.0, 0)
    rates = {
        row["kernel"]: row["gigabytes_per_second"] / devices
        for row in selection.selection_rows(1000, clients=3, fraction=0.01)
    }
    assert rates["top-k, dense"] == pytest.approx(3 * 8000e-6)
    assert rates["sketch"] == rates["unsketch"] == pytest.approx(3 * (4000 + 5 * 50 * 4) * 1e-6)
