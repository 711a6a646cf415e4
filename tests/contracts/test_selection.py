"""A rule of the devices decides by what a pass found out which jobs the later passes keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.algorithm import Chosen, ClientPass, step_key
from fljax.engine.plan.round_plan import job_table

# an empty client (1), one that is lost (3), and a cohort without clients
COHORTS = [[0, 1, 2, 3, 8, 5], [], [7, 3, 6, 4, 0]]
LOST = 3
TABLES = [job_table(cohort, accepted=np.array(cohort) != LOST) for cohort in COHORTS]
LR, SERVER_LR = 0.2, 0.9


def better_half(stats, arrived):
    """Keeps the half with the smallest mean loss, rounded up."""
    loss = jnp.where(arrived, stats["loss"] / jnp.maximum(stats["weight"], 1), jnp.inf)
    return jnp.argsort(jnp.argsort(loss)) < (arrived.sum() + 1) // 2


def by_lot(stats, arrived):
    return arrived & (stats["lot"] < 0.6)


def by_lot_and_twice(stats, arrived):
    return Chosen(by_lot(stats, arrived), jnp.full(len(arrived), 2.0))


def selective(rule=better_half, server_lr=SERVER_LR):
    """SCAFFOLD behind a pass in which clients tell the global model's loss on their rows."""
    plain = algorithms.scaffold(LR, server_lr)

    def build(task, hp):
        algorithm = plain.build(task, hp)

        def step(message, total, batch, job):
            sums = task.loss(*message.variables, batch, step_key(job), False)[0]
            return total[0] + sums.loss, total[1] + sums.weight, total[2]

        looks = ClientPass(
            broadcast=algorithm.passes[0].broadcast,
            start=lambda message, client_state, job: (jnp.zeros(()), jnp.zeros(()), client_state),
            step=step,
            finish=lambda message, total, job: (
                {}, total[2], {"loss": total[0], "weight": total[1]}
            ),
            schedule="epoch",
            select=rule,
        )  # fmt: skip
        return algorithm._replace(passes=(looks, *algorithm.passes))

    return plain._replace(name="selective", build=build)


def chosen_of(params, cohort):
    """Returns the better half of the clients that arrive."""
    here = [client for client in cohort if toy.SIZES[client] and client != LOST]
    losses = {
        client: reference.loss_and_gradient(params, *toy.clients()[client])[0] / toy.SIZES[client]
        for client in here
    }
    best = sorted(here, key=losses.get)[: -(-len(here) // 2)]
    return [client for client in cohort if client in best]


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_the_better_half_of_the_cohort_is_kept(layout):
    chosen, params, control = [], toy.initial_params(), None
    for cohort in COHORTS:
        chosen.append(chosen_of(params, cohort))
        params, own, control = reference.scaffold(
            toy.initial_params(), toy.clients(), [kept for kept in chosen if kept],
            lr=LR, server_lr=SERVER_LR, batch_size=4,
        )  # fmt: skip
    run = harness.rounds(selective(), TABLES, layout)
    toy.assert_close(run.params, params, 1e-9)
    server = jax.tree.map(lambda leaf: leaf[0], run.states[-1].server)
    toy.assert_close(server.control, control, 1e-9)
    rows = run.client_rows().algorithm
    for client, kept in enumerate(own):
        toy.assert_close({name: rows[name][client] for name in kept}, kept, 1e-9)
    bits = 2 * 28 * 64
    for round, (cohort, kept) in enumerate(zip(COHORTS, chosen, strict=True)):
        here = [job for job in cohort if toy.SIZES[job]]
        assert run.by_client("jobs", round) == {job: job in kept for job in here}
        assert run.by_client("lost", round) == {job: job == LOST for job in here}
        left_out = {job: job != LOST and job not in kept for job in here}
        assert run.by_client("unselected", round) == left_out
        for name in ("uplink_bits", "downlink_bits"):
            assert run.by_client(name, round) == {job: bits * (job in kept) for job in here}


def test_a_rule_of_the_last_pass_is_refused():
    def build(task, hp):
        algorithm = algorithms.fedavg(LR).build(task, hp)
        return algorithm._replace(passes=(algorithm.passes[0]._replace(select=better_half),))

    spec = algorithms.fedavg(LR)._replace(build=build)
    with pytest.raises(ValueError, match="it is the last one"):
        harness.rounds(spec, TABLES)


def test_of_a_client_that_stands_twice_the_kept_job_has_the_row():
    """The second job is not selected: its state is that of the start, and must not win."""
    run = harness.rounds(
        selective(lambda stats, arrived: arrived & (jnp.cumsum(arrived) <= 1)),
        [[3, 3]],
        harness.LAYOUTS[0],
    )
    _, own, _ = reference.scaffold(
        toy.initial_params(), toy.clients(), [[3]], lr=LR, server_lr=SERVER_LR, batch_size=4
    )
    rows = run.client_rows().algorithm
    toy.assert_close({name: rows[name][3] for name in own[3]}, own[3], 1e-9)


def test_rules_draw_by_lot_and_scale_updates():
    """Updates that count twice at half the server's rate are plain ones, whatever the layout is."""
    plain = harness.rounds(selective(by_lot), TABLES, harness.ONE)
    half = selective(by_lot_and_twice, SERVER_LR / 2)
    twice = harness.rounds(half, TABLES, harness.MANY)
    kept = [plain.by_client("jobs", round) for round in range(len(COHORTS))]
    assert 0 < sum(sum(each.values()) for each in kept) < sum(map(len, kept)) - 2
    assert kept == [twice.by_client("jobs", round) for round in range(len(COHORTS))]
    toy.assert_close(twice.params, plain.params, 1e-9)
    # beside a plan that scales, both factors count
    scaled = [
        job_table(cohort, accepted=table.accepted, scale=np.full(len(cohort), 0.5))
        for cohort, table in zip(COHORTS, TABLES, strict=True)
    ]
    both = harness.prepare(selective(by_lot_and_twice), scaled, harness.MANY)
    toy.assert_close(harness.drive(both, scaled).params, plain.params, 1e-9)


@pytest.mark.parametrize(
    "rule",
    [
        lambda s, a: jnp.argmin(s["loss"]),
        lambda s, a: s["loss"],
        lambda s, a: Chosen(s["loss"], s["loss"]),
    ],
)
def test_a_rule_that_returns_no_mask_is_refused(rule):
    with pytest.raises(ValueError, match=r"must return bool\["):
        harness.rounds(selective(rule), TABLES[:1], harness.LAYOUTS[0])


@pytest.mark.parametrize("scale", [lambda a: 2.0, lambda a: jnp.ones(len(a), jnp.int32)])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match=r"must return a scale of float\["):
        harness.rounds(selective(lambda s, a: Chosen(a, scale(a))), TABLES[:1], harness.ONE)
