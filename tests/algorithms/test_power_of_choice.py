"""Power-of-choice against a loop in float64, as sampling by size, and without a wait."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.algorithms.power_of_choice import choosing, largest_losses
from fljax.engine.plan.round_plan import job_table
from fljax.selection.by_size import by_size
from fljax.training.federation import RoundOptions, build

# an empty client (1), one that is lost (3), and a cohort without clients
COHORTS = [[0, 1, 2, 3, 8, 5], [], [7, 3, 6, 4, 0], [6, 2, 8, 5]]
LOST = 3
TABLES = [job_table(cohort, accepted=np.array(cohort) != LOST) for cohort in COHORTS]
LR, SERVER_LR = 0.2, 0.9


@pytest.fixture
def x64(quick_compilation, weights_as_written):
    with jax.enable_x64(True):
        yield


def chosen_of(params, cohort, chosen, rows=None):
    """Returns the clients of the largest mean losses, of those that have rows and arrive."""
    losses = {}
    for client in cohort:
        x, y = toy.clients()[client]
        if len(y) and client != LOST:
            x, y = x[:rows], y[:rows]
            losses[client] = reference.loss_and_gradient(params, x, y)[0] / len(y)
    best = sorted(losses, key=losses.get, reverse=True)[:chosen]
    return [client for client in cohort if client in best]


@pytest.mark.parametrize(
    ("layout", "loss_rows"), [(harness.ONE, "all"), (harness.MANY, "all"), (harness.MANY, "batch")]
)
def test_the_largest_losses_train(layout, loss_rows, x64):
    params, picked = toy.initial_params(), []
    for cohort in COHORTS:
        kept = chosen_of(params, cohort, 2, 4 if loss_rows == "batch" else None)
        picked.append(kept)
        if kept:
            params, _ = reference.federated(
                params, toy.clients(), [kept], lr=LR, batch_size=4, epochs=2, weighting="uniform",
                server=reference.Server(params, lr=SERVER_LR),
            )  # fmt: skip
    spec = algorithms.power_of_choice(2, LR, SERVER_LR, loss_rows=loss_rows)
    run = harness.rounds(spec, TABLES, layout, local_epochs=2)
    for round, kept in enumerate(picked):
        jobs = run.by_client("jobs", round)
        assert [client for client in COHORTS[round] if jobs.get(client)] == kept
        # candidates receive the model once, and send nothing before they are chosen
        arrived = {job: toy.SIZES[job] > 0 for job in jobs}
        first = run.by_client("downlink_bits", round, 0)
        assert {job: bits > 0 for job, bits in first.items() if job != LOST} == {
            job: here for job, here in arrived.items() if job != LOST
        }
        assert not any(run.by_client("downlink_bits", round).values())
    toy.assert_close(run.params, params, 1e-9)


def test_with_as_many_chosen_as_drawn_it_is_sampling_by_size(x64):
    """d = m: bit for bit the model of FedAvg behind the sampler by size."""
    dataset, task = toy.dataset(toy.clients()), toy.softmax_task()

    def trained(spec):
        options = RoundOptions(
            num_rounds=4, clients_per_round=4, batch_size=4, devices=2,
            sampler=by_size(len(toy.SIZES), 4, 0, toy.SIZES, replacement=False),
        )  # fmt: skip
        federation = build(dataset, task, spec, options)
        for plan, facts in federation.plans(0, 4):
            federation.step(plan, facts)
        return toy.params_of(federation)

    plain = trained(algorithms.fedavg(LR, weighting="uniform"))
    everybody = trained(algorithms.power_of_choice(4, LR))
    jax.tree.map(np.testing.assert_array_equal, everybody, plain)
    fewer = trained(algorithms.power_of_choice(3, LR))
    assert np.abs(fewer["w"] - plain["w"]).max() > 1e-3


def test_a_round_waits_for_nothing():
    """A choice of who trains falls within the one program of a round, which transfers nothing."""
    federation = build(
        toy.dataset(toy.clients(dtype=np.float32)),
        toy.softmax_task(np.float32),
        algorithms.power_of_choice(2, LR),
        RoundOptions(
            num_rounds=4, clients_per_round=5, batch_size=4, devices=2,
            sampler="by_size(replacement=False)",
        ),
    )  # fmt: skip
    calls, program = [], federation.program
    federation.program = lambda *args: (calls.append(1), program(*args))[1]
    plans = list(federation.plans(0, 4))
    with jax.transfer_guard("disallow"):
        for plan, facts in plans:
            federation.step(plan, facts)
    assert len(calls) == 4 and program._cache_size() == 1


def test_client_state_passes_through(x64):
    """SCAFFOLD behind it: those who are left out keep their control variates."""
    params, control, own = toy.initial_params(), None, None
    history = []
    for cohort in COHORTS:
        history.append(chosen_of(params, cohort, 2))
        params, own, control = reference.scaffold(
            toy.initial_params(), toy.clients(), [kept for kept in history if kept],
            lr=LR, server_lr=SERVER_LR, batch_size=4,
        )  # fmt: skip
    run = harness.rounds(choosing(algorithms.scaffold(LR, SERVER_LR), 2), TABLES, harness.MANY)
    toy.assert_close(run.params, params, 1e-9)
    server = jax.tree.map(lambda leaf: leaf[0], run.states[-1].server)
    toy.assert_close(server.control, control, 1e-9)
    rows = run.client_rows().algorithm
    for client, kept in enumerate(own):
        toy.assert_close({name: rows[name][client] for name in kept}, kept, 1e-9)


def test_among_equal_losses_lots_decide():
    stats = {"loss": jnp.array([2.0, 2.0, 8.0, 4.0, 9.0]), "weight": jnp.array([1, 1, 4, 2, 1.0])}
    stats["lot"] = jnp.array([0.5, 0.2, 0.9, 0.1, 0.0])
    arrived = jnp.array([True, True, True, True, False])
    assert largest_losses(stats, arrived, 2).tolist() == [False, True, False, True, False]
    assert largest_losses(stats, arrived, 9).tolist() == arrived.tolist()


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="chosen = 0"):
        algorithms.power_of_choice(0)
    with pytest.raises(ValueError, match="loss_rows = 'some'"):
        algorithms.power_of_choice(2, loss_rows="some")
    with pytest.raises(ValueError, match="holds none or several"):
        harness.rounds(choosing(algorithms.hypcluster(2), 2), TABLES[:1], harness.ONE)
