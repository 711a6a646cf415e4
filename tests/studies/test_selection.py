"""The choice: by validation data, reported on test data at the chosen round, over all seeds."""

import json
import math
import statistics

import pytest
from fake_sweeps import results_of

from fljax.core.metrics import Metric
from fljax.studies import log_uniform
from fljax.studies.criterion import Criterion, filled
from fljax.studies.selection import best, edges, rank, write_best

TWO = [{"client_lr": 0.1}, {"client_lr": 1.0}]


def test_each_seed_is_reported_on_test_at_the_round_that_validation_chose():
    curves = {
        0: [(0.1, 0.9), (0.5, 0.5), (0.5, 0.7)],  # best at round 10, the earlier of equals
        1: [(0.1, 0.1), (0.2, 0.2), (0.8, 0.6)],  # best at round 20
        2: [(0.6, 0.1), (0.1, 0.9), (0.1, 0.9)],
        3: [(0.6, 0.2), (0.1, 0.9), (0.1, 0.9)],
    }
    found = best(results_of(curves, TWO, seeds=(5, 6)))
    assert found["values"] == {"client_lr": 0.1}, "0.65 on validation, against 0.6"
    assert (found["trials"], found["seeds"], found["rounds"]) == ((0, 1), (5, 6), (10, 20))
    assert found["selected_by"] == "val" and "note" not in found
    assert found["eval/val/accuracy"]["mean"] == pytest.approx(0.65)
    assert found["eval/test/accuracy"] == {
        "mean": pytest.approx(0.55),
        "sd": pytest.approx(statistics.stdev([0.5, 0.6])),
        "values": [0.5, 0.6],
    }


def test_the_last_evaluation_may_decide_instead():
    curves = {0: [(0.9, 0.9), (0.3, 0.2)], 1: [(0.1, 0.1), (0.4, 0.3)]}
    results = results_of(curves, TWO)
    assert best(results)["values"] == {"client_lr": 0.1}
    last = best(results, filled(Criterion(at="last")))
    assert (last["values"], last["rounds"]) == ({"client_lr": 1.0}, (10,))
    assert last["eval/test/accuracy"] == {"mean": 0.3, "sd": None, "values": [0.3]}


def test_a_configuration_that_diverged_once_is_not_chosen_before_one_that_did_not():
    curves = {0: [(0.9, 0.9)], 1: [(0.9, 0.9)], 2: [(0.4, 0.4)], 3: [(0.2, 0.2)]}
    results = results_of(curves, TWO, seeds=(0, 1), diverged=(1,), stopped=(3,))
    found = best(results)
    assert found["values"] == {"client_lr": 1.0}
    assert (found["diverged"], found["stopped"]) == (0, 1)
    assert found["sweep"] == {
        **{"trials": 4, "waiting": 0, "running": 0},
        **{"finished": 2, "stopped": 1, "diverged": 1},
    }
    assert [one.diverged for one in rank(results)] == [0, 1]


def test_trials_without_a_value_come_last_and_alone_are_no_choice():
    curves = {1: [(0.1, 0.1)], 0: [(math.nan, 0.9)]}
    results = results_of(curves, TWO)
    assert [one.values["client_lr"] for one in rank(results)] == [1.0, 0.1]
    assert math.isnan(rank(results)[1].score) and rank(results)[1].rounds == (None,)
    nothing = best(results_of({0: [(math.nan, 0.5)], 1: [(math.inf, 0.5)]}, TWO))
    assert nothing["values"] is None and "no configuration survived" in nothing["note"]
    with pytest.raises(ValueError, match="nothing to choose from"):
        best(results_of({}, TWO))


def test_a_sweep_of_which_everything_diverged_has_no_best():
    curves = {0: [(0.9, 0.9)], 1: [(0.2, 0.2)]}
    found = best(results_of(curves, TWO, diverged=(0, 1)))
    assert found["values"] is None and found["sweep"]["diverged"] == 2
    assert found["note"] == "no configuration survived: 2 of 2 trials diverged"
    # a score of the rounds before is no survival: one that has a seed left comes first
    curves = {0: [(0.9, 0.9)], 1: [(0.9, 0.9)], 2: [(0.2, 0.2)], 3: [(0.2, 0.2)]}
    found = best(results_of(curves, TWO, seeds=(0, 1), diverged=(0, 1, 2)))
    assert found["values"] == {"client_lr": 1.0} and found["diverged"] == 1
    assert "1 of 2 trials of this configuration diverged" in found["note"]


def test_the_direction_is_that_of_the_metric():
    results = results_of({0: [(0.3, 0.1)], 1: [(0.2, 0.9)]}, TWO)
    assert best(results)["values"] == {"client_lr": 0.1}
    lower = filled(Criterion(), [Metric("accuracy", "lower")])
    assert best(results, lower)["values"] == {"client_lr": 1.0}


def without_validation(results):
    rows = [{k: v for k, v in row.items() if "/val/" not in k} for row in results.rows]
    return results._replace(rows=rows)


def test_a_choice_on_test_data_is_refused_or_labelled():
    results = results_of({0: [(0.9, 0.1)], 1: [(0.1, 0.6)]}, TWO)
    bare = without_validation(results)
    with pytest.raises(ValueError, match="Set val_fraction"):
        best(bare)
    with pytest.raises(ValueError, match="measured on test data"):
        best(results, filled(Criterion(metric="eval/test/accuracy")))
    allowed = filled(Criterion(allow_test=True))
    found = best(bare, allowed)
    assert (found["selected_by"], found["metric"]) == ("test", "eval/test/accuracy")
    assert found["values"] == {"client_lr": 1.0} and "flatters" in found["note"]
    assert best(results, allowed)["selected_by"] == "val", "validation data come first"
    with pytest.raises(ValueError, match="'best' or 'last'"):
        best(results, filled(Criterion(at="first")))


def test_ends_of_ordered_axes_are_told_and_no_others():
    axes = {"client_lr": (0.1, 1.0, 0.01), "mu": log_uniform(0.1, 1), "model": ("a", "b")}
    axes |= {"shuffle": (True, False), "batch_size": (20,)}
    point = {"client_lr": 1.0, "mu": 1.0, "model": "b", "shuffle": False, "batch_size": 20}
    assert edges(point, axes) == [("client_lr", 1.0, "highest")]
    assert str(edges(point, axes)[0]).endswith("highest value tried; larger ones may be better")
    assert edges(point | {"client_lr": 0.1}, axes) == []
    found = best(results_of({0: [(0.3, 0.1)], 1: [(0.2, 0.9)]}, TWO), axes={"client_lr": (0.1, 1)})
    assert found["edges"] == [{"axis": "client_lr", "value": 0.1, "end": "lowest"}]
    assert best(results_of({0: [(0.3, 0.1)], 1: [(0.2, 0.9)]}, TWO))["edges"] == []


def test_best_json_says_the_same(tmp_path):
    results = results_of({0: [(0.3, 0.1)], 1: [(0.2, 0.9)]}, TWO)
    found = write_best(tmp_path, results)
    assert json.loads((tmp_path / "best.json").read_text()) == json.loads(json.dumps(found))
