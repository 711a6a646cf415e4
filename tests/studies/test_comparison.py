"""From rows to outcomes, gaps, tables and the Pareto front, on figures made up by hand."""

import csv
import itertools
import math

import numpy as np
import pytest

from fljax.studies import repeat
from fljax.studies.columns import columns_of, table
from fljax.studies.comparison import compare, write_study_table
from fljax.studies.criterion import Criterion
from fljax.studies.pareto import Point, front, points
from fljax.studies.pictures import plot_study
from fljax.studies.results import Results, Status, row
from fljax.studies.selection import Spread, spread
from fljax.studies.study import Study

CLIENTS = 4
COLUMNS = (
    "client_uplink_bytes", "uplink_factor", "best", "last", "gap", "rounds_to_target",
    "uplink_to_target", "transfer_to_target",
)  # fmt: skip


def made_up(client_bytes, best, reached=None):
    """The records of three rounds whose clients each send so many bytes a round.

    Validation chooses round 2; the last round is a tenth below it; the target, 0.95, is reached in
    a round that validation does not choose.
    """
    records = []
    for number, (val, test) in enumerate([(0.1, 0.1), (0.9, best), (0.2, best - 0.1)], start=1):
        records.append(
            {
                "round": number,
                "train/clients": CLIENTS,
                "comm/uplink_bytes": client_bytes * CLIENTS * number,
                "comm/transfer_seconds": 2.0 * number,
                "eval/val/accuracy": val,
                "eval/test/accuracy": 0.95 if number == reached else test,
            }
        )
    return records


def diverged(client_bytes, round):
    """The records of a trial whose clients all diverged in that round."""
    return [
        {
            "round": number,
            "train/clients": 0 if number == round else CLIENTS,
            "comm/uplink_bytes": client_bytes * CLIENTS * min(number, round - 1),
            "eval/val/accuracy": 0.99,
            "eval/test/accuracy": 0.99,
        }
        for number in range(1, round + 1)
    ]


def compared(runs, target=0.95, reference="none", columns=COLUMNS, **settings):
    """Returns the comparison of {variant: [records of each seed]}."""
    seeds = range(max(map(len, runs.values())))
    study = Study(
        variants={name: {"uplink": name} for name in runs}, reference=reference,
        seeds=tuple(seeds), columns=columns, **settings,
    )  # fmt: skip
    trials = repeat([{}], seeds, tuple(runs))
    rows, statuses = [], {}
    for trial in trials:
        records = runs[trial.variant][trial.seed]
        rows += [row(trial, record) for record in records]
        state = "finished" if records[-1]["train/clients"] else "diverged"
        statuses[trial.number] = Status(state, records[-1]["round"])
    seconds = {trial.number: 1.5 for trial in trials}
    config = {"target_accuracy": target}
    return compare(study, config, Results(trials, rows, statuses), seconds)


@pytest.fixture
def whole():
    return compared(
        {
            "none": [made_up(400, 0.9, 1), made_up(400, 0.8, 3)],
            "top_k(0.1)": [made_up(50, 0.7), made_up(50, 0.72)],
            "int8": [made_up(100, 0.89, 1), made_up(100, 0.81)],
            "bf16": [made_up(200, 0.88, 1), made_up(200, 0.8, 1)],
        }
    )


def accuracy(outcome):
    return outcome.best.get("eval/test/accuracy")


def test_variants_are_measured_against_the_reference_seed_by_seed(whole):
    none, top_k, int8, bf16 = whole.compared
    assert none.is_reference and none.gap(accuracy) == (0, 0)
    # -1 and +1 points, whatever the spread of the accuracies themselves
    assert int8.gap(accuracy) == pytest.approx((0, math.sqrt(2) * 0.01))
    assert int8.spread(accuracy) == pytest.approx((0.85, 0.08 / math.sqrt(2)))
    assert none.spread(accuracy) == pytest.approx((0.85, 0.1 / math.sqrt(2)))
    last = none.spread(lambda one: one.final["eval/test/accuracy"])
    assert last.mean == pytest.approx((0.8 + 0.95) / 2)
    assert [(one.reaches, len(one.reached)) for one in whole.compared] == [
        (True, 2), (False, 0), (False, 1), (True, 2),
    ]  # fmt: skip
    # the bytes of all four clients until the round of the target
    assert [one.target["uplink_bytes"] for one in none.reached] == [400 * 4 * 1, 400 * 4 * 3]
    assert bf16.reached[0].target["transfer_seconds"] == 2
    assert [outcome.client_bytes for outcome in top_k.outcomes] == [50, 50]


