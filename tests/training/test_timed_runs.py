"""Runs in simulated time: what they leave behind, and that a resumed one leaves the same."""

import json
import shutil
from collections import Counter

import jax
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.core.schedule import FATES
from fljax.systems.devices import equal
from fljax.training.selection_summary import speed_deciles

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROUNDS, CLIENTS = 9, 12
SECONDS = np.linspace(1.0, 4.0, CLIENTS)
DEVICES = equal(CLIENTS)._replace(
    step_seconds=SECONDS,
    tier=(np.arange(CLIENTS) % 2).astype(np.int32),
    tiers=("phone", "tablet"),
    spread=0.3,
)
SCHEDULES = {
    "fedbuff": {"schedule": "fedbuff(concurrency=6, max_staleness=4)"},
    "deadline": {"schedule": "deadline(6, late='partial')"},
}


def dataset():
    return toy.dataset(toy.clients(sizes=range(5, 5 + CLIENTS), dtype=np.float32))


def run(workdir, num_rounds=ROUNDS, **options):
    defaults = {
        "eval_every": 3, "checkpoint_every": 3, "progress": False, "profiles": DEVICES,
        "dropout": 0.2, "keep_checkpoints": 5, "target_accuracy": 0.2,
    }  # fmt: skip
    return fljax.simulate(
        dataset(),
        toy.softmax_task(np.float32),
        algorithms.fedavg(0.2),
        num_rounds=num_rounds,
        clients_per_round=3,
        batch_size=4,
        workdir=workdir,
        devices=2,
        **(defaults | options),
    )


def records(workdir):
    """Records without what depends on the clock on the wall."""
    real = ("throughput/", "time/elapsed", "time/round", "time/plan", "time/eval")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith(real)}
        for line in lines
    ]


def toy_parameters():
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(toy.initial_params())])


def assert_same(one, other):
    assert records(one.directory) == records(other.directory)
    assert one.timeline.keys() == other.timeline.keys()
    for name, column in one.timeline.items():
        np.testing.assert_array_equal(column, other.timeline[name], err_msg=name)
    assert one.summary["selection"] == other.summary["selection"]


@pytest.fixture(scope="module", params=SCHEDULES)
def whole(request, tmp_path_factory):
    options = SCHEDULES[request.param]
    return run(tmp_path_factory.mktemp("whole") / request.param, **options), options


def test_who_worked_when_is_in_memory_as_in_the_file(whole):
    run, _ = whole
    loaded = fljax.load_run(run.directory)
    assert_same(run, loaded)
    jobs = run.timeline
    assert jobs["kept"].tolist() == list(range(1, ROUNDS + 1))
    assert set(np.unique(jobs["client"])) <= set(range(CLIENTS))
    assert (jobs["begin"] <= jobs["end"]).all()
    ends = np.append(0.0, run.curves["time/simulated_seconds"][1:])
    assert (np.diff(ends) >= 0).all() and ends[-1] == run.summary["simulated_seconds"]
    # a job is heard of in the round in which it ends, or given up as one begins
    assert (jobs["end"] <= ends[jobs["round"]] + 1e-9).all()
    assert (jobs["end"] >= ends[jobs["round"] - 1]).all()
    arrived = Counter(jobs["round"][jobs["fate"] <= FATES.index("partial")].tolist())
    assert [arrived[round] for round in range(1, ROUNDS + 1)] == [
        record["train/clients"] for record in records(run.directory)[1:]
    ]
    pictures = [path.name for path in loaded.plot()]
    assert {"timeline.png", "participation.png", "simulated_time.png"} <= set(pictures)


def test_the_summary_says_how_evenly_clients_were_chosen(whole):
    run, _ = whole
    jobs, found = run.timeline, run.summary["selection"]
    for kind, own in (("asked", jobs["fate"] >= 0), ("arrived", jobs["fate"] <= 1)):
        counts = np.bincount(jobs["client"][own], minlength=CLIENTS)
        everybody = found[kind]["all"]["all"]
        assert (everybody["clients"], everybody["turns"]) == (CLIENTS, counts.sum())
        assert everybody["coverage"] == np.count_nonzero(counts) / CLIENTS
        tablets = found[kind]["tier"]["tablet"]
        assert (tablets["clients"], tablets["turns"]) == (6, counts[1::2].sum())
        by_speed = found[kind]["speed_decile"]
        assert by_speed["1"]["turns"] == counts[-2:].sum(), "two of twelve are the slowest tenth"
        assert sum(part["turns"] for part in by_speed.values()) == counts.sum()
    target = run.summary["to_target"]
    reached = run.curves["round"] == target["rounds"]
    want = np.nan_to_num(run.curves["time/simulated_seconds"][reached]).item()
    assert target["simulated_seconds"] == want


