"""Clients share a part of the model and keep the rest: against loops over clients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import toy
from contracts import harness
from contracts import test_batchnorm as batchnorm

from fljax import algorithms, tasks
from fljax.compression import error_feedback, top_k, uplink
from fljax.core.transforms import Pipeline

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


FEATURES, HIDDEN, CLASSES, RATE, BATCH, EPOCHS = 5, 3, 4, 0.3, 4, 2
# ragged, with an empty client, partly drawn, one of them twice in a round
SIZES = (9, 0, 4, 13, 1, 7)
COHORTS = [[0, 1, 2, 3], [3, 4, 3], [5, 0, 2]]
GENERATOR = np.random.default_rng(3)
ROWS = [
    (GENERATOR.standard_normal((size, FEATURES)), GENERATOR.integers(0, CLASSES, size))
    for size in SIZES
]


def start(seed):
    shapes = {"a": (FEATURES, HIDDEN), "s": (HIDDEN,), "h": (HIDDEN, CLASSES), "b": (CLASSES,)}
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape) for name, shape in shapes.items()}


def small_task(seed=0):
    def apply(params, x):
        return jnp.tanh(x @ params["a"] + params["s"]) @ params["h"] + params["b"]

    return tasks.classification((lambda key: start(seed), apply), CLASSES)


def loss_and_gradient(p, x, y):
    hidden = np.tanh(x @ p["a"] + p["s"])
    logits = hidden @ p["h"] + p["b"]
    e = np.exp(logits - logits.max(1, keepdims=True))
    probability = e / e.sum(1, keepdims=True)
    error = (probability - np.eye(CLASSES)[y]) / len(y)
    below = (error @ p["h"].T) * (1 - hidden**2)
    gradient = {"a": x.T @ below, "s": below.sum(0), "h": hidden.T @ error, "b": error.sum(0)}
    return -np.log(probability[np.arange(len(y)), y]).mean(), gradient


HEAD = ("h", "b")


def trained(params, x, y, schedule, epochs=EPOCHS):
    """Returns parameters after steps on batches; `schedule` gives what trains in each step."""
    order = np.concatenate([np.arange(len(y))] * epochs)
    per_epoch = -(-len(y) // BATCH)
    batches = [
        np.arange(start, min(start + BATCH, len(y)))
        for _ in range(epochs)
        for start in range(0, len(y), BATCH)
    ]
    assert len(order) == sum(map(len, batches)) and len(batches) == epochs * per_epoch
    for step, batch in enumerate(batches):
        gradient = loss_and_gradient(params, x[batch], y[batch])[1]
        trains = schedule(step, len(batches))
        params = {
            name: leaf - RATE * gradient[name] if name in trains else leaf
            for name, leaf in params.items()
        }
    return params


def federated(first, own, schedule=lambda step, steps: tuple("ashb"), epochs=EPOCHS):
    """Returns (the shared leaves, the own leaves of each client) after some rounds."""
    shared = {name: leaf for name, leaf in first.items() if name not in own}
    kept = [{name: first[name] for name in own} for _ in SIZES]
    for cohort in COHORTS:
        after = dict(enumerate(kept))
        changes, weights = [], []
        for client in cohort:
            x, y = ROWS[client]
            if not len(y):
                continue
            new = trained(shared | kept[client], x, y, schedule, epochs)
            after[client] = {name: new[name] for name in own}
            changes.append({name: new[name] - shared[name] for name in shared})
            weights.append(len(y))
        kept = list(after.values())
        shared = {
            name: leaf + sum(w * c[name] for w, c in zip(weights, changes, strict=True))
            / sum(weights)
            for name, leaf in shared.items()
        }  # fmt: skip
    return shared, kept


def run(spec, rounds=COHORTS, seed=0, **options):
    """Returns the federation after some rounds."""
    options = {"local_epochs": EPOCHS, "batch_size": BATCH, **options}
    federation, _ = toy.run_rounds(ROWS, spec, rounds, task=small_task(seed), **options)
    return federation


def models_of(federation, own_rows=None):
    """Returns the parameters of each client's own model, trained further on `own_rows`."""
    own_rows = own_rows or [(None, None)] * len(SIZES)
    return [variables.params for variables in judged(federation, own_rows)]


