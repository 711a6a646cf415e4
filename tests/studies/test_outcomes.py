"""From runs to rows, tables and the Pareto front, on figures made up by hand."""

import csv
import itertools
import math

import numpy as np
import pytest

from fljax.recording import Run
from fljax.studies import formats, outcomes, pareto, table
from fljax.studies.ladder import Rung, parse_rung
from fljax.studies.outcomes import Spread

ACCURACIES = np.array([0.2, 0.8, 0.9])


def made_up(client_bytes, best, reached_round=None, clients=4):
    """A run of three rounds whose clients each send so many bytes a round."""
    sent = client_bytes * clients * np.arange(1.0, 4.0)
    target = {
        "rounds": reached_round,
        "uplink_bytes": client_bytes * clients * (reached_round or 0),
        "transfer_seconds": 2.0 * (reached_round or 0),
    }
    return Run(
        directory=None,
        config={},
        summary={
            "best": {"eval/test/accuracy": best},
            "final": {"eval/test/accuracy": best - 0.1},
            "uplink_bytes": sent[-1],
            "to_target": target if reached_round else None,
        },
        rounds=np.arange(1, 4),
        curves={"comm/uplink_bytes": sent, "train/clients": np.full(3, float(clients))},
        client_metrics=None,
        baselines={},
    )


def diverged(client_bytes, round, clients=4):
    """A run whose clients all diverged in that round."""
    trained = np.where(np.arange(1, round + 1) < round, float(clients), 0)
    return Run(
        directory=None,
        config={},
        summary=None,
        rounds=np.arange(1, round + 1),
        curves={
            "comm/uplink_bytes": client_bytes * np.cumsum(trained),
            "train/clients": trained,
            "train/clients_nonfinite": clients - trained,
        },
        client_metrics=None,
        baselines={},
    )


@pytest.fixture
def rows():
    return outcomes.rows(
        {
            parse_rung("none"): [made_up(400, 0.9, 2), made_up(400, 0.8, 3)],
            parse_rung("top_k(0.1)"): [made_up(50, 0.7), made_up(50, 0.72)],
            parse_rung("int8"): [made_up(100, 0.89, 2), made_up(100, 0.81)],
            parse_rung("bf16"): [made_up(200, 0.88, 2), made_up(200, 0.8, 2)],
        }
    )


def test_rows_are_measured_against_the_uncompressed_run(rows):
    none, top_k, int8, bf16 = rows
    assert [row.ratio for row in rows] == [1, 8, 4, 2]
    assert none.gap == (0, 0)
    # seed by seed: -1 and +1 points
    assert int8.gap == pytest.approx((0, math.sqrt(2) * 0.01))
    assert none.accuracy == pytest.approx((0.85, 0.1 / math.sqrt(2)))
    assert none.final.mean == pytest.approx(0.75)
    assert [(row.reaches, len(row.reached)) for row in rows] == [
        (True, 2), (False, 0), (False, 1), (True, 2),
    ]  # fmt: skip
    # the bytes of all four clients until the round of the target
    assert [one.uplink_bytes for one in none.reached] == [400 * 4 * 2, 400 * 4 * 3]
    assert bf16.reached[0].seconds == 4


def test_a_run_without_test_accuracy_is_refused():
    run = made_up(1, 0.5)
    run.summary["best"] = {"eval/val/accuracy": 0.5}
    with pytest.raises(ValueError, match="no test accuracy"):
        outcomes.outcome(run)


