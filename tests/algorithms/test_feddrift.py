"""FedDrift equals a NumPy loop over clients; it tells apart what drifts, and brings it together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.cluster.hierarchy as hierarchy
import toy
from scipy.spatial.distance import squareform

from fljax import algorithms
from fljax.algorithms.merging import NEVER
from fljax.core.clusterings import adjusted_rand_index
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split
from fljax.data.heterogeneity.motion import Motion
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

LR, STEP, MOST, DELTA = 0.2, 2, 6, 0.4
SIZES = np.array([48, 64, 80, 52, 68, 60, 56, 76])
# After two steps these clients hold a second concept, for two steps; then the first again, for one
# step, and at last a third.
DRIFTS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
CONCEPTS = np.array([0, 0, 1, 1, 0, 0, 2])
KNOTS = np.array([0, *(s * STEP - 1 + late for s in (2, 4, 5) for late in (0, 1))])
EVERYBODY = [list(range(8))] * (6 * STEP)
SOME = [
    [0, 1, 4], [2, 3, 5, 6, 7], [0, 4, 5, 6, 7], [1, 2, 3], [0, 1, 4, 5], [2, 3, 5, 6, 7],
    [4, 5, 6, 0], [7, 1, 2, 3], [3, 4, 6, 7], [0, 5, 1],
    [0, 2, 4, 7], [1, 5, 6],
]  # fmt: skip


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def stream():
    """Returns clients of whom some see labels turned by one, none and two places, step by step."""
    generator = np.random.default_rng(0)
    total = SIZES.sum()
    x = generator.standard_normal((total, toy.FEATURES))
    y = (x @ generator.standard_normal((toy.FEATURES, toy.CLASSES))).argmax(1).astype(np.int32)
    arrays = {
        "x": np.tile(x, (3, 1)),
        "y": np.concatenate([(y + turned) % toy.CLASSES for turned in range(3)]),
    }
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    owners = np.repeat(np.arange(8), SIZES)
    every = np.arange(3 * total)
    motion = Motion(
        offsets=3 * offsets,
        index=every[np.argsort(np.tile(owners, 3), kind="stable")],
        knots=np.broadcast_to(KNOTS, (8, len(KNOTS))),
        begins=(SIZES * DRIFTS)[:, None] * CONCEPTS,
        delays=np.zeros(8, np.int64),
        periods=np.zeros(8, np.int64),
    )
    examples = ArrayExamples(arrays)
    return FederatedDataset(
        name="stream", kind="classification", num_classes=toy.CLASSES,
        train=Split(examples, Partition(offsets, np.arange(total), motion)),
        test=Split(examples, None),
    )  # fmt: skip


def rows_of(dataset, client, round):
    places = np.arange(SIZES[client])
    rows = dataset.train.partition.motion.row_at(np.full(len(places), client), places, round)
    arrays = dataset.train.examples.arrays
    return arrays["x"][rows], arrays["y"][rows]


def run(spec, cohorts=EVERYBODY):
    """Returns (federation, [the server's state], [clients' states]) after each round."""
    options = RoundOptions(
        num_rounds=len(cohorts), cohorts=cohorts, clients_per_round=8, batch_size=4,
        shuffle=False, local_epochs=2,
    )  # fmt: skip
    federation = build(stream(), toy.softmax_task(), spec, options)
    servers, clients = [], []
    for plan, facts in federation.plans(0, len(cohorts)):
        federation.step(plan, facts)
        server = jax.device_get(federation.state.server)
        servers.append(jax.tree.map(lambda leaf: leaf[0], server))
        clients.append(jax.device_get(federation.store.rows_of(np.arange(8)).algorithm))
    return federation, servers, clients


class Known(NamedTuple):
    loss: float
    cluster: int
    step: int


def mean_loss(model, x, y):
    return reference.loss_and_gradient(model, x, y)[0] / len(y)


def groups_by_linkage(losses, numbers):
    """Returns lists of models that complete linkage puts together."""
    if len(numbers) < 2:
        return [[number] for number in numbers]
    apart = np.array(
        [
            [max(losses[i, j] - losses[i, i], losses[j, i] - losses[j, j], 0) for j in numbers]
            for i in numbers
        ]
    )
    tree = hierarchy.linkage(squareform(apart, checks=False), "complete")
    labels = hierarchy.fcluster(tree, np.nextafter(DELTA, 0), "distance")
    return [[n for n, own in zip(numbers, labels, strict=True) if own == k] for k in set(labels)]


def loop(cohorts, *, most=MOST, eager=False):
    """Returns ({number: model}, {client: Known}) after each round, and counts of what happened."""
    dataset, models = stream(), {0: toy.initial_params()}
    begun, used, data, clients = {0: -1}, {0: -1}, {0: 0.0}, {}
    history, seen = [], {"merged": 0, "isolated": 0, "refused": 0, "evicted": 0}
    for round, cohort in enumerate(cohorts):
        now, is_first = divmod(round, STEP)[0], round % STEP == 0
        rows = {client: rows_of(dataset, client, round) for client in cohort}
        joinable, drifted, joined = [m for m in models if begun[m] < now], {}, {}
        for client in sorted(cohort):
            if client in clients and clients[client].step == now:
                continue
            losses = {m: mean_loss(models[m], *rows[client]) for m in joinable}
            best = min(sorted(losses), key=losses.get)
            used[best] = now
            before = clients.get(client)
            if before is not None and losses[best] > before.loss + DELTA:
                drifted[client] = best
            else:
                joined.setdefault(best, []).append(client)
                data[best] += len(rows[client][1])
            clients[client] = Known(losses[best], best, now)
        if is_first and not eager:
            pools = {
                m: [np.concatenate(parts) for parts in zip(*(rows[c] for c in own), strict=True)]
                for m, own in joined.items()
            }
            losses = {(i, j): mean_loss(models[i], *pools[j]) for i in pools for j in pools}
            for group in groups_by_linkage(losses, sorted(pools)):
                stays, *going = group
                models[stays] = reference.weighted_mean(
                    [models[m] for m in group], [data[m] for m in group]
                )
                data[stays] = sum(data[m] for m in group)
                begun[stays] = min(begun[m] for m in group)
                for goes in going:
                    seen["merged"] += 1
                    for known in (models, begun, used, data):
                        del known[goes]
                    for client, own in clients.items():
                        if own.cluster == goes and own.step == now:
                            clients[client] = own._replace(cluster=stays)
                    drifted = {c: stays if m == goes else m for c, m in drifted.items()}
        own_model, began = {}, [m for m in models if begun[m] == now] if eager else []
        for client in sorted(drifted):
            if began:
                own_model[client] = began[0]
                continue
            free = [m for m in range(most) if m not in models]
            idle = sorted((used[m], m) for m in models if used[m] < now)
            if not free and not idle:
                seen["refused"] += 1
                continue
            seen["evicted"] += not free
            seen["isolated"] += 1
            number = free[0] if free else idle[0][1]
            models[number] = models[drifted[client]]
            begun[number] = used[number] = now
            data[number] = float(SIZES[client])
            own_model[client] = number
            began = [number] if eager else []
        for client, best in drifted.items():
            clients[client] = clients[client]._replace(cluster=own_model.get(client, best))
        changes = {}
        for client in cohort:
            start = models[clients[client].cluster]
            trained = reference.local_sgd(start, *rows[client], LR, 4, 2)[0]
            change = reference.combine(np.subtract, trained, start)
            changes.setdefault(clients[client].cluster, []).append((change, SIZES[client]))
        for number, of_cluster in changes.items():
            mean = reference.weighted_mean(*zip(*of_cluster, strict=True))
            models[number] = reference.combine(np.add, models[number], mean)
        history.append((dict(models), dict(clients)))
    return history, seen


def assert_equal(servers, clients, history):
    for server, own, (models, known) in zip(servers, clients, history, strict=True):
        assert set(np.flatnonzero(server.begun != NEVER)) == set(models)
        for number, model in models.items():
            got = jax.tree.map(lambda leaf, n=number: leaf[n], server.servers.variables.params)
            toy.assert_close(got, model, 1e-9)
        for client, expected in known.items():
            assert (own.cluster[client], own.step[client]) == expected[1:]
            assert own.loss[client] == pytest.approx(expected.loss, rel=1e-9)


CASES = {
    "everybody": (EVERYBODY, MOST, False),
    "eager": (EVERYBODY, MOST, True),
    "some": (SOME, MOST, False),
    "full": (EVERYBODY, 3, False),
}


@pytest.mark.parametrize("case", CASES)
def test_rounds_are_those_of_a_loop_over_clients(case):
    cohorts, most, eager = CASES[case]
    history, seen = loop(cohorts, most=most, eager=eager)
    spec = algorithms.feddrift(most, LR, drift_threshold=DELTA, step_rounds=STEP, eager=eager)
    federation, servers, clients = run(spec, cohorts)
    assert_equal(servers, clients, history)
    assert (seen["merged"] > 0) == (cohorts is EVERYBODY and not eager), seen
    assert (seen["refused"] > 0) == (seen["evicted"] > 0) == (case in ("full", "some")), seen
    if cohorts is EVERYBODY:
        found = [own.cluster for own in clients]
        assert set(found[2 * STEP - 1]) == set(found[5 * STEP - 1]) == {0}
        assert len(set(found[2 * STEP])) == {"eager": 2, "full": 3}.get(case, 5)
        assert adjusted_rand_index(found[3 * STEP], DRIFTS) == 1
    else:
        own_models(federation, servers[-1], clients[-1], history[-1][0])


def own_models(federation, server, clients, models):
    """Asserts that clients use what they trained in this step, and else what fits their rows."""
    personalize = jax.jit(federation.algorithm.personalize)
    for client in (0, 7):
        x, y = rows_of(stream(), client, len(EVERYBODY) - 1)
        batch = {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.ones(len(y), bool)}
        batch = jax.tree.map(lambda leaf: leaf[:12], batch)
        own = jax.tree.map(lambda leaf, n=client: leaf[n], clients)
        best = min(models, key=lambda m: mean_loss(models[m], x[:12], y[:12]))
        here = int(own.cluster) if own.step == server.step else best
        for state, number in ((own, here), (own._replace(step=own.step - 1), best)):
            got = personalize(server, state, batch, None).params
            toy.assert_close(jax.device_get(got), models[number], 1e-9)


def test_one_model_is_fedavg():
    """It is FedAvg where no loss can rise enough, and until the first drift."""
    spec = algorithms.feddrift(3, LR, drift_threshold=1e30, step_rounds=STEP)
    federation, servers, clients = run(spec)
    plain, before, _ = run(algorithms.fedavg(LR))
    toy.assert_close(toy.params_of(federation), toy.params_of(plain), 1e-12)
    assert (servers[-1].begun == NEVER).tolist() == [False, True, True]
    assert set(clients[-1].cluster) == {0}
    models, known = loop(EVERYBODY[: 2 * STEP])[0][-1]
    toy.assert_close(before[2 * STEP - 1].variables.params, models[0], 1e-9)
    assert set(models) == {known[client].cluster for client in range(8)} == {0}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_clusters = 0"):
        algorithms.feddrift(0)
    with pytest.raises(ValueError, match="step_rounds = 0.5 must be"):
        algorithms.feddrift(step_rounds=0.5)
    with pytest.raises(ValueError, match="eager = True has no effect with num_clusters = 1"):
        algorithms.feddrift(1, eager=True)