def judged(federation, own_rows):
    """Returns each client's own model; `own_rows` are (batch, key) of each client."""
    server = jax.tree.map(lambda leaf: leaf[0], federation.state.server)
    own = federation.store.rows_of(np.arange(len(own_rows)), 0).algorithm
    personalize = jax.jit(federation.algorithm.personalize)
    leaves, structure = jax.tree.flatten(own)
    rows = zip(*map(list, leaves), strict=True) if leaves else [()] * len(own_rows)
    return [
        personalize(server, structure.unflatten(row), *batch)
        for row, batch in zip(rows, own_rows, strict=True)
    ]


def head_first(share):
    """Returns what trains in a step of FedRep: each part in some step, both where there is one."""

    def schedule(step, steps):
        if steps == 1:
            return (*HEAD, "a", "s")
        return HEAD if step < min(max(np.round(share * steps), 1), steps - 1) else ("a", "s")

    return schedule


METHODS = {
    "fedper": (algorithms.fedper(RATE), HEAD, None),
    "fedrep": (algorithms.fedrep(RATE), HEAD, head_first(0.5)),
    "lg_fedavg": (algorithms.lg_fedavg(RATE), ("a", "s"), None),
    "fedbabu": (
        algorithms.fedbabu(RATE, finetune_epochs=0),
        HEAD,
        lambda step, steps: ("a", "s"),
    ),
}


@pytest.mark.parametrize(("method", "seed"), [(name, n % 2) for n, name in enumerate(METHODS)])
def test_methods_equal_a_loop_over_clients(method, seed):
    spec, own, schedule = METHODS[method]
    more = {} if schedule is None else {"schedule": schedule}
    shared, kept = federated(start(seed), own, **more)
    federation = run(spec, seed=seed)
    for client, model in enumerate(models_of(federation)):
        toy.assert_close(model, shared | kept[client], 1e-9)
    # the global model is the shared part with what every client starts with
    first = {name: leaf for name, leaf in start(seed).items() if name in own}
    toy.assert_close(toy.params_of(federation), shared | first, 1e-9)


@pytest.mark.parametrize(("share", "epochs"), [(0.01, 1), (0.99, 1), (0.99, 2)])
def test_both_parts_of_fedrep_train_at_every_client(share, epochs):
    """Also at those with one step, and where a share of the steps rounds to none or to all."""
    shared, kept = federated(start(0), HEAD, head_first(share), epochs=epochs)
    federation = run(algorithms.fedrep(RATE, head_share=share), local_epochs=epochs)
    for client, model in enumerate(models_of(federation)):
        toy.assert_close(model, shared | kept[client], 1e-9)
        if SIZES[client]:
            assert all((model[name] != start(0)[name]).any() for name in "ashb")


def batches_of_everybody():
    """Returns (rows of each client in one padded batch, key) as the evaluation gives them."""
    size = max(SIZES)
    found = []
    for client, (x, y) in enumerate(ROWS):
        rows = np.minimum(np.arange(size), max(len(y) - 1, 0))
        source = (x, y) if len(y) else ROWS[0]
        batch = {"x": source[0][rows], "y": source[1][rows], "mask": np.arange(size) < len(y)}
        found.append((batch, jax.random.key(client)))
    return found


