"""The planner and its lanes: every job runs once, in one piece, on lanes that never collide."""

import jax
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.data.dataset import LazyExamples, Partition, Split
from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.batching import LocalWork
from fljax.engine.plan.lanes import assign_lanes, capacity
from fljax.engine.plan.planner import make_planner
from fljax.engine.plan.round_plan import job_table

EXECUTIONS = st.builds(
    ExecutionPlan,
    devices=st.integers(1, 3),
    lanes=st.integers(1, 4),
    wave=st.integers(1, 5),
    exchange_size=st.just(1),
    placement=st.just("device"),
).flatmap(
    lambda plan: st.integers(1, plan.lanes).map(
        # several that exchange together are a wave
        lambda size: plan._replace(exchange_size=size, wave=plan.wave if size == 1 else size)
    )
)


def replay(plan, num_lanes):
    """Executes a pass plan literally; returns {(device, job): rows trained}, in finishing order."""
    one_device = replay_shared if plan.shares_exchanges else replay_single
    trained, order = {}, {}
    for device in range(plan.rows.shape[0]):
        ran, order[device] = one_device(plan, device, num_lanes)
        trained |= {(device, job): rows for job, rows in ran.items()}
    return trained, order


def train(plan, device, lanes, begin, end, trained):
    """Lets the jobs on the lanes take the steps from one to another."""
    for step in range(begin, end):
        for lane, job in enumerate(lanes):
            count = plan.counts[device, step, lane]
            if count:
                rows = plan.rows[device, step, lane, :count]
                trained.setdefault(job, []).extend(rows.tolist())


def replay_single(plan, device, num_lanes):
    """Executes a schedule of single exchanges; returns ({job: rows}, jobs as they end)."""
    num_jobs = plan.jobs.client.shape[1]
    lanes, slots, trained, finished, time, exchange = [None] * num_lanes, {}, {}, [], 0, 0
    for wave in range(plan.num_waves[device]):
        while exchange < plan.wave_end[device, wave]:
            end = plan.exchange_time[device, exchange]
            train(plan, device, lanes, time, end, trained)
            time = end
            lane = plan.exchange_lane[device, exchange, 0]
            if lane < num_lanes:
                slot = plan.exchange_slot[device, exchange, 0]
                if slot < plan.wave_jobs.shape[2]:
                    slots[slot] = lanes[lane]
                following = plan.exchange_next[device, exchange, 0]
                lanes[lane] = following if following < num_jobs else None
            exchange += 1
        for slot, job in enumerate(plan.wave_jobs[device, wave]):
            if job < num_jobs:
                assert slots[slot] == job
                finished.append(job)
    return trained, finished


def replay_shared(plan, device, num_lanes):
    """Executes a schedule of shared exchanges; returns ({job: rows}, jobs as they end)."""
    num_jobs, size = plan.jobs.client.shape[1], plan.wave_jobs.shape[2]
    lanes, trained, finished, time = [None] * num_lanes, {}, [], 0
    if plan.first_jobs is not None:
        lanes[size:] = plan.first_jobs[device].tolist()
    everybody = np.arange(num_lanes)
    for wave, time_after in enumerate(plan.exchange_times(device)):
        ending = plan.wave_jobs[device, wave]
        # no two are written to one place, whether they are jobs or not
        assert len(set(ending.tolist())) == size
        free, starting, leaving = everybody, ending, everybody
        if plan.exchange_lane is not None:
            free, starting = plan.exchange_lane[device, wave], plan.exchange_next[device, wave]
            leaving = plan.exchange_lane[device, wave + 1]
        assert len(set(free.tolist())) == size
        for lane, job in zip(free, starting, strict=True):
            lanes[lane] = job
        train(plan, device, lanes, time, time_after, trained)
        time = time_after
        for lane, job in zip(leaving, ending, strict=True):
            if job < num_jobs:
                assert lanes[lane] == job
                finished.append(job)
    return trained, finished


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=14),
    execution=EXECUTIONS,
    epochs=st.integers(1, 2),
    data=st.data(),
)
def test_every_job_runs_exactly_once(sizes, execution, epochs, data):
    parts = toy.clients(sizes)
    split = toy.dataset(parts).train
    count = data.draw(st.integers(0, len(sizes)))
    cohort = data.draw(st.permutations(range(len(sizes))))[:count]
    planner = make_planner(
        split, LocalWork(epochs, None, 4), ["local"], execution, max_cohort=len(sizes), seeds=[3]
    )
    plan, facts = planner.plan(2, job_table(cohort))
    one = plan.passes[0]
    trained, order = replay(one, execution.lanes)
    real = np.argwhere(one.jobs.client >= 0)
    assert facts.num_jobs == len(real) == sum(sizes[c] > 0 for c in cohort)
    assert facts.without_rows.sum() == sum(sizes[c] == 0 for c in cohort)
    for device, job in real:
        client = one.jobs.client[device, job]
        begin = split.partition.offsets[client]
        rows = np.array(trained[device, job]) - begin
        np.testing.assert_array_equal(np.sort(rows), np.repeat(np.arange(sizes[client]), epochs))
        position = one.jobs.position[device, job]
        assert cohort[position] == client
        assert plan.cohort_index[position] == device * one.jobs.client.shape[1] + job
    assert sorted(map(tuple, real.tolist())) == sorted(
        (device, job) for device, jobs in order.items() for job in jobs
    )
    assert facts.rows_real == sum(map(len, trained.values()))


