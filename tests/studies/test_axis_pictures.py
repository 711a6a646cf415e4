"""Pictures of axes: even scales, ticks where they say, cells and lines that tell what was."""

import itertools
import math

import numpy as np
import pytest
from fake_sweeps import curves, heat_map, results_of, texts
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fljax.core.metrics import Metric
from fljax.studies import grid, log_uniform, sample, uniform
from fljax.studies.axis_pictures import (
    Scale,
    draw_parallel_coordinates,
    draw_sensitivity,
    scale_of,
)
from fljax.studies.criterion import BY_ACCURACY, Criterion, filled
from fljax.studies.results import axes_of
from fljax.studies.selection import rank

AXES = {"client_lr": (0.01, 0.1, 1.0), "server_lr": (0.1, 1.0)}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((0.01, 0.1, 1.0), "log"),
        ((10, 20, 50), "log"),
        ((1, 2, 3, 4), "linear"),
        ((0.0, 0.9, 0.99), "linear"),
        ((-1.0, 1.0), "linear"),
        ((0.01, 0.1), "log"),
        ((1, 2), "linear"),
        (("sgd", "adam"), "names"),
        ((True, False), "names"),
        ((None, 0.5), "names"),
    ],
)
def test_the_scale_follows_the_values(values, kind):
    assert scale_of(values).kind == kind


@given(st.integers(0, 2**32))
def test_draws_are_laid_out_as_they_were_drawn(seed):
    drawn = sample({"a": log_uniform(1e-4, 10.0), "b": uniform(0.0, 1.0)}, 50, seed)
    assert scale_of(sorted(values["a"] for values in drawn)).kind == "log"
    assert scale_of(sorted(values["b"] for values in drawn)).kind == "linear"


bounds = st.tuples(st.floats(1e-6, 1e3), st.floats(1.01, 1e9))


@given(st.sampled_from(["linear", "log"]), bounds)
def test_ticks_lie_where_their_labels_say(kind, bounds):
    low, high = bounds[0], bounds[0] * bounds[1]
    scale = Scale(kind, (low, high))
    for at, label in scale.ticks() + scale.round_ticks():
        assert -1e-9 <= at <= 1 + 1e-9
        # labels have four digits
        slack = 1e-3 * high / (high - low) if kind == "linear" else 1e-3 / math.log(high / low)
        assert at == pytest.approx(scale.position(float(label)), abs=slack)


def test_few_values_and_names_have_a_tick_each():
    assert Scale("log", (0.1, 1.0, 10.0)).ticks() == [
        (0.0, "0.1"),
        (pytest.approx(0.5), "1"),
        (1.0, "10"),
    ]
    places, labels = zip(*Scale("names", ("sgd", "adam")).ticks(), strict=True)
    assert labels == ("sgd", "adam") and places == (0.25, 0.75)
    assert Scale("linear", (3.0, 3.0)).position(3.0) == 0.5


def test_a_cell_is_the_mean_over_seeds_at_the_best_of_the_other_axes():
    configurations = grid(AXES | {"mu": (0.0, 1.0)})
    level = lambda number: [0.2, 0.4, 0.7, 0.5][number % 4]  # noqa: E731, two seeds of each mu
    figure = heat_map(results_of(curves(24, level), configurations, (0, 1)))
    found = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_allclose(found, np.full((2, 3), 0.6))
    assert texts(figure).count("0.600") == 6


def test_values_that_differ_look_different():
    # a ten-thousandth apart, some across a step of three digits
    for first in (0.9996, 0.12345, 99.951, 1e-6):
        levels = [first * (1 + 1e-4 * place) for place in range(6)]
        results = results_of({n: [(level, 0.5)] for n, level in enumerate(levels)}, grid(AXES))
        cells = list(filter(None, texts(heat_map(results))))
        assert len(set(cells)) == 6, cells
        assert sorted(map(float, cells)) == pytest.approx(sorted(levels), rel=1e-4)
    close = (0.012341, 0.012342, 0.0123431)
    assert [label for _, label in scale_of(close).ticks()] == ["0.012341", "0.012342", "0.012343"]
    low, high = 0.91234, 0.912345
    labels = [label for _, label in Scale("linear", (low, high)).round_ticks()]
    assert len(set(labels)) == len(labels) > 2


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
    for better, best in (("higher", 5), ("lower", 0)):
        figure = Figure()
        criterion = filled(Criterion(at="last"), [Metric("accuracy", better)])
        ranked = rank(results, criterion)
        draw_parallel_coordinates(figure, ranked, scales, criterion)
        ends = [line.get_ydata()[-1] for line in figure.axes[0].lines if len(line.get_xdata()) > 2][
            ::-1
        ]  # the best is drawn last
        assert ranked[0].trials == (best,)
        axes = figure.axes[0]
        (strip,) = axes.images
        left, right, bottom, top = strip.get_extent()
        assert axes.get_xlim()[0] < left < right < axes.get_xlim()[1]
        assert (bottom, top) == (0, 1), "the whole scale has its colours"
        colours = strip.get_array()
        for line in axes.lines:
            height = line.get_ydata()[-1]
            if len(line.get_xdata()) > 2 and 0 <= height < 1:
                at = colours[round(255 * float(height)), 0]
                np.testing.assert_allclose(at[:3], line.get_color()[:3], atol=0.02)
        assert ends[0] == 1.0 and ends[-1] < 0 and ends == sorted(ends, reverse=True)


@pytest.mark.parametrize("levels", [(0.1, 0.5, 0.8, 0.9), (0.1, 0.88, 0.89, 0.9), (0.5, 0.6)])
def test_lines_of_different_scores_have_colours_that_can_be_told_apart(levels):
    results = results_of({n: [(level, 0.5)] for n, level in enumerate(levels)}, grid(AXES))
    ranked = rank(results)
    scales = {name: scale_of(values) for name, values in axes_of(results.trials).items()}
    figure = Figure()
    draw_parallel_coordinates(figure, ranked, scales, BY_ACCURACY)
    colours = figure.axes[0].images[0].get_array()[:, 0, :3]
    heights = (np.array(levels) - min(levels)) / (max(levels) - min(levels))
    of_lines = colours[np.round(255 * heights).astype(int)]
    for one, other in itertools.combinations(of_lines, 2):
        assert np.abs(one - other).max() > 0.1


def test_labels_of_values_stay_off_each_other_and_off_the_lines():
    long = ("softmax_regression", "mlp(hidden=(200,))", "mcmahan_cnn", "char_lstm")
    configurations = grid({"model": long, "client_lr": (0.01, 0.1, 1.0)})
    results = results_of(curves(12), configurations)
    scales = {name: scale_of(values) for name, values in axes_of(results.trials).items()}
    figure = Figure(layout="constrained")
    draw_sensitivity(figure, rank(results), scales, BY_ACCURACY)
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        boxes = [label.get_window_extent() for label in labels]
        assert all(label.get_rotation() for label in labels) or not any(
            box.overlaps(other) for box, other in itertools.combinations(boxes, 2)
        )
    assert [bool(a.get_xticklabels()[0].get_rotation()) for a in figure.axes] == [True, False]
    figure = Figure(layout="constrained")
    draw_parallel_coordinates(figure, rank(results), scales, BY_ACCURACY)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    written = [text for text in axes.texts if text.get_text() in {*long, "0.01", "0.1", "1"}]
    assert len(written) == 7
    for text in written:
        box, height = text.get_window_extent(), axes.transData.transform((0, text.xy[1]))[1]
        assert box.y0 > height or box.y1 < height
