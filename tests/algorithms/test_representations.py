"""FedALA, FedProto and kNN-Per equal float64 NumPy loops over clients, on a network of two layers.

What these need of a model is its last layer, and what that reads.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy

import fljax
from fljax import algorithms
from fljax.core.gradients import bind
from fljax.data import with_own_test
from fljax.tasks import classification, next_token
from fljax.training.evaluations import check_judged

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORTS = [[0, 1, 2, 3], [3, 4, 8], [], [5, 6, 7, 0, 4]]
LR, EPOCHS, BATCH, HIDDEN = 0.2, 2, 4, 5
HEAD = ("c", "w")


def initial(dtype=np.float64):
    generator = np.random.default_rng(3)
    shapes = {
        "a": (toy.FEATURES, HIDDEN), "b": (HIDDEN,), "c": (toy.CLASSES,), "w": (HIDDEN, toy.CLASSES)
    }  # fmt: skip
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def task(dtype=np.float64):
    def init(key):
        return jax.tree.map(jnp.asarray, initial(dtype))

    def apply(params, x, *, key=None, train=False):
        return jnp.tanh(x @ params["a"] + params["b"]) @ params["w"] + params["c"]

    return classification((init, apply), toy.CLASSES)


def represented(params, x):
    return np.tanh(x @ params["a"] + params["b"])


def probabilities(logits):
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def gradient(params, x, y, pull=0.0):
    """Returns the gradient of the mean loss; `pull` is added to that of the representations."""
    hidden = represented(params, x)
    errors = probabilities(hidden @ params["w"] + params["c"]) - np.eye(toy.CLASSES)[y]
    errors /= len(y)
    back = (errors @ params["w"].T + pull) * (1 - hidden**2)
    return {"a": x.T @ back, "b": back.sum(0), "c": errors.sum(0), "w": hidden.T @ errors}


def batches(x, y, epochs=EPOCHS):
    return reference.batches(x, y, BATCH, epochs)


def moved(params, direction, distance):
    return reference.combine(lambda p, d: p + distance * d, params, direction)


def sgd(params, x, y):
    for batch in batches(x, y):
        params = moved(params, gradient(params, *batch), -LR)
    return params


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def run(spec, seed=0, **layout):
    federation, _ = toy.run_rounds(
        toy.clients(seed=seed), spec, COHORTS, task=task(), local_epochs=EPOCHS, **layout
    )
    rows = federation.store.rows_of(np.arange(len(toy.SIZES))).algorithm
    server = jax.tree.map(lambda leaf: leaf[0], federation.state.server)
    return federation, server, jax.device_get(rows)


@functools.cache
def of_fedavg():
    return toy.params_of(run(algorithms.fedavg(LR))[0])


def own_of(rows, client):
    return jax.tree.map(lambda leaf: leaf[client], rows)


def batch_of(x, y, padding=0):
    x, y = np.pad(x, ((0, padding), (0, 0)), constant_values=np.nan), np.pad(y, (0, padding))
    mask = np.arange(len(y)) < len(y) - padding
    return jax.tree.map(jnp.asarray, {"x": x, "y": y, "mask": mask})


def loss_of(params, x, y):
    chances = probabilities(represented(params, x) @ params["w"] + params["c"])
    return -np.log(chances[np.arange(len(y)), y]).mean()


def ala_loop(seed, share, rate, server_lr, threshold, number, most):
    """Returns (parameters, {client: (model, weights, whether learned, passes until then)})."""
    w, clients = initial(), toy.clients(seed=seed)
    own = {n: (initial(), {k: np.ones_like(w[k]) for k in HEAD}, False, 0) for n in range(9)}

    def mixed(v, weights):
        return {**w, **{k: v[k] + (w[k] - v[k]) * weights[k] for k in HEAD}}

    for cohort in COHORTS:
        changes, sizes = [], []
        for client in cohort:
            x, y = clients[client]
            if not len(y):
                continue
            v, weights, learned, passes = own[client]
            used, losses = int(np.ceil(share * len(y))), []
            differs = any((w[k] != v[k]).any() for k in HEAD)
            while True:
                for batch in batches(x[:used], y[:used], 1):
                    loss, step = (
                        loss_of(mixed(v, weights), *batch),
                        gradient(mixed(v, weights), *batch),
                    )
                    weights = {
                        k: np.clip(weights[k] - rate * step[k] * (w[k] - v[k]), 0, 1) for k in HEAD
                    }
                losses.append(loss)
                if learned or not differs:
                    break
                settled = len(losses) > number and np.std(losses[-number:]) < threshold
                if settled or len(losses) == most:
                    learned, passes = True, len(losses)
                    break
            trained = sgd(mixed(v, weights), x, y)
            own[client] = trained, weights, learned, passes
            changes.append(reference.combine(np.subtract, trained, w))
            sizes.append(len(y))
        if changes:
            w = moved(w, reference.weighted_mean(changes, sizes), server_lr)
    return w, own


@pytest.mark.parametrize(("seed", "layout"), [(0, {"devices": 1}), (1, {"devices": 2, "lanes": 2})])
def test_fedala(x64, seed, layout):
    """Clients learn their weights for the first time until losses settle, each in its own time."""
    spec = algorithms.fedala(
        2.0, LR, 0.9, ala_share=0.6, ala_threshold=0.004, ala_losses=3, ala_max_passes=15
    )
    federation, _, rows = run(spec, seed, **layout)
    expected, own = ala_loop(seed, 0.6, 2.0, 0.9, 0.004, 3, 15)
    toy.assert_close(toy.params_of(federation), expected, 1e-9)
    for client, (model, weights, learned, passes) in own.items():
        mine = own_of(rows, client)
        toy.assert_close(mine.model.params, model, 1e-9)
        toy.assert_close({k: mine.weights[k] for k in HEAD}, weights, 1e-9)
        assert (bool(mine.convergence.reached), mine.convergence.passes) == (learned, passes)
    found = {passes for *_, passes in own.values()}
    assert 0 in found and 4 in found and len(found) > 3, found
    assert any((weights["w"] < 1).any() for _, weights, *_ in own.values())
    assert mine.weights["a"] is None


def test_fedala_that_learns_no_weights_is_fedavg(x64):
    federation, _, _ = run(algorithms.fedala(0.0, LR))
    toy.assert_close(toy.params_of(federation), of_fedavg(), 1e-14)


def proto_loop(seed, lam, weighting):
    clients = toy.clients(seed=seed)
    own = {client: initial() for client in range(9)}
    prototypes, known = np.zeros((toy.CLASSES, HIDDEN)), np.zeros(toy.CLASSES, bool)
    for cohort in COHORTS:
        sums, total = np.zeros_like(prototypes), np.zeros(toy.CLASSES)
        for client in cohort:
            x, y = clients[client]
            for of_x, of_y in batches(x, y) if len(y) else ():
                far = represented(own[client], of_x) - prototypes[of_y]
                pull = lam * 2 * far * known[of_y][:, None] / (HIDDEN * len(of_y))
                own[client] = moved(own[client], gradient(own[client], of_x, of_y, pull), -LR)
            for label in np.unique(y):
                rows = represented(own[client], x[y == label])
                weight = len(rows) if weighting == "examples" else 1
                sums[label] += weight * rows.mean(0)
                total[label] += weight
        new = total > 0
        prototypes[new] = sums[new] / total[new][:, None]
        known |= new
    return own, prototypes, known


@pytest.mark.parametrize(("weighting", "seed"), [("examples", 0), ("uniform", 1)])
def test_fedproto(x64, weighting, seed):
    federation, server, rows = run(algorithms.fedproto(0.7, LR, weighting=weighting), seed)
    own, prototypes, known = proto_loop(seed, 0.7, weighting)
    toy.assert_close(np.asarray(server.prototypes.of_class), prototypes, 1e-9)
    assert np.asarray(server.prototypes.known).tolist() == known.tolist()
    for client, expected in own.items():
        toy.assert_close(own_of(rows, client).params, expected, 1e-9)
    x, y = toy.clients(seed=seed)[6]
    mine = jax.tree.map(jnp.asarray, own_of(rows, 3))
    outputs = jax.jit(federation.algorithm.predict)(server, mine, batch_of(x, y))
    far = ((represented(own[3], x)[:, None] - prototypes[known]) ** 2).sum(-1)
    np.testing.assert_allclose(np.asarray(outputs)[:, known], -far, rtol=1e-9)


def test_fedproto_without_pull_is_local_only(x64):
    _, _, rows = run(algorithms.fedproto(0.0, LR))
    _, _, alone = run(algorithms.local_only(LR))
    for client in range(9):
        toy.assert_close(own_of(rows, client).params, own_of(alone, client).params, 1e-12)


def neighbours(params, x, y, rows, number, scale):
    """Returns the probabilities of classes by the nearest of a client's rows, row by row."""
    memory, found = represented(params, x), np.zeros((len(rows), toy.CLASSES))
    for place, row in enumerate(represented(params, rows)):
        far = ((memory - row) ** 2).sum(1)
        for nearest in np.argsort(far)[:number]:
            found[place, y[nearest]] += np.exp(-far[nearest] / (HIDDEN * scale))
    return found / found.sum(1, keepdims=True)


