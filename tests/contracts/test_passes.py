"""Algorithms of several passes: Mime, which averages gradients before clients train."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.algorithms.fedsgd import gradient_pass
from fljax.core.algorithm import (
    Algorithm,
    AlgorithmSpec,
    ClientPass,
    Contribution,
    Variables,
    blank_job,
    step_key,
)
from fljax.engine.plan.round_plan import job_table
from fljax.training.new_clients import PassWork, take_part
from fljax.training.rehearsal import rehearsed

COHORTS = [[0, 1, 2, 3], [3, 4, 8], [], [5, 6, 7, 0, 4]]


class MimeState(NamedTuple):
    variables: Variables
    momentum: Any


class Message(NamedTuple):
    params: Any
    control: Any
    momentum: Any


def mime(client_lr, beta):
    """Mime with SGDm (Karimireddy et al. 2020b, arXiv:2008.03606), not MimeLite:

    clients   y <- y - lr ((1 - beta) (g(y) - g(x) + c) + beta m),    c = mean of full-batch g(x)
    server    x <- mean y,    m <- (1 - beta) c + beta m
    """

    def build(task, hp):
        def mix(g, m):
            return (1 - hp["beta"]) * g + hp["beta"] * m

        def send_gradient(carry, job):
            return {"gradient": Contribution(carry.mean(), jnp.ones(()))}, (), {}

        def step(message, carry, batch, job):
            here, sums, _ = task.gradient(carry, (), batch, step_key(job))
            there, _, _ = task.gradient(message.params, (), batch, step_key(job))
            corrected = jax.tree.map(lambda a, b, c: a - b + c, here, there, message.control)
            return jax.tree.map(
                lambda y, g, m: y - hp["client_lr"] * mix(g, m),
                carry, corrected, message.momentum,
            )  # fmt: skip

        def finish(message, carry, job):
            change = jax.tree.map(jnp.subtract, carry, message.params)
            return {"update": Contribution(change, jnp.ones(()))}, (), {}

        local = ClientPass(
            broadcast=lambda server, aggregates: Message(
                server.variables.params, aggregates["gradient"].mean(), server.momentum
            ),
            start=lambda message, client_state, job: message.params,
            step=step,
            finish=finish,
        )

        def server_update(server, aggregates, round):
            params = jax.tree.map(jnp.add, server.variables.params, aggregates["update"].mean())
            momentum = jax.tree.map(mix, aggregates["gradient"].mean(), server.momentum)
            new = MimeState(server.variables._replace(params=params), momentum)
            present = aggregates["update"].count > 0
            return jax.tree.map(lambda a, b: jnp.where(present, a, b), new, server)

        return Algorithm(
            init=lambda v: MimeState(v, jax.tree.map(jnp.zeros_like, v.params)),
            passes=(gradient_pass(task, send_gradient), local),
            server_update=server_update,
            variables=lambda server: server.variables,
        )

    return AlgorithmSpec("mime", build, {"client_lr": client_lr, "beta": beta})


def mime_reference(params, clients, cohorts, *, lr, beta, batch_size, epochs):
    combine, gradient = reference.combine, lambda p, x, y: reference.loss_and_gradient(p, x, y)[1]
    momentum = reference.zeros(params)
    for cohort in cohorts:
        present = [clients[client] for client in cohort if len(clients[client][1])]
        if not present:
            continue
        control = reference.weighted_mean(
            [gradient(params, x, y) for x, y in present], [1] * len(present)
        )
        ends = []
        for x, y in present:
            local = params
            for bx, by in reference.batches(x, y, batch_size, epochs):
                local = combine(
                    lambda p, g, g0, c, m: p - lr * ((1 - beta) * (g - g0 + c) + beta * m),
                    local, gradient(local, bx, by), gradient(params, bx, by), control, momentum,
                )  # fmt: skip
            ends.append(local)
        params = reference.weighted_mean(ends, [1] * len(ends))
        momentum = combine(lambda c, m: (1 - beta) * c + beta * m, control, momentum)
    return params, momentum


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_mime(layout):
    expected, momentum = mime_reference(
        toy.initial_params(), toy.clients(), COHORTS, lr=0.3, beta=0.8, batch_size=4, epochs=2
    )
    run = harness.rounds(mime(0.3, 0.8), COHORTS, layout, local_epochs=2)
    toy.assert_close(run.params, expected, 1e-9)
    got = jax.tree.map(lambda leaf: leaf[0], run.states[-1].server.momentum)
    toy.assert_close(got, momentum, 1e-9)


def test_each_pass_draws_its_own_random_numbers():
    def build(task, hp):
        def finish(message, carry, job):
            return {}, (), {"draw": jax.random.uniform(job.key)}

        one = ClientPass(
            broadcast=lambda server, aggregates: (),
            start=lambda message, client_state, job: (),
            step=lambda message, carry, batch, job: carry,
            finish=finish,
        )
        return Algorithm(
            init=lambda variables: variables,
            passes=(one, one),
            server_update=lambda server, aggregates, round: server,
            variables=lambda server: server,
        )

    spec = AlgorithmSpec("draws", build, {})
    cohort = [0, 2, 3, 4]
    runs = [harness.rounds(spec, [cohort], layout) for layout in harness.LAYOUTS]
    first, second = (
        [runs[0].by_client("draw", 0, number)[client] for client in cohort] for number in (0, 1)
    )
    assert len(set(first + second)) == 2 * len(cohort)
    for number in (0, 1):
        assert runs[0].by_client("draw", 0, number) == runs[1].by_client("draw", 0, number)
    np.testing.assert_array_less(0, first)


class Own(NamedTuple):
    times: Any
    rows: Any


def repeating(repeats=None, sends=False):
    """Clients go over their rows until they have done so as often as their number says, then once.

    What client 3 finds is not finite.
    """

    def build(task, hp):
        def start(message, own, job):
            return Own(own.times, own.rows)

        def finish(message, own, job):
            sent = {"rows": Contribution(own.rows, jnp.ones(()))} if sends else {}
            return sent, own._replace(times=own.times + 1), found(job)

        def found(job):
            return {"found": jnp.where(job.client == 3, jnp.nan, 1.0)}

        first = ClientPass(
            broadcast=lambda server, aggregates: (),
            start=start,
            step=lambda message, own, batch, job: own._replace(rows=own.rows + batch["mask"].sum()),
            finish=finish,
            schedule="epoch",
            repeats=repeats or (lambda own: own.times % 4 != 0),
        )
        last = first._replace(finish=lambda message, own, job: ({}, own, found(job)), repeats=None)
        return Algorithm(
            init=lambda variables: variables,
            passes=(first, last),
            server_update=lambda server, aggregates, round: server,
            variables=lambda server: server,
            init_client=lambda variables: Own(jnp.int32(0), jnp.zeros(())),
        )

    return AlgorithmSpec("repeating", build, {})


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_clients_repeat_a_pass_until_they_are_done(layout):
    """Those that are done, lost or not finite rest meanwhile, and nobody waits for them."""
    tables = [job_table([0, 2, 3, 8], accepted=[True, True, True, False]), [6, 8, 2]]
    asks = lambda own: 5 * own.times**2 < own.rows  # noqa: E731
    run = harness.rounds(repeating(asks), tables, layout)
    kept = run.client_rows().algorithm
    for client in range(len(toy.SIZES)):
        rounds = [cohort for cohort in ([0, 2], [6, 8, 2]) if client in cohort]
        times = rows = 0
        for _ in rounds:
            once = True
            while once or 5 * times**2 < rows:
                times, rows, once = times + 1, rows + toy.SIZES[client], False
            rows += toy.SIZES[client]
        assert (kept.times[client], kept.rows[client]) == (times, rows), client
    assert len(set(kept.times.tolist())) > 3
    assert [run.total("jobs", round, 0) for round in (0, 1)] == [2, 3]
    assert [run.total("nonfinite", round, 0) for round in (0, 1)] == [1, 0]
    assert run.total("lost", 0, 0) == 1
    assert run.total("found", 1, 0) == 3
    assert "unselected" not in run.stats[0][0]


def test_new_clients_repeat_a_pass_as_well():
    algorithm = repeating(lambda own: 5 * own.times**2 < own.rows).build(None, {})
    rows = {"x": jnp.zeros((13, 1)), "mask": jnp.ones(13, bool)}
    work = PassWork(
        jnp.minimum(jnp.arange(16).reshape(4, 4), 12), jnp.array([4, 4, 4, 1]), jnp.int32(4)
    )
    job = blank_job(jax.random.key(0))
    own = take_part(algorithm, (), algorithm.init_client(None), rows, (work, work), job)
    assert (own.times, own.rows) == (3, 4 * 13)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (repeating(sends=True), "Pass 0 has `repeats` and sends 'rows'"),
        (repeating(lambda own: own.times), r"`repeats` of pass 0 returns int32\[\]"),
    ],
)
def test_repeats_that_make_no_sense_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        harness.rounds(spec, [[0, 2]])


def with_broadcasts(first=True, second=True):
    """Ditto, whose passes broadcast the model or leave clients what they have."""
    ditto = algorithms.ditto(0.5, 0.1)

    def build(task, hp):
        algorithm = ditto.build(task, hp)
        model = algorithm.passes[0].broadcast
        given = [model if broadcasts else None for broadcasts in (first, second)]
        passes = zip(algorithm.passes, given, strict=True)
        return algorithm._replace(
            passes=tuple(each._replace(broadcast=broadcast) for each, broadcast in passes)
        )

    return ditto._replace(build=build)


def test_a_pass_without_a_broadcast_goes_on_with_the_message_of_the_one_before():
    tables = [[0, 2, 3], [3, 5]]
    once, twice = (harness.rounds(with_broadcasts(second=each), tables) for each in (False, True))
    toy.assert_close(toy.params_of(once.federation), toy.params_of(twice.federation), 1e-14)
    toy.assert_close(once.client_rows().algorithm, twice.client_rows().algorithm, 1e-14)
    for round, cohort in enumerate(tables):
        own, all = once.by_client("downlink_bits", round), twice.by_client("downlink_bits", round)
        assert set(own.values()) == {0} and list(own) == cohort
        assert all == once.by_client("downlink_bits", round, 0)
        assert min(all.values()) > 0


def test_a_first_pass_needs_a_broadcast():
    with pytest.raises(ValueError, match="the first pass has no `broadcast`"):
        harness.rounds(with_broadcasts(first=False), [[0]])
    with pytest.raises(ValueError, match="the first pass has no `broadcast`"):
        rehearsed(toy.dataset(toy.clients()), toy.softmax_task(), with_broadcasts(first=False))