def test_a_resumed_run_leaves_the_same(whole, tmp_path):
    one, options = whole

    def broken(federation, record):
        if record["round"] == 5:
            raise RuntimeError("in the middle of many jobs")

    with pytest.raises(RuntimeError, match="in the middle"):
        run(tmp_path / "broken", hooks=(broken,), **options)
    assert_same(one, run(tmp_path / "broken", resume=True, **options))
    # the newest checkpoint is gone, and the file is ahead of the one that is left
    shutil.copytree(one.directory, tmp_path / "older")
    shutil.rmtree(tmp_path / "older" / "checkpoints" / str(ROUNDS))
    (tmp_path / "older" / "summary.json").unlink()
    assert_same(one, run(tmp_path / "older", resume=True, **options))


@pytest.mark.parametrize(
    "schedule", ["fedbuff(concurrency=6, max_staleness=1)", "wait_for_all(retries=50)"]
)
def test_lost_jobs_cost_what_they_cost(schedule, tmp_path):
    """Each attempt is in the timeline, draws power and receives the model."""
    watts = DEVICES._replace(compute_watts=np.full(CLIENTS, 2.0))
    found = run(tmp_path / "run", 4, schedule=schedule, dropout=0.7, profiles=watts)
    jobs, curves = found.timeline, found.curves
    asked = np.bincount(jobs["round"], minlength=5)[1:]
    lost = np.bincount(jobs["round"][jobs["fate"] == FATES.index("lost")], minlength=5)[1:]
    assert (lost > 0).all() and (asked > 3).all()
    bytes_each = 4 * len(toy_parameters())
    np.testing.assert_array_equal(curves["comm/round_downlink_bytes"][1:], bytes_each * asked)
    np.testing.assert_array_equal(curves["comm/downlink_bytes"][1:], bytes_each * np.cumsum(asked))
    joules = np.bincount(jobs["round"], 2 * (jobs["end"] - jobs["begin"]), minlength=5)[1:]
    np.testing.assert_allclose(curves["systems/round_joules"][1:], joules)


def test_who_is_lost_in_an_early_pass_has_not_diverged():
    """Not even a round of which nothing arrives: IFCA's clients name no cluster then."""
    found = fljax.simulate(
        dataset(), "mlp", algorithms.ifca(2, 0.2), num_rounds=3,
        clients_per_round=4, batch_size=4, dropout=0.9, devices=1,
        progress=False, profiles=DEVICES,
    )  # fmt: skip
    curves, fates = found.curves, found.timeline["fate"]
    assert not curves["train/clients_nonfinite"][1:].any()
    arrived = np.bincount(found.timeline["round"][fates == 0], minlength=4)[1:]
    assert (arrived == 0).any()
    np.testing.assert_array_equal(curves["train/clients"][1:], arrived)
    np.testing.assert_array_equal(curves["train/clients_lost"][1:], 4 - arrived)


def test_without_a_clock_nothing_is_left(tmp_path):
    found = run(tmp_path / "run", profiles=None, dropout=None, num_rounds=2)
    assert found.timeline is None and not (tmp_path / "run" / "timeline.npz").exists()
    assert found.summary["simulated_seconds"] is None and "selection" not in found.summary
    assert not [key for key in found.curves if key.startswith(("time/simulated", "systems/"))]
    assert not {"timeline.png", "simulated_time.png"} & {path.name for path in found.plot()}


def test_alike_devices_are_in_the_same_tenth():
    speeds = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 8.0])
    devices = equal(10)._replace(step_seconds=1 / speeds)
    assert speed_deciles(devices).tolist() == [1, 1, 3, 3, 3, 6, 6, 6, 6, 10]
    by_flops = devices._replace(step_seconds=None, flops=1e9 * speeds)
    assert speed_deciles(by_flops).tolist() == speed_deciles(devices).tolist()
    assert speed_deciles(equal(10)) is None