def test_equal_steps_are_part_of_the_program_unless_jobs_bring_their_own():
    split = toy.dataset(toy.clients([8] * 7)).train
    planner = make_planner(
        split, LocalWork(1, None, 4), ["local"], ExecutionPlan(1, 3, 3, 3, "device"),
        max_cohort=7, seeds=[3],
    )  # fmt: skip
    shapes = set()
    for count, own in ((7, None), (4, None), (0, None), (6, [1, 2, 3, 1, 1, 5])):
        plan, _ = planner.plan(0, job_table(range(count), steps=own))
        one = plan.passes[0]
        assert one.equal_steps == (0 if own else 2)
        trained, order = replay(one, 3)
        assert sorted(order[0]) == list(range(count))
        for job in order[0]:
            expected = own[one.jobs.client[0, job]] if own else 2
            assert len(trained[0, job]) == 4 * expected
        if not own:
            shapes.add(tuple(leaf.shape for leaf in jax.tree.leaves(plan)))
    # no cohort recompiles the program
    assert len(shapes) == 1


@settings(max_examples=60)
@given(
    steps=st.lists(st.integers(1, 12) | st.just(80), min_size=1, max_size=60),
    devices=st.integers(1, 3),
    lanes=st.integers(2, 9),
    data=st.data(),
)
def test_lanes_that_exchange_together_work_nearly_as_densely(steps, devices, lanes, data):
    size = data.draw(st.integers(2, lanes))
    assignment = assign_lanes(np.array(steps), devices, lanes, len(steps), size)
    # of each device's lanes, those beyond a multiple of the size may wait all the time
    busy = devices * (lanes - lanes % size)
    assert assignment.makespan <= -(-sum(steps) // busy) + max(steps)
    slots = assignment.device * lanes + assignment.lane
    for slot in np.unique(slots):
        mine = np.flatnonzero(slots == slot)
        mine = mine[np.argsort(assignment.start[mine])]
        ends = assignment.start[mine] + np.array(steps)[mine]
        assert (assignment.start[mine][1:] >= ends[:-1]).all()


@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    devices=st.integers(1, 4),
    lanes=st.integers(1, 8),
)
def test_assignment_is_dense(steps, devices, lanes):
    steps = np.array(steps)
    assignment = assign_lanes(steps, devices, lanes, len(steps))
    slots = assignment.device * lanes + assignment.lane
    for slot in np.unique(slots):
        mine = np.flatnonzero(slots == slot)
        mine = mine[np.argsort(assignment.start[mine])]
        ends = assignment.start[mine] + steps[mine]
        np.testing.assert_array_equal(assignment.start[mine], np.concatenate([[0], ends[:-1]]))
    # Graham's bound for any list schedule
    assert assignment.makespan <= steps.sum() / (devices * lanes) + steps.max()
    assert assignment.makespan == (assignment.start + steps).max()