def test_tables_say_the_same_as_rows(rows, tmp_path):
    table.write_csv(rows, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = {line["rung"]: line for line in csv.DictReader(file)}
    assert list(lines) == ["none", "top_k(0.1)", "int8", "bf16"]
    assert float(lines["int8"]["gap_sd"]) == pytest.approx(0.0141421, rel=1e-5)
    assert lines["int8"]["seeds_at_target"] == "1"
    assert lines["top_k(0.1)"]["rounds_to_target_mean"] == ""
    text = table.markdown(rows).splitlines()
    assert len({line.count("|") for line in text}) == 1
    cells = [cell.strip() for cell in text[2 + 2].split("|")]
    assert cells[1:5] == ["`int8`", "100", "4.0", "85.00 ± 5.66"]
    assert cells[7] == "2 (1/2)"
    assert [cell.strip() for cell in text[2 + 1].split("|")][7:9] == ["–", "–"]


def test_runs_that_diverged_are_told_from_the_others(tmp_path):
    rows = outcomes.rows(
        {
            parse_rung("none"): [made_up(400, 0.9), made_up(400, 0.8)],
            parse_rung("qsgd(2)"): [diverged(25, 3), diverged(25, 1)],
            parse_rung("qsgd(4)"): [diverged(50, 2), made_up(50, 0.7)],
        }
    )
    none, all_of_it, half = rows
    assert all_of_it.diverged == (3, 1) and all_of_it.ratio == 16
    assert math.isnan(all_of_it.accuracy.mean) and not all_of_it.reaches
    assert half.accuracy.mean == 0.7 and half.gap.mean == pytest.approx(-0.1)
    cells = [line.split(" | ")[3] for line in table.markdown(rows).splitlines()[3:]]
    assert cells == ["diverged in rounds 3, 1", "70.00 (1/2 diverged in round 2)"]
    table.write_csv(rows, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["seeds_diverged"] for line in lines] == ["0", "2", "1"]
    assert [line["accuracy_mean"] for line in lines] == ["0.85", "", "0.7"]
    assert [point.rung.text for point in pareto.points(rows, 0.9)] == ["none", "qsgd(4)"]


def test_without_an_uncompressed_run_nothing_can_be_measured():
    with pytest.raises(ValueError, match="without compression diverged"):
        outcomes.rows({parse_rung("none"): [diverged(400, 1)]})


PARAMS = {"b": np.zeros(10, np.float32), "w": np.zeros((10, 9), np.float32)}


def test_index_formats_stand_side_by_side():
    # of 100 coordinates, 10 are sent
    rungs = map(parse_rung, ("none", "top_k(0.1)", "top_k(0.1) + error_feedback"))
    text = formats.markdown(list(rungs), PARAMS)
    assert text.count("top_k") == 1 and "of 100 coordinates" in text
    entropy = (320 + math.log2(math.comb(100, 10))) / 8
    for size in ((320 + 70) / 8, (320 + 100) / 8, entropy):
        assert f"{size:,.0f} ({400 / size:,.1f} x)" in text
    assert formats.markdown([parse_rung("int8")], PARAMS) is None


@pytest.mark.parametrize(
    ("rung", "sent", "message"),
    [
        ("top_k(0.1)", "10", "smallest: 49"),
        ("top_k(0.1, index_format='bitmap')", "10", "bitmap: 52"),
        ("top_k(0.3, index_format='raw')", "30", "raw: 146"),
        ("rand_k(0.1, index_format='seed')", "10", "seed: 48"),
        # 1 of 10 by a position of 4 bits, 9 of 90 by 7 bits each
        ("top_k(0.1) per leaf", "10", "smallest: 48"),
    ],
)
def test_what_runs_send_is_told(rung, sent, message):
    line = formats.markdown([parse_rung(rung)], PARAMS).splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert (cells[1], cells[5]) == (sent, message)


def beats(one, other):
    no_worse = one.bytes.mean <= other.bytes.mean and one.accuracy.mean >= other.accuracy.mean
    return no_worse and (one.bytes.mean, one.accuracy.mean) != (
        other.bytes.mean,
        other.accuracy.mean,
    )


def test_the_front_is_what_nobody_beats():
    rng = np.random.default_rng(0)
    for _ in range(50):
        # few different values, so that there are ties
        candidates = [
            pareto.Point(Rung(str(i)), Spread(x, 0), Spread(y, 0), reaches)
            for i, (x, y, reaches) in enumerate(
                zip(rng.integers(1, 6, 9), rng.integers(1, 6, 9), rng.random(9) < 0.8, strict=True)
            )
        ]
        reaching = [point for point in candidates if point.reaches]
        best = {point[1:3] for point in reaching if not any(beats(o, point) for o in reaching)}
        found = pareto.front(candidates)
        assert {point[1:3] for point in found} == best and len(found) == len(best)
        for left, right in itertools.pairwise(found):
            assert left.bytes.mean < right.bytes.mean


def test_points_that_miss_the_target_stand_at_their_whole_runs(rows):
    none, top_k, int8, _ = pareto.points(rows, 0.9)
    assert none.reaches and none.bytes.mean == 400 * 4 * 2.5
    assert not top_k.reaches and top_k.bytes.mean == 50 * 4 * 3
    assert not int8.reaches and int8.bytes.mean == 100 * 4 * 3


def test_without_a_target_all_points_stand_at_their_whole_runs():
    runs = {"none": (400, 0.9), "int8": (100, 0.89), "qsgd(8)": (110, 0.8)}
    rows = outcomes.rows({parse_rung(text): [made_up(*one)] for text, one in runs.items()})
    found = pareto.points(rows, None)
    assert [point.bytes.mean for point in found] == [400 * 4 * 3, 100 * 4 * 3, 110 * 4 * 3]
    assert all(point.reaches for point in found)
    assert [point.rung.text for point in pareto.front(found)] == ["int8", "none"]
