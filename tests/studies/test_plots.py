"""Pictures of a sweep: those that its axes allow, and in them what the results say."""

import contextlib
import math

import numpy as np
import pytest
from fake_sweeps import results_of
from matplotlib.figure import Figure
from matplotlib.image import imread

from fljax.recording.line_file import LineFile
from fljax.studies import grid, log_uniform, repeat, sample, uniform
from fljax.studies.axis_pictures import draw_heat_map, draw_parallel_coordinates
from fljax.studies.comparison import compare
from fljax.studies.pareto import draw_pareto
from fljax.studies.pictures import plot_study
from fljax.studies.results import ROWS, Results, append_rows, axes_of, load, write_trials
from fljax.studies.scales import scale_of
from fljax.studies.selection import Criterion, rank
from fljax.studies.study import Study

AXES = {"client_lr": (0.01, 0.1, 1.0), "server_lr": (0.1, 1.0)}


def curves(num, level=lambda number: 0.5 + 0.01 * number):
    return {n: [(0.1, 0.1), (level(n) - 0.1, 0.3), (level(n), 0.5)] for n in range(num)}


def plot_sweep(results, directory):
    return plot_study(compare(Study(), {}, results), directory)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def heat_map(results):
    figure = Figure()
    scales = {name: scale_of(values) for name, values in axes_of(results.trials).items()}
    (x, y) = list(scales.items())[:2]
    draw_heat_map(figure, rank(results), x, y, Criterion())
    return figure


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


def test_a_pareto_picture_has_even_axes_with_units_and_tells_what_lies_beyond():
    levels = {"none": 0.9, "a": 0.89, "b": 0.895, "c": 0.88, "far": 0.2}
    study = Study(variants=dict.fromkeys(levels, {}), reference="none")
    trials = repeat([{}], (0,), tuple(levels))
    rows = [
        {"trial": trial.number, "seed": 0, "round": 1, "train/clients": 1}
        | {"comm/uplink_bytes": 1e6 * (1 + trial.number)}
        | dict.fromkeys(("eval/val/accuracy", "eval/test/accuracy"), levels[trial.variant])
        for trial in trials
    ]
    figure = Figure()
    draw_pareto(figure, compare(study, {}, Results(trials, rows, {})))
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlabel() == "uplink of all clients in all rounds (MB)"
    assert axes.get_ylabel() == "test accuracy (%)"
    low, high = axes.get_ylim()
    assert 80 < low < 88 and 90 < high < 91
    assert "far: 20.0" in texts(figure) and "c" in texts(figure)


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


def test_a_sweep_of_which_everything_diverged_gets_none(tmp_path):
    results = results_of({n: [(math.nan, 0.1)] for n in range(6)}, grid(AXES), diverged=range(6))
    assert plot_sweep(results, tmp_path) == []


def test_a_cell_is_the_mean_over_seeds_at_the_best_of_the_other_axes():
    configurations = grid(AXES | {"mu": (0.0, 1.0)})
    level = lambda number: [0.2, 0.4, 0.7, 0.5][number % 4]  # noqa: E731, two seeds of each mu
    figure = heat_map(results_of(curves(24, level), configurations, (0, 1)))
    found = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_allclose(found, np.full((2, 3), 0.6))
    assert texts(figure).count("0.600") == 6


def test_cells_say_what_diverged_stopped_or_was_not_run():
    results = results_of(curves(10), grid(AXES)[:5], (0, 1), diverged=(0, 1, 3), stopped=(4, 5, 6))
    figure = heat_map(results)
    assert {"diverged", "1 of 2 diverged", "stopped at 20", "not run"} <= set(texts(figure))
    shown = np.ma.getmaskarray(figure.axes[0].images[0].get_array())
    # rows are server_lr, columns client_lr
    assert shown.tolist() == [[True, False, False], [False, False, True]]


def test_lines_end_at_their_score_with_the_best_on_top_and_the_diverged_below():
    results = results_of(curves(6), grid(AXES), diverged=(2,))
    scales = {name: scale_of(values) for name, values in axes_of(results.trials).items()}
    for maximize, best in ((True, 5), (False, 0)):
        figure = Figure()
        criterion = Criterion(maximize=maximize, at="last")
        ranked = rank(results, criterion)
        draw_parallel_coordinates(figure, ranked, scales, criterion)
        ends = [line.get_ydata()[-1] for line in figure.axes[0].lines if len(line.get_xdata()) > 2][
            ::-1
        ]  # the best is drawn last
        assert ranked[0].trials == (best,)
        assert ends[0] == 1.0 and ends[-1] < 0 and ends == sorted(ends, reverse=True)
