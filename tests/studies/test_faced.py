"""Studies that face an axis, such as attacks: matrix, columns and remarks, of made-up figures."""

import numpy as np
import pytest
from fake_attacks import attacked
from fake_sweeps import texts
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fljax.studies.columns import table
from fljax.studies.heat_maps import draw_matrix
from fljax.studies.pictures import plot_study
from fljax.studies.remarks import remarks
from fljax.studies.selection import best
from fljax.studies.study import Study

DEFENCES = ("mean", "median", "krum(5)")
ATTACKS = ("alie", "none", "noise")
# Accuracies of two seeds, a tenth of a point apart but for krum's under no attack.
LEVELS = {
    ("mean", "none"): 0.9, ("mean", "alie"): 0.5, ("mean", "noise"): None,
    ("median", "none"): 0.85, ("median", "alie"): 0.7, ("median", "noise"): 0.6,
    ("krum(5)", "none"): 0.88, ("krum(5)", "alie"): 0.4, ("krum(5)", "noise"): 0.8,
}  # fmt: skip
COLUMNS = (
    "clean", "worst", "mean_over_faced", "success", "false_positives", "false_negatives", "cost",
)  # fmt: skip


def accuracy(defence, attack, seed):
    level = LEVELS[defence, attack]
    step = 0.1 if (defence, attack) == ("krum(5)", "none") else 0.001
    return None if level is None else level + step * seed


def further(defence, attack, seed):
    wrong = {"robustness/false_positives": 0.1, "robustness/false_negatives": 0.5 + 0.1 * seed}
    opened = {"eval/triggered/accuracy": 0.25 + 0.5 * (defence == "mean")}
    return (wrong if defence == "krum(5)" else {}) | (opened if attack == "alie" else {})


@pytest.fixture
def whole():
    return attacked(DEFENCES, ATTACKS, accuracy, more=further, columns=COLUMNS)


def matrix(comparison):
    figure = Figure(layout="constrained")
    draw_matrix(figure, comparison, comparison.headline, comparison.sign)
    return figure


def framed(axes):
    """Returns the cells that have a frame, as (row, column)."""
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.fill]
    return {(round(frame.get_y() + 0.48), round(frame.get_x() + 0.48)) for frame in frames}


def test_rows_are_what_is_chosen_and_cells_what_it_faces(whole):
    assert [entry.label for entry in whole.compared] == list(DEFENCES)
    for entry in whole.compared:
        assert [cell.label for cell in entry.under] == ["none", "alie", "noise"]
        assert entry.calm.label == "none" and entry.calm.outcomes is entry.outcomes
        assert [cell.label for cell in entry.faced] == ["alie", "noise"]
        for cell in entry.under:
            # the reference's under the same attack
            assert {outcome.trial.variant for outcome in cell.reference} == {"mean"}
            assert {outcome.trial.values["attack"] for outcome in cell.reference} == {cell.label}
    mean, median, _ = whole.compared
    assert mean.is_reference and all(cell.is_reference for cell in mean.under)
    assert median.gap(whole.reported).mean == pytest.approx(-0.05)
    assert median.under[1].gap(whole.reported).mean == pytest.approx(0.2)


@pytest.mark.parametrize("named", [True, False])
def test_the_matrix_has_a_number_in_every_cell(named):
    figure = matrix(attacked(DEFENCES, ATTACKS, accuracy, named=named))
    axes = figure.axes[0]
    cells, costs = (image.get_array() for image in axes.images)
    expected = [[90.05, 50.05, np.nan], [85.05, 70.05, 60.05], [93.0, 40.05, 80.05]]
    np.testing.assert_allclose(np.ma.filled(cells, np.nan), expected)
    np.testing.assert_allclose(costs[:, 0], [1.0, 1.25, 1.5])
    written = texts(figure)
    for number in ("90.", "70.", "93.0", "diverged", "± 0.1", "± 7.1", "1.0 ×", "1.5 ×"):
        assert any(number in text for text in written), number
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(DEFENCES)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["none", "alie", "noise", "cost"]
    assert framed(axes) == {(2, 0), (1, 1), (2, 2)}, "the best of each column"
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "± standard deviation" in caption and "Cost: seconds of a round" in caption


def test_low_values_of_losses_and_of_backdoors_are_better(whole, tmp_path):
    assert {path.stem for path in plot_study(whole, tmp_path)} >= {"matrix", "matrix-backdoors"}
    figure = Figure(layout="constrained")
    draw_matrix(figure, whole, "eval/triggered/accuracy", -1.0)
    axes = figure.axes[0]
    cells = np.ma.filled(axes.images[0].get_array(), np.nan)
    # columns without a value are left out, and a dash would say nothing
    np.testing.assert_allclose(cells, [[75.0], [25.0], [25.0]])
    assert not framed(axes), "most are alike"
    assert axes.figure.axes[-1].get_ylabel() == "success of the backdoor (%)"
    assert whole._replace(headline="eval/test/loss").sign == -1.0


