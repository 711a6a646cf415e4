"""A client has its own evaluation: its own model, judged on its own held-out rows."""

import dataclasses

import jax
import numpy as np
import pytest
import reference
import toy

import fljax
from fljax import algorithms, data
from fljax.training.record_keys import evaluation_keys

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

RATE, ROUNDS = 0.3, 3
DATA = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.3)
OWNERS = np.flatnonzero(DATA.val.partition.sizes)


def personalized(spec, make):
    """Returns an algorithm with `personalize`, and what else `make` changes of it."""

    def build(task, hp):
        algorithm = spec.build(task, hp)
        return algorithm._replace(**make(task, hp, algorithm))

    return spec._replace(build=build)


def a_step_of_its_own():
    """A client's model is the global one after a step of gradient descent on the client's rows."""

    def make(task, hp, algorithm):
        def personalize(server, own, batch, key):
            params, state = algorithm.variables(server)
            gradient, _, state = task.gradient(params, state, batch, key)
            stepped = jax.tree.map(lambda p, g: p - hp["client_lr"] * g, params, gradient)
            return algorithm.variables(server)._replace(params=stepped, model_state=state)

        return {"personalize": personalize}

    return personalized(algorithms.fedavg(RATE), make)


def a_bias_of_its_own():
    """A client keeps the bias of its local model, and its own model has that one."""

    def make(task, hp, algorithm):
        local = algorithm.passes[0]

        def finish(message, carry, job):
            sent, _, stats = local.finish(message, carry, job)
            return sent, carry.params["b"], stats

        def personalize(server, own, batch, key):
            variables = algorithm.variables(server)
            return variables._replace(params={**variables.params, "b": own})

        return {
            "passes": (local._replace(finish=finish),),
            "init_client": lambda variables: variables.params["b"],
            "personalize": personalize,
        }

    return personalized(algorithms.fedavg(RATE), make)


def noise_of_its_own():
    """A client's model is the global one and a draw of the client's key."""

    def make(task, hp, algorithm):
        def personalize(server, own, batch, key):
            variables = algorithm.variables(server)
            noise = jax.random.normal(key, variables.params["b"].shape)
            return variables._replace(params={**variables.params, "b": noise})

        return {"personalize": personalize}

    return personalized(algorithms.fedavg(RATE), make)


def federate(spec, dataset=DATA, **options):
    """Runs rounds of full-batch steps of all clients; returns (run, parameters of each round)."""
    models = [toy.initial_params(np.float32)]
    defaults = {
        "num_rounds": ROUNDS, "clients_per_round": 9, "batch_size": 0, "eval_every": 1,
        "eval_batch_size": 4, "eval_personal": -1, "devices": 2, "progress": False,
        "hooks": [lambda federation, record: models.append(toy.params_of(federation))],
    }  # fmt: skip
    task = toy.softmax_task(np.float32)
    return fljax.simulate(dataset, task, spec, **(defaults | options)), models


def rows_of(split, client):
    rows = split.examples.take(split.partition.rows(client))
    return rows["x"].astype(np.float64), rows["y"]


def stepped(params, client):
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    x, y = rows_of(DATA.train, client)
    if not len(y):
        return params
    gradient = reference.loss_and_gradient(params, x, y)[1]
    return {name: leaf - RATE * gradient[name] for name, leaf in params.items()}


def judged(params, client):
    """Returns (loss, accuracy, rows) on the client's held-out rows, in float64."""
    x, y = rows_of(DATA.val, client)
    loss = reference.loss_and_gradient(params, x, y)[0] / len(y)
    return loss, ((x @ params["w"] + params["b"]).argmax(1) == y).mean(), len(y)


def after_a_step(models, round, client):
    return stepped(models[round], client)


def with_its_bias(models, round, client):
    params = {name: np.asarray(leaf, np.float64) for name, leaf in models[round].items()}
    return {**params, "b": stepped(models[round - 1], client)["b"]} if round else params