def test_knn_per(x64):
    weight, number, scale = 0.4, 7, 0.3
    spec = algorithms.knn_per(weight, LR, num_neighbors=number, knn_scale=scale)
    federation, server, _ = run(spec)
    params = of_fedavg()
    toy.assert_close(toy.params_of(federation), params, 1e-14)
    rows, labels = toy.clients()[6]

    @jax.jit
    def outputs_of(own, batch):
        made = federation.algorithm.personalize(server, (), own, jax.random.key(0))
        return federation.algorithm.predict(server, made, batch)

    for client in (3, 2, 1):  # of 31, 5 and no rows
        x, y = toy.clients()[client]
        outputs = outputs_of(batch_of(x, y, 2), batch_of(rows, labels))
        expected = probabilities(represented(params, rows) @ params["w"] + params["c"])
        if len(y):
            of_rows = neighbours(params, x, y, rows, number, scale)
            expected = weight * of_rows + (1 - weight) * expected
        np.testing.assert_allclose(np.exp(outputs), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["knn_per", "fedproto"])
def test_own_predictors_are_judged_on_held_out_rows(name):
    """In a whole run: accuracies of clients are those of NumPy's predictions."""
    data = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.3)
    states = []
    found = fljax.simulate(
        data, task(np.float32), algorithms.make(name, client_lr=0.3), num_rounds=2, devices=2,
        clients_per_round=9, batch_size=4, eval_personal=-1, progress=False,
        hooks=[lambda federation, record: states.append(state_of(federation))],
    )  # fmt: skip
    server, rows = states[-1]
    for place, client in enumerate(found.client_metrics["personal/client"]):
        (x, y), (own_x, own_y) = (rows_of(split, client) for split in (data.val, data.train))
        if name == "fedproto":
            mine = represented(own_of(rows, client).params, x)
            far = ((mine[:, None] - server.prototypes.of_class) ** 2).sum(-1)
            predicted = far.argmin(1)
        else:
            params = server.variables.params
            predicted = probabilities(represented(params, x) @ params["w"] + params["c"])
            if len(own_y):
                predicted = predicted + neighbours(params, own_x, own_y, x, 10, 1.0)
            predicted = predicted.argmax(1)
        accuracy = found.client_metrics["personal/accuracy"][place]
        assert accuracy == pytest.approx((predicted == y).mean())


