"""Clustered algorithms equal NumPy loops over clients, and FedAvg where there is one cluster."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

import fljax
from fljax import algorithms, data
from fljax.core.clusterings import adjusted_rand_index
from fljax.core.transforms import Pipeline
from fljax.engine.plan.round_plan import job_table
from fljax.models import softmax_regression
from fljax.tasks import classification
from fljax.training.federation import RoundOptions, build
from fljax.training.hyperparameters import hyperparameters
from fljax.training.record_keys import training_keys
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORTS = [[0, 1, 2, 3, 8], [3, 4, 8, 6], [5, 6, 7, 0, 4]]
LR = 0.2


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def drawn_task():
    """Returns softmax regression whose initial models differ from key to key."""

    def init(key):
        shapes = {"w": (toy.FEATURES, toy.CLASSES), "b": (toy.CLASSES,)}
        keys = jax.random.split(key, len(shapes))
        return {
            name: jax.random.normal(own, shape, jnp.float64)
            for (name, shape), own in zip(shapes.items(), keys, strict=True)
        }

    def apply(params, x, *, key=None, train=False):
        return x @ params["w"] + params["b"]

    return classification((init, apply), toy.CLASSES)


def run(spec, cohorts=COHORTS, chosen=None, **options):
    """Runs rounds; returns (federation, stats of each round, models at the start, those after).

    Clusters that clients have chosen after each round are added to `chosen`, int[9] each.
    """
    task = options.pop("task", None) or drawn_task()
    options = {"local_epochs": 2, "batch_size": 4, "shuffle": False} | options
    rounds = RoundOptions(num_rounds=len(COHORTS), cohorts=COHORTS, clients_per_round=5, **options)
    federation = build(toy.dataset(toy.clients()), task, spec, rounds)
    before = models_of(federation)
    stats = []
    for plan, facts in federation.plans(0, len(cohorts)):
        stats.append(jax.device_get(federation.step(plan, facts)))
        if chosen is not None:
            chosen.append(np.asarray(federation.store.rows_of(np.arange(9)).algorithm))
    return federation, stats, before, models_of(federation)


def models_of(federation):
    params = jax.device_get(federation.state.server.servers.variables.params)
    return [jax.tree.map(lambda leaf, n=n: leaf[0, n], params) for n in range(len(params["b"][0]))]


def losses_on(models, x, y):
    return [reference.loss_and_gradient(model, x, y)[0] / len(y) for model in models]


def chosen_by_loss(models, x, y, client, round):
    return int(np.argmin(losses_on(models, x, y)))


def loop(
    models, choose, *, seen=lambda losses, sizes, round: None, averaging="models", server_lr=1.0
):
    """IFCA and HypCluster as loops over clients; returns (models, {client: cluster} of rounds).

    Args:
      models: At the start.
      choose: (models, x, y, client, round) -> cluster.
      seen: Told of the losses [clients, K] of a round and its sizes, after it.
    """
    history = []
    for round, cohort in enumerate(COHORTS):
        changes, weights = [[] for _ in models], [[] for _ in models]
        where, losses, sizes = {}, [], []
        for client in cohort:
            x, y = toy.clients()[client]
            if not len(y):
                continue
            losses.append(losses_on(models, x, y))
            sizes.append(len(y))
            best = where[client] = choose(models, x, y, client, round)
            if averaging == "models":
                trained = reference.local_sgd(models[best], x, y, LR, 4, 2)[0]
                change = reference.combine(np.subtract, trained, models[best])
            else:
                gradient = reference.loss_and_gradient(models[best], x, y)[1]
                change = reference.combine(np.negative, gradient)
            changes[best].append(change)
            weights[best].append(len(y))
        for number, (own, sizes_of) in enumerate(zip(changes, weights, strict=True)):
            if own:
                share = sum(sizes_of) / sum(sizes) if averaging == "gradients" else 1.0
                mean = reference.weighted_mean(own, sizes_of)
                models = list(models)
                models[number] = reference.combine(
                    lambda p, d, s=share: p + server_lr * s * d, models[number], mean
                )
        seen(np.array(losses), np.array(sizes), round)
        history.append(where)
    return models, history


def assert_equal(got, expected):
    for mine, theirs in zip(got, expected, strict=True):
        toy.assert_close(mine, theirs, 1e-9)


def sizes_of(stats, number):
    return [int(of_round[-1][f"cluster_{number}"].sum()) for of_round in stats]


@pytest.mark.parametrize(("averaging", "seed"), [("models", 0), ("gradients", 1)])
def test_ifca(averaging, seed):
    spec = algorithms.ifca(3, **{"models": {"client_lr": LR}}.get(averaging, {}), server_lr=0.9,
                           averaging=averaging)  # fmt: skip
    _, stats, start, got = run(spec, seed=seed)
    expected, history = loop(start, chosen_by_loss, averaging=averaging, server_lr=0.9)
    assert_equal(got, expected)
    for number in range(3):
        counted = [list(where.values()).count(number) for where in history]
        assert sizes_of(stats, number) == counted
    assert len({cluster for where in history for cluster in where.values()}) > 1


def test_initial_models_are_drawn_by_keys_of_their_own():
    _, _, start, _ = run(algorithms.ifca(3, LR), [])
    _, _, again, _ = run(algorithms.ifca(4, LR), [])
    _, _, other, _ = run(algorithms.ifca(3, LR), [], seed=1)
    *_, alone = run(algorithms.hypcluster(1, LR), [])
    assert_equal([start[0]], alone)
    assert_equal(start, again[:3])
    values = {model["b"][0] for model in start + other}
    assert len(values) == 6


def test_one_cluster_is_fedavg_bit_for_bit():
    runs = [
        toy.run_rounds(toy.clients(), spec, COHORTS, task=drawn_task(), local_epochs=2)[0]
        for spec in (algorithms.ifca(1, LR), algorithms.fedavg(LR))
    ]
    jax.tree.map(np.testing.assert_array_equal, *(toy.params_of(one_run) for one_run in runs))


def test_sets_of_models_compete_and_the_best_goes_on():
    """Which set a client trains for is drawn; the loop takes that from the run."""
    kept, drawn = -1, []

    def choose(models, x, y, client, round):
        own = drawn[round][client] // 2 if kept < 0 else kept
        return own * 2 + int(np.argmin(losses_on(models, x, y)[own * 2 : own * 2 + 2]))

    def seen(losses, sizes, round):
        nonlocal kept
        if kept < 0 and round + 1 >= 2:
            of_sets = losses.reshape(len(losses), 3, 2).min(2)
            kept = int(np.argmin(np.average(of_sets, axis=0, weights=sizes)))

    federation, stats, start, got = run(
        algorithms.ifca(2, LR, restarts=3, restart_rounds=2), chosen=drawn
    )
    expected, history = loop(start, choose, seen=seen)
    assert_equal(got, expected)
    assert int(federation.state.server.known[0]) == kept
    assert {cluster // 2 for cluster in history[-1].values()} == {kept}
    assert sum(sizes_of(stats, 0)) + sum(sizes_of(stats, 1)) == sum(map(len, history))


def test_hypcluster():
    """The clusters of its first round are drawn; the loop takes them from the run."""
    drawn = []
    _, _, start, got = run(algorithms.hypcluster(2, LR), chosen=drawn)
    jax.tree.map(np.testing.assert_array_equal, *start)

    def choose(models, x, y, client, round):
        return drawn[0][client] if round == 0 else chosen_by_loss(models, x, y, client, round)

    expected, history = loop(start, choose)
    assert_equal(got, expected)
    assert set(history[0].values()) == {0, 1}


def fedsoft_loop(start, mu, smoothing):
    """FedSoft as loops over clients; returns (centers, own models, largest importances)."""
    centers, own, largest = start, {}, []
    for cohort in COHORTS:
        models, weights, where = [], [], {}
        for client in cohort:
            x, y = toy.clients()[client]
            if not len(y):
                continue
            by_row = [
                [reference.loss_and_gradient(c, x[i : i + 1], y[i : i + 1])[0] for c in centers]
                for i in range(len(y))
            ]
            counts = np.bincount(np.argmin(by_row, axis=1), minlength=len(centers))
            u = np.maximum(counts / len(y), smoothing)
            where[client] = int(np.argmax(u))
            model = own.get(client, start[0])
            for batch_x, batch_y in reference.batches(x, y, 4, 2):
                _, gradient = reference.loss_and_gradient(model, batch_x, batch_y)
                model = reference.combine(
                    lambda w, g, *c, u=u: w - LR * (
                        g + mu * sum(us * (w - cs) for us, cs in zip(u, c, strict=True))
                    ),
                    model, gradient, *centers,
                )  # fmt: skip
            own[client] = model
            models.append(model)
            weights.append(u * len(y))
        centers = [reference.weighted_mean(models, of_center) for of_center in np.array(weights).T]
        largest.append(where)
    return centers, own, largest


def test_fedsoft():
    spec = algorithms.fedsoft(2, 0.3, LR, smoothing=0.01)
    federation, stats, start, got = run(spec)
    centers, own, largest = fedsoft_loop(start, 0.3, 0.01)
    assert_equal(got, centers)
    rows = jax.device_get(federation.store.rows_of(np.arange(9)).algorithm.own.params)
    for client, model in own.items():
        toy.assert_close(jax.tree.map(lambda leaf, i=client: leaf[i], rows), model, 1e-9)
    for number in range(2):
        counted = [list(where.values()).count(number) for where in largest]
        assert sizes_of(stats, number) == counted


def test_fedsoft_without_pull_is_training_alone():
    federation, _, start, _ = run(algorithms.fedsoft(2, 0.0, LR, smoothing=0.01))
    alone = reference.local_only(start[0], toy.clients(), COHORTS, lr=LR, batch_size=4, epochs=2)
    rows = jax.device_get(federation.store.rows_of(np.arange(9)).algorithm.own.params)
    for client, model in enumerate(alone):
        toy.assert_close(jax.tree.map(lambda leaf, i=client: leaf[i], rows), model, 1e-9)


def test_own_models_are_those_with_the_lowest_loss():
    federation, _, _, models = run(algorithms.ifca(3, LR))
    server = jax.tree.map(lambda leaf: leaf[0], federation.state.server)

    @jax.jit
    def own_model(x, y, mask):
        batch = {"x": x, "y": y, "mask": mask}
        return federation.algorithm.personalize(server, jnp.int32(-1), batch, jax.random.key(0))

    width = max(toy.SIZES)
    for client, size in enumerate(toy.SIZES):
        x, y = toy.clients()[client]
        rows = np.zeros((width, toy.FEATURES)), np.zeros(width, np.int32)
        rows[0][:size], rows[1][:size] = x, y
        own = jax.device_get(own_model(*rows, np.arange(width) < size).params)
        best = models[chosen_by_loss(models, x, y, client, 0)] if size else None
        toy.assert_close(own, best or toy.params_of(federation), 1e-12)


def test_records_compare_clusters_with_groups():
    """Planted: clients of a group have labels of their own, so that they agree on a model."""
    groups, owners = np.arange(12) % 2, np.repeat(np.arange(12), 5)
    x, y = np.ones((60, 2), np.float32), groups[owners]
    dataset = data.from_arrays(
        x, y, client_ids=owners, x_test=x, y_test=y, test_client_ids=owners, num_classes=2,
        groups={"kind": groups, "alone": np.arange(12)},
    )  # fmt: skip
    task = classification(softmax_regression(2, 2), 2)
    found = fljax.simulate(
        dataset, task, algorithms.hypcluster(2, 2.0), num_rounds=6, clients_per_round=12,
        eval_personal=-1, eval_every=3, devices=2, progress=False,
    )  # fmt: skip
    assert found.curves["train/adjusted_rand/kind"][-1] == 1
    assert found.curves["train/adjusted_rand/alone"][-1] == 0
    assert found.curves["train/cluster_0"][-1] == 6
    assert found.curves["eval/personal/accuracy"][-1] == 1
    keys = training_keys(dataset, task, algorithms.hypcluster(2, 2.0))
    assert {key for key in found.curves if key.startswith("train/")} <= {*keys, "train/loss"}
    of_clients = found.client_metrics
    assert adjusted_rand_index(of_clients["personal/cluster"], groups) == 1
    history = of_clients["history/personal/cluster"]
    assert history[0].tolist() == [-1] * 12 and set(history[1]) == {0, 1}


def test_trials_of_one_program_are_runs_of_their_own():
    """Two trials on two devices, with their own numbers, against each alone on one."""
    numbers = ((0.2, 1.0), (0.05, 2.0))
    specs = [algorithms.ifca(2, lr, restarts=2, restart_rounds=r) for lr, r in numbers]
    seeds = (0, 7)
    trials = [
        TrialInputs(seed, hyperparameters(spec, Pipeline()))
        for spec, seed in zip(specs, seeds, strict=True)
    ]
    tables = [job_table(cohort * 2, trial=np.repeat([0, 1], len(cohort))) for cohort in COHORTS]
    shared = {"task": drawn_task(), "local_epochs": 2}
    together = harness.rounds(specs[0], tables, harness.Layout(2, 2, 3), trials=trials, **shared)
    for number, (spec, seed) in enumerate(zip(specs, seeds, strict=True)):
        alone = harness.rounds(spec, COHORTS, seed=seed, **shared)
        ours, theirs = (
            jax.tree.map(lambda leaf, n=n: np.asarray(leaf[n]), run.states[-1].server)
            for run, n in ((together, number), (alone, 0))
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs
        )
        rows = [run.client_rows(n).algorithm for run, n in ((together, number), (alone, 0))]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *rows)


def test_what_clusters_cannot_do_is_refused():
    with pytest.raises(ValueError, match="num_clusters = 0"):
        algorithms.ifca(0)
    with pytest.raises(ValueError, match="starts from 2 that must differ"):
        run(algorithms.ifca(2), [], initial_params=toy.initial_params())
    with pytest.raises(ValueError, match="the same parameters whatever its key"):
        run(algorithms.ifca(2), [], task=toy.softmax_task())
    with pytest.raises(TypeError, match="nothing reads the hyperparameter client_lr"):
        run(algorithms.ifca(2, 0.3, averaging="gradients"), COHORTS[:1])
