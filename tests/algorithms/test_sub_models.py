"""Sub-models of weak devices: equal to narrower models that are trained one by one."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sub_model_reference as reference
import toy

from fljax import algorithms, models, tasks
from fljax.core.algorithm import Variables, blank_job
from fljax.core.gradients import Population, bind
from fljax.core.hidden_units import hidden_units
from fljax.core.network import Network

fjord_module = sys.modules["fljax.algorithms.fjord"]

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORTS = [[0, 1, 2, 3], [3, 4, 8], [5, 6, 7, 0, 4]]
RATES = (1.0, 0.5, 0.3)
LEVELS = (0, 1, 2, 1, 2, 2, 0, 1, 2)
HIDDEN = (8, 7)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def numbers_sent(stats):
    """Returns how many numbers of 64 bits each job has sent, in ascending order."""
    bits = np.asarray(stats[-1]["uplink_bits"])
    return sorted(int(number) // 64 for number in bits[bits > 0])


def mlp_params():
    draw = np.random.default_rng(3).standard_normal
    first, second = HIDDEN
    return {
        "w0": draw((toy.FEATURES, first)), "b0": draw(first), "w1": draw((first, second)) / 2,
        "b1": draw(second), "w2": draw((second, toy.CLASSES)), "b2": draw(toy.CLASSES),
    }  # fmt: skip


def mlp_task(activation=jax.nn.relu):
    def apply(params, x):
        x = activation(x @ params["w0"] + params["b0"])
        x = activation(x @ params["w1"] + params["b1"])
        return x @ params["w2"] + params["b2"]

    return tasks.classification(
        (lambda key: jax.tree.map(jnp.asarray, mlp_params()), apply), toy.CLASSES
    )


def first(client, round):
    return [np.arange(math.ceil(np.round(RATES[LEVELS[client]] * n, 9))) for n in HIDDEN]


def rolling(client, round):
    counts = [max(1, math.floor(RATES[LEVELS[client]] * n)) for n in HIDDEN]
    return [(round + np.arange(count)) % n for count, n in zip(counts, HIDDEN, strict=True)]


def check_mlp(spec, held, *, cohorts=COHORTS, **more):
    federation, stats = toy.run_rounds(
        toy.clients(), spec, cohorts, task=mlp_task(), local_epochs=2
    )
    expected, _ = reference.federated(
        mlp_params(), toy.clients(), cohorts, layers=reference.MLP_LAYERS, held=held,
        gradient=reference.mlp_gradient, lr=0.1, batch_size=4, epochs=2, **more,
    )  # fmt: skip
    toy.assert_close(toy.params_of(federation), expected, 1e-9)
    return stats


@pytest.mark.parametrize("scaler", [True, False])
def test_heterofl(scaler):
    spec = algorithms.heterofl(RATES, 0.1, levels=LEVELS, scaler=scaler)
    scale = (lambda client: 1 / RATES[LEVELS[client]]) if scaler else (lambda client: 1.0)
    check_mlp(spec, first, weighting="uniform", scale=scale)


def test_fedrolex():
    check_mlp(algorithms.fedrolex(RATES, 0.1, levels=LEVELS), rolling)


def test_fjord(monkeypatch):
    def key_of(client, round, step):
        key = jax.random.key(5)
        for number in (client, round, step):
            key = jax.random.fold_in(key, number)
        return key

    monkeypatch.setattr(
        fjord_module, "step_key", lambda job: key_of(job.client, job.round, job.step)
    )

    def in_step(client, round, step):
        key = jax.random.fold_in(key_of(client, round, step), fjord_module._PURPOSE)
        widths = sorted(rate for rate in RATES if rate <= RATES[LEVELS[client]])
        width = widths[int(jax.random.randint(key, (), 0, len(widths)))]
        return [np.arange(math.ceil(np.round(width * n, 9))) for n in HIDDEN]

    check_mlp(algorithms.fjord(RATES, 0.1, levels=LEVELS), first, in_step=in_step)


def test_layer_freezing():
    """Level 0 trains all, level 1 the last layer, level 2 the first."""
    trained = (mlp_params().keys(), {"w2", "b2"}, {"w0", "b0"})
    params, parts = mlp_params(), toy.clients()
    for cohort in COHORTS:
        total, weight = ({name: 0 * leaf for name, leaf in params.items()} for _ in range(2))
        for client in cohort:
            x, y = parts[client]
            own = dict(params)
            for start in range(0, len(y), 4):
                rows = slice(start, start + 4)
                grads = reference.mlp_gradient(own, x[rows], y[rows], 1.0)
                for name in trained[LEVELS[client]]:
                    own[name] = own[name] - 0.1 * grads[name]
            for name in trained[LEVELS[client]]:
                total[name] += len(y) * own[name]
                weight[name] += len(y)
        params = {
            name: np.where(weight[name] > 0, total[name] / np.maximum(weight[name], 1), leaf)
            for name, leaf in params.items()
        }
    spec = algorithms.layer_freezing("all; w2, b2; w0, b0", 0.1, levels=LEVELS)
    federation, stats = toy.run_rounds(parts, spec, COHORTS, task=mlp_task())
    toy.assert_close(toy.params_of(federation), params, 1e-9)
    first_layer, last = 6 * 8 + 8, 7 * toy.CLASSES + toy.CLASSES
    everything = first_layer + 8 * 7 + 7 + last
    assert numbers_sent(stats[0]) == [last, first_layer, everything]  # client 1 has no rows


CONV_LAYERS = {
    "k0": (None, None, None, 0), "c0": (0,), "s0": (0,), "o0": (0,), "m0": (0,), "v0": (0,),
    "k1": (None, None, 0, 1), "c1": (1,), "s1": (1,), "o1": (1,), "m1": (1,), "v1": (1,),
    "w": (1, None), "b": (None,),
}  # fmt: skip
CHANNELS = (4, 6)


def conv_variables():
    draw = np.random.default_rng(4).standard_normal
    params, state, inputs = {}, {}, 1
    for layer, channels in enumerate(CHANNELS):
        params[f"k{layer}"] = draw((3, 3, inputs, channels)) / 3
        params[f"c{layer}"] = draw(channels)
        params[f"s{layer}"] = 1 + draw(channels) / 4
        params[f"o{layer}"] = draw(channels)
        state |= {f"m{layer}": np.zeros(channels), f"v{layer}": np.ones(channels)}
        inputs = channels
    return params | {"w": draw((inputs, toy.CLASSES)), "b": draw(toy.CLASSES)}, state


def conv_outputs(params, state, x, scale=1.0):
    """Convolutions with a bias, batch normalization and ReLU, the mean over places, and a layer."""
    after = {}
    for layer in range(len(CHANNELS)):
        x = jax.lax.conv_general_dilated(
            x, params[f"k{layer}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = scale * (x + params[f"c{layer}"])
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        after |= {
            f"m{layer}": 0.9 * state[f"m{layer}"] + 0.1 * mean,
            f"v{layer}": 0.9 * state[f"v{layer}"] + 0.1 * var,
        }
        x = (x - mean) / jnp.sqrt(var + 1e-5) * params[f"s{layer}"] + params[f"o{layer}"]
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ params["w"] + params["b"], after


def conv_gradient(*arguments):
    return jax.device_get(_conv_gradient(*arguments))


@jax.jit
def _conv_gradient(params, state, x, y, scale):
    def loss(params):
        logits, after = conv_outputs(params, state, x, scale)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean(), after

    return jax.grad(loss, has_aux=True)(params)


def conv_task():
    def init(key):
        params, state = jax.tree.map(jnp.asarray, conv_variables())
        return params, {}, state

    def apply(params, frozen, state, x, key, train, mask):
        logits, after = conv_outputs(params, state, x)
        return logits, after if train else state

    return tasks.classification(Network(init, apply), toy.CLASSES)


def static_statistics(parts, cohorts, params, state, held):
    """Returns the statistics after rounds whose cohorts read their rows with the new model."""
    for number in range(len(cohorts)):
        trained, _ = reference.federated(
            params, parts, cohorts[: number + 1], layers=CONV_LAYERS, held=held,
            gradient=conv_gradient, lr=0.1, batch_size=4, weighting="uniform", state=state,
            scale=lambda client: 1 / RATES[client % 3],
        )  # fmt: skip
        if not number:
            mean = state
        found = []
        for client in cohorts[number]:
            own, (x, _) = mean, parts[client]
            for start in range(0, len(x), 4):
                _, own = conv_outputs(trained, own, x[start : start + 4])
            found.append(own)
        mean = jax.device_get(jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *found))
    return mean


@pytest.mark.parametrize("name", ["heterofl", "fedrolex", "static_norm"])
def test_convolutions_with_batch_normalization(name):
    """With `static_norm`, statistics are those of the whole model after its update."""
    draw = np.random.default_rng(5)
    parts = [
        (draw.standard_normal((n, 4, 4, 1)), draw.integers(0, toy.CLASSES, n).astype(np.int32))
        for n in (4, 8, 12, 4)
    ]

    def held(client, round):
        if name != "fedrolex":
            return [np.arange(math.ceil(RATES[client % 3] * n)) for n in CHANNELS]
        counts = [max(1, math.floor(RATES[client % 3] * n)) for n in CHANNELS]
        return [(round + np.arange(count)) % n for count, n in zip(counts, CHANNELS, strict=True)]

    cohorts = [[1, 2], [0, 1, 3], [2, 1]]
    options = {"levels": [0, 1, 2, 0], "scaler": True}
    if name == "static_norm":
        spec = algorithms.heterofl(RATES, 0.1, static_norm=True, **options)
    else:
        spec = getattr(algorithms, name)(RATES, 0.1, **options)
    federation, _ = toy.run_rounds(parts, spec, cohorts, task=conv_task())
    params, state = conv_variables()
    expected, after = reference.federated(
        params, parts, cohorts, layers=CONV_LAYERS, held=held, gradient=conv_gradient, lr=0.1,
        batch_size=4, weighting="examples" if name == "fedrolex" else "uniform", state=state,
        scale=lambda client: 1 / RATES[client % 3],
    )  # fmt: skip
    toy.assert_close(toy.params_of(federation), expected, 1e-9)
    if name == "static_norm":
        after = static_statistics(parts, cohorts, params, state, held)
    got = jax.device_get(federation.variables.model_state)
    toy.assert_close(got, after, 1e-9)


@pytest.mark.parametrize("name", ["heterofl", "fedrolex", "fjord"])
def test_rate_one_is_fedavg(name):
    """Bit for bit, whatever the rows and whoever takes part."""
    spec = getattr(algorithms, name)("1", 0.1, weighting="examples")
    plain, _ = toy.run_rounds(toy.clients(), algorithms.fedavg(0.1), COHORTS, task=mlp_task())
    whole, _ = toy.run_rounds(toy.clients(), spec, COHORTS, task=mlp_task())
    jax.tree.map(np.testing.assert_array_equal, toy.params_of(whole), toy.params_of(plain))


def test_what_nobody_holds_stays_and_traffic_is_that_of_the_part():
    cohorts = [[2, 4, 5], [8, 5]]  # of the smallest level all of them
    spec = algorithms.heterofl(
        RATES, 0.1, levels=LEVELS, client_momentum=0.9, client_weight_decay=0.1,
        server_optimizer=lambda hp: optax.adam(0.1),
    )  # fmt: skip
    federation, stats = toy.run_rounds(toy.clients(), spec, cohorts, task=mlp_task())
    before, after = mlp_params(), toy.params_of(federation)
    held = first(2, 0)
    for name, leaf in after.items():
        outside = np.ones(leaf.shape, bool)
        outside[reference._places(leaf, reference.MLP_LAYERS[name], held)] = False
        np.testing.assert_array_equal(leaf[outside], before[name][outside])
        assert (leaf != before[name])[~outside].all()
    a, b = map(len, held)
    numbers = toy.FEATURES * a + a + a * b + b + b * toy.CLASSES + toy.CLASSES
    assert numbers_sent(stats[0]) == [numbers] * 3


def test_a_model_without_the_largest_rate_is_judged_by_its_largest_part():
    spec = algorithms.heterofl("0.5, 0.3", 0.1)
    federation, _ = toy.run_rounds(toy.clients(), spec, COHORTS[:1], task=mlp_task())
    judged = toy.params_of(federation)
    assert (judged["w1"][4:] == 0).all() and (judged["w1"][:4, :4] != 0).all()


def units_of(model, shape=(5,), classes=3):
    task = tasks.classification(model, classes)
    params, frozen, state = jax.eval_shape(task.init, jax.random.key(0))
    like = {"x": jnp.zeros((2, *shape)), "y": jnp.zeros(2, int), "mask": jnp.ones(2, bool)}
    return hidden_units(bind(task, frozen, like=like), Variables(params, state))


def test_hidden_units_are_found_in_models_of_fljax():
    assert units_of(models.mlp((5, 8, 7, 3))).sizes == (8, 7)
    assert units_of(models.mcmahan_cnn(3), (28, 28, 1)).sizes == (32, 64, 512)
    assert units_of(models.emnist_cnn(3), (28, 28, 1)).sizes == (32, 64, 128)
    found = units_of(models.lenet_cnn(3, (28, 28, 1), conv_form="gemm"), (28, 28, 1))
    assert found.sizes == (6, 16, 120, 84)
    assert found.places.params["dense1"]["kernel"].axes == (
        ((4, None), (4, None), (16, 1)), ((120, 2),)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (models.softmax_regression(5, 3), (5,), "no hidden units"),
        (
            models.resnet_gn(3, (8, 8, 3), depth=20),
            (8, 8, 3),
            "norm2/scale.*taken apart into groups",
        ),
        (
            (
                lambda key: {"a": jnp.ones((5, 4)), "b": jnp.ones((4, 3))},
                lambda p, x: jax.nn.softmax(x @ p["a"]) @ p["b"],
            ),
            (5,),
            "those of a, b are averaged or compared",
        ),
        (
            (
                lambda key: {"a": jnp.ones((5, 4)), "b": jnp.ones((4, 3))},
                lambda p, x: jnp.sort(x @ p["a"]) @ p["b"],
            ),
            (5,),
            "those of b are made by sort",
        ),
        (
            (
                lambda key: {"a": jnp.ones((5, 4)), "b": jnp.ones((4, 3))},
                lambda p, x: jax.nn.sigmoid(x @ p["a"]) @ jnp.exp(p["b"]),
            ),
            (5,),
            "those of a, b are summed over where",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(model, shape, message):
    with pytest.raises(ValueError, match=message):
        units_of(model, shape)


def test_levels_have_the_shares_that_are_wanted():
    spec = fjord_module.levels_of(3, None, "1, 2, 1", False, 7)
    task = bind(mlp_task(), {})._replace(population=Population(num_clients=100))
    job = blank_job(jax.random.key(0))
    level = jax.vmap(lambda client: spec.of(task)(job._replace(client=client)))(jnp.arange(100))
    assert np.bincount(level).tolist() == [25, 50, 25]
    drawn = fjord_module.levels_of(3, None, "1, 2, 1", True, 7).of(task)
    keys = jax.random.split(jax.random.key(1), 4000)
    counts = np.bincount(jax.vmap(lambda key: drawn(job._replace(key=key)))(keys))
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: algorithms.heterofl("1, 2"), r"rates\[1\] = 2"),
        (lambda: algorithms.heterofl("one"), "rates = 'one'"),
        (lambda: algorithms.fjord(()), "at least one of numbers"),
        (lambda: algorithms.fedrolex("1, 0.5", shares="1"), "1 entries for 2 levels"),
        (lambda: algorithms.heterofl("1, 0.5", levels=[0, 2]), "from 0 to 1 for each client"),
        (lambda: algorithms.heterofl("1, 0.5", levels=[0, 1], dynamic=True), "Leave out the one"),
        (lambda: algorithms.layer_freezing("all; "), r"trained\[1\]"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