def test_configurations_that_differ_in_their_fifth_digit_have_labels_of_their_own(tmp_path):
    trials = repeat([{"client_lr": 0.12341}, {"client_lr": 0.12342}], (0, 1))
    rows = [row(trial, record) for trial in trials for record in made_up(1, 0.9)]
    whole = compare(Study(), {}, Results(trials, rows, {}))
    assert [entry.label for entry in whole.compared] == ["client_lr=0.12341", "client_lr=0.12342"]
    with write_study_table(tmp_path, whole.outcomes).open(newline="") as file:
        labels = [line["variant"] for line in csv.DictReader(file)]
    assert labels == ["client_lr=0.12341"] * 2 + ["client_lr=0.12342"] * 2


def test_a_round_is_chosen_on_validation_data_and_reported_on_test_data(whole):
    outcome = whole.compared[0].outcomes[0]
    assert (outcome.best["round"], outcome.final["round"]) == (2, 3)
    assert accuracy(outcome) == 0.9, "not the 0.95 of the round that reached the target"


def test_the_study_s_table_has_a_line_for_each_variant_and_seed(whole, tmp_path):
    with write_study_table(tmp_path, whole.outcomes).open(newline="") as file:
        head, *lines = csv.reader(file)
    assert head[:5] == ["variant", "seed", "diverged", "rounds", "seconds"]
    metrics = [
        "comm/transfer_seconds", "comm/uplink_bytes", "eval/test/accuracy", "eval/val/accuracy",
        "round", "train/clients",
    ]  # fmt: skip
    assert head[5:] == [f"{at}/{name}" for at in ("best", "final") for name in metrics]
    assert [line[:2] for line in lines] == [
        [name, seed] for name in ("none", "top_k(0.1)", "int8", "bf16") for seed in ("0", "1")
    ]
    cells = dict(zip(head, lines[0], strict=True))
    assert (cells["diverged"], cells["rounds"], cells["seconds"]) == ("False", "3", "1.5")
    assert (cells["best/eval/test/accuracy"], cells["best/round"]) == ("0.9", "2")
    assert cells["final/comm/uplink_bytes"] == "4800"


def test_the_report_s_table_says_the_same(whole):
    head, *lines = table(whole)
    assert len({len(line) for line in (head, *lines)}) == 1
    assert head == [
        "variant", "uplink bytes a client a round", "times fewer", "test accuracy (%)",
        "test accuracy, last round (%)", "test accuracy: gap (points)", "rounds to target",
        "uplink MB to target", "transfer s to target",
    ]  # fmt: skip
    assert lines[2][:4] == ["`int8`", "100", "4.0", "85.00 ± 5.66"]
    assert lines[2][5:7] == ["+0.00 ± 1.41", "1 (1/2)"]
    assert lines[1][6:] == ["–", "–", "–"]
    assert lines[0][5] == "0"


def test_other_metrics_are_columns_by_their_keys(whole):
    names = ("final/comm/uplink_bytes", "gap/eval/val/accuracy", "train/clients", "seconds")
    comparison = whole._replace(
        study=Study(variants=whole.study.variants, reference="none", columns=names)
    )
    head, *lines = table(comparison)
    assert head[1] == "uplink bytes, last round"
    assert lines[1][1:] == ["600.0000 ± 0.0000", "+0.00 ± 0.00", "4.0000 ± 0.0000", "1.50 ± 0.00"]
    with pytest.raises(ValueError, match="column.*uplink_factor"):
        columns_of(Study(columns=("uplink_facto",)))
    assert columns_of(Study()) == ("best", "last"), "without a reference there is no gap"


