"""A study in simulated time: each seed's clock, columns of it, and curves over it."""

import numpy as np
import pytest
from small_sweeps import alone, rows_of, small_config

import fljax
from fljax.studies import Criterion
from fljax.studies.columns import table

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COLUMNS = ("simulated_to_target", "simulated_seconds", "staleness", "late", "lost")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    config = small_config(
        num_clients=8, clients_per_round=3, partition="iid", num_rounds=4, local_steps=2,
        val_fraction=0.0, model="softmax_regression", dropout=0.2, target_accuracy=0.15,
        schedule="fedbuff(concurrency=6, max_staleness=3)",
    )  # fmt: skip
    return config, fljax.sweep(
        config,
        tmp_path_factory.mktemp("study") / "timed",
        progress=False,
        variants={
            "asynchronous": {},
            "synchronous": {"schedule": "over_selection(1.5)"},
            "untimed": {"schedule": None, "dropout": None},
        },
        seeds=(0, 1),
        columns=COLUMNS,
        criterion=Criterion("eval/test/accuracy", at="last", allow_test=True),
    )


def test_each_seed_has_its_own_clock(found):
    config, study = found
    trial = study.results.trials[1]
    assert (trial.variant, trial.seed) == ("asynchronous", 1)
    rows, curves = rows_of(study, trial), alone(config, trial)
    for key in ("time/simulated_seconds", "systems/staleness_mean", "systems/clients_lost"):
        np.testing.assert_array_equal([row[key] for row in rows[1:]], curves[key][1:])
    first = rows_of(study, study.results.trials[0])
    assert first[-1]["time/simulated_seconds"] != rows[-1]["time/simulated_seconds"]


def test_columns_and_the_picture_tell_of_it(found):
    _, study = found
    compared = {entry.label: entry for entry in study.compare().compared}
    head, *lines = table(study.compare())
    assert head[1:] == [
        "simulated s to target", "simulated s", "mean staleness", "late (%)", "lost (%)",
    ]  # fmt: skip
    cells = {line[0].strip("`"): line[1:] for line in lines}
    assert cells["untimed"] == ["–"] * 5
    assert cells["synchronous"][2] == "–", "nobody is stale"
    outcomes = compared["synchronous"].outcomes
    late = [
        sum(record.get("systems/clients_late", 0) for record in outcome.records)
        / (5 * outcome.rounds)  # of the five who are asked in each round
        for outcome in outcomes
    ]
    assert cells["synchronous"][3].split(" ")[0] == f"{100 * np.mean(late):.1f}"
    last = [o.final["time/simulated_seconds"] for o in compared["asynchronous"].outcomes]
    assert float(cells["asynchronous"][1].split(" ")[0]) == pytest.approx(np.mean(last), rel=0.01)
    reached = [o.target["simulated_seconds"] for o in compared["asynchronous"].reached]
    assert reached and float(cells["asynchronous"][0].split(" ")[0]) == pytest.approx(
        np.mean(reached), rel=0.01
    )
    assert "simulated_time" in {path.stem for path in study.plot()}
