"""The kernels' benchmark: every form of a layer has a row, with figures that fit each other."""

import json

import jax
import numpy as np
import pytest

from fljax.benchmarks.kernels import layers, timed_loop


def test_rows_and_files(tmp_path, monkeypatch, capsys, quick_compilation):
    small = {
        "inner": layers.Layer(8, 2, 3, 3, "SAME"),
        "first": layers.Layer(7, 1, 2, 3, "VALID", first=True),
    }
    monkeypatch.setattr(layers, "LAYERS", small)
    monkeypatch.setattr(timed_loop, "SECONDS", 1e-4)
    monkeypatch.setattr(timed_loop, "REPEATS", 1)
    monkeypatch.setattr(layers, "matrix_peak", lambda: 100.0)
    monkeypatch.setattr(layers, "other_rows", lambda batch, clients: iter(()))
    whole = {"kernel": "whole step", "layer": "inner", "form": "", "clients": 2, "gflops": 50.0}
    whole["milliseconds"] = {"step": 8.0}
    monkeypatch.setattr(layers, "step_rows", lambda batch, clients: iter([whole]))
    path = tmp_path / "kernels.json"
    layers.main([f"--out={path}", "--batch=2", "--clients", "2", "--layers", "inner", "first"])
    rows = json.loads(path.read_text())["rows"]
    *rows, step = rows
    assert step["share_of_peak"] == 0.5
    names = {(row["layer"], row["form"]) for row in rows}
    assert names == {(layer, form) for layer in small for form in layers.forms()}
    printed = capsys.readouterr().out
    for row in rows:
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / 100)
        assert ("input gradient" in row["milliseconds"]) == (row["layer"] == "inner")
        part = row["milliseconds"]["step"] / 8 if row["layer"] == "inner" else None
        assert row.get("share_of_step") == part
        assert f"| convolution: {row['layer']} | {row['form']} | 2 |" in printed


def test_other_kernels_have_several_forms_each(monkeypatch):
    asked = []
    note = lambda function, *args, clients: asked.append(clients) or 1.0  # noqa: E731
    monkeypatch.setattr(layers, "milliseconds", note)
    rows = [*layers.other_rows(batch=2, clients=3), *layers.step_rows(batch=2, clients=3)]
    kernels = [row["kernel"] for row in rows]
    assert kernels == sorted(kernels, key=kernels.index) and set(asked) == {3}
    assert all(kernels.count(kernel) >= 2 for kernel in kernels)
    assert {row["layer"] for row in rows} == {"EMNIST CNN", "Shakespeare LSTM"}
    rates = {row["layer"]: row["gflops"] for row in rows if row["kernel"] == "whole step"}
    # 71.6 MFLOP an example, two of them for each of three clients on every device, in 1 ms
    gigaflop = 71.6e-3 * 2 * 3 * jax.local_device_count()
    assert rates["EMNIST CNN"] == pytest.approx(gigaflop / 1e-3, rel=1e-3)


def test_the_lstm_is_the_function_that_it_is_measured_beside(quick_compilation):
    draw = np.random.default_rng(0)
    size = layers.HIDDEN
    x, *kernels = (
        draw.standard_normal(shape).astype(np.float32) / 16
        for shape in ((5, 2, size), (size, 4 * size), (size, 4 * size))
    )
    np.testing.assert_allclose(
        layers.lstm(x @ kernels[0], kernels[1]), layers._plain_lstm(x, *kernels), atol=1e-5
    )


@pytest.mark.parametrize("name", ["EMNIST CNN", "Shakespeare LSTM"])
def test_a_whole_step_trains(name, quick_compilation, monkeypatch):
    monkeypatch.setattr(layers, "LENGTH", 3)
    step, args, _ = layers.client_steps(batch=2)[name]
    for leaf, new in zip(args[:-2], jax.jit(step)(*args), strict=True):
        assert leaf.shape == new.shape and np.isfinite(new).all() and (leaf != new).any()