def test_each_client_of_knn_per_chooses_its_weight_on_validation_rows():
    """In a whole run: of 0, 0.1, ... that which is right most often, then of the lowest loss."""
    whole = toy.dataset(toy.clients(dtype=np.float32))
    data = with_own_test(dataclasses.replace(whole, test=None), 0.3).with_validation(0.15)
    states = []
    found = fljax.simulate(
        data, task(np.float32), algorithms.knn_per(0.25, 0.3, adaptive_knn_weight=True),
        num_rounds=2, devices=2, clients_per_round=9, batch_size=4, eval_personal=-1,
        progress=False, hooks=[lambda federation, record: states.append(state_of(federation))],
    )  # fmt: skip
    params, chosen = states[-1][0].variables.params, {}

    def mixtures(client, x):
        of_model = probabilities(represented(params, x) @ params["w"] + params["c"])
        if not len(y := rows_of(data.train, client)[1]):
            return [of_model] * 11
        of_rows = neighbours(params, rows_of(data.train, client)[0], y, x, 10, 1.0)
        return [(w * of_rows + (10 - w) * of_model) / 10 for w in range(11)]

    for place, client in enumerate(found.client_metrics["personal/client"]):
        weight, (x, y) = 2.5, rows_of(data.val, client)
        if len(y):
            scores = [
                (
                    (p.argmax(1) == y).mean(),
                    np.log(np.maximum(p[np.arange(len(y)), y], 1e-38)).sum(),
                )
                for p in mixtures(client, x)
            ]
            weight = max(range(11), key=lambda w: scores[w])
        chosen[client] = weight
        x, y = rows_of(data.test, client)
        ends = mixtures(client, x)
        expected = (weight * ends[10] + (10 - weight) * ends[0]) / 10
        loss = -np.log(expected[np.arange(len(y)), y]).mean()
        assert found.client_metrics["personal/loss"][place] == pytest.approx(loss, rel=1e-4)
    assert 2.5 in chosen.values() and len(set(chosen.values())) > 2