def test_axes_that_are_not_there_cannot_be_faced_and_none_is_halved(whole):
    with pytest.raises(ValueError, match="faced = 'alpha' is none of the axes: attack"):
        Study(axes={"attack": ATTACKS}, faced="alpha")
    with pytest.raises(ValueError, match="which nobody chooses"):
        Study(axes={"attack": ATTACKS}, search="halving")
    assert Study(axes={"mu": (1, 2)}).faced_axis is None
    assert "nobody chooses" in best(whole.results, faced="attack")["note"]


def test_labels_of_a_large_matrix_stay_apart_and_short():
    long = "centered_clipping(tau=0.1, iterations=3), and then something else, number"
    defences = ("mean", *(f"{long} {place}" for place in range(18)), "bucketing(2), krum(5)")
    attacks = ("none", *(f"label_flip(source={place}, target=3)" for place in range(11)))
    figure = matrix(attacked(defences, attacks, lambda *_: 0.5, seeds=(0,)))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(one.y0 < other.y1 for one, other in zip(boxes, boxes[1:], strict=False))
    rows = {label.get_text() for label in axes.get_yticklabels()}
    assert len(rows) == 20, "what would be cut to the same text is not"
    assert axes.images[0].get_array().shape == (20, 12)
    assert min(box.x0 for box in boxes) >= 0


def test_the_table_says_what_each_row_held(whole):
    head, *lines = table(whole)
    assert head == [
        "variant", "test accuracy, attack none (%)", "test accuracy, worst attack (%)",
        "test accuracy, mean over attacks (%)", "success of backdoors (%), highest",
        "honest clients rejected (%)", "attackers kept (%)", "times the reference's round",
    ]  # fmt: skip
    mean, median, krum = lines
    assert mean[1:4] == [
        "90.05 ± 0.07", "diverged in rounds 1, 1: noise", "50.05 ± 0.07 (without 1 that diverged)",
    ]  # fmt: skip
    assert median[1:4] == ["85.05 ± 0.07", "60.05 ± 0.07: noise", "65.05 ± 0.07"]
    assert krum[2] == "40.05 ± 0.07: alie"
    assert [line[4] for line in lines] == [
        "75.00 ± 0.00: alie", "25.00 ± 0.00: alie", "25.00 ± 0.00: alie",
    ]  # fmt: skip
    assert krum[5:] == ["10.0 ± 0.0", "55.0 ± 7.1", "1.50"]
    assert median[5:] == ["–", "–", "1.25"]


def test_success_is_that_of_attacks_that_place_a_trigger():
    success = {"alie": 0.9, "pixel_trigger(0), scaling": 0.4}
    found = attacked(
        ("mean",), tuple(success), lambda *_: 0.5, seeds=(0,), columns=("success",),
        more=lambda defence, attack, seed: {"eval/triggered/accuracy": success[attack]},
    )  # fmt: skip
    assert table(found)[1][1].startswith("40.00: pixel_trigger(0)")


def test_columns_of_a_study_without_the_ordinary_value_are_empty():
    found = attacked(DEFENCES, ("alie", "noise"), accuracy, columns=("clean", "worst"))
    assert [line[1] for line in table(found)[1:]] == ["–"] * 3
    assert found.compared[1].label == "median" and found.compared[1].calm is None
    assert found.compared[1].slowdown == 1.25, "that of the first one"


def test_remarks_say_where_the_mean_is_better_by_more_than_seeds_differ(whole):
    worst, calm, alie, noise = remarks(whole)
    assert "best is `median`, 60.05 ± 0.07 % (`noise`)" in worst
    assert worst.endswith("the reference is `mean`, diverged (`noise`).")
    assert calm == (
        "Without attack, `mean` has a test accuracy of 90.05 ± 0.07 %, and is better than "
        "`median` (85.05 ± 0.07 %, -5.00 ± 0.00 points)."
    ), "krum is above, on average"
    assert alie == (
        "Under `alie`, `mean` has a test accuracy of 50.05 ± 0.07 %, and is better than "
        "`krum(5)` (40.05 ± 0.07 %, -10.00 ± 0.00 points)."
    )
    assert noise == "Under `noise`, `mean` has no value to compare with."


def test_remarks_leave_out_what_may_be_chance():
    def close(defence, attack, seed):
        # two points below on average, which differ by four from seed to seed
        return 0.9 if defence == "mean" else 0.88 + 0.04 * (seed - 0.5)

    (calm,) = remarks(attacked(("mean", "median"), ("none",), close))
    assert calm.endswith("nothing is worse by more than seeds differ.")
