"""Pictures of a sweep: those that its axes allow, and in them what the results say."""

import contextlib
import math

import numpy as np
import pytest
from fake_sweeps import curves, heat_map, results_of, texts
from matplotlib.image import imread

from fljax.core.metrics import Metric
from fljax.recording.line_file import LineFile
from fljax.studies import grid, log_uniform, repeat, sample, uniform
from fljax.studies.columns import table
from fljax.studies.comparison import compare
from fljax.studies.pictures import plot_study
from fljax.studies.results import ROWS, Results, append_rows, load, write_trials
from fljax.studies.study import Study

AXES = {"client_lr": (0.01, 0.1, 1.0), "server_lr": (0.1, 1.0)}


def plot_sweep(results, directory):
    return plot_study(compare(Study(), {}, results), directory)


@pytest.mark.parametrize(
    ("configurations", "expected"),
    [
        (grid(AXES), {"map-client_lr-server_lr", "axes", "sensitivity", "curves"}),
        (grid({"client_lr": (0.1, 1.0), "model": ("mlp",)}), {"sensitivity", "curves"}),
        (
            sample({"client_lr": log_uniform(1e-3, 1), "mu": uniform(0, 1)}, 20, 0),
            {"axes", "sensitivity", "curves"},
        ),
        ([{}], {"curves"}),
    ],
)
def test_a_sweep_gets_the_pictures_its_axes_allow(tmp_path, configurations, expected):
    results = results_of(curves(2 * len(configurations)), configurations, (0, 1), diverged=(1,))
    written = plot_sweep(results, tmp_path / "plots")
    assert {path.stem for path in written} == expected
    for path in written:
        assert (imread(path)[..., :3].min(axis=-1) < 0.95).mean() > 0.01, "there is ink"


def test_values_that_are_lists_are_drawn_as_they_were_written(tmp_path):
    axes = {"model_options.hidden": ((10,), (20, 20)), "client_lr": (0.1, 1.0)}
    ran = results_of(curves(4), grid(axes))
    write_trials(tmp_path, ran.trials, ran.statuses)
    with contextlib.closing(LineFile(tmp_path / ROWS)) as file:
        append_rows(file, ran.rows)
    results = load(tmp_path)
    assert results.trials == ran.trials
    written = plot_sweep(results, tmp_path / "plots")
    assert tmp_path / "plots/map-client_lr-model_options.hidden.png" in written
    assert {"0.510", "0.530"} <= set(texts(heat_map(results)))
    # configurations that never went through a file may hold lists
    lists = [
        trial._replace(values=trial.values | {"hidden": [trial.number // 2]})
        for trial in ran.trials
    ]
    assert plot_sweep(ran._replace(trials=lists), tmp_path / "lists")


def test_long_names_stay_within_their_pictures(tmp_path, monkeypatch):
    from fljax.studies import pictures

    drawn = []
    keep = lambda figure, path, dpi: drawn.append((path.stem, figure))  # noqa: E731
    monkeypatch.setattr(pictures, "save_figure", keep)
    long = ("a value of a long name, and more", "another value of a long name, and even more of it")
    configurations = grid({"options.of_a_long_name": long, "more_options.of_a_long_name": long})
    plot_sweep(results_of(curves(4), configurations), tmp_path)
    variants = dict.fromkeys([" and ".join(long * 2), "none"], {})
    trials = repeat([{}], (0,), tuple(variants))
    rows = [
        {"trial": trial.number, "seed": 0, "round": round, "eval/val/accuracy": 0.1 * round}
        | {f"eval/clients/{name}": 0.5 for name in ("p10", "p50", "p90", "mean", "worst")}
        for trial in trials
        for round in range(3)
    ]
    plot_study(compare(Study(variants=variants), {}, Results(trials, rows, {})), tmp_path)
    assert {name for name, _ in drawn} >= {"axes", "sensitivity", "curves", "bars", "clients"}
    for name, figure in drawn:
        figure.draw_without_rendering()
        inside = figure.bbox.padded(1)
        parts = [legend.get_window_extent() for legend in figure.legends]
        for axes in figure.axes:
            parts += [axes.title.get_window_extent(), axes.get_window_extent()]
            parts += [label.get_window_extent() for label in axes.get_yticklabels()]
            if axes.get_label() != "<colorbar>":
                assert axes.get_window_extent().width > 0.15 * inside.width, name
        for part in parts:
            assert inside.x0 <= part.x0 and part.x1 <= inside.x1, (name, part)


def test_a_sweep_of_which_everything_diverged_gets_none(tmp_path):
    results = results_of({n: [(math.nan, 0.1)] for n in range(6)}, grid(AXES), diverged=range(6))
    assert plot_sweep(results, tmp_path) == []


def test_bands_stay_within_the_frame_and_metrics_are_called_by_their_labels(tmp_path, monkeypatch):
    from fljax.studies import pictures

    drawn = {}
    keep = lambda figure, path, dpi: drawn.update({path.stem: figure})  # noqa: E731
    monkeypatch.setattr(pictures, "save_figure", keep)
    metric = Metric("mse", "lower", label="Squared error")
    trials = repeat([{"client_lr": rate} for rate in (0.1, 1.0)], (0, 1))
    rows = [
        {"trial": trial.number, "seed": trial.seed, "round": round}
        | {f"eval/{split}/mse": 5.0 / (1 + round) + trial.seed for split in ("val", "test")}
        for trial in trials
        for round in range(21)
    ]
    found = compare(Study(), {}, Results(trials, rows, {}), metrics=(metric,))
    plot_study(found, tmp_path)
    (axes,) = drawn["curves"].axes
    assert axes.get_ylabel() == "validation squared error"
    assert drawn["sensitivity"].axes[0].get_ylabel() == "validation squared error, best round"
    assert table(found)[0][1] == "test squared error"
    low, high = axes.get_ylim()
    bands = [path.vertices for band in axes.collections for path in band.get_paths()]
    assert len(bands) == 2
    for x, y in np.concatenate(bands):
        assert x <= 2 or low <= y <= high