def test_a_second_variant_may_be_measured_against(whole):
    """Seed by seed as the reference is, which is 0 against itself and not against the other."""
    variants = whole.study.variants
    other = next(name for name in variants if name != "none")
    columns = ("gap", "gap to none", f"gap to {other}")
    rows = table(whole._replace(study=Study(variants=variants, reference="none", columns=columns)))
    of_reference, of_other = (
        next(row for row in rows if row[0] == f"`{name}`") for name in ("none", other)
    )
    assert rows[0][2] == rows[0][1].replace("gap", "gap to none")
    assert [row[1] for row in rows[1:]] == [row[2] for row in rows[1:]]
    assert of_reference[2] == "0" and of_other[3] == "0"
    # the same differences the other way round
    assert of_reference[3][0] != of_other[2][0] and of_reference[3][1:] == of_other[2][1:]
    with pytest.raises(ValueError, match="unknown variant: 'nobody'"):
        columns_of(Study(variants=variants, columns=("gap to nobody",)))


def test_trials_that_diverged_are_told_from_the_others(tmp_path):
    found = compared(
        {
            "none": [made_up(400, 0.9), made_up(400, 0.8)],
            "qsgd(2)": [diverged(25, 3), diverged(25, 2)],
            "qsgd(4)": [diverged(50, 2), made_up(50, 0.7)],
        }
    )
    none, all_of_it, half = found.compared
    assert all_of_it.diverged == (3, 2)
    assert math.isnan(all_of_it.spread(accuracy).mean) and not all_of_it.reaches
    assert half.spread(accuracy).mean == 0.7 and half.gap(accuracy).mean == pytest.approx(-0.1)
    lines = table(found)[1:]
    assert [line[2] for line in lines] == ["1.0", "16.0", "8.0"]
    assert lines[1][3] == "diverged in rounds 3, 2"
    assert lines[2][3] == "70.00 (1/2 diverged in round 2)"
    with write_study_table(tmp_path, found.outcomes).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["diverged"] for line in lines] == ["False"] * 2 + ["True"] * 3 + ["False"]
    assert lines[2]["rounds"] == "3" and lines[2]["best/eval/test/accuracy"] == ""
    assert [point.label for point in points(found)] == ["none", "qsgd(4)"]


@pytest.mark.parametrize(
    ("sent", "factors"),
    [((400, 100, 0), ["1.0", "4.0", "∞"]), ((0, 100, 0), ["–", "–", "–"])],
)
def test_what_sends_nothing_is_no_error_of_the_table(sent, factors):
    runs = zip(("none", "int8", "local"), sent, strict=True)
    found = compared({name: [made_up(size, 0.8)] for name, size in runs})
    assert [line[2] for line in table(found)[1:]] == factors


def test_points_without_a_value_or_bytes_stand_nowhere(tmp_path):
    """One of them once ended the front where it began; a picture of none ended the report."""
    runs = {"none": [made_up(400, 0.9)], "int8": [made_up(100, 0.8)], "wild": [made_up(50, 0.7)]}
    for record in runs["wild"][0]:
        record["eval/test/accuracy"] = math.nan
    found = points(compared(runs, target=None))
    assert [point.label for point in found] == ["none", "int8"]
    nowhere = found[0]._replace(label="x", bytes=Spread(1, 0), value=Spread(math.nan, 0))
    nothing = found[0]._replace(label="y", bytes=Spread(math.nan, 0), value=Spread(99, 0))
    assert [point.label for point in front([nowhere, *found, nothing])] == ["int8", "none"]
    diverging = {"local": [made_up(0, 0.8)], "a": [diverged(400, 2)], "b": [diverged(100, 2)]}
    drawn = plot_study(compared(diverging, reference="local", target=None), tmp_path)
    assert "pareto" not in {path.stem for path in drawn}


def test_a_reference_that_diverged_measures_nothing():
    found = compared({"none": [diverged(400, 2)], "int8": [made_up(100, 0.8)]})
    assert math.isnan(found.compared[1].gap(accuracy).mean)
    assert table(found)[2][5] == "–"


