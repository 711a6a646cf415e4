"""Memories of rules from round to round: each trial has its own, and a run that goes on again."""

import jax
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.test_trials import COHORTS, LAYOUT, interleave

from fljax import algorithms
from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.robustness.aggregators.adaptive import adaptive_clipping, adaptive_zeroing
from fljax.robustness.aggregators.centered_clipping import centered_clipping
from fljax.robustness.aggregators.foolsgold import foolsgold
from fljax.robustness.aggregators.mixing import chain
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

SPEC = algorithms.fedavg(0.2)


def clipping(hparams):
    rule = centered_clipping(hparams["tau"])
    return Pipeline(aggregator=chain(adaptive_zeroing(initial=hparams["initial"]), rule))


def remembering(hparams):
    rule = foolsgold(len(toy.SIZES), confidence=hparams["tau"])
    return Pipeline(aggregator=chain(adaptive_clipping(initial=hparams["initial"]), rule))


@pytest.mark.parametrize("build", [clipping, remembering])
def test_trials_and_restarts(build):
    pipelines = [
        PipelineSpec(build, {"tau": tau, "initial": initial})
        for tau, initial in ((0.1, 0.3), (0.7, 2.0))
    ]
    tables = [interleave(round) for round in range(3)]
    trials = [TrialInputs(0, hyperparameters(SPEC, pipeline)) for pipeline in pipelines]
    together = harness.prepare(SPEC, tables, LAYOUT, trials=trials, pipeline=pipelines[0])
    run = harness.drive(together, tables)
    program = None
    for number, pipeline in enumerate(pipelines):
        alone = harness.prepare(SPEC, COHORTS[number], LAYOUT, pipeline=pipeline)
        # numbers are arguments of the program, so the trials alone share one as well
        program = alone.program = program or alone.program
        first = harness.drive(alone, COHORTS[number])
        for mine, theirs in zip(first.states, run.states, strict=True):
            of_trial = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], theirs)
            toy.assert_close(of_trial, mine, 1e-9)
    # the last trial once more from its second round on, as after a checkpoint
    last = harness.prepare(SPEC, COHORTS[1], LAYOUT, pipeline=pipelines[1])
    last.program = program
    last.state = jax.tree.map(
        lambda leaf, like: jax.device_put(leaf, like.sharding), first.states[1], last.state
    )
    plan, facts = last.planner.plan(2, harness.job_table(COHORTS[1][2]))
    last.step(last.place(harness.pack(plan)), facts)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(last.state), jax.device_get(first.states[2])
    )
    kept = jax.tree.leaves(first.states[2].pipeline.aggregator)
    assert all(leaf.any() for leaf in kept)
