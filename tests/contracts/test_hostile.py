"""Hostile clients: who they are is known to batch links, uplink links, cohort links and reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.transforms import (
    Aggregator,
    Attackers,
    BatchLink,
    CohortLink,
    Pipeline,
    UplinkLink,
)
from fljax.engine.plan.round_plan import job_table
from fljax.training.trials import TrialInputs

LR = 0.2
COHORTS = [[0, 1, 2, 3, 8, 5], [7, 3, 6, 4, 0], [2, 8]]
LOST = {3: 1}  # client 3 is lost in round 1
TABLES = [
    job_table(cohort, accepted=[LOST.get(client) != round for client in cohort])
    for round, cohort in enumerate(COHORTS)
]
HOSTILE = (0, 3, 8)


def flipped(batch, job, key):
    return {**batch, "y": jnp.where(job.attacker, toy.CLASSES - 1 - batch["y"], batch["y"])}


def tripled(update, state, job, key):
    scale = jnp.where(job.attacker, 3.0, 1.0)
    return {name: leaf * scale for name, leaf in update.items()}, state


def shifted(stack, cohort, state, key):
    return stack + jnp.where(cohort.attackers, 0.5, 0.0)[:, None], state


def mean_and_report(stack, cohort, state):
    """The plain mean, which reports hostile clients as rejected in even places."""
    valid = cohort.valid
    told = (cohort.attackers & (jnp.arange(len(valid)) % 2 == 0)).astype(float)
    mean = (stack * valid[:, None]).sum(0) / jnp.maximum(valid.sum(), 1)
    return mean, state, {"robustness/rejected": (told, valid.astype(float))}


def among(clients, present, round, key):
    """Hostile clients attack in rounds 0 and 1."""
    return present & jnp.isin(clients, jnp.array(HOSTILE)) & (round < 2)


PIPELINE = Pipeline(
    uplink=(UplinkLink(tripled, lambda payload, state: payload),),
    cohort=(CohortLink(shifted),),
    aggregator=Aggregator("stack", mean_and_report, reports=("robustness/rejected",)),
    batches=(BatchLink(flipped),),
    attackers=Attackers(among),
)


def expected():
    """Returns the parameters after the rounds, by a loop over clients."""
    params = toy.initial_params()
    for round, cohort in enumerate(COHORTS):
        sent = []
        for client in cohort:
            x, y = toy.clients()[client]
            if not len(y) or LOST.get(client) == round:
                continue
            hostile = client in HOSTILE and round < 2
            labels = toy.CLASSES - 1 - y if hostile else y
            trained, *_ = reference.local_sgd(params, x, labels, LR, 4, 1)
            change = reference.combine(np.subtract, trained, params)
            if hostile:
                change = reference.combine(lambda leaf: 3 * leaf + 0.5, change)
            sent.append(change)
        mean = reference.weighted_mean(sent, [1] * len(sent))
        params = reference.combine(np.add, params, mean)
    return params


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_attackers_act_on_batches_messages_and_stacks(layout):
    spec = algorithms.fedavg(LR, weighting="uniform")
    run = harness.rounds(spec, TABLES, layout, pipeline=PIPELINE)
    toy.assert_close(run.params, expected(), 1e-9)
    hostile = [run.total("robustness/attackers", round) for round in range(3)]
    assert hostile == [3, 1, 0]  # client 3 is lost in round 1
    rejected = run.by_client("robustness/rejected", 0)
    # client 1 has no rows, but a place
    assert rejected == {0: 1.0, 2: 0.0, 3: 0.0, 8: 1.0, 5: 0.0}
    assert run.total("robustness/rejected/weight", 0) == 5


def test_trials_have_attackers_of_their_own():
    def drawn(clients, present, round, key):
        return present & (jax.random.bits(key) % 9 == clients)

    pipeline = PIPELINE._replace(attackers=Attackers(drawn))
    spec = algorithms.fedavg(LR, weighting="uniform")
    everybody = list(range(9))
    alone = [harness.rounds(spec, [everybody], pipeline=pipeline, seed=seed) for seed in (0, 1)]
    trials = [TrialInputs(seed, {**spec.hparams}) for seed in (0, 1)]
    table = job_table(everybody * 2, trial=np.repeat([0, 1], 9))
    both = harness.rounds(spec, [table], harness.MANY, pipeline=pipeline, trials=trials)
    hostile = [
        {client for client, count in run.by_client("robustness/attackers", 0).items() if count}
        for run in alone
    ]
    assert hostile[0] != hostile[1]
    params = both.states[0].server.variables.params
    for trial, run in enumerate(alone):
        toy.assert_close({name: leaf[trial] for name, leaf in params.items()}, run.params, 1e-9)