def fine_tuned(params, x, y, key, epochs, batch_size, rate, names=tuple("ashb")):
    for epoch in range(epochs):
        order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
        draws = np.asarray(jax.random.uniform(order_key, (max(SIZES),)))
        order = np.argsort(draws[: len(y)])
        for begin in range(0, len(y), batch_size or max(len(y), 1)):
            rows = order[begin : begin + (batch_size or len(y))]
            gradient = loss_and_gradient(params, x[rows], y[rows])[1]
            params = {
                name: leaf - rate * gradient[name] if name in names else leaf
                for name, leaf in params.items()
            }
    return params


@pytest.mark.parametrize(
    ("spec", "own", "schedule", "tuning"),
    [
        (algorithms.fine_tuning(RATE, finetune_epochs=2, finetune_batch_size=3), (), None,
         (2, 3, RATE)),
        (algorithms.fedbabu(RATE, finetune_epochs=1, finetune_lr=0.1, finetune_batch_size=0), HEAD,
         lambda step, steps: ("a", "s"), (1, 0, 0.1)),
        (algorithms.fedper(RATE, finetune_epochs=2, finetune_batch_size=5), HEAD, None,
         (2, 5, RATE, HEAD)),
    ],
    ids=["fine_tuning", "fedbabu", "fedper"],
)  # fmt: skip
def test_judged_models_are_trained_further_on_their_clients_rows(spec, own, schedule, tuning):
    more = {} if schedule is None else {"schedule": schedule}
    shared, kept = federated(start(0), own, **more)
    everybody = batches_of_everybody()
    models = models_of(run(spec), everybody)
    for client, (model, (_, key)) in enumerate(zip(models, everybody, strict=True)):
        expected = fine_tuned(shared | kept[client], *ROWS[client], key, *tuning)
        toy.assert_close(model, expected, 1e-9)


def test_nothing_of_ones_own_is_fedavg_bit_for_bit():
    expected = toy.params_of(run(algorithms.fedavg(RATE)))
    for make in (algorithms.fedper, algorithms.lg_fedavg, algorithms.fine_tuning):
        federation = run(make(RATE, personal="none"))
        assert federation.algorithm.has_global_model
        jax.tree.map(np.testing.assert_array_equal, toy.params_of(federation), expected)
        assert federation.store.row_bytes == 0


def test_everything_of_ones_own_is_local_training_and_sends_nothing():
    federation = run(algorithms.fedper(RATE, personal="all"))
    alone = run(algorithms.local_only(RATE))
    for own, expected in zip(models_of(federation), models_of(alone), strict=True):
        jax.tree.map(np.testing.assert_array_equal, own, expected)
    toy.assert_close(toy.params_of(federation), start(0), 0)


def test_what_trains_first_decides_on_nothing_where_it_is_all_or_nothing():
    none = run(algorithms.fedrep(RATE, head_share=0.0))
    frozen = run(algorithms.fedbabu(RATE, finetune_epochs=0))
    for own, expected in zip(models_of(none), models_of(frozen), strict=True):
        jax.tree.map(np.testing.assert_array_equal, own, expected)
    alone = run(algorithms.fedrep(RATE, head_share=1.0))
    first = {name: leaf for name, leaf in toy.params_of(alone).items() if name in "as"}
    toy.assert_close(first, {name: start(0)[name] for name in "as"}, 0)


def test_momentum_and_weight_decay_leave_alone_what_does_not_train():
    spec = algorithms.fedbabu(RATE, finetune_epochs=0, client_momentum=0.9, client_weight_decay=0.1)
    for own in models_of(run(spec)):
        toy.assert_close({name: own[name] for name in HEAD}, {n: start(0)[n] for n in HEAD}, 0)


