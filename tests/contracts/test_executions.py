"""Counts of how often the compiled program runs each function of a job: counted, not assumed."""

import collections

import jax
import jax.numpy as jnp
import pytest
import toy
from accelerators import exchanging
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.compression import error_feedback, top_k, uplink
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Contribution
from fljax.core.transforms import Pipeline, UplinkLink

EPOCHS, BATCH = 2, 4
# client 1 has no rows, so the last place of the job arrays is padding: client -1
COHORT = [0, 1, 2, 3, 8, 6, 5]


@pytest.mark.parametrize(
    ("lanes", "wave", "exchange_size"),
    [(1, 1, 1), (1, 4, 1), (3, 1, 1), (3, 4, 1), (3, 2, 2), (3, 3, 3)],
)
def test_start_finish_and_uplink_run_once_per_job_and_step_once_per_step(
    lanes, wave, exchange_size
):
    counts = collections.Counter()

    def note(what, client, real=True):
        jax.debug.callback(lambda c, r: counts.update([(what, int(c), bool(r))]), client, real)

    def start(message, client_state, job):
        note("start", job.client)
        return jnp.zeros(())

    def step(message, carry, batch, job):
        note("step", job.client, batch["mask"].any())
        return carry + 1

    def finish(message, carry, job):
        note("finish", job.client)
        return {"update": Contribution(carry, jnp.ones(()))}, (), {"steps": carry}

    def encode(value, state, job, key):
        note("uplink", job.client)
        return value, state

    def build(task, hp):
        one = ClientPass(lambda server, aggregates: (), start, step, finish)
        return Algorithm(
            init=lambda variables: variables,
            passes=(one,),
            server_update=lambda server, aggregates, round: server,
            variables=lambda server: server,
        )

    with exchanging(exchange_size):
        run = harness.rounds(
            AlgorithmSpec("counting", build, {}),
            [COHORT],
            Layout(1, lanes, wave),
            local_epochs=EPOCHS,
            batch_size=BATCH,
            pipeline=Pipeline(uplink=(UplinkLink(encode, lambda payload, state: payload),)),
        )
    jax.effects_barrier()
    steps = {c: EPOCHS * -(-toy.SIZES[c] // BATCH) for c in COHORT if toy.SIZES[c]}
    assert run.by_client("steps", 0) == steps
    for client, number in steps.items():
        assert counts[("step", client, True)] == number
        for what in ("start", "finish", "uplink"):
            assert counts[(what, client, True)] == 1
    total = collections.Counter()
    for (what, _, _), number in counts.items():
        total[what] += number
    # a lane that has run out of jobs before others starts a padding job; the last wave is filled up
    filled = -(-len(steps) // wave) * wave
    started = len(steps) if exchange_size == 1 else filled
    assert total["start"] - started == lanes - exchange_size
    assert total["finish"] == total["uplink"] == filled
    # a lane without work still computes: that is what utilization reports
    rows = run.facts[0].rows_computed
    assert total["step"] * BATCH == rows


@pytest.mark.parametrize("layout", [Layout(1, 1, 1), Layout(2, 2, 2)])
def test_error_feedback_encodes_once_per_job(layout):
    """Client and server both need what was encoded."""
    code, counts = uplink(top_k(0.1)), collections.Counter()

    def encode(value, state, job, key):
        jax.debug.callback(lambda client: counts.update([int(client)]), job.client)
        return code.encode(value, state, job, key)

    link = error_feedback(code._replace(encode=encode))
    pipeline = Pipeline(uplink=(link,))
    run = harness.rounds(algorithms.fedavg(0.1), [COHORT, COHORT], layout, pipeline=pipeline)
    jax.effects_barrier()
    real = [client for client in COHORT if toy.SIZES[client]]
    held = [(facts.clients >= 0).sum(1) for facts in run.facts]
    waves = sum(-(-jobs // layout.wave) for by_device in held for jobs in by_device)
    assert all(counts[client] >= 2 for client in real)
    # nothing but what fills up the last wave of each device comes on top
    assert counts.total() == waves * layout.wave
    if layout.wave == 1:
        assert counts == dict.fromkeys(real, 2)
