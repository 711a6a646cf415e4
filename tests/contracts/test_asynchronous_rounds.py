"""Rounds whose jobs arrive late equal a loop over arrivals that keeps all versions of the model."""

import jax
import numpy as np
import pytest
import reference
import toy
from compression_reference import flatten, largest, unflatten
from contracts import harness
from contracts.harness import LAYOUTS, MANY, ONE
from systems import reference_schedules as by_hand

from fljax import algorithms
from fljax.compression import error_feedback, top_k, uplink
from fljax.core.transforms import Pipeline
from fljax.training.trials import TrialInputs

LR, BATCH, ROUNDS, N = 0.2, 4, 8, len(toy.SIZES)
WORLD = by_hand.World(
    steps=[-(-size // BATCH) for size in toy.SIZES],
    step_seconds=[0.5 + 0.25 * (client % 4) for client in range(N)],
    uplink=[np.inf] * N,
    downlink=[np.inf] * N,
    spread=0.7,
    dropout=0.2,
)
BUFFER, CONCURRENCY = 3, 6
FEDBUFF = f"fedbuff(concurrency={CONCURRENCY})"


def prepared(spec, layout=ONE, world=WORLD, rounds=ROUNDS, **options):
    """Builds a federation in the time of a world."""
    defaults = {
        "schedule": FEDBUFF, "clients_per_round": BUFFER, "dropout": world.dropout,
        "profiles": world.fleet().devices, "seed": world.seed,
    }  # fmt: skip
    return harness.prepare(spec, [[]] * rounds, layout, **(defaults | options))


def ran(federation, rounds=ROUNDS):
    """Runs the rounds that a federation plans."""
    run = harness.Run(federation, [], [], [])
    for plan, facts in federation.plans(0, rounds):
        run.stats.append(jax.device_get(federation.step(plan, facts)))
        run.facts.append(facts)
    assert federation.program._cache_size() == 1
    return run


def arrivals(world=WORLD, buffer=BUFFER, concurrency=CONCURRENCY, rounds=ROUNDS):
    found = by_hand.asynchronous(world, buffer, concurrency, rounds)
    assert max(late for step in found for late in step.staleness) > 2
    return found


def discount(late, factor=1.0):
    """Returns FedBuff's discount, in the precision in which plans have it."""
    return np.float64(np.float32(factor / np.sqrt(1 + late)))


def loop(steps, server, weighting="examples", transmit=lambda client, change: change, factor=None):
    """Lets a server step with what arrives, and returns its model.

    factor: alpha of FedAsync, which mixes the models of clients with its own.
    """
    models = [server.params]
    for step in steps:
        taken, weights = [], []
        for client, late in zip(step.clients, step.staleness, strict=True):
            x, y = toy.clients()[client]
            old = models[-1 - late]
            trained = reference.local_sgd(old, x, y, LR, BATCH, 1)[0]
            share = discount(late, 1.0 if factor is None else factor)
            if factor is None:
                change = transmit(client, reference.combine(np.subtract, trained, old))
            else:
                change = reference.combine(np.subtract, trained, models[-1])
            taken.append(reference.combine(lambda leaf, by=share: by * leaf, change))
            weights.append(reference.weight_of(weighting, client, len(y)))
        server.step(reference.weighted_mean(taken, weights))
        models.append(server.params)
    return models[-1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fedbuff_equals_a_loop_over_arrivals(layout):
    run = ran(prepared(algorithms.fedavg(LR, 0.5, weighting="uniform"), layout))
    server = reference.Server(toy.initial_params(), lr=0.5)
    toy.assert_close(run.params, loop(arrivals(), server, "uniform"), 1e-9)
    # the ring has as many places as versions are in use at a time, fewer than the latest is late
    steps = by_hand.asynchronous(WORLD, BUFFER, CONCURRENCY, ROUNDS)
    assert run.federation.planner.num_versions == max(step.kept for step in steps)
    for step, facts in zip(steps, run.facts, strict=True):
        assert facts.records[0]["time/simulated_seconds"] == pytest.approx(step.seconds, rel=1e-12)
        assert sorted(facts.clients[facts.clients >= 0].tolist()) == sorted(step.clients)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fedasync_mixes_models_as_a_loop_does(layout):
    federation = prepared(
        algorithms.fedavg(LR), layout, clients_per_round=4, schedule="fedasync(alpha=0.8)"
    )
    expected = loop(
        arrivals(buffer=1, concurrency=4), reference.Server(toy.initial_params()), factor=0.8
    )
    toy.assert_close(ran(federation).params, expected, 1e-9)


def test_a_server_optimizer_steps_with_the_buffer():
    run = ran(prepared(algorithms.fedopt("adam", LR, 0.3), MANY))
    server = reference.Server(toy.initial_params(), "adam", 0.3)
    toy.assert_close(run.params, loop(arrivals(), server), 1e-9)


def test_late_clients_keep_what_compression_left_out():
    residual = {client: np.zeros(28) for client in range(N)}

    def transmit(client, change):
        total = flatten(change) + residual[client]
        sent = largest(total, 7)
        residual[client] = total - sent
        return unflatten(sent)

    link = error_feedback(uplink(top_k(0.25)))
    run = ran(prepared(algorithms.fedavg(LR), MANY, pipeline=Pipeline(uplink=(link,))))
    expected = loop(arrivals(), reference.Server(toy.initial_params()), transmit=transmit)
    toy.assert_close(run.params, expected, 1e-9)
    # of clients that were lost nothing is kept
    (kept,) = run.client_rows().uplink
    found = np.concatenate([leaf.reshape(N, -1) for leaf in jax.tree.leaves(kept)], axis=1)
    for client, row in residual.items():
        np.testing.assert_allclose(np.sort(found[client]), np.sort(row), rtol=1e-8, atol=1e-12)


def test_late_clients_of_scaffold_keep_their_controls():
    """A client's control variate follows the server's as it was when the client began."""
    combine, zeros = reference.combine, reference.zeros(toy.initial_params())
    models, own = [(toy.initial_params(), zeros)], [zeros] * N
    participants = sum(size > 0 for size in toy.SIZES)
    for step in arrivals():
        taken, moved = [], []
        for client, late in zip(step.clients, step.staleness, strict=True):
            x, y = toy.clients()[client]
            params, control = models[-1 - late]
            shift = combine(np.subtract, control, own[client])
            trained, _, _, steps = reference.local_sgd(params, x, y, LR, BATCH, 1, shift=shift)
            new = combine(
                lambda ci, c, start, end, path=steps * LR: ci - c + (start - end) / path,
                own[client], control, params, trained,
            )  # fmt: skip
            moved.append(combine(np.subtract, new, own[client]))
            change = combine(np.subtract, trained, params)
            share = discount(late)
            taken.append(combine(lambda leaf, by=share: by * leaf, change))
            own[client] = new
        params, control = models[-1]
        params = combine(np.add, params, reference.weighted_mean(taken, [1] * BUFFER))
        for change in moved:
            control = combine(lambda c, d: c + d / participants, control, change)
        models.append((params, control))
    run = ran(prepared(algorithms.scaffold(LR), MANY))
    toy.assert_close(run.params, models[-1][0], 1e-9)


def test_two_trials_have_times_of_their_own_in_one_program():
    spec = algorithms.fedavg(LR)
    federation = prepared(spec, MANY, trials=[TrialInputs(seed, spec.hparams) for seed in (0, 5)])
    ran(federation)
    for trial, seed in enumerate((0, 5)):
        steps = by_hand.asynchronous(WORLD._replace(seed=seed), BUFFER, CONCURRENCY, ROUNDS)
        expected = loop(steps, reference.Server(toy.initial_params()))
        got = jax.device_get(federation.variables_of(trial).params)
        toy.assert_close(got, expected, 1e-9)


def test_a_program_keeps_as_many_versions_as_trials_that_come_later_need():
    spec, bounds = algorithms.fedavg(LR), {}
    inputs = [TrialInputs(seed, spec.hparams) for seed in range(6)]
    for one in inputs:
        steps = by_hand.asynchronous(WORLD._replace(seed=one.seed), BUFFER, CONCURRENCY, ROUNDS)
        bounds[one.seed] = max(step.kept for step in steps)
    few, many = min(bounds, key=bounds.get), max(bounds, key=bounds.get)
    assert bounds[few] < bounds[many]
    alone = prepared(spec, trials=[inputs[few]])
    with pytest.raises(ValueError, match=f"from up to {bounds[many]} versions .* max_staleness"):
        alone.replace({0: inputs[many]})
    federation = prepared(spec, trials=[inputs[few]], waiting=inputs)
    assert federation.planner.num_versions == bounds[many]
    federation.replace({0: inputs[many]})
    steps = by_hand.asynchronous(WORLD._replace(seed=many), BUFFER, CONCURRENCY, ROUNDS)
    expected = loop(steps, reference.Server(toy.initial_params()))
    toy.assert_close(ran(federation).params, expected, 1e-9)
