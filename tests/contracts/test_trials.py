"""Several trials in one round program: each is the trial run alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.compression import downlink, error_feedback, qsgd, top_k, uplink
from fljax.core.transforms import (
    Aggregator,
    CohortLink,
    Pipeline,
    PipelineSpec,
    ServerLink,
    UplinkLink,
)
from fljax.data.dataset import partition_by_owner
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import job_table
from fljax.tasks import classification
from fljax.training.federation import RoundOptions, build
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

# cohorts differ between trials, and so do their sizes; one trial has a round without clients
COHORTS = ([[0, 2, 3, 8], [3, 1], [6, 0]], [[3, 5, 6, 7], [], [0, 3, 4]])
SPECS = (algorithms.scaffold(0.2, 0.9), algorithms.scaffold(0.05, 0.5))
SEEDS = (0, 7)
LAYOUT = Layout(2, 2, 3)


def noisy_chains():
    """A chain with random numbers, a stack and a state at every place."""

    def blur(value, state, job, key):
        noise = jax.random.normal(key, value["b"].shape, value["b"].dtype)
        return value | {"b": value["b"] + 0.1 * noise + state}, noise

    def negate_largest(stack, cohort, state, key):
        norms = jax.lax.psum(jnp.square(stack).sum(1), cohort.axis_name)
        worst = jnp.arange(len(norms)) == jnp.argmax(norms)
        return jnp.where(worst[:, None] & cohort.valid[:, None], -stack, stack), norms.max()

    def mean(stack, cohort, state):
        count = cohort.valid.sum()
        return stack.sum(0) / jnp.maximum(count, 1), state + count.astype(jnp.int32)

    def smooth(aggregate, state, round, key):
        noise = jax.random.normal(key, (), aggregate.weight.dtype)
        total = jax.tree.map(lambda a, b: a + 0.5 * b, aggregate.sum, state)
        return aggregate._replace(sum=jax.tree.map(lambda a: a * (1 + 0.1 * noise), total)), total

    return Pipeline(
        uplink=(
            UplinkLink(
                blur,
                lambda payload, state: payload,
                init_client=lambda params: jnp.zeros_like(params["b"]),
            ),
        ),
        cohort=(CohortLink(negate_largest, lambda params: jnp.zeros(())),),
        aggregator=Aggregator("stack", mean, lambda params: jnp.zeros((), jnp.int32)),
        server=(ServerLink(smooth, lambda params: jax.tree.map(jnp.zeros_like, params)),),
    )


def traced_chains(number):
    """A chain whose links have numbers of the trial at every place."""

    def build(hparams):
        def blur(aggregate, state, round, key):
            noise = hparams["noise"] * jax.random.normal(key, (), aggregate.weight.dtype)
            return aggregate._replace(
                sum=jax.tree.map(lambda a: a * (1 + noise), aggregate.sum)
            ), state

        def mean(stack, cohort, state):
            return stack.sum(0) / jnp.maximum(cohort.valid.sum(), 1) * hparams["shrink"], state

        return Pipeline(
            downlink=(downlink(qsgd(hparams["bits"])),),
            uplink=(error_feedback(uplink(top_k(hparams["kept"]))),),
            cohort=(
                CohortLink(lambda stack, cohort, state, key: (stack * hparams["gain"], state)),
            ),
            aggregator=Aggregator("stack", mean),
            server=(ServerLink(blur),),
        )

    numbers = [
        {"bits": 6, "kept": 0.3, "gain": 2.0, "shrink": 0.5, "noise": 0.1},
        {"bits": 8, "kept": 0.7, "gain": 0.5, "shrink": 1.0, "noise": 0.3},
    ]
    return PipelineSpec(build, numbers[number])


# trials without links: `test_trials_divide_the_data_differently_and_rest`
PIPELINES = {
    "chains": lambda number: noisy_chains(),
    "traced": traced_chains,
}


def keyed_task():
    """Returns softmax regression whose initial model depends on the seed."""

    def init(key):
        return {
            "w": jax.random.normal(key, (toy.FEATURES, toy.CLASSES)),
            "b": jnp.zeros(toy.CLASSES),
        }

    return classification(
        (init, lambda params, x, *, key=None, train=False: x @ params["w"] + params["b"]),
        toy.CLASSES,
    )


def interleave(round):
    """The jobs of both trials in one table, taking turns."""
    jobs = sorted(
        (place, trial, client)
        for trial, cohorts in enumerate(COHORTS)
        for place, client in enumerate(cohorts[round])
    )
    return job_table([client for *_, client in jobs], trial=[trial for _, trial, _ in jobs])


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_trials_that_share_a_program_are_the_trials_alone(pipeline):
    shared = {"shuffle": True, "task": keyed_task()}
    pipelines = [pipeline(0), pipeline(1)]

    def trial(number):
        return harness.prepare(
            SPECS[number],
            COHORTS[number],
            LAYOUT,
            seed=SEEDS[number],
            pipeline=pipelines[number],
            **shared,
        )

    tables = [interleave(round) for round in range(3)]
    trials = [trial(0), trial(1)]
    inputs = [
        TrialInputs(*given)
        for given in zip(SEEDS, map(hyperparameters, SPECS, pipelines), strict=True)
    ]
    together = harness.prepare(
        SPECS[0], tables, LAYOUT, trials=inputs, pipeline=pipelines[0], **shared
    )
    run = harness.drive(together, tables)
    # numbers are arguments of the program, so the trials alone share one as well
    trials[1].program = trials[0].program
    for number in range(2):
        alone = harness.drive(trials[number], COHORTS[number])
        for mine, theirs in zip(alone.states, run.states, strict=True):
            of_trial = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], theirs)
            toy.assert_close(of_trial, mine, 1e-9)
        rows = run.client_rows(number), alone.client_rows()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *rows)
        for round in range(3):
            of_trial = run.facts[round].trials == number
            for name in ("loss", "jobs", "uplink_bits", "downlink_bits"):
                values = run.stats[round][0][name][of_trial]
                np.testing.assert_allclose(values.sum(), alone.total(name, round), rtol=1e-9)
    assert trials[0].program._cache_size() == 1


def test_a_trial_that_takes_the_place_of_another_is_that_trial_alone():
    later = TrialInputs(5, algorithms.scaffold(0.1, 0.7).hparams)
    shared = {"pipeline": noisy_chains(), "shuffle": True, "task": keyed_task()}
    tables = [interleave(round) for round in range(3)]
    trials = [TrialInputs(seed, spec.hparams) for seed, spec in zip(SEEDS, SPECS, strict=True)]
    together = harness.prepare(SPECS[0], tables, LAYOUT, trials=trials, **shared)
    harness.drive(together, tables[:1])
    together.replace({1: later})
    # the first trial goes on with its second round, the new one starts
    for round in range(2):
        jobs = job_table(
            [*COHORTS[0][1 + round], *COHORTS[1][round]],
            trial=[0] * len(COHORTS[0][1 + round]) + [1] * len(COHORTS[1][round]),
        )
        plan, facts = together.planner.plan(np.array([1 + round, round]), jobs)
        together.step(together.place(pack(plan)), facts)

    spec = algorithms.scaffold(0.1, 0.7)
    first = harness.prepare(SPECS[0], COHORTS[0], LAYOUT, seed=SEEDS[0], **shared)
    second = harness.prepare(spec, COHORTS[1], LAYOUT, seed=5, **shared)
    for number, federation in enumerate((first, second)):
        alone = harness.drive(federation, COHORTS[number][: 3 - number])
        of_trial = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], together.state)
        toy.assert_close(jax.device_get(of_trial), alone.states[-1], 1e-9)
        clients = np.arange(len(toy.SIZES))
        rows = [
            jax.device_get(fed.store.rows_of(clients, trial))
            for fed, trial in ((together, number), (federation, 0))
        ]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *rows)
    assert together.program._cache_size() == 1


def test_trials_divide_the_data_differently_and_rest():
    """Each trial has its own partition of one copy of the data, and its own round number.

    Of one partition eight clients take part, of the other nine: SCAFFOLD divides by that.
    """
    other = np.random.default_rng(3).permutation(sum(toy.SIZES))
    shuffled = partition_by_owner(np.arange(sum(toy.SIZES))[other] % 9, 9)
    dataset = toy.dataset(toy.clients())
    divided = dataclasses.replace(
        dataset, train=dataclasses.replace(dataset.train, partition=shuffled)
    )
    options = RoundOptions(
        num_rounds=3, clients_per_round=4, batch_size=4, seed=2, devices=2, lanes=2, wave=3
    )
    spec = algorithms.scaffold(0.2, 0.9)
    trials = [TrialInputs(2, spec.hparams), TrialInputs(2, spec.hparams, partition=1)]
    partitions = [dataset.train.partition, shuffled]
    together = build(dataset, keyed_task(), spec, options, trials, partitions)
    # the second trial rests in the first round, so it is one behind
    for plan, (facts,) in together.blocks(np.array([[0, -1], [1, 0], [2, 1]])):
        together.step(plan, facts)
    for number, data in enumerate((dataset, divided)):
        alone = build(data, keyed_task(), spec, options)
        for plan, facts in alone.plans(0, 3 - number):
            alone.step(plan, facts)
        of_trial = jax.device_get(together.variables_of(number).params)
        toy.assert_close(of_trial, toy.params_of(alone), 1e-9)
    assert together.inputs.hparams["num_clients"].tolist() == [8, 9]
    together.replace({0: TrialInputs(2, spec.hparams, partition=1)})
    assert together.inputs.hparams["num_clients"].tolist() == [9, 9]


def test_frozen_constants_that_depend_on_the_seed_are_refused():
    def init(key):
        return {"w": jnp.zeros((toy.FEATURES, toy.CLASSES)), "b": jnp.zeros(toy.CLASSES)}

    task = classification((init, lambda params, x, *, key=None, train=False: x @ params["w"]), 4)
    seeded = task._replace(init=lambda key: (init(key), jax.random.normal(key, (2,)), {}))
    options = RoundOptions(num_rounds=1, clients_per_round=2, batch_size=4, lanes=1, devices=1)
    spec = algorithms.fedavg(0.1)
    first, second = TrialInputs(0, spec.hparams), TrialInputs(1, spec.hparams)
    dataset = toy.dataset(toy.clients())
    with pytest.raises(ValueError, match="frozen constants differ between the seeds 0 and 1"):
        build(dataset, seeded, spec, options, [first, second])
    with pytest.raises(ValueError, match="frozen constants differ"):
        build(dataset, seeded, spec, options, [first]).replace({0: second})


def test_a_name_that_algorithm_and_pipeline_both_use_is_refused():
    spec = PipelineSpec(lambda hparams: Pipeline(), {"server_lr": 1.0})
    with pytest.raises(ValueError, match="both have a hyperparameter 'server_lr'"):
        hyperparameters(SPECS[0], spec)