@pytest.mark.parametrize(
    ("make", "own_model", "options"),
    [
        (a_step_of_its_own, after_a_step, {}),
        (a_step_of_its_own, after_a_step, {"placement": "stream", "devices": 3}),
        (a_bias_of_its_own, with_its_bias, {}),
    ],
)
def test_own_models_equal_a_loop_over_clients(make, own_model, options):
    run, models = federate(make(), **options)
    found = run.client_metrics
    assert found["personal/client"].tolist() == OWNERS.tolist()
    assert found["personal/split"].tolist() == ["training"] * len(OWNERS)
    expected = np.array(
        [
            [judged(own_model(models, round, client), client) for client in OWNERS]
            for round in run.rounds
        ]
    )
    assert found["personal/examples"].tolist() == expected[0, :, 2].tolist()
    losses, accuracies, sizes = np.moveaxis(expected, 2, 0)
    np.testing.assert_allclose(found["history/personal/loss"], losses, rtol=1e-4)
    np.testing.assert_allclose(found["history/personal/accuracy"], accuracies, rtol=1e-6)
    np.testing.assert_array_equal(found["personal/loss"], found["history/personal/loss"][-1])
    pooled = np.average(losses, axis=1, weights=sizes[0])
    np.testing.assert_allclose(run.curves["eval/personal/loss"], pooled, rtol=1e-4)
    pooled = np.average(accuracies, axis=1, weights=sizes[0])
    np.testing.assert_allclose(run.curves["eval/personal/accuracy"], pooled, rtol=1e-6)
    mean, worst = accuracies.mean(1), accuracies.min(1)
    np.testing.assert_allclose(run.curves["eval/personal/mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(run.curves["eval/personal/worst"], worst, rtol=1e-6)


def test_the_global_model_is_trained_and_judged_as_without_it(tmp_path):
    with_own, _ = federate(a_step_of_its_own(), workdir=tmp_path, eval_clients=-1)
    without, _ = federate(algorithms.fedavg(RATE), eval_personal=0, eval_clients=-1)
    jax.tree.map(np.testing.assert_array_equal, with_own.variables, without.variables)
    more = {key for key in with_own.curves if key.startswith("eval/personal/")}
    assert with_own.curves.keys() - without.curves.keys() == more
    for key in without.curves:
        if not key.startswith(("time/", "throughput/")):
            np.testing.assert_array_equal(with_own.curves[key], without.curves[key])
    assert with_own.summary["best"]["round"] == without.summary["best"]["round"]
    found, plain = fljax.load_run(tmp_path).client_metrics, without.client_metrics
    for name, values in plain.items():
        np.testing.assert_array_equal(found[name], values)
    assert found["personal/client"].tolist() == found["client"].tolist()


def test_keys_are_those_of_seed_round_and_client():
    one, other = (
        federate(noise_of_its_own(), devices=devices)[0].client_metrics for devices in (1, 3)
    )
    losses = one["history/personal/loss"]
    np.testing.assert_allclose(other["history/personal/loss"], losses, rtol=1e-5)
    assert len(np.unique(losses.round(4))) == losses.size
    third = federate(noise_of_its_own(), seed=1)[0].client_metrics["history/personal/loss"]
    assert not np.isclose(third[0], losses[0]).any()


def test_a_sample_is_that_of_as_many_evaluated_clients():
    run, _ = federate(a_step_of_its_own(), eval_personal=3, eval_clients=3, num_rounds=1)
    found = run.client_metrics
    assert len(found["client"]) == 3
    assert found["personal/client"].tolist() == found["client"].tolist()
    assert not np.array_equal(found["personal/loss"], found["loss"])


def test_clients_without_a_global_model_are_judged_on_both():
    run, _ = federate(algorithms.local_only(RATE), num_rounds=2)
    params = [toy.initial_params(np.float64) for _ in range(DATA.num_clients)]
    for _ in range(2):
        params = [stepped(param, client) for client, param in enumerate(params)]
    expected = [judged(params[client], client)[:2] for client in OWNERS]
    found = run.client_metrics
    np.testing.assert_allclose(
        found["personal/loss"], [judgement[0] for judgement in expected], rtol=1e-4
    )
    test = DATA.test.examples.arrays
    trained = np.flatnonzero(DATA.train.partition.sizes)
    losses = [
        reference.loss_and_gradient(params[owner], test["x"], test["y"])[0] / len(test["y"])
        for owner in trained
    ]
    assert run.curves["eval/test/loss"][-1] == pytest.approx(np.mean(losses), rel=1e-4)


def test_without_own_models_the_global_one_is_judged():
    run, models = federate(algorithms.fedavg(RATE))
    expected = [judged(models[-1], client)[0] for client in OWNERS]
    np.testing.assert_allclose(run.client_metrics["personal/loss"], expected, rtol=1e-4)


def test_own_rows_are_needed_and_a_model_for_what_judges_it():
    with pytest.raises(ValueError, match="clients of 'local_only' share none"):
        federate(algorithms.local_only(RATE), eval_clients=2)
    with pytest.raises(ValueError, match="own no held-out rows.*val_fraction=0.2"):
        federate(a_step_of_its_own(), toy.dataset(toy.clients(dtype=np.float32)))


@pytest.fixture(scope="module")
def adapting():
    """Nine clients, an empty one among them, four of which never train; each owns test rows."""
    whole = dataclasses.replace(
        toy.dataset(toy.clients(dtype=np.float32)), test=None, groups={"site": list("aabbaabba")}
    )
    found = data.with_held_out(data.with_own_test(whole, 0.3), 0.4, seed=3)
    assert 0 in (found.held_out.partition.sizes + found.held_out_train.partition.sizes)
    return found


def trained(params, x, y, epochs=1, batch_size=None, rate=RATE):
    """Parameters after SGD on rows in the stored order, in float64."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    width = batch_size or max(len(y), 1)
    for start in list(range(0, len(y), width)) * epochs:
        batch = slice(start, start + width)
        gradient = reference.loss_and_gradient(params, x[batch], y[batch])[1]
        params = {name: leaf - rate * gradient[name] for name, leaf in params.items()}
    return params


def judged_of_new(adapting, params, client):
    x, y = rows_of(adapting.held_out, client)
    return reference.loss_and_gradient(params, x, y)[0] / len(y)


def assert_judged_by(run, adapting, model_of, models):
    """Asserts the losses of all new clients in all rounds, in the record and client by client."""
    owners = np.flatnonzero(adapting.held_out.partition.sizes)
    expected = np.array(
        [
            [
                judged_of_new(adapting, model_of(models[round], *own), client)
                for client in owners
                for own in [rows_of(adapting.held_out_train, client)]
            ]
            for round in run.rounds
        ]
    )
    table = run.client_metrics
    new = table["personal/split"] == "held_out"
    assert table["personal/client"][new].tolist() == owners.tolist()
    assert table["personal/id"][new].tolist() == adapting.held_out_ids[owners].tolist()
    np.testing.assert_allclose(table["history/personal/loss"][:, new], expected, rtol=1e-4)
    sizes = adapting.held_out.partition.sizes[owners]
    pooled = np.average(expected, axis=1, weights=sizes)
    np.testing.assert_allclose(run.curves["eval/new_clients/loss"], pooled, rtol=1e-4)
    for site in np.unique(sites := adapting.held_out_groups["site"][owners]).tolist():
        there = np.average(expected[:, sites == site], axis=1, weights=sizes[sites == site])
        found = run.curves[f"eval/new_clients/groups/site/{site}/loss"]
        np.testing.assert_allclose(found, there, rtol=1e-4)
    accuracies = table["history/personal/accuracy"][:, new].mean(1)
    np.testing.assert_allclose(run.curves["eval/new_clients/mean"], accuracies, rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"placement": "stream", "devices": 3}, {"local_epochs": 2, "batch_size": 3}]
)
def test_what_a_new_client_would_keep_is_its_state(adapting, options):
    """A client keeps the bias of its local model, which it trains from the newest model."""
    options = {"shuffle": False, "clients_per_round": 5} | options
    run, models = federate(a_bias_of_its_own(), adapting, **options)
    work = options.get("local_epochs", 1), options.get("batch_size")

    def own_model(params, x, y):
        kept = trained(params, x, y, *work) if len(y) else toy.initial_params(np.float64)
        return {**params, "b": kept["b"]}

    assert_judged_by(run, adapting, own_model, models)


def test_new_clients_adapt_as_the_algorithm_says(adapting):
    run, models = federate(a_step_of_its_own(), adapting, clients_per_round=5)
    assert_judged_by(run, adapting, trained, models)


def test_clients_adapt_at_rates_of_their_own_and_new_ones_at_the_plain_rate(adapting):
    factors = np.linspace(0.2, 1.8, adapting.num_clients)
    spec = algorithms.fine_tuning(RATE, finetune_epochs=1, finetune_batch_size=0)
    options = {"client_lr_factors": factors, "clients_per_round": 5, "num_rounds": 1}
    run, models = federate(spec, adapting, **options)
    assert_judged_by(run, adapting, trained, models)
    known = run.client_metrics["personal/split"] == "training"
    found = run.client_metrics["history/personal/loss"][-1, known]
    owners = run.client_metrics["personal/client"][known]
    assert owners.tolist() == np.flatnonzero(adapting.test.partition.sizes).tolist()
    for client, loss in zip(owners, found, strict=True):
        own = trained(models[-1], *rows_of(adapting.train, client), rate=RATE * factors[client])
        x, y = rows_of(adapting.test, client)
        expected = reference.loss_and_gradient(own, x, y)[0] / len(y)
        assert loss == pytest.approx(expected, rel=1e-4)


def test_new_clients_use_the_global_model_where_there_are_no_others(adapting):
    run, _ = federate(algorithms.fedavg(RATE), adapting, clients_per_round=5, num_rounds=1)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(
            run.curves[f"eval/new_clients/{name}"], run.curves[f"eval/held_out/{name}"], rtol=1e-6
        )
    metrics = toy.softmax_task(np.float32).metrics
    evaluated = {key for key in run.curves if key.startswith("eval/")}
    assert evaluated == set(evaluation_keys(adapting, metrics, eval_personal=-1))
    assert fljax.core.metrics.name_of("eval/new_clients/p10") == "accuracy, p10 over new clients"


def test_passes_of_several_kinds_follow_one_another(adapting):
    """Ditto without its pull, own epochs in a pass of their own: SGD from the initial model."""
    spec = algorithms.ditto(0.0, RATE, personal_epochs=3)
    options = {"shuffle": False, "batch_size": 4, "num_rounds": 1, "clients_per_round": 5}
    run, _ = federate(spec, adapting, **options)
    start = toy.initial_params(np.float64)
    assert_judged_by(run, adapting, lambda params, x, y: trained(start, x, y, 3, 4), [start, start])
