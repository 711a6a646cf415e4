"""The kernels' benchmark: every form of a layer has a row, with figures that fit each other."""

import json

import pytest

from fljax_kernels import benchmark


def test_rows_and_files(tmp_path, monkeypatch, capsys, quick_compilation):
    layers = {
        "inner": benchmark.Layer(8, 2, 3, 3, "SAME"),
        "first": benchmark.Layer(7, 1, 2, 3, "VALID", first=True),
    }
    monkeypatch.setattr(benchmark, "LAYERS", layers)
    monkeypatch.setattr(benchmark, "SECONDS", 1e-4)
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    monkeypatch.setattr(benchmark, "matrix_peak", lambda: 100.0)
    monkeypatch.setattr(benchmark, "other_rows", lambda batch: iter(()))
    path = tmp_path / "kernels.json"
    benchmark.main([f"--out={path}", "--batch=2", "--clients", "2", "--layers", "inner", "first"])
    rows = json.loads(path.read_text())["rows"]
    names = {(row["layer"], row["form"]) for row in rows}
    assert names == {(layer, form) for layer in layers for form in benchmark.FORMS}
    printed = capsys.readouterr().out
    for row in rows:
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / 100)
        assert ("input gradient" in row["milliseconds"]) == (row["layer"] == "inner")
        assert f"| convolution: {row['layer']} | {row['form']} | 2 |" in printed


def test_other_kernels_have_two_forms_each(monkeypatch):
    monkeypatch.setattr(benchmark, "milliseconds", lambda function, *args: 1.0)
    rows = list(benchmark.other_rows(batch=2))
    kernels = [row["kernel"] for row in rows]
    assert kernels == sorted(kernels, key=kernels.index)
    assert all(kernels.count(kernel) == 2 for kernel in kernels)
