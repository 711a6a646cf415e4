"""Simulated time from options: what is planned with, what is recorded, and what is refused."""

import math

import jax
import numpy as np
import pytest

import fljax
from fljax import algorithms, compression, data, models, tasks
from fljax.core.schedule import Arrivals, Schedule
from fljax.core.transforms import Pipeline
from fljax.selection.growth import grown as sampler_of
from fljax.systems.devices import equal
from fljax.systems.hardware import hardware
from fljax.systems.presets import PRESETS
from fljax.systems.roofline import estimate
from fljax.training.flops import training_flops
from fljax.training.local_work import structure_of
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import rehearsed
from fljax.training.timing import message_bytes
from fljax.training.traffic import training_traffic

pytestmark = pytest.mark.usefixtures("quick_compilation")

OPTIONS = {
    "num_rounds": 3, "clients_per_round": 4, "batch_size": 10, "progress": False, "eval_every": 3,
}  # fmt: skip
# 64 x 10 weights and 10 biases
DENSE = 4 * 650


@pytest.fixture(scope="module")
def digits():
    return data.digits(partition="dirichlet", num_clients=20, alpha=0.5)


def run(digits, **options):
    return fljax.simulate(digits, "softmax_regression", "fedavg", **OPTIONS | options)


def bytes_of(digits, spec, *links):
    task = tasks.classification(models.softmax_regression(64, 10), 10)
    pipeline = Pipeline(uplink=links)
    shapes = rehearsed(digits, task, spec, pipeline)
    return message_bytes(shapes, structure_of(task, spec), pipeline)


def test_messages_have_their_exact_sizes(digits):
    top_k = compression.uplink(compression.top_k(0.1))
    qsgd = compression.uplink(compression.qsgd(4))
    assert bytes_of(digits, algorithms.fedavg(0.1)) == (DENSE, DENSE)
    assert bytes_of(digits, algorithms.scaffold(0.1)) == (2 * DENSE, 2 * DENSE)
    for link in (top_k, qsgd):
        down, up = bytes_of(digits, algorithms.fedavg(0.1), link)
        counted = run(digits, pipeline=Pipeline(uplink=(link,)))
        assert down == DENSE
        assert math.ceil(up) == counted.curves["comm/client_uplink_bytes_max"][-1]


