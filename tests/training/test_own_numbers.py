"""Clients with weights, learning rates, epochs, steps and batch sizes of their own."""

import json

import jax
import numpy as np
import pytest
import reference
import toy
from flax import nnx

import fljax
from fljax import algorithms
from fljax.config.experiment import Experiment
from fljax.core.per_client import described
from fljax.engine.plan.batching import LocalWork, make_batches, steps_per_job
from fljax.engine.plan.packed_plan import pack
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# client 1 has no rows; client 3 the most, client 4 one
COHORTS = [[0, 1, 2, 3], [3, 4, 8], [5, 6, 7, 0, 4], [8, 2, 3]]
SIZES = np.array(toy.SIZES)
OWN = {
    "client_lr_factors": np.array([1.0, 2.0, 0.5, 0.3, 1.7, 1.0, 0.25, 3.0, 0.9]),
    "local_epochs": [2, 1, 3, 1, 5, 2, 1, 4, 2],
    "batch_size": [4, 4, 2, 7, 3, 0, 20, 1, 5],
    "client_weights": [1.0, 7.0, 0.0, 2.5, 0.1, 3.0, 1.0, 0.5, 4.0],
}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def of_references(lr):
    """The same numbers as the references take them."""
    batches = np.where(OWN["batch_size"], OWN["batch_size"], np.maximum(SIZES, 1))
    return {
        "lr": lr * OWN["client_lr_factors"], "batch_size": batches.tolist(),
        "epochs": OWN["local_epochs"], "weighting": OWN["client_weights"],
    }  # fmt: skip


def federated():
    return reference.federated(
        toy.initial_params(), toy.clients(), COHORTS, momentum=0.8, mu=0.5, **of_references(0.2)
    )[0]


def adam():
    server = reference.Server(toy.initial_params(), "adam", lr=0.3, beta1=0.9, beta2=0.99, tau=1e-3)
    numbers = of_references(0.2)
    return reference.federated(
        toy.initial_params(), toy.clients(), COHORTS, server=server, **numbers
    )[0]


def scaffold():
    numbers = of_references(0.2)
    return reference.scaffold(
        toy.initial_params(), toy.clients(), COHORTS, server_lr=0.9, **numbers
    )[0]


