"""Several trials in one round program: each is the trial run alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.algorithm import Variables
from fljax.engine import pipeline as links
from fljax.engine.client_store import ClientStore
from fljax.engine.pipeline import Aggregator, CohortLink, Pipeline, ServerLink, UplinkLink
from fljax.engine.plan import job_table
from fljax.engine.planner import make_planner
from fljax.engine.round_program import ClientRows, make_round_program
from fljax.gradients import bind

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


def merge(federations, tables):
    """Returns the federation that runs the trials of several ones in one program.

    A sketch of what a sweep needs: all that a source owns gets one entry a trial.
    """
    first = federations[0]
    stack = lambda *leaves: jnp.concatenate(leaves)  # noqa: E731
    execution = first.execution
    same = jax.sharding.NamedSharding(first.mesh, jax.sharding.PartitionSpec())
    whole = harness.prepare(SPECS[0], tables, LAYOUT, pipeline=first.options.pipeline)
    whole.program = make_round_program(
        lambda frozen, hp, round: first.spec.build(bind(first.task, frozen), hp),
        first.options.pipeline,
        first.mesh,
        num_sources=len(federations),
    )
    whole.planner = make_planner(
        first.dataset.train, first.planner.works[0], ["local"], execution,
        max_cohort=max(len(table.client) for table in tables), seeds=SEEDS,
    )  # fmt: skip
    whole.inputs = first.inputs._replace(
        hparams=jax.device_put(
            jax.tree.map(stack, *(one.inputs.hparams for one in federations)), same
        ),
        keys=jax.device_put(stack(*(one.inputs.keys for one in federations)), same),
    )
    whole.state = jax.device_put(jax.tree.map(stack, *(one.state for one in federations)), same)
    defaults = [
        ClientRows(
            one.algorithm.init_client(Variables(one.variables.params, {})),
            links.init_client(one.options.pipeline, one.variables.params),
        )
        for one in federations
    ]
    whole.store = ClientStore(
        jax.tree.map(lambda *leaves: np.stack(leaves), *defaults), len(toy.SIZES), first.mesh
    )
    return whole


def interleave(round):
    """The jobs of both trials in one table, taking turns."""
    jobs = sorted(
        (place, trial, client)
        for trial, cohorts in enumerate(COHORTS)
        for place, client in enumerate(cohorts[round])
    )
    return job_table([client for *_, client in jobs], source=[trial for _, trial, _ in jobs])


@pytest.mark.parametrize("pipeline", [Pipeline(), noisy_chains()], ids=["plain", "chains"])
def test_trials_that_share_a_program_are_the_trials_alone(pipeline):
    def trial(number):
        return harness.prepare(
            SPECS[number], COHORTS[number], LAYOUT, pipeline=pipeline, seed=SEEDS[number],
            initial_params=toy.initial_params(seed=number), shuffle=True, sampler="uniform",
        )  # fmt: skip

    tables = [interleave(round) for round in range(3)]
    trials = [trial(0), trial(1)]
    run = harness.drive(merge(trials, tables), tables)
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
            of_trial = run.facts[round].sources == number
            for name in ("loss", "jobs", "uplink_bits", "downlink_bits"):
                values = run.stats[round][0][name][of_trial]
                np.testing.assert_allclose(values.sum(), alone.total(name, round), rtol=1e-9)
    assert trials[0].program._cache_size() == 1
