"""Algorithms against client drift equal float64 loops over clients, and reach what they promise."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.test_trials import COHORTS as TRIAL_COHORTS
from contracts.test_trials import interleave

from fljax import algorithms
from fljax.core.metrics import Metric
from fljax.core.task import Measured, Task
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# client 1 has no rows, client 4 one; client 3 trains in three of four rounds
COHORTS = [[0, 1, 2, 3], [3, 4, 8], [], [5, 3, 7, 0, 4]]
OWN = {
    "client_lr_factors": np.array([1.0, 2.0, 0.5, 0.3, 1.7, 1.0, 0.25, 3.0, 0.9]),
    "local_epochs": [2, 1, 3, 1, 5, 2, 1, 4, 2],
    "client_weights": [1.0, 7.0, 0.0, 2.5, 0.1, 3.0, 1.0, 0.5, 4.0],
}
LR = 0.2
combine, zeros, mean_of = reference.combine, reference.zeros, reference.weighted_mean


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def gradient(params, x, y):
    return reference.loss_and_gradient(params, x, y)[1]


def loop(algorithm, clients, *, cohorts=COHORTS, lr=LR, epochs=2, weighting="uniform", **numbers):
    """Runs the rounds of one algorithm; returns (params, what the server keeps, the clients' own).

    algorithm: (params, kept, own, present, work, weights, **numbers) -> (params, kept), where
      `present` is a list of (client, x, y) and `own` what each client keeps, changed in place.
    """
    params, kept, own = toy.initial_params(), None, [zeros(toy.initial_params()) for _ in clients]
    for cohort in cohorts:
        present = [(c, *clients[c]) for c in cohort if len(clients[c][1])]
        work = {c: (reference.of(lr, c), 4, reference.of(epochs, c)) for c, _, _ in present}
        weights = [reference.weight_of(weighting, c, len(y)) for c, _, y in present]
        if present:
            params, kept = algorithm(params, kept, own, present, work, weights, **numbers)
    return params, kept, own


def counted(lr, steps, momentum, mu):
    """Returns how much each gradient of a client counts in its way: impulses, one by one."""
    counts = []
    for k in range(steps):
        way = velocity = 0.0
        for step in range(steps):
            velocity = momentum * velocity + (step == k) + mu * way
            way -= lr * velocity
        counts.append(-way)
    return sum(counts)


def fednova(params, velocity, own, present, work, weights, *, momentum=0.0, mu=0.0, beta=0.0):
    directions, ways = [], []
    for client, x, y in present:
        trained, _, _, steps = reference.local_sgd(params, x, y, *work[client], momentum, mu)
        ways.append(counted(work[client][0], steps, momentum, mu))
        directions.append(combine(lambda a, b, way=ways[-1]: (a - b) / way, trained, params))
    far = np.average(ways, weights=weights)
    change = combine(lambda d: far * d, mean_of(directions, weights))
    velocity = combine(lambda v, d: beta * v + d, velocity or zeros(params), change)
    return combine(lambda p, v: p + 0.9 * v, params, velocity), velocity


def feddyn(params, h, own, present, work, weights, *, mu, participants=8):
    changes = []
    for client, x, y in present:
        shift = combine(np.negative, own[client])
        trained, _, _, _ = reference.local_sgd(params, x, y, *work[client], mu=mu, shift=shift)
        changes.append(combine(np.subtract, trained, params))
        own[client] = combine(lambda mine, d: mine - mu * d, own[client], changes[-1])
    mean, share = mean_of(changes, weights), np.count_nonzero(weights) / participants
    h = combine(lambda h, d: h - mu * share * d, h or zeros(params), mean)
    return combine(lambda p, d, h: p + d - h / mu, params, mean, h), h


def mime(params, kept, own, present, work, weights, *, kind, corrects, b1=0.8, b2=0.95, tau=0.1):
    m, v = kept or (zeros(params), combine(lambda p: np.full_like(p, tau**2), params))
    control = mean_of([gradient(params, x, y) for _, x, y in present], weights)

    def step(g, m, v):
        mixed = b1 * m + (1 - b1) * g
        return mixed if kind == "momentum" else mixed / (np.sqrt(v) + tau)

    changes = []
    for client, x, y in present:
        lr, batch_size, epochs = work[client]
        trained = params
        for bx, by in reference.batches(x, y, batch_size, epochs):
            g = gradient(trained, bx, by)
            if corrects:
                g = combine(lambda g, x, c: g - x + c, g, gradient(params, bx, by), control)
            trained = combine(lambda p, g, m, v, lr=lr: p - lr * step(g, m, v), trained, g, m, v)
        changes.append(combine(np.subtract, trained, params))
    m = combine(lambda m, g: b1 * m + (1 - b1) * g, m, control)
    v = combine(lambda v, g: b2 * v + (1 - b2) * g**2, v, control)
    return combine(lambda p, d: p + 0.9 * d, params, mean_of(changes, weights)), (m, v)


def fedlin(params, kept, own, present, work, weights):
    for client, x, y in present:
        own[client] = gradient(params, x, y)
    mean, changes = mean_of([own[client] for client, _, _ in present], weights), []
    for client, x, y in present:
        lr, batch_size, epochs = work[client]
        steps = -(-len(y) // batch_size) * epochs
        trained, _, _, _ = reference.local_sgd(
            params, x, y, lr / steps, batch_size, epochs,
            shift=combine(np.subtract, mean, own[client]),
        )  # fmt: skip
        changes.append(combine(np.subtract, trained, params))
    return combine(lambda p, d: p + 0.9 * d, params, mean_of(changes, weights)), None


def scaffold(params, control, own, present, work, weights, participants=8):
    """Option I."""
    control = control or zeros(params)
    changes, learned = [], []
    for client, x, y in present:
        shift = combine(np.subtract, control, own[client])
        trained, _, _, _ = reference.local_sgd(params, x, y, *work[client], shift=shift)
        changes.append(combine(np.subtract, trained, params))
        learned.append(combine(np.subtract, gradient(params, x, y), own[client]))
        own[client] = gradient(params, x, y)
    for change in learned:
        control = combine(lambda c, d: c + d / participants, control, change)
    return combine(lambda p, d: p + 0.9 * d, params, mean_of(changes, weights)), control


def of_mime(name, kind, **numbers):
    spec = getattr(algorithms, name)(LR, 0.9, base_optimizer=kind, **numbers)
    return spec, mime, {"kind": kind, "corrects": name == "mime"}


B1, TAU = {"beta1": 0.8}, {"tau": 0.1}
CASES = {
    "fednova, all momenta and a pull": (
        algorithms.fednova(LR, 0.9, client_momentum=0.8, mu=0.5, server_momentum=0.7),
        fednova,
        {"momentum": 0.8, "mu": 0.5, "beta": 0.7},
    ),
    "feddyn": (algorithms.feddyn(0.7, LR), feddyn, {"mu": 0.7}),
    "mime momentum": of_mime("mime", "momentum", **B1),
    "mimelite adam": of_mime("mimelite", "adam", beta2=0.95, **B1, **TAU),
    "fedlin": (algorithms.fedlin(LR, 0.9), fedlin, {}),
    "scaffold I": (algorithms.scaffold(LR, 0.9, option="I"), scaffold, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop_over_clients(name):
    spec, algorithm, numbers = CASES[name]
    layout = {"devices": 3, "lanes": 2, "wave": 2}
    own = {
        "lr": LR * OWN["client_lr_factors"],
        "epochs": OWN["local_epochs"],
        "weighting": OWN["client_weights"],
    }
    clients = toy.clients()
    federation, _ = toy.run_rounds(clients, spec, COHORTS, **OWN, **layout)
    params, kept, states = loop(algorithm, clients, **numbers, **own)
    toy.assert_close(toy.params_of(federation), params, 1e-9)
    if name.startswith(("feddyn", "scaffold")):
        server = jax.tree.map(lambda leaf: np.asarray(leaf[0]), federation.state.server)
        toy.assert_close(server.control, kept, 1e-9)
        rows = jax.device_get(federation.store.rows_of(np.arange(len(clients))).algorithm)
        for client in {client for cohort in COHORTS for client in cohort} - {1}:
            mine = jax.tree.map(lambda leaf, n=client: leaf[n], rows)
            toy.assert_close(mine, states[client], 1e-9)


TRIALS = {
    "fednova": (
        lambda lr, number: algorithms.fednova(lr, 0.9, mu=number, weighting="uniform"),
        fednova,
        lambda number: {"mu": number},
    ),
    "mime": (
        lambda lr, number: algorithms.mime(lr, 0.9, beta1=number),
        mime,
        lambda number: {"kind": "momentum", "corrects": True, "b1": number},
    ),
}


@pytest.mark.parametrize("name", TRIALS)
def test_trials_of_one_program_are_the_trials_alone(name):
    make, algorithm, numbers = TRIALS[name]
    settings = [(0.2, 0.3), (0.05, 0.8)]
    specs = [make(*setting) for setting in settings]
    found = harness.rounds(
        specs[0],
        [interleave(round) for round in range(3)],
        harness.MANY,
        trials=[TrialInputs(0, spec.hparams) for spec in specs],
    )
    for trial, (lr, number) in enumerate(settings):
        expected, _, _ = loop(
            algorithm, toy.clients(), cohorts=TRIAL_COHORTS[trial], lr=lr, epochs=1,
            **numbers(number),
        )  # fmt: skip
        variables = found.federation.variables_of(trial)
        toy.assert_close(jax.device_get(variables.params), expected, 1e-9)


def params_after(spec, parts=None, **options):
    parts = parts or toy.clients()
    federation, _ = toy.run_rounds(parts, spec, [[0, 2, 3], [1, 3, 0], [2, 0, 3]], **options)
    return toy.params_of(federation)


def test_fednova_of_equal_steps_is_fedavg():
    parts, numbers = toy.clients([12] * 4), {"client_momentum": 0.9, "mu": 0.3}
    got, expected = (
        params_after(make(LR, 0.9, **numbers), parts, local_epochs=2)
        for make in (algorithms.fednova, algorithms.fedavg)
    )
    toy.assert_close(got, expected, 1e-12)


def test_mimelite_of_sgd_is_fedavg():
    got, expected = (
        params_after(make(LR, 0.9, weighting="uniform", **options), local_epochs=2)
        for make, options in (
            (algorithms.mimelite, {"base_optimizer": "sgd"}),
            (algorithms.fedavg, {}),
        )
    )
    chex.assert_trees_all_equal(got, expected)


def test_nothing_moves_at_a_learning_rate_of_zero():
    """A schedule that ends at 0: FedNova divides by how far clients went."""
    halt = lambda round: 1.0 * (round < 1)  # noqa: E731
    got = params_after(algorithms.fednova(LR), client_lr_schedule=halt)
    chex.assert_tree_all_finite(got)


def test_what_nothing_reads_is_refused():
    with pytest.raises(ValueError, match="mu = 0.*above 0 with feddyn"):
        algorithms.feddyn(mu=0)
    with pytest.raises(ValueError, match="beta2 = 0.9 has no effect with base_optimizer = 'sgd'"):
        algorithms.mime(base_optimizer="sgd", beta2=0.9)
    with pytest.raises(TypeError, match="not of a client_optimizer of your own"):
        algorithms.fednova(client_optimizer=lambda hp: None)
    with pytest.raises(TypeError, match="Leave one of them out"):
        algorithms.fednova(server_momentum=0.9, server_optimizer=lambda hp: None)
    with pytest.raises(ValueError, match="option = 'III'"):
        algorithms.scaffold(option="III")


# Two clients of one row each: a/2 (w - b)^2. The minimum of the mean is at 12 / 5.
QUADRATICS = [(1.0, 0.0), (4.0, 3.0)]
OPTIMUM = 2.4


def quadratic_task():
    def loss(params, frozen, model_state, batch, key, train):
        a, b = batch["x"][:, 0], batch["x"][:, 1]
        return (a / 2 * (params["w"] - b) ** 2 * batch["mask"], batch["mask"] + 0), model_state

    def measure(params, frozen, model_state, batch):
        value, weight = loss(params, frozen, model_state, batch, None, False)[0]
        return Measured({"loss": (value, weight)})

    start = {"w": jnp.zeros((), jnp.float64)}
    return Task(
        lambda key: (start, {}, {}),
        loss,
        measure,
        (Metric("loss", "lower"),),
        "quadratic",
    )


def end_of(spec, num_rounds=60, steps=10):
    """Returns the global w after so many rounds of both clients."""
    x = np.array(QUADRATICS)
    parts = [(x[n : n + 1], np.zeros(1, np.int32)) for n in range(2)]
    federation, _ = toy.run_rounds(
        parts, spec, [[0, 1]] * num_rounds, task=quadratic_task(), batch_size=0, local_epochs=steps
    )
    return float(federation.variables.params["w"])


@pytest.mark.parametrize(
    ("spec", "expected", "within"),
    [
        (algorithms.fedavg(0.05), 2.070, 5e-4),
        (algorithms.scaffold(0.05), OPTIMUM, 1e-6),
        (algorithms.scaffold(0.05, option="I"), OPTIMUM, 1e-6),
        (algorithms.feddyn(1.0, 0.05), OPTIMUM, 1e-6),
        (algorithms.fedlin(0.5), OPTIMUM, 1e-6),
        (algorithms.mime(0.05, base_optimizer="sgd"), OPTIMUM, 1e-6),
        (algorithms.fedspeed(1.0, 0.0, 0.05), OPTIMUM, 1e-6),
        # the gradient uphill is that of other quadratics, whose optimum it finds
        (algorithms.fedspeed(1.0, 0.1, 0.05), 2.5075, 5e-4),
        (algorithms.fedadmm(1.0, 0.05), OPTIMUM, 1e-6),
        (algorithms.feddc(0.1, 0.05), OPTIMUM, 1e-6),
    ],
    ids=[
        "fedavg",
        "scaffold II",
        "scaffold I",
        "feddyn",
        "fedlin",
        "mime",
        "fedspeed",
        "fedspeed uphill",
        "fedadmm",
        "feddc",
    ],  # fmt: skip
)
def test_two_quadratics(spec, expected, within):
    assert abs(end_of(spec) - expected) < within


def test_two_quadratics_of_unlike_steps():
    """FedNova is nearer than FedAvg, and its error vanishes with the learning rate."""
    steps = [2, 20]
    average, nova = (
        end_of(make(0.01), steps=steps) for make in (algorithms.fedavg, algorithms.fednova)
    )
    assert average == pytest.approx(2.90, abs=5e-3)
    assert nova == pytest.approx(2.21, abs=5e-3)
    assert abs(end_of(algorithms.fednova(0.001), 240, steps) - OPTIMUM) < 0.025