ALGORITHMS = {
    "momentum and mu": (algorithms.fedavg(0.2, client_momentum=0.8, mu=0.5), federated),
    "adam": (algorithms.fedopt("adam", 0.2, 0.3), adam),
    "scaffold": (algorithms.scaffold(0.2, 0.9), scaffold),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_own_numbers_equal_a_loop_over_clients(name, x64):
    spec, expected = ALGORITHMS[name]
    # clients that keep states, on several devices
    layout = {"devices": 3 if name == "scaffold" else 1, "lanes": 2, "wave": 2}
    federation, _ = toy.run_rounds(toy.clients(), spec, COHORTS, **OWN, **layout)
    toy.assert_close(toy.params_of(federation), expected(), 1e-9)


def test_own_weights_of_fedsgd(x64):
    weights = OWN["client_weights"]
    expected = reference.fedsgd(
        toy.initial_params(), toy.clients(), COHORTS, server_lr=0.4, weighting=weights
    )
    federation, _ = toy.run_rounds(
        toy.clients(), algorithms.fedsgd(0.4), COHORTS, client_weights=weights,
        batch_size=OWN["batch_size"],
    )  # fmt: skip
    toy.assert_close(toy.params_of(federation), expected, 1e-9)


def test_own_numbers_of_streamed_data(x64):
    spec, expected = ALGORITHMS["scaffold"]
    federation, _ = toy.run_rounds(toy.clients(), spec, COHORTS, placement="stream", **OWN)
    toy.assert_close(toy.params_of(federation), expected(), 1e-9)


def run_bits(client_lr=0.5, **options):
    spec = algorithms.fedavg(client_lr, client_momentum=0.9)
    options = {"shuffle": True, "lanes": 2, "devices": 1, **options}
    federation, stats = toy.run_rounds(
        toy.clients(dtype=np.float32), spec, COHORTS, task=toy.softmax_task(np.float32), **options
    )
    return toy.params_of(federation), stats


@pytest.mark.parametrize(
    "amount",
    [
        {"local_epochs": 2, "batch_size": 4},
        {"local_epochs": None, "local_steps": 5, "batch_size": 3},
        {"local_epochs": 2, "batch_size": 5, "remainder": "wrap"},
    ],
    ids=str,
)
def test_constant_numbers_are_the_number_bit_for_bit(amount):
    own = {
        name: np.full(len(SIZES), value) if isinstance(value, int) else value
        for name, value in amount.items()
    }
    ones = {"client_lr_factors": np.ones(len(SIZES)), "client_weights": SIZES}
    alone, with_own = run_bits(**amount), run_bits(**own, **ones)
    jax.tree.map(np.testing.assert_array_equal, alone[0], with_own[0])


def test_a_factor_is_a_learning_rate_bit_for_bit():
    halves = run_bits(client_lr_factors=[0.5] * len(SIZES))[0]
    whole = run_bits(0.25)[0]
    jax.tree.map(np.testing.assert_array_equal, halves, whole)


def test_numbers_that_nobody_gives_leave_the_program_as_it_is():
    """Own epochs, steps and batch sizes are a matter of the plan; the program takes no more."""

    def lowered(**options):
        options = RoundOptions(num_rounds=1, clients_per_round=4, cohorts=COHORTS[:1], **options)
        federation = build(
            toy.dataset(toy.clients(dtype=np.float32)),
            toy.softmax_task(np.float32),
            algorithms.scaffold(0.1),
            options,
        )
        plan, facts = federation.plan_round(0, federation.cohorts.init())
        rows = federation.store.gather(facts.trials, facts.clients)
        placed = federation.place(pack(plan))
        arguments = (federation.state, rows, placed, federation.inputs)
        return federation.program.lower(*arguments).as_text(), len(jax.tree.leaves(arguments))

    plain = lowered(local_epochs=2, batch_size=4)
    same = lowered(local_epochs=[2] * len(SIZES), batch_size=[4] * len(SIZES))
    assert same == plain
    text, count = lowered(local_epochs=2, batch_size=4, client_weights=[1.0] * len(SIZES))
    assert text != plain[0] and count == plain[1] + 1


@pytest.mark.parametrize("remainder", ["partial", "drop", "wrap"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("counted", ["epochs", "steps"])
def test_batches_of_own_sizes_read_what_a_loop_reads(remainder, shuffle, counted):
    generator = np.random.default_rng(3)
    sizes = generator.integers(1, 25, 40)
    amount, batches = generator.integers(1, 7, 40), generator.integers(1, 9, 40)
    none = {"epochs": None, "steps": None}
    rest = {"remainder": remainder, "shuffle": shuffle}
    work = LocalWork(**none | {counted: amount}, **rest, batch_size=batches)
    steps = steps_per_job(sizes, work)
    jobs = np.flatnonzero(steps)
    keys = {"seeds": jobs * 0, "rounds": jobs * 0, "clients": jobs, "occurrence": jobs * 0}
    found = make_batches(sizes[jobs], steps[jobs], work.of(jobs), **keys)
    for number, job in enumerate(jobs):
        alone = LocalWork(
            **none | {counted: int(amount[job])}, **rest, batch_size=int(batches[job])
        )
        assert steps[job] == steps_per_job(sizes[job], alone)
        one = {name: values[number : number + 1] for name, values in keys.items()}
        expected = make_batches(sizes[[job]], steps[[job]], alone, **one)
        mine = found.job == number
        np.testing.assert_array_equal(found.counts[mine], expected.counts)
        for positions, wanted, count in zip(
            found.positions[mine], expected.positions, expected.counts, strict=True
        ):
            np.testing.assert_array_equal(positions[:count], wanted[:count], strict=True)
            assert (positions[count:] == positions[0]).all()


def test_a_round_of_weights_zero_changes_nothing():
    """Not the model's state either, whose mean over nobody would be zero."""

    class Normed(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(toy.FEATURES, rngs=rngs)
            self.out = nnx.Linear(toy.FEATURES, toy.CLASSES, rngs=rngs)

        def __call__(self, x, mask=None):
            return self.out(self.norm(x, mask=None if mask is None else mask[:, None]))

    weights = np.where(np.isin(np.arange(len(SIZES)), (2, 5)), 0.0, 1.0)
    task = fljax.tasks.classification(Normed, toy.CLASSES)
    found = {}
    for rounds in (1, 2):
        federation, stats = toy.run_rounds(
            toy.clients(dtype=np.float32), algorithms.fedopt("adam", 0.2, 0.1),
            [[0, 2, 3], [2, 5]][:rounds], task=task, client_weights=weights,
        )  # fmt: skip
        found[rounds] = jax.device_get(federation.variables)
    jax.tree.map(np.testing.assert_array_equal, found[1], found[2])
    assert stats[1][-1]["jobs"].sum() == 2 and stats[1][-1]["weight"].sum() > 0
    zeros = jax.tree.map(lambda leaf: bool((leaf == 0).all()), found[2].model_state)
    assert not zeros["norm"]["var"]


def simulate(workdir=None, spec=None, **options):
    defaults = {
        "num_rounds": 6, "clients_per_round": 4, "eval_every": 3, "progress": False, "devices": 1,
    }  # fmt: skip
    return fljax.simulate(
        toy.dataset(toy.clients(dtype=np.float32)), toy.softmax_task(np.float32),
        spec or algorithms.scaffold(0.2), workdir=workdir, **(defaults | OWN | options),
    )  # fmt: skip


def test_a_run_with_own_numbers_resumes_bit_for_bit_and_with_no_others(tmp_path):
    whole = simulate(tmp_path / "whole")
    simulate(tmp_path / "parts", num_rounds=3)
    resumed = simulate(tmp_path / "parts", resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.variables, resumed.variables)
    config = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert config["client_weights"] == described(np.array(OWN["client_weights"]))
    for name in OWN:
        other = {name: np.array(OWN[name])[::-1]}
        with pytest.raises(ValueError, match=f"another configuration: {name} was"):
            simulate(tmp_path / "parts", resume=True, **other)


def test_trials_of_a_sweep_take_them_as_runs_do(tmp_path):
    data = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.2)
    options = {
        "num_rounds": 3, "clients_per_round": 4, "eval_every": 3, "devices": 1, "lanes": 2, **OWN,
    }  # fmt: skip

    def make(trial):
        spec = algorithms.scaffold(trial.values["client_lr"])
        own = {**options, "seed": trial.seed}
        return Experiment(data, toy.softmax_task(np.float32), spec, own)

    axes = {"client_lr": [0.1, 0.3]}
    swept = fljax.sweep(make, tmp_path, axes=axes, seeds=(0,), progress=False)
    assert swept.summary["groups"] == 1
    trial = swept.results.trials[-1]
    made = make(trial)
    alone = fljax.simulate(made.dataset, made.task, made.algorithm, progress=False, **made.options)
    rows = [row for row in swept.results.rows if row["trial"] == trial.number]
    assert rows[-1]["eval/val/loss"] == pytest.approx(alone.curves["eval/val/loss"][-1], rel=1e-5)


def test_baselines_beside_own_numbers():
    run = simulate(
        spec=algorithms.fedavg(0.2), num_rounds=2, baselines=("centralized", "local_only")
    )
    for baseline in run.baselines.values():
        np.testing.assert_array_equal(
            baseline.curves["train/local_steps"][-2:], run.curves["train/local_steps"][-2:]
        )
    assert run.baselines["centralized"].config["batch_size"] == 4  # the median
    assert run.baselines["centralized"].config["client_lr_factors"] is None


COUNT = len(SIZES)
WRONG = {
    "client_weights has 3 entries, and the data have 9 clients": {"client_weights": [1, 2, 3]},
    r"client_weights\[2\] = -1.0 must be at least 0": {"client_weights": [1, 2, -1] + [0] * 6},
    r"client_weights\[1\] = nan must be": {"client_weights": [1, np.nan] + [0] * 7},
    r"client_weights\[8\] = inf must be": {"client_weights": [1] * 8 + [np.inf]},
    "client_weights are 0 for all": {"client_weights": [0] * COUNT},
    "client_weights go from 1e-60 to 1,": {"client_weights": [0] * 7 + [1e-60, 1]},
    "client_weights = 2.0 .* one for each client": {"client_weights": 2.0},
    "client_weights = 'uniform' .* one for each client": {"client_weights": "uniform"},
    "client_weights = .* a list or an array of numbers": {"client_weights": [[1.0] * COUNT]},
    "client_weights = .* must be a list": {"client_weights": ["1"] * COUNT},
    "client_weights = .* must be a list or": {"client_weights": [True] * COUNT},
    r"client_lr_factors\[0\] = 0.0 must be above 0": {"client_lr_factors": [0] + [1] * 8},
    r"local_epochs\[0\] = 0 must be at least 1": {"local_epochs": [0] * COUNT},
    "local_epochs = .* whole numbers, one for each": {"local_epochs": [1.5] * COUNT},
    r"local_epochs\[4\] = .* must be at most": {"local_epochs": [1] * 4 + [2**40] + [1] * 4},
    r"batch_size\[3\] = -1": {"batch_size": [1, 2, 3, -1, 5, 6, 7, 8, 9]},
    "batch_size has 2 entries": {"batch_size": [1, 2]},
    "exactly one of them": {"local_steps": [3] * COUNT},
    "needs a batch_size": {"batch_size": [4] * 8 + [0], "remainder": "drop"},
    "has no client_lr": {"spec": algorithms.fedsgd(0.1), "local_epochs": 1},
    "reads every row once": {"spec": algorithms.fedsgd(0.1), "client_lr_factors": None},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_is_refused_before_the_first_round(message):
    with pytest.raises(ValueError, match=message):
        simulate(hooks=(lambda federation, record: pytest.fail("it ran"),), **WRONG[message])


def test_a_list_of_learning_rates_is_answered_with_the_option_for_it():
    with pytest.raises(ValueError, match=r"client_lr = .* client_lr_factors"):
        algorithms.fedavg([0.1] * COUNT)


def test_an_algorithm_that_does_not_read_own_weights_refuses_them():
    spec = algorithms.fedavg(0.2)

    def by_rows(task, hp):
        algorithm = spec.build(task, hp)
        (local,) = algorithm.passes

        def finish(message, carry, job):
            return local.finish(message, carry, job._replace(weight=None))

        return algorithm._replace(passes=(local._replace(finish=finish),))

    with pytest.raises(ValueError, match="client_weights have no effect: fedavg does not read"):
        simulate(spec=spec._replace(build=by_rows))


def test_models_that_cannot_mask_refuse_batches_of_several_sizes():
    class Plain(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(toy.FEATURES, rngs=rngs)
            self.out = nnx.Linear(toy.FEATURES, toy.CLASSES, rngs=rngs)

        def __call__(self, x):
            return self.out(self.norm(x))

    task = fljax.tasks.classification(Plain, toy.CLASSES)
    with pytest.raises(ValueError, match="smaller than the largest"):
        toy.run_rounds(
            toy.clients(dtype=np.float32), algorithms.fedavg(0.1), COHORTS, task=task,
            batch_size=[4, 4, 2, 4, 1, 4, 4, 3, 4], remainder="drop",
        )  # fmt: skip