def test_devices_of_the_edge_take_what_the_roofline_says(digits):
    found = run(digits, profiles="edge('mcu_cortex_m7', uplink_mbps=8, downlink_mbps=8)")
    task = tasks.classification(models.softmax_regression(64, 10), 10)
    flops = training_flops(task, digits.train.examples.spec, 10)
    moved = training_traffic(task, digits.train.examples.spec, 10)
    step = estimate(hardware("mcu_cortex_m7"), flops, moved, work="training").seconds
    most = -(-digits.train.partition.sizes.max() // 10)
    first = found.curves["systems/round_seconds"][found.curves["round"] == 1][0]
    whole = (first - 2 * 8e-6 * DENSE / 8) / step
    assert whole == pytest.approx(round(whole), abs=1e-3) and 1 <= round(whole) <= most
    assert found.curves["systems/round_joules"][-1] > 0


def test_time_follows_devices_links_and_messages(digits):
    devices = equal(20, step_seconds=0.25)._replace(
        uplink_mbps=np.full(20, 0.1), downlink_mbps=np.full(20, 1.0)
    )
    one = run(digits, profiles=devices)
    transfer = 8 * DENSE / 1e5 + 8 * DENSE / 1e6
    steps = -(-digits.train.partition.sizes // 10)
    cohorts = [fljax.core.sampler.uniform(20, 4, 0).select((), round)[0] for round in range(3)]
    expected = np.cumsum([0.25 * steps[cohort].max() + transfer for cohort in cohorts])
    np.testing.assert_allclose(one.curves["time/simulated_seconds"][1:], expected, rtol=1e-12)


def test_a_clock_changes_no_model(digits):
    plain = run(digits)
    timed = run(digits, profiles="lognormal(2.0)", schedule="wait_for_all(retries=1)")
    for one, other in zip(*map(jax.tree.leaves, (plain.variables, timed.variables)), strict=True):
        assert (np.asarray(one) == np.asarray(other)).all()
    assert "time/simulated_seconds" not in plain.curves
    assert not any(name in plain.config for name in ("profiles", "schedule"))


def test_a_preset_fills_what_is_unset():
    options = RoundOptions(num_rounds=1, clients_per_round=2, preset="cross_device", dropout=0.5)
    assert options.dropout == 0.5
    assert options.schedule.startswith("over_selection")
    assert (options.profiles, options.availability) == (
        PRESETS["cross_device"]["profiles"], "charging()",
    )  # fmt: skip
    silos = RoundOptions(num_rounds=1, clients_per_round=2, preset="cross_silo")
    assert (silos.schedule, silos.availability, silos.dropout) == ("wait_for_all", None, None)
    never = RoundOptions(num_rounds=1, clients_per_round=2, preset="cross_device", dropout=0.0)
    assert never.dropout == 0.0


def own_schedule(state=()):
    return Schedule(lambda: state, lambda state, round: (Arrivals(np.array([1])), state), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "deadline"}, "deadline needs seconds|missing|seconds"),
        ({"schedule": "deadlin(3)"}, "Did you mean 'deadline'"),
        ({"schedule": "fedbuff(concurrency=2)"}, "concurrency = 2 clients work at a time"),
        ({"schedule": "fedbuff(concurrency=200)"}, "200 clients are to work at a time, but 20"),
        ({"schedule": "fedbuff(concurrency=8)", "sampler": "by_size"}, "has no effect with sched"),
        ({"schedule": "fedasync", "cohorts": [[1]]}, "says itself who begins when"),
        ({"schedule": own_schedule(), "dropout": 0.1}, "dropout have no effect"),
        ({"schedule": own_schedule(), "cohorts": [[1]]}, "says itself who begins when"),
        ({"schedule": own_schedule(), "sampler": "by_size"}, "has no effect with schedule"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"dropout": 0.1, "connectivity": "same_loss"}, "both say how often work is lost"),
        ({"completeness": "all"}, "there is no .all.*function .clients, seed, number of the round"),
        ({"schedule": "over_selection", "clients_per_round": 20}, "factor = 1.3 .* to 15 at most"),
        ({"sampler": "oort", "rounds_per_dispatch": 2, "dropout": 0.1}, "^rounds_per_dispatch = 2"),
        ({"schedule": "over_selection", "sampler": "importance"}, "leaves out the slow of each"),
        ({"profiles": "lognormal(1000.0)"}, "step_seconds of client .* must be above 0"),
        ({"profiles": equal(20)._replace(step_seconds=[-1.0] * 20)}, "client 0 is -1 and must be"),
        ({"profiles": "equal(-1)"}, "step_seconds = -1"),
        ({"profiles": equal(3)}, "devices of 3 clients .step_seconds., and the population has 20"),
        ({"availability": "sometimes"}, "there is no 'sometimes'"),
        ({"profiles": "lognormal(1.0)", "steps_per_round": [1, 1, 1]}, "plans steps itself"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_round(digits, options, message):
    with pytest.raises(ValueError, match=message):
        run(digits, **options)


def test_algorithms_of_several_passes_start_from_the_newest_model(digits):
    with pytest.raises(ValueError, match="ditto has 2 passes: use a synchronous schedule"):
        fljax.simulate(
            digits, "softmax_regression", "ditto", schedule="fedbuff(concurrency=8)", **OPTIONS
        )


@pytest.mark.parametrize("schedule", ["fedbuff(concurrency=8)", "over_selection(1.5)"])
def test_privacy_that_counts_on_the_samplers_draws_is_refused(digits, schedule):
    private = {"privacy": "gaussian(0.3)", "noise_multiplier": 1.0, "delta": 1e-3}
    with pytest.raises(ValueError, match="privacy counts on the sampler's draws"):
        run(digits, schedule=schedule, **private)
    with pytest.raises(ValueError, match="with availability others take part"):
        run(digits, availability="bernoulli(0.5)", **private)


def test_samplers_that_scale_go_with_plain_means_alone(digits):
    with pytest.raises(ValueError, match="fedavg weights clients .by their rows. as well"):
        run(digits, sampler="importance(probabilities='uniform')")


def test_connectivity_completeness_and_energy_are_told(digits):
    phones = "lognormal(sigma=0, step_seconds=0.5, compute_watts=4, radio_watts=1, uplink_mbps=0.1)"
    one = run(digits, profiles=phones)
    cohorts = [fljax.core.sampler.uniform(20, 4, 0).select((), round)[0] for round in range(3)]
    steps = -(-digits.train.partition.sizes // 10)
    joules = [4 * 0.5 * steps[cohort].sum() + 4 * 8 * DENSE / 1e5 for cohort in cohorts]
    np.testing.assert_allclose(one.curves["systems/joules"][1:], np.cumsum(joules), rtol=1e-12)
    some = run(digits, completeness="full_static_uniform", connectivity="uniform_loss(1.0)")
    assert some.curves["systems/clients_partial"][1:].sum() > 0
    assert some.curves["systems/clients_lost"][1:].sum() > 0
    assert some.curves["train/local_steps"][1:].sum() < one.curves["train/local_steps"][1:].sum()
    late = run(digits, profiles="uniform_response(1, 3)")
    assert (np.diff(late.curves["time/simulated_seconds"][1:]) < 3).all()


@pytest.mark.parametrize("schedule", ["wait_for_all", "fedbuff(concurrency=8)"])
def test_what_clients_have_not_done_is_not_trained(digits, schedule):
    whole = run(digits, schedule=schedule)
    part = run(digits, schedule=schedule, completeness="arbitrary_dynamic_uniform(1, 2)")
    same = run(digits, schedule=schedule, completeness="arbitrary_dynamic_uniform(2, 2)")
    assert part.curves["train/local_steps"][-1] < whole.curves["train/local_steps"][-1]
    for one, other in zip(*map(jax.tree.leaves, (whole.variables, same.variables)), strict=True):
        assert (np.asarray(one) == np.asarray(other)).all()


def test_members_alone_take_part_whoever_is_online(digits):
    grown = run(digits, sampler="grown(0.2, over=30)", availability="bernoulli(0.3, 3.0)")
    members = [set(sampler_of(20, 4, 0, 0.2, over=30).select((), round)[0]) for round in range(3)]
    client, at = grown.timeline["client"], grown.timeline["round"]
    asked = [set(client[at == at.min() + n].tolist()) for n in range(3)]
    assert all(asked) and all(here <= whole for here, whole in zip(asked, members, strict=True))


def test_a_root_has_no_device(digits):
    with pytest.raises(ValueError, match="a client of the server's own"):
        spec = algorithms.fedavg(0.1, weighting="uniform")
        rooted = data.with_root(digits, rows=20)
        options = OPTIONS | {"aggregator": "fltrust", "dropout": 0.1}
        fljax.simulate(rooted, "softmax_regression", spec, **options)