@pytest.mark.parametrize("data", ["neither", "validation"])
def test_choosing_a_weight_needs_validation_rows_beside_those_of_the_test(data):
    whole = toy.dataset(toy.clients(dtype=np.float32))
    given = with_own_test(dataclasses.replace(whole, test=None), 0.3)
    if data == "validation":
        given = whole.with_validation(0.3)
    message = r"'knn_per' choose .* validation rows .* val_fraction"
    with pytest.raises(ValueError, match=message):  # of a sweep, for all its trials
        check_judged(given, "knn_per", 0, -1, has_global_model=True, tunes=True)
    with pytest.raises(ValueError, match=message):
        fljax.simulate(
            given, task(np.float32), algorithms.knn_per(adaptive_knn_weight=True), num_rounds=1,
            clients_per_round=9, eval_personal=-1, progress=False,
        )  # fmt: skip


def state_of(federation):
    server = jax.tree.map(lambda leaf: np.asarray(leaf[0]), federation.state.server)
    return server, jax.device_get(federation.store.rows_of(np.arange(9)).algorithm)


def rows_of(split, client):
    rows = split.examples.take(split.partition.rows(client))
    return rows["x"].astype(np.float64), rows["y"]


def test_what_has_no_classes_is_refused():
    texts = next_token(((lambda key: {"w": jnp.ones((5, 5))}), lambda params, x, **_: x), 5)
    of_texts = jax.ShapeDtypeStruct((1, 8), np.int32)
    local = bind(texts, {}, like={"x": of_texts, "y": of_texts})
    for name in ("knn_per", "fedproto"):
        spec = algorithms.make(name)
        with pytest.raises(ValueError, match=f"{name} needs one class for each example"):
            spec.build(local, spec.hparams)
    with pytest.raises(ValueError, match="ala_share = 0"):
        algorithms.fedala(ala_share=0.0)
    with pytest.raises(ValueError, match="num_neighbors = 0"):
        algorithms.knn_per(num_neighbors=0)
    with pytest.raises(ValueError, match="ala_layers = 'nothing'"):
        run(algorithms.fedala(ala_layers="nothing"))