def test_fedbn_keeps_scales_and_statistics_with_clients():
    rows, rounds = toy.clients(), batchnorm.COHORTS
    task = tasks.classification(batchnorm.Normalized, toy.CLASSES)
    spec = algorithms.fedbn(batchnorm.LR)
    federation = harness.prepare(spec, rounds, task=task, batch_size=batchnorm.BATCH)
    params, statistics = jax.device_get(batchnorm.flat(federation.variables))
    federation = harness.drive(federation, rounds).federation
    shared = {name: params[name] for name in ("w", "b")}
    kept = [({name: params[name] for name in ("scale", "shift")}, statistics) for _ in rows]
    for cohort in rounds:
        present = [client for client in cohort if len(rows[client][1])]
        changes = []
        for client in present:
            own, state = kept[client]
            end, state = batchnorm.local_training(shared | own, state, *rows[client])
            kept[client] = {name: end[name] for name in own}, state
            changes.append({name: end[name] - shared[name] for name in shared})
        if present:
            weights = [len(rows[client][1]) for client in present]
            mean = reference.weighted_mean(changes, weights)
            shared = reference.combine(np.add, shared, mean)
    found = judged(federation, [(None, None)] * len(rows))
    for variables, (own, state) in zip(found, kept, strict=True):
        toy.assert_close(jax.device_get(batchnorm.flat(variables)), (shared | own, state), 1e-9)


def test_what_stays_with_clients_is_not_sent_received_or_compressed():
    def bits(spec, **options):
        _, stats = toy.run_rounds(
            ROWS, spec, COHORTS, task=small_task(), local_epochs=EPOCHS, batch_size=BATCH, **options
        )
        (of_pass,) = stats[0]
        return of_pass["uplink_bits"].max(), of_pass["downlink_bits"].max()

    sizes = {name: leaf.size for name, leaf in start(0).items()}
    shared = 64 * (sizes["a"] + sizes["s"])
    assert bits(algorithms.fedper(RATE)) == (shared, shared)
    assert bits(algorithms.fedper(RATE, personal="all")) == (0, 0)
    halved = Pipeline(uplink=(uplink(top_k(0.5)),))
    kept = -(-shared // 128)
    assert 64 * kept < bits(algorithms.fedper(RATE), pipeline=halved)[0] < 64 * (kept + 1)


def test_memories_and_server_optimizers_are_those_of_the_shared_part():
    spec = algorithms.fedper(RATE, server_optimizer=lambda hp: optax.adam(hp["server_lr"]))
    memory = Pipeline(uplink=(error_feedback(uplink(top_k(0.3))),))
    runs = [run(spec, pipeline=memory, devices=d, lanes=n) for d, n in ((1, 1), (3, 2))]
    one, other = (models_of(federation) for federation in runs)
    toy.assert_close(other, one, 1e-9)
    kept = jax.tree.leaves(runs[0].store.rows_of(np.arange(2), 0).uplink)
    assert sum(leaf[0].size for leaf in kept) == start(0)["a"].size + start(0)["s"].size
    moments = jax.tree.leaves(runs[0].state.server.server.opt_state)
    assert sum(leaf.size for leaf in moments if leaf.ndim > 1) == 2 * sum(
        start(0)[name].size for name in "as"
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: algorithms.fedper(RATE, personal="dense_9"), "dense_9.*no parameter.*It has a, b"),
        (lambda: algorithms.fedbn(RATE), "personal = 'norm'.*no normalization layer.*It has a, b"),
        (lambda: algorithms.fedper(RATE, personal=["a"]), "personal = .*a text such as 'head'"),
        (lambda: algorithms.fedper(RATE, finetune="q", finetune_epochs=1), "finetune = 'q'"),
        (lambda: algorithms.fedper(RATE, finetune_lr=0.1), "finetune_lr = 0.1 has no effect"),
        (lambda: algorithms.fedper(RATE, finetune="head"), "finetune = 'head' has no effect"),
        (lambda: algorithms.fedrep(RATE, head_share=1.5), "head_share = 1.5"),
        (lambda: algorithms.fine_tuning(RATE, finetune_epochs=-1), "finetune_epochs = -1"),
    ],
)
def test_what_a_model_does_not_have_is_refused_before_the_first_round(make, said):
    with pytest.raises(ValueError, match=said):
        run(make(), rounds=COHORTS[:1])