@given(
    steps=st.lists(st.integers(1, 9) | st.just(300), min_size=1, max_size=40),
    devices=st.integers(1, 4),
    lanes=st.integers(1, 3),
    room=st.integers(0, 4),
)
def test_assignment_is_longest_first_to_the_lane_that_is_free_earliest(steps, devices, lanes, room):
    """Also where devices are full: their lanes take no more jobs."""
    room += -(-len(steps) // devices)
    assignment = assign_lanes(np.array(steps), devices, lanes, room)
    free = [(0, lane, device) for lane in range(lanes) for device in range(devices)]
    held = [0] * devices
    for job in sorted(range(len(steps)), key=lambda job: -steps[job]):
        begin, lane, device = min(free)
        found = assignment.start[job], assignment.lane[job], assignment.device[job]
        assert found == (begin, lane, device)
        free[free.index((begin, lane, device))] = (begin + steps[job], lane, device)
        held[device] += 1
        free = [place for place in free if held[place[2]] < room]
    for device in range(devices):
        slots = assignment.slot[assignment.device == device]
        np.testing.assert_array_equal(slots, np.arange(len(slots)))


def test_makespan_on_log_normal_sizes():
    for seed in range(5):
        generator = np.random.default_rng(seed)
        for cohort in (50, 1000):
            steps = np.ceil(generator.lognormal(np.log(10) - 0.5, 1, cohort)).astype(np.int64)
            for lanes in (1, 8, 64):
                bound = max(steps.max(), steps.sum() / lanes)
                assert assign_lanes(steps, 1, lanes, cohort).makespan <= 1.05 * bound + 1


def test_devices_hold_no_more_jobs_than_their_arrays():
    steps = np.array([100] + [1] * 19)
    assignment = assign_lanes(steps, 2, 1, 12)
    assert np.bincount(assignment.device).max() <= 12


@given(needed=st.integers(1, 10**6), floor=st.integers(1, 1000))
def test_capacities_form_a_series(needed, floor):
    size = capacity(needed, floor)
    assert size >= max(needed, floor)
    assert capacity(size, floor) == size
    assert size <= max(floor, needed * 5 // 4 + 1)


def test_plans_of_any_cohort_have_the_same_shapes():
    parts = toy.clients([1, 40, 3, 17, 9, 22, 5, 2])
    planner = make_planner(
        toy.dataset(parts).train, LocalWork(1, None, 4), ["local", "epoch"],
        ExecutionPlan(2, 1, 1, 1, "device"), max_cohort=4, seeds=[0],
    )  # fmt: skip
    shapes = {
        tuple(leaf.shape for leaf in (plan.passes[0].rows, plan.passes[1].rows, plan.cohort_index))
        for cohort in ([0], [1, 3, 5, 4], [7, 2], [])
        for plan, _ in [planner.plan(0, job_table(cohort))]
    }
    assert len(shapes) == 1


def test_arrays_that_grew_keep_their_size(monkeypatch):
    """If the largest cohort's arrays are too large to ship, shapes grow and never shrink."""
    monkeypatch.setattr("fljax.engine.plan.capacities._FIXED_CAPACITY_ENTRIES", 1)
    sizes = [4] * 400 + [400]
    planner = make_planner(
        toy.dataset(toy.clients(sizes)).train, LocalWork(1, None, 4), ["local"],
        ExecutionPlan(1, 1, 1, 1, "stream"), max_cohort=1, seeds=[0],
    )  # fmt: skip
    shapes = []
    for client in (0, 400, 1, 2):
        plan, _ = planner.plan(0, job_table([client]))
        shapes.append((plan.passes[0].rows.shape, plan.staged["x"].shape))
    assert shapes[0] < shapes[1]
    assert shapes[1] == shapes[2] == shapes[3]


def test_likely_capacities_hold_for_nearly_all_cohorts(monkeypatch):
    """Heavy-tailed clients whose worst cohort is too large: shapes settle at once."""
    monkeypatch.setattr("fljax.engine.plan.capacities._FIXED_CAPACITY_ENTRIES", 1)
    generator = np.random.default_rng(0)
    sizes = np.ceil(generator.lognormal(2, 1, 500)).astype(int)
    planner = make_planner(
        toy.dataset(toy.clients(sizes)).train, LocalWork(1, None, 4), ["local"],
        ExecutionPlan(2, 1, 1, 1, "stream"), max_cohort=20, seeds=[0],
    )  # fmt: skip
    shapes = set()
    for round in range(60):
        cohort = generator.choice(500, 20, replace=False)
        plan, _ = planner.plan(round, job_table(cohort))
        shapes.add((plan.passes[0].rows.shape, plan.staged["x"].shape))
    assert len(shapes) <= 2


def test_jobs_with_their_own_steps_take_them_in_local_passes_alone():
    parts = toy.clients([30, 9])
    planner = make_planner(
        toy.dataset(parts).train, LocalWork(1, None, 4), ["local", "epoch"],
        ExecutionPlan(1, 1, 1, 1, "device"), max_cohort=2, seeds=[0], max_steps=7,
    )  # fmt: skip
    plan, _ = planner.plan(0, job_table([0, 1], steps=[7, 2]))
    local, epoch = (each.jobs.steps[0, :2].tolist() for each in plan.passes)
    assert sorted(local) == [2, 7]
    assert sorted(epoch) == [3, 8]
    assert plan.passes[1].counts.sum() == 39


def test_streamed_rows_are_the_same_rows():
    parts = toy.clients([7, 12, 3, 9])
    split = toy.dataset(parts).train
    plans = [
        make_planner(
            split, LocalWork(1, None, 4), ["local"], ExecutionPlan(2, 1, 1, 1, placement),
            max_cohort=4, seeds=[0],
        ).plan(0, job_table([3, 1, 0, 2]))[0]
        for placement in ("device", "stream")
    ]  # fmt: skip
    resident, streamed = (plan.passes[0] for plan in plans)
    for device in range(2):
        real = np.arange(4) < resident.counts[device][..., None]
        expected = split.examples.arrays["x"][resident.rows[device][real]]
        got = plans[1].staged["x"][device][streamed.rows[device][real]]
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("remainder", ["partial", "drop", "wrap"])
@pytest.mark.parametrize("amount", [(3, None), (None, 5)])
@pytest.mark.parametrize("sizes", [np.full(60, 7), np.arange(60) % 31 + 4])
def test_a_device_has_room_for_the_rows_of_any_cohort(remainder, amount, sizes):
    """Staged arrays are a device's share, not the cohort's, and no cohort outgrows them."""
    split = toy.dataset(toy.clients(sizes)).train
    planner = make_planner(
        split, LocalWork(*amount, 4, remainder), ["local"], ExecutionPlan(2, 1, 1, 1, "stream"),
        max_cohort=40, seeds=[0],
    )  # fmt: skip
    largest = np.argsort(sizes)[-40:]
    room = planner.capacities.staged_rows
    if remainder != "drop" and amount[0]:
        assert room < 0.8 * sizes[largest].sum()
    generator = np.random.default_rng(1)
    cohorts = [generator.choice(60, 40, replace=False) for _ in range(20)]
    for round, cohort in enumerate([largest, *cohorts]):
        plan, _ = planner.plan(round, job_table(cohort))
        assert plan.staged["x"].shape == (2, room, toy.FEATURES)


def test_only_real_rows_are_generated():
    """Padding of a staged array is not asked for: generating it may be what a round costs."""
    examples = toy.dataset(toy.clients([7, 12, 3, 9])).train.examples
    asked = []

    def generate(rows):
        asked.extend(rows.tolist())
        return examples.take(rows)

    lazy = Split(LazyExamples(31, generate, examples.spec), Partition(np.array([0, 7, 19, 22, 31])))
    planner = make_planner(
        lazy, LocalWork(2, None, 4), ["local"], ExecutionPlan(2, 1, 1, 1, "stream"),
        max_cohort=4, seeds=[0],
    )  # fmt: skip
    plan, _ = planner.plan(0, job_table([0, 3]))
    assert sorted(asked) == [*range(7), *range(22, 31)]
    assert plan.staged["x"].shape[0] * plan.staged["x"].shape[1] > 16


def test_a_process_stages_the_rows_of_its_own_devices_alone():
    split = toy.dataset(toy.clients([7, 12, 3, 9])).train
    (everything, _), (own, _) = (
        make_planner(
            split, LocalWork(1, None, 4), ["local"], ExecutionPlan(3, 1, 1, 1, "stream"),
            max_cohort=4, seeds=[0], staged_devices=devices,
        ).plan(0, job_table([3, 1, 0, 2]))
        for devices in (None, (1, 2))
    )  # fmt: skip
    for name, rows in everything.staged.items():
        np.testing.assert_array_equal(own.staged[name], rows[1:])
    # the plan itself is that of all devices
    jax.tree.map(np.testing.assert_array_equal, own.passes, everything.passes)


def test_repeated_clients_are_numbered():
    assert job_table([4, 2, 4, 4, 2]).occurrence.tolist() == [0, 0, 1, 2, 1]