def test_of_a_variant_with_axes_the_best_by_validation_is_compared():
    trials = repeat([{"client_lr": 0.1}, {"client_lr": 1.0}], (0, 1), ("a", "b"))
    best = {("a", 0.1): (0.5, 0.9), ("a", 1.0): (0.6, 0.3)}
    best |= {("b", 0.1): (0.7, 0.2), ("b", 1.0): (0.4, 0.8)}
    rows = [
        row(trial, {"round": 1, "eval/val/accuracy": val, "eval/test/accuracy": test})
        for trial in trials
        for val, test in [best[trial.variant, trial.values["client_lr"]]]
    ]
    statuses = {trial.number: Status("finished", 1) for trial in trials}
    study = Study(
        {"client_lr": (0.1, 1.0)}, seeds=(0, 1), variants={"a": {}, "b": {}}, reference="a"
    )
    found = compare(study, {}, Results(trials, rows, statuses))
    assert [one.chosen.values["client_lr"] for one in found.compared] == [1.0, 0.1]
    assert found.compared[1].gap(accuracy).mean == pytest.approx(-0.1)
    head, *lines = table(found)
    assert head[:2] == ["variant", "chosen values"] and lines[0][:2] == ["`a`", "client_lr=1"]
    assert {outcome.trial.label() for outcome in found.outcomes} == {
        "a, client_lr=0.1", "a, client_lr=1", "b, client_lr=0.1", "b, client_lr=1",
    }  # fmt: skip


def beats(point, other):
    no_worse = point.bytes.mean <= other.bytes.mean and point.value.mean >= other.value.mean
    return no_worse and (point.bytes.mean, point.value.mean) != (other.bytes.mean, other.value.mean)


def test_the_front_is_what_nobody_beats():
    rng = np.random.default_rng(0)
    for _ in range(50):
        # few different values, so that there are ties
        figures = zip(
            rng.integers(1, 6, 9), rng.integers(1, 6, 9), rng.random(9) < 0.8, strict=True
        )
        candidates = [
            Point("", ("", "", ""), Spread(x, 0), Spread(y, 0), reaches)
            for x, y, reaches in figures
        ]
        reaching = [point for point in candidates if point.reaches]
        best = {
            point[2:4] for point in reaching if not any(beats(other, point) for other in reaching)
        }
        found = front(candidates)
        assert {point[2:4] for point in found} == best and len(found) == len(best)
        for left, right in itertools.pairwise(found):
            assert left.bytes.mean < right.bytes.mean
        upside_down = [point._replace(value=Spread(-point.value.mean, 0)) for point in candidates]
        lowest = {(x, (-y, 0)) for x, (y, _) in (one[2:4] for one in found)}
        assert {point[2:4] for point in front(upside_down, maximize=False)} == lowest


def test_points_that_miss_the_target_stand_at_their_whole_runs(whole):
    none, top_k, int8, _ = points(whole)
    assert none.reaches and none.bytes.mean == 400 * 4 * 2
    assert not top_k.reaches and top_k.bytes.mean == 50 * 4 * 3
    assert not int8.reaches and int8.bytes.mean == 100 * 4 * 3


def test_without_a_target_all_points_stand_at_their_whole_runs():
    runs = {"none": (400, 0.9), "int8": (100, 0.89), "qsgd(8)": (110, 0.8)}
    found = points(compared({name: [made_up(*run)] for name, run in runs.items()}, target=None))
    assert [point.bytes.mean for point in found] == [400 * 4 * 3, 100 * 4 * 3, 110 * 4 * 3]
    assert all(point.reaches for point in found)
    assert [point.label for point in front(found)] == ["int8", "none"]


def test_spreads_are_of_what_is_known():
    assert spread([1.0, None, 3.0, math.nan]) == (2.0, math.sqrt(2))
    assert math.isnan(spread([None]).mean) and math.isnan(spread([1.0]).sd)


def test_a_choice_by_a_loss_is_reported_by_what_there_is(whole):
    criterion = Criterion("eval/val/accuracy", "eval/held_out/accuracy")
    study = Study(variants=whole.study.variants, reference="none", criterion=criterion)
    assert compare(study, {}, whole.results).headline == "eval/val/accuracy"
