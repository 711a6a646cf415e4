"""Layouts found by timing: the search, its memory, and that nothing of a timing is left behind."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import toy

from fljax import algorithms, models
from fljax.data import from_arrays
from fljax.engine.devices import compilation
from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.batching import LocalWork
from fljax.tasks import classification
from fljax.training import autotuning as calibration
from fljax.training import execution, federation
from fljax.training.autotuning import Allowance, JobLayout, Timing, calibrate, describe
from fljax.training.options import RoundOptions

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZES = [7, 12, 3, 9, 20, 5, 16, 11]


def _build(**options):
    setting = {"num_rounds": 3, "clients_per_round": 8, "batch_size": 4, "devices": 2, "seed": 3}
    return federation.build(
        toy.dataset(toy.clients(SIZES)), toy.softmax_task(), algorithms.fedavg(0.05),
        RoundOptions(**(setting | options)),
    )  # fmt: skip


def _weights(one, rounds=3):
    for plan, facts in one.plans(0, rounds):
        one.step(plan, facts)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(one.variables.params)]


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path))
    # whatever this machine is busy with
    for name in ("_ASKED_SECONDS", "_BUDGET_SECONDS", "_HEAVY_STEP_SECONDS"):
        monkeypatch.setattr(calibration, name, 1e6)
    return tmp_path / "layouts.json"


def test_trials_leave_nothing_behind_and_are_remembered(memory, monkeypatch):
    found = _build(calibrate=True)
    layout = [found.execution.devices, found.execution.lanes, found.execution.wave]
    (remembered,) = json.loads(memory.read_text()).values()
    assert remembered[:3] == layout and remembered[3] > 0
    assert found.calibration_seconds > 0
    plain = _build(calibrate=False, devices=layout[0], lanes=layout[1], wave=layout[2])
    for got, want in zip(_weights(found), _weights(plain), strict=True):
        np.testing.assert_array_equal(got, want)

    def no_trial(*args):
        raise AssertionError("the layout was known")

    monkeypatch.setattr(calibration, "_timed", no_trial)
    again = _build(calibrate=True)
    assert again.execution == found.execution and again.calibration_seconds == 0
    with pytest.raises(AssertionError, match="was known"):
        _build(calibrate=True, batch_size=5)  # other work has other layouts
    (key,) = json.loads(memory.read_text())
    bad = ("{", "[]", json.dumps({key: ["x", 0, 0, 0, 0]}), json.dumps({key: [0, 0, 0, 0, 0]}))
    for text in (*bad, json.dumps({key: [1, 1, 1, 1]}), json.dumps({key: [2, 1.0, 1, 1, 0]})):
        memory.write_text(text)
        with pytest.raises(AssertionError, match="was known"):
            _build(calibrate=True)  # an unreadable file is as good as none


@pytest.mark.parametrize("layout", [[2, 1, 10**9, 1, 0], [512, 1, 1, 1, 0]])
def test_a_layout_that_fits_no_longer_is_found_anew(memory, layout, monkeypatch):
    monkeypatch.setattr(calibration, "_ASKED_SECONDS", 0.0)
    _build(calibrate=True)
    (key,) = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: layout}))
    found = _build(calibrate=True)
    assert found.calibration_seconds > 0 and found.execution.wave < 10**9
    assert json.loads(memory.read_text())[key][:3] == list(found.execution[:3])


def test_a_search_that_nobody_asked_for_pays_for_itself(memory, monkeypatch):
    monkeypatch.setattr(execution, "_CALIBRATED_SECONDS", 0.0)
    searched = []
    search = calibration._search
    note = lambda *args: (searched.append(args[1].rounds), search(*args))[1]  # noqa: E731
    monkeypatch.setattr(calibration, "_search", note)
    short = _build(num_rounds=60)
    # the rule's own layout: one lane on each device
    assert tuple(short.execution[:3]) == (2, 1, 1) and short.rounds_per_dispatch == 1
    allowed = list(json.loads(memory.read_text()).values())[0][4]
    assert 0 < allowed < 1e3 * calibration._BUDGET_SECONDS
    _build(num_rounds=60), _build(num_rounds=50)
    assert searched == [60]
    # longer runs, and those that ask for it, search on
    _build(num_rounds=120), _build(num_rounds=60, calibrate=True), _build(num_rounds=900)
    assert searched == [60, 120, 60]
    assert list(json.loads(memory.read_text()).values())[0][4] == 0


def test_a_run_that_is_over_soon_begins_without_a_trial(memory):
    short = _build(num_rounds=60)
    assert short.calibration_seconds == 0 and not memory.exists()


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, False),
        ({"num_rounds": 49, "local_steps": 10**6}, False),
        ({"num_rounds": 50}, False),
        ({"num_rounds": 10**5}, True),
        ({"num_rounds": 50, "local_steps": 10**6}, True),
        ({"num_rounds": 10**5, "calibrate": False}, False),
        ({"calibrate": True}, True),
        ({"calibrate": True, "lanes": 2}, False),
        ({"calibrate": True, "wave": 2}, False),
    ],
)
def test_what_is_calibrated(options, expected):
    options = RoundOptions(**({"num_rounds": 3, "clients_per_round": 6} | options))
    dataset, task = toy.dataset(toy.clients(SIZES)), toy.softmax_task()
    steps = np.full(len(SIZES), options.local_steps or 1)
    work = LocalWork(options.local_epochs, options.local_steps, 4, "partial", True)
    found = execution.is_calibrated(options, dataset, task, steps, work, 6)
    assert found is expected


def test_arithmetic_counts_where_steps_are_few():
    options = RoundOptions(num_rounds=60, clients_per_round=6, devices=1)
    steps, work = np.full(len(SIZES), 1), LocalWork(1, None, 4, "partial", True)
    draw = np.random.default_rng(0)
    for width, expected in ((8, False), (3000, True)):
        x = draw.standard_normal((80, width)).astype(np.float32)
        data = from_arrays(x, np.arange(80) % 10, partition="iid", num_clients=8, num_classes=10)
        task = classification(models.make("mlp", 10, (width,), hidden=(width,)), 10)
        assert execution.is_calibrated(options, data, task, steps, work, 6) is expected


def _search(
    monkeypatch, seconds, *, step_seconds=1e-4, platform="cpu", rule=(4, 1), jobs=64,
    overhead=0.0, allowance=None,
):  # fmt: skip
    """Calibrates where a round takes seconds(layout); returns (chosen, layouts tried)."""
    tried = []

    def again(trial):
        took = seconds(JobLayout(*trial.federation.execution[:3]))
        return trial._replace(seconds=took, overhead=overhead * took)

    def assemble(layout):
        layout = JobLayout(*rule) if layout is None else layout
        return SimpleNamespace(
            execution=ExecutionPlan(layout.devices, layout.lanes, layout.wave or 1, 1, "device"),
            planner=SimpleNamespace(capacities=SimpleNamespace(cohort=jobs)),
            mesh=SimpleNamespace(local_devices=[SimpleNamespace(platform=platform)]),
            options=SimpleNamespace(devices=0, rounds_per_dispatch=0),
            store=SimpleNamespace(row_bytes=0),
            cohorts=SimpleNamespace(feedback="none"),
        )

    def trial(assemble, layout, allowance=None):
        one = assemble(layout)
        layout = JobLayout(*one.execution[:3])
        tried.append(tuple(layout[:3]))
        took = seconds(layout)
        return Timing(one, None, None, 1.0, took / step_seconds, took, overhead * took, built=1.0)

    monkeypatch.setattr(calibration, "_timed", trial)
    monkeypatch.setattr(calibration, "_again", again)
    chosen = calibrate(assemble, None, {}, allowance or Allowance(10**9)).execution
    return tuple(chosen[:3]), tried


def test_the_search_goes_on_while_it_gets_better(monkeypatch):
    best_at_four = lambda layout: abs(layout.lanes - 4) + 4.0 / layout.devices  # noqa: E731
    chosen, tried = _search(monkeypatch, best_at_four)
    assert chosen == (4, 4, 1)
    assert tried == [(4, 1, 1), (4, 4, 1), (4, 16, 1), (4, 4, 4), (4, 4, 16)]


@pytest.mark.parametrize(
    "rounds, asked, trials", [(9, 0, 1), (29, 0, 2), (49, 0, 3), (10**6, 0, 5), (9, 2.5, 3)]
)
def test_trials_take_a_tenth_of_the_run(monkeypatch, rounds, asked, trials):
    clock = iter(range(100))  # each trial takes a second
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(calibration, "_BUDGET_SECONDS", 99)
    monkeypatch.setattr(calibration, "_ASKED_SECONDS", asked)
    # rounds of one second, then of half a second
    better = lambda layout: 1.0 / min(layout.lanes, 2)  # noqa: E731
    allowance = Allowance(rounds, bool(asked))
    assert len(_search(monkeypatch, better, allowance=allowance)[1]) == trials


def test_rounds_that_devices_spend_on_meeting_may_use_one(monkeypatch):
    seconds = lambda layout: layout.devices + layout.lanes  # noqa: E731
    assert _search(monkeypatch, seconds, overhead=0.5)[0] == (1, 1, 1)
    assert _search(monkeypatch, seconds)[0] == (4, 1, 1)


def test_waves_may_be_wider(monkeypatch):
    chosen, _ = _search(monkeypatch, lambda layout: 10.0 * layout.lanes - min(layout.wave, 4))
    assert chosen == (4, 1, 4)


def test_heavy_steps_on_a_cpu_stay_on_one_lane(monkeypatch):
    chosen, tried = _search(monkeypatch, lambda layout: 1.0 / layout.lanes, step_seconds=0.01)
    assert chosen == (4, 1, 1) and tried == [(4, 1, 1)]


def test_noise_chooses_nothing(monkeypatch):
    noise = {1: 1.0, 2: 0.98, 4: 1.01, 8: 0.96, 16: 1.02}
    assert _search(monkeypatch, lambda layout: noise[layout.lanes])[0] == (4, 1, 1)


def test_what_is_as_good_is_a_step_on_the_way(monkeypatch):
    seconds = {1: 1.0, 4: 1.03, 16: 0.9}
    assert _search(monkeypatch, lambda layout: seconds[layout.lanes])[0] == (4, 16, 1)
    seconds = {1: 1.0, 4: 1.1, 16: 0.1}
    chosen, tried = _search(monkeypatch, lambda layout: seconds[layout.lanes])
    assert chosen == (4, 1, 1) and (4, 16, 1) not in tried


def test_the_best_and_another_are_timed_by_turns(memory, monkeypatch):
    turns = []
    again = calibration._again
    note = lambda trial: (turns.append(trial.federation.execution.lanes), again(trial))[1]  # noqa: E731
    monkeypatch.setattr(calibration, "_again", note)
    _build(calibrate=True)
    assert turns[:4] == [1, 4] * 2


@pytest.mark.parametrize(
    "seconds, options, row_bytes, feedback, rounds, expected",
    [
        (0.001, 0, 0, "none", 1000, 10), (0.03, 0, 0, "none", 1000, 3),
        (0.2, 0, 0, "none", 1000, 1), (0.001, 4, 0, "none", 1000, 4),
        (0.001, 0, 8, "none", 1000, 1), (0.001, 0, 0, "none", 999, 1),
        (0.001, 0, 0, "delayed", 1000, 1),
    ],
)  # fmt: skip
def test_tiny_rounds_share_a_dispatch(
    monkeypatch, seconds, options, row_bytes, feedback, rounds, expected
):
    federation = SimpleNamespace(
        execution=ExecutionPlan(1, 1, 1, 1, "device"),
        planner=SimpleNamespace(capacities=SimpleNamespace(cohort=1)),
        mesh=SimpleNamespace(local_devices=[SimpleNamespace(platform="cpu")]),
        options=SimpleNamespace(devices=1, rounds_per_dispatch=options),
        store=SimpleNamespace(row_bytes=row_bytes),
        cohorts=SimpleNamespace(feedback=feedback),
        rounds_per_dispatch=options or 1,
    )
    monkeypatch.setattr(
        calibration, "_timed", lambda *_: Timing(federation, None, None, 1.0, 1, seconds, 0.0)
    )
    found = calibrate(lambda layout: federation, None, {}, Allowance(rounds))
    assert found.rounds_per_dispatch == expected


def test_a_layout_is_described():
    federation = SimpleNamespace(
        execution=ExecutionPlan(2, 1, 1, 1, "device"), calibration_seconds=0.01
    )
    assert describe(federation) == "2 devices x 1 lane"
    federation.execution = ExecutionPlan(1, 8, 1, 1, "stream")
    federation.calibration_seconds = 1.25
    assert describe(federation) == "1 device x 8 lanes, data: stream; layout found in 1.2 s"


def test_the_compilation_cache_leaves_other_choices_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == before[0]
        jax.config.update("jax_enable_compilation_cache", True)
        compilation.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "xla"))
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        compilation.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_enable_compilation_cache", before[1])
