"""Pictures of studies: axes of the Pareto picture, labels of crowded points, named curves."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from fljax.recording.label_places import Box, arrange
from fljax.studies import repeat
from fljax.studies.comparison import compare
from fljax.studies.pareto import draw_pareto
from fljax.studies.pictures import _draw_curves, plot_study
from fljax.studies.privacy_picture import draw_privacy
from fljax.studies.results import Results
from fljax.studies.study import Study


def test_labels_are_near_their_points_and_cover_nothing():
    rng = np.random.default_rng(1)
    frame = Box(0, 0, 800, 500)
    legend = Box(600, 0, 800, 100)
    for _ in range(5):
        # a crowd along one line, as rungs of almost one accuracy are, and some elsewhere
        crowd = np.stack([rng.uniform(80, 720, 14), rng.normal(400, 12, 14)], 1)
        others = np.stack([rng.uniform(80, 500, 6), rng.uniform(60, 330, 6)], 1)
        centres = [tuple(centre) for centre in np.concatenate([crowd, others])]
        sizes = [(width, 11.0) for width in rng.uniform(25, 80, len(centres))]
        boxes = arrange(centres, sizes, frame, [legend])
        for (x, y), (width, height), box in zip(centres, sizes, boxes, strict=True):
            assert box.right - box.left >= width and box.top - box.bottom >= height
            assert np.isclose(box.overlap(frame), box.area)
            assert box.overlap(legend) == 0
            assert abs(x - (box.left + box.right) / 2) < 70 + width
            assert abs(y - (box.bottom + box.top) / 2) < 70 + height
        for box, other in itertools.combinations(boxes, 2):
            assert box.overlap(other) == 0
        for (x, y), box in itertools.product(centres, boxes):
            assert box.overlap(Box(x - 3, y - 3, x + 3, y + 3)) == 0


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
    labels = {text.get_text() for text in axes.texts}
    assert {"far: 20.0", "c"} <= labels
    # nobody keeps a memory, so there are no colours to explain
    keys = {text.get_text() for text in figure.legends[0].get_texts()}
    assert keys == {"reference: none", "beyond this axis, with its value"}


@pytest.mark.parametrize(("factor", "kinds"), [(1.04, set()), (1.06, {"pareto"})])
def test_variants_of_almost_equal_bytes_are_no_trade_of_bytes(factor, kinds, tmp_path):
    study = Study(variants={"a": {}, "b": {}})
    trials = repeat([{}], (0,), ("a", "b"))
    rows = [
        {"trial": trial.number, "seed": 0, "round": 1, "train/clients": 1}
        | {"comm/uplink_bytes": 1e6 * factor**trial.number}
        | dict.fromkeys(("eval/val/accuracy", "eval/test/accuracy"), 0.9 - 0.1 * trial.number)
        for trial in trials
    ]
    drawn = plot_study(compare(study, {}, Results(trials, rows, {})), tmp_path)
    assert {path.stem for path in drawn} & {"pareto"} == kinds


def test_what_sends_nothing_is_a_line(tmp_path):
    """An axis of powers has no place for 0 bytes; a label there once ended the whole report."""
    levels = {"fedavg": 0.9, "half": 0.91, "local": 0.93}
    sent = {"fedavg": 2e6, "half": 1e6, "local": 0.0}
    study = Study(variants=dict.fromkeys(levels, {}), reference="fedavg")
    trials = repeat([{}], (0,), tuple(levels))
    rows = [
        {"trial": trial.number, "seed": 0, "round": 1, "train/clients": 1}
        | {"comm/uplink_bytes": sent[trial.variant]}
        | dict.fromkeys(("eval/val/accuracy", "eval/test/accuracy"), levels[trial.variant])
        for trial in trials
    ]
    figure = Figure()
    draw_pareto(figure, compare(study, {}, Results(trials, rows, {})))
    axes = figure.axes[0]
    assert axes.get_xlim()[0] > 0.1
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["local: sends nothing"] == pytest.approx([93, 93])
    assert {"fedavg", "half"} <= {text.get_text() for text in axes.texts}
    figure.savefig(tmp_path / "pareto.png")


@pytest.mark.parametrize(
    ("size", "unit", "ticks"),
    [(2e9, "GB", {"2", "5"}), (2e6, "MB", {"2", "5"}), (3e3, "kB", {"5"}), (30, "bytes", {"50"})],
)
def test_bytes_have_the_unit_that_fits_and_each_meaning_its_markers(size, unit, ticks):
    memories = {"none": "none", "top_k": "error_feedback", "sign": "ef21"}
    study = Study(variants={name: {"uplink_memory": memory} for name, memory in memories.items()})
    trials = repeat([{}], (0,), tuple(memories))
    rows = [
        {"trial": trial.number, "seed": 0, "round": 1, "train/clients": 1}
        | {"comm/uplink_bytes": size * (1 + trial.number)}
        | dict.fromkeys(("eval/val/accuracy", "eval/test/accuracy"), 0.7 - 0.1 * trial.number)
        for trial in trials
    ]
    figure = Figure()
    draw_pareto(figure, compare(study, {"target": 0.55}, Results(trials, rows, {})))
    figure.draw_without_rendering()
    axes, (legend,) = figure.axes[0], figure.legends
    assert axes.get_xlabel().endswith(f"({unit})")
    assert ticks <= {label.get_text() for label in axes.get_xticklabels()}
    # one variant never reached the target: its marker, and no other, is hollow in the key
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels.count("target not reached: whole run") == 1
    hollow = [line for line in legend.get_lines() if line.get_markerfacecolor() == "white"]
    assert {line.get_marker() for line in hollow} == {"s"}


@pytest.mark.parametrize(("count", "named"), [(6, 6), (7, 7), (8, 6)])
def test_curves_name_as_many_variants_as_there_are_colours_and_no_single_one_is_left(count, named):
    names = [f"variant {number}" for number in range(count)]
    study = Study(variants={name: {} for name in names})
    trials = repeat([{}], (0,), tuple(names))
    rows = [
        {"trial": trial.number, "seed": 0, "round": round, "train/clients": 1}
        | dict.fromkeys(("eval/val/accuracy", "eval/test/accuracy"), 0.1 * round)
        for trial in trials
        for round in (1, 2)
    ]
    figure = Figure()
    _draw_curves(figure, compare(study, {}, Results(trials, rows, {})))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum(label.startswith("variant") for label in labels) == named
    assert [label for label in labels if "the next" in label] == ["the next 2 of 8"] * (count == 8)


def test_private_points_of_one_algorithm_are_joined_and_lines_differ():
    """A federation with intercepts of its own is no further point of the plain one's curve."""
    protected = {"privacy": "dpsgd", "algorithm": "fedavg"}
    own = {"algorithm": "fedper"}
    variants = {
        "plain": {"privacy": None, "algorithm": "fedavg"},
        "alone": {"privacy": None, "algorithm": "local_only"},
        "epsilon 1": protected,
        "epsilon 2": protected,
        "own, epsilon 2": protected | own,
    }
    epsilons = {"epsilon 1": 1.0, "epsilon 2": 2.0, "own, epsilon 2": 2.0}
    trials = repeat([{}], (0, 1), tuple(variants))
    rows = [
        {"trial": trial.number, "seed": trial.seed, "round": 1}
        | {f"eval/{split}/accuracy": 0.1 * trial.number for split in ("val", "test")}
        | ({"privacy/epsilon": epsilons[trial.variant]} if trial.variant in epsilons else {})
        for trial in trials
    ]
    figure = Figure()
    draw_privacy(figure, compare(Study(variants=variants), {}, Results(trials, rows, {})))
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert lines["fedavg, dpsgd"].get_xdata().tolist() == [1, 2]
    assert lines["fedper, dpsgd"].get_xdata().tolist() == [2]
    without = [lines[f"{name}: no finite epsilon"] for name in ("plain", "alone")]
    assert len({str(line.get_linestyle()) for line in without}) == 2
