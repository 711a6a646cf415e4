"""Clients whose work does not arrive: lost on the way, or not a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.algorithm import ClientPass
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.engine.plan.round_plan import job_table
from fljax.training.round_records import LinkSpeeds, training_record
from fljax.training.totals import RoundTotals

COHORTS = [[0, 2, 3, 6], [3, 4, 8, 2], [5, 0, 2, 3]]
LOST = [{3}, {8, 4}, set()]
BROKEN = 2  # its features are NaN
TABLES = [
    job_table(cohort, accepted=[client not in lost for client in cohort])
    for cohort, lost in zip(COHORTS, LOST, strict=True)
]
ARRIVED = [
    [client for client in cohort if client not in lost | {BROKEN}]
    for cohort, lost in zip(COHORTS, LOST, strict=True)
]


def parts():
    clients = toy.clients()
    clients[BROKEN] = (np.full_like(clients[BROKEN][0], np.nan), clients[BROKEN][1])
    return clients


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_nothing_is_kept_of_lost_and_broken_clients(layout):
    expected, own, control = reference.scaffold(
        toy.initial_params(), parts(), ARRIVED, lr=0.2, server_lr=0.9, batch_size=4
    )
    run = harness.rounds(algorithms.scaffold(0.2, 0.9), TABLES, layout, parts=parts())
    toy.assert_close(run.params, expected, 1e-9)
    toy.assert_close(
        jax.tree.map(lambda leaf: leaf[0], run.states[-1].server.control), control, 1e-9
    )
    rows = run.client_rows().algorithm
    for client, kept in enumerate(own):
        for name, value in kept.items():
            np.testing.assert_allclose(rows[name][client], value, rtol=1e-9, atol=1e-12)
    bits = 2 * 28 * 64  # SCAFFOLD sends a model and a control variate, both ways
    for round, (cohort, lost, arrived) in enumerate(zip(COHORTS, LOST, ARRIVED, strict=True)):
        assert run.total("jobs", round) == len(arrived)
        assert run.total("lost", round) == len(lost)
        assert run.total("nonfinite", round) == 1
        assert run.total("weight", round) == sum(toy.SIZES[client] for client in arrived)
        assert np.isfinite(run.total("loss", round))
        assert run.total("downlink_bits", round) == bits * len(cohort)
        sent = {client: bits * (client not in lost) for client in cohort}
        assert run.by_client("uplink_bits", round) == sent


def test_a_transform_does_not_hide_what_is_not_a_number():
    integers = UplinkLink(
        encode=lambda value, state, job, key: (
            jax.tree.map(lambda leaf: jnp.round(leaf * 1e6).astype(jnp.int32), value), state
        ),
        decode=lambda payload, state: jax.tree.map(lambda leaf: leaf / 1e6, payload),
    )  # fmt: skip
    spec, pipeline = algorithms.fedavg(0.2), Pipeline(uplink=(integers,))
    run = harness.rounds(spec, COHORTS[:1], pipeline=pipeline, parts=parts())
    assert run.by_client("nonfinite", 0) == {client: client == BROKEN for client in COHORTS[0]}
    arrived = [[client for client in COHORTS[0] if client != BROKEN]]
    expected, _ = reference.federated(toy.initial_params(), parts(), arrived, lr=0.2, batch_size=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), run.params, expected
    )


def test_a_model_that_stays_with_its_client_is_not_replaced_by_nan():
    run = harness.rounds(algorithms.local_only(0.2), COHORTS[:1], parts=parts())
    assert run.by_client("nonfinite", 0) == {client: client == BROKEN for client in COHORTS[0]}
    rows = run.client_rows().algorithm.params
    jax.tree.map(
        lambda leaf, start: np.testing.assert_array_equal(leaf[BROKEN], start),
        rows,
        toy.initial_params(),
    )


def breaking(when):
    """FedAvg behind a pass that sends nothing and keeps a state, whose client BROKEN breaks."""
    plain = algorithms.fedavg(0.2)

    def build(task, hp):
        algorithm = plain.build(task, hp)
        (average,) = algorithm.passes

        def broken(job, place):
            return jnp.where((job.client == BROKEN) & (when == place), jnp.nan, 1.0)

        def finish(message, own, job):
            times = own["times"] + broken(job, "state")
            if when == "repeat":
                times = jnp.where((job.client == BROKEN) & (times > 1), jnp.inf, times)
            return {}, own | {"times": times}, {"found": broken(job, "stats")}

        first = ClientPass(
            broadcast=average.broadcast,
            start=lambda message, own, job: own,
            step=lambda message, own, batch, job: own,
            finish=finish,
            repeats=(lambda own: own["times"] < 3) if when == "repeat" else None,
        )
        second = ClientPass(
            broadcast=average.broadcast,
            start=lambda message, own, job: (average.start(message, (), job), own),
            step=lambda message, carry, batch, job: (
                average.step(message, carry[0], batch, job), carry[1]
            ),
            finish=lambda message, carry, job: (
                average.finish(message, carry[0], job)[0],
                carry[1] | {"last": carry[1]["last"] + 1},
                average.finish(message, carry[0], job)[2],
            ),
        )  # fmt: skip
        start = {"times": jnp.zeros(()), "last": jnp.zeros(()), "lowest": jnp.full((), jnp.inf)}
        return algorithm._replace(passes=(first, second), init_client=lambda variables: start)

    return plain._replace(build=build)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("when", ["state", "stats", "repeat"])
def test_who_breaks_in_an_early_pass_is_in_no_later_one(when):
    """So the record and the warning agree, and a state that is no number is not kept."""
    cohort = COHORTS[0]
    run = harness.rounds(breaking(when), [cohort], harness.MANY)
    arrived = [[client for client in cohort if client != BROKEN]]
    expected, _ = reference.federated(
        toy.initial_params(), toy.clients(), arrived, lr=0.2, batch_size=4
    )
    toy.assert_close(run.params, expected, 1e-9)
    found = {client: client == BROKEN for client in cohort}
    bits = {client: 28 * 64 * (client != BROKEN) for client in cohort}
    assert run.by_client("nonfinite", 0, 0) == run.by_client("nonfinite", 0) == found
    assert run.by_client("jobs", 0) == {client: client != BROKEN for client in cohort}
    assert run.by_client("uplink_bits", 0) == run.by_client("downlink_bits", 0) == bits
    record = training_record(run.facts[0], run.stats[0], RoundTotals(), LinkSpeeds())
    assert (record["train/clients"], record["train/clients_nonfinite"]) == (3, 1)
    rows = run.client_rows().algorithm
    assert rows["last"][cohort].tolist() == [1, 0, 1, 1]
    assert np.isfinite(rows["times"]).all() and np.isinf(rows["lowest"]).all()
