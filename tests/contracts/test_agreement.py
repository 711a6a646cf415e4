"""Clients and server agree on secrets before anybody trains; the server opens sums, not messages.

Each position of the cohort adds a secret number to its weighted update and to its weight, and the
server takes away those of whoever has arrived.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.engine.plan.round_plan import job_table
from fljax.training.trials import TrialInputs

LR, SCALE, ENOUGH, BROKEN = 0.2, 2.0**40, 2, 6
COHORTS = [[0, 2, 3, 1, 6], [3, 4], [], [5, 0, 2, 3, 4]]
LOST = [{3}, {4}, set(), {5, 3}]
TABLES = [
    job_table(cohort, accepted=[client not in lost for client in cohort])
    for cohort, lost in zip(COHORTS, LOST, strict=True)
]


def secret():
    """Sums integers behind secrets; refuses sums of fewer than two messages."""

    def agree(people):
        return jax.random.bits(people.key, people.present.shape, jnp.uint32).astype(jnp.int64)

    def encode(message, state, job, key, secrets):
        weight = job.weights["update"]
        words = jax.tree.map(
            lambda leaf: jnp.round(leaf * weight * SCALE).astype(jnp.int64), message["update"]
        )
        payload = jax.tree.map(
            lambda leaf: leaf + secrets[job.position], (words, weight.astype(jnp.int64))
        )
        largest = jnp.abs(message["update"]["w"]).max()
        return {"update": payload}, state, {"largest": (largest * weight, weight)}

    def decode_sum(message, state, secrets, arrived):
        total = message["update"]
        opened = jax.tree.map(lambda leaf: leaf - (secrets * arrived).sum(), total.sum)
        enough = arrived.sum() >= ENOUGH
        values, weight = jax.tree.map(lambda leaf: jnp.where(enough, leaf, 0), opened)
        values = jax.tree.map(lambda leaf: leaf / SCALE, values)
        return {"update": total._replace(
            sum=values, weight=weight.astype(float), count=jnp.where(enough, total.count, 0)
        )}  # fmt: skip

    return UplinkLink(
        encode, None, linear=True, covers=None, refuses_rest=True, weighs=True, reports=True,
        agree=agree, decode_sum=decode_sum,
    )  # fmt: skip


def clients():
    parts = toy.clients()
    parts[BROKEN] = (np.full_like(parts[BROKEN][0], np.nan), parts[BROKEN][1])
    return parts


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_sums_of_secret_messages_are_opened_and_small_ones_refused(layout):
    params, parts = toy.initial_params(), clients()
    run = harness.rounds(
        algorithms.fedavg(LR), TABLES, layout, parts=parts, pipeline=Pipeline(uplink=(secret(),))
    )
    for round, (cohort, lost) in enumerate(zip(COHORTS, LOST, strict=True)):
        arrived = [c for c in cohort if c not in lost | {BROKEN} and len(parts[c][1])]
        taken = [reference.local_sgd(params, *parts[c], lr=LR, batch_size=4, epochs=1)
                 for c in arrived]  # fmt: skip
        changes = [reference.combine(np.subtract, new, params) for new, *_ in taken]
        rows = [len(parts[client][1]) for client in arrived]
        refused = 0 < len(arrived) < ENOUGH
        assert run.total("refused", round) == len(arrived) * refused
        largest = sum(n * np.abs(c["w"]).max() for n, c in zip(rows, changes, strict=True))
        np.testing.assert_allclose(run.total("largest", round), largest, rtol=1e-9)
        assert run.total("largest/weight", round) == sum(rows)
        if arrived and not refused:
            params = {
                name: leaf
                + sum(n * c[name] for n, c in zip(rows, changes, strict=True)) / sum(rows)
                for name, leaf in params.items()
            }
    toy.assert_close(run.params, params, 1e-9)


def test_each_trial_agrees_for_itself():
    """Two trials whose jobs take turns in one table are the trials alone."""
    spec, pipeline, layout = algorithms.fedavg(LR), Pipeline(uplink=(secret(),)), harness.MANY
    mine, theirs = [[0, 2, 3], [3, 4]], [[4], [5, 0]]
    tables = [
        job_table([a[0], *b, *a[1:]], trial=[0, *[1] * len(b), *[0] * (len(a) - 1)])
        for a, b in zip(mine, theirs, strict=True)
    ]
    inputs = [TrialInputs(seed, spec.hparams) for seed in (0, 7)]
    together = harness.drive(
        harness.prepare(spec, tables, layout, trials=inputs, pipeline=pipeline), tables
    )
    for number, (seed, cohorts) in enumerate([(0, mine), (7, theirs)]):
        alone = harness.rounds(spec, cohorts, layout, seed=seed, pipeline=pipeline)
        state = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], together.states[-1])
        toy.assert_close(state, alone.states[-1], 1e-9)
    of_trial = together.facts[0].trials == 1
    assert together.stats[0][0]["refused"][of_trial].tolist().count(True) == 1


def test_sums_of_codes_are_refused():
    halves = UplinkLink(
        lambda value, state, job, key: (
            jax.tree.map(lambda leaf: leaf.astype(jnp.float16), value), state
        ),
        lambda payload, state: jax.tree.map(lambda leaf: leaf.astype(float), payload),
    )  # fmt: skip
    with pytest.raises(ValueError, match="link 1 sums payloads .* link 0 makes codes of 'update'"):
        harness.rounds(
            algorithms.fedavg(LR), COHORTS[:1], pipeline=Pipeline(uplink=(halves, secret()))
        )
