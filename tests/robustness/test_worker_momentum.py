"""Worker momentum against loops in NumPy: over rounds, of clients that are lost or hostile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.test_stacks import local_changes

from fljax import algorithms
from fljax.core.algorithm import blank_job
from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.engine.plan.round_plan import job_table
from fljax.robustness.attackers import by_client
from fljax.robustness.attacks.alone import sign_flip
from fljax.robustness.worker_momentum import worker_momentum
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

COHORTS = ([[0, 3, 8, 5], [3, 1, 6], [], [8, 3, 0, 5]], [[3, 6], [3, 8, 0], [5], [3, 0]])
BETAS, HOSTILE, LOST = (0.5, 0.9), 3, {(1, 6), (3, 5)}


def by_loops(cohorts, beta, dampened, attackers):
    """Returns (parameters, {client: momentum}); client 3 flips signs, some are lost in a round."""
    params, kept = toy.initial_params(), {}
    for round, cohort in enumerate(cohorts):
        changes, rows = local_changes(params, cohort)
        sent, weights = [], []
        for client, change in changes.items():
            if (round, client) in LOST:
                continue
            old = kept.get(client, reference.zeros(params))
            factor = 1 - beta if dampened else 1.0
            new = reference.combine(lambda m, u, f=factor: beta * m + f * u, old, change)
            if client == HOSTILE and not attackers:
                new, kept[client] = change, old
            else:
                kept[client] = new
            sent.append(reference.combine(np.negative, new) if client == HOSTILE else new)
            weights.append(rows[client])
        if sent:
            mean = reference.weighted_mean(sent, weights)
            params = reference.combine(np.add, params, mean)
    return params, kept


def pipeline(number, dampened, attackers):
    def build(hparams):
        momentum = worker_momentum(hparams["beta"], dampened, attackers)
        return Pipeline(uplink=(momentum, *sign_flip().uplink), attackers=by_client([HOSTILE]))

    return PipelineSpec(build, {"beta": BETAS[number]})


@pytest.mark.parametrize(
    ("layout", "dampened", "attackers"),
    [(harness.ONE, True, False), (harness.MANY, True, True), (harness.MANY, False, False)],
)
def test_rounds_of_several_trials(layout, dampened, attackers):
    spec = algorithms.fedavg(0.2)
    tables = [
        job_table(
            first + second,
            trial=[0] * len(first) + [1] * len(second),
            accepted=[(round, client) not in LOST for client in first + second],
        )
        for round, (first, second) in enumerate(zip(*COHORTS, strict=True))
    ]
    specs = [pipeline(number, dampened, attackers) for number in range(2)]
    inputs = [TrialInputs(0, hyperparameters(spec, each)) for each in specs]
    run = harness.rounds(spec, tables, layout, pipeline=specs[0], trials=inputs)
    for trial in range(2):
        params, kept = by_loops(COHORTS[trial], BETAS[trial], dampened, attackers)
        of_trial = jax.tree.map(lambda leaf, n=trial: leaf[n], run.states[-1].server.variables)
        toy.assert_close(of_trial.params, params, 1e-9)
        momentum, *_ = run.client_rows(trial).uplink
        for client in range(len(toy.SIZES)):
            wanted = kept.get(client, reference.zeros(params))
            own = jax.tree.map(lambda leaf, n=client: leaf[n], momentum)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), own, wanted
            )


def test_without_hostile_clients_and_without_momentum():
    update = {"w": jnp.arange(3.0), "b": jnp.float32(2)}
    for attackers in (True, False):
        link = worker_momentum(0.0, attackers=attackers)
        state = link.init_client(update)
        sent, new = link.encode(update, state, blank_job(None), None)
        jax.tree.map(np.testing.assert_array_equal, (sent, new), (update, update))
        assert sent["b"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"beta": 1.0}, "beta = 1.0 must be at least 0 and below 1"),
        ({"beta": -0.1}, "beta = -0.1"),
        ({"beta": 0.9, "dampened": 1}, "dampened = 1"),
        ({"beta": 0.9, "attackers": "no"}, "attackers = 'no'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        worker_momentum(**arguments)


def test_a_memory_of_other_shapes_is_refused():
    link = worker_momentum(0.9)
    with pytest.raises(ValueError, match="worker_momentum keeps a memory in the shapes"):
        link.encode(jnp.zeros(3), link.init_client(jnp.zeros(2)), blank_job(None), None)
