"""Low-rank adapters: nothing but they are trained, as loops over clients train them in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

import fljax
from fljax import data, models, tasks
from fljax.config.experiment import parameter_shapes
from fljax.core.safetensors import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

KEY = jax.random.key(1)
FEATURES, CLASSES, RANK, SCALE, RATE = 4, 3, 2, 3.0, 0.1
ADAPTERS = "lora(rank=2, alpha=6)"


def paths(tree):
    return {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


def drawn(tree, seed=0):
    draw = np.random.default_rng(seed).standard_normal
    return jax.tree.map(lambda leaf: 0.3 * draw(leaf.shape).astype("f"), tree)


class Several(nnx.Module):
    """A convolution, layers of several axes, as attention of Flax's own has, and a dense layer."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (2, 2), rngs=rngs)
        self.query = nnx.LinearGeneral(4, (2, 3), rngs=rngs)
        self.head = nnx.LinearGeneral((2, 3), CLASSES, axis=(-2, -1), rngs=rngs)
        self.last = nnx.Linear(CLASSES, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.last(self.head(self.query(self.conv(x).mean((1, 2)))))


def test_adapters_change_nothing_at_first_and_later_are_a_change_of_weights():
    base = tasks.from_nnx(Several)
    network = models.lora(Several, rank=2, alpha=5, targets="dense, conv")
    own, (params, frozen, state) = jax.jit(lambda key: (base.init(key), network.init(key)))(KEY)
    trained = drawn(params)
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 1)).astype("f")

    @jax.jit
    def computed(trained):
        merged = models.merged(trained, frozen)
        adapted = network.apply(trained, frozen, {}, x, None, False, None)[0]
        return merged, adapted, base.apply(merged, {}, {}, x, None, False, None)[0]

    first, *_ = computed(params)
    jax.tree.map(np.testing.assert_array_equal, first, own[0])
    assert not jax.tree.leaves(own[1:]) and state == {}
    merged, adapted, plain = computed(trained)
    np.testing.assert_allclose(adapted, plain, rtol=1e-4, atol=1e-5)
    query = trained["query"]["dot_general"]
    change = np.tensordot(query["a"], query["b"], 1) * 2.5
    got = merged["query"]["kernel"] - own[0]["query"]["kernel"]
    np.testing.assert_allclose(got, change, rtol=1e-4, atol=1e-5)
    layers = ("conv/kernel_lora", "query/dot_general", "head/dot_general", "last/dot_general")
    assert paths(trained).keys() == {f"{layer}/{name}" for layer in layers for name in "ab"}


def test_what_is_trained_is_what_was_asked_for():
    model = models.mlp((4, 5, 3))
    params, frozen, _ = jax.eval_shape(models.lora(model, 2, train="layers/1").init, KEY)
    assert paths(params) == {
        "layers/0/dot_general/a": (4, 2),
        "layers/0/dot_general/b": (2, 5),
        "layers/1/kernel": (5, 3),
        "layers/1/bias": (3,),
    }
    assert paths(frozen).keys() == {
        "layers/0/bias",
        "layers/0/kernel",
        "layers/0/dot_general/scale",
    }
    params, _, _ = jax.eval_shape(models.lora(model, 2, targets="not layers/0").init, KEY)
    assert paths(params).keys() == {"layers/1/dot_general/a", "layers/1/dot_general/b"}
    lstm = models.char_lstm(9, embedding=3, hidden=4, layers=1)
    params, _, _ = jax.eval_shape(models.lora(lstm, 1, targets="*_kernel").init, KEY)
    assert paths(params) == {
        f"layers/0/{name}_kernel_lora/{part}": shape
        for name, inputs in (("input", 3), ("hidden", 4))
        for part, shape in (("a", (inputs, 1)), ("b", (1, 16)))
    }
    functions = (lambda key: {"w": jnp.zeros((4, 3))}, lambda params, x: x @ params["w"])
    params, _, _ = jax.eval_shape(models.lora(functions, 1).init, KEY)
    assert paths(params) == {"w_lora/a": (4, 1), "w_lora/b": (1, 3)}


def test_a_frozen_a_is_the_same_for_every_seed():
    network = models.lora(models.mlp((4, 3)), rank=2, freeze_a=True)
    inits = jax.jit(lambda keys: [network.init(key)[:2] for key in keys])
    (params, frozen), (_, others) = inits(jax.random.split(KEY, 2))
    assert paths(params) == {"layers/0/dot_general/b": (2, 3)}
    first, second = (each["layers"]["0"] for each in (frozen, others))
    np.testing.assert_array_equal(first["dot_general"]["a"], second["dot_general"]["a"])
    assert (first["kernel"] != second["kernel"]).any()


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"rank": 0}, "rank = 0 must be at least 1"),
        ({"alpha": 0.0}, "alpha = 0.0 must be above 0"),
        ({"targets": "attention"}, "targets = 'attention' means no weights.* layers/0/bias"),
        ({"targets": 3}, "targets = 3"),
        ({"targets": "layers/0/bias"}, "means no weights of two axes"),
        ({"targets": lambda path: True}, "cannot be called with the path"),
        ({"train": "head"}, "train = 'head' means no parameter. The model has layers/0/bias"),
    ],
)
def test_what_means_nothing_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        models.lora(models.mlp((4, 3)), **options)


def federated():
    """Returns unequal clients, and weights to start from."""
    draw = np.random.default_rng(3)
    x = draw.standard_normal((12, FEATURES)).astype("f")
    y = draw.integers(0, CLASSES, 12)
    dataset = data.from_arrays(
        x, y, client_ids=np.repeat([0, 1, 2], [3, 4, 5]), x_test=x, y_test=y, num_classes=CLASSES
    )
    kernel = draw.standard_normal((FEATURES, CLASSES)).astype("f")
    return dataset, {
        "layers.0.kernel": kernel,
        "layers.0.bias": draw.standard_normal(3).astype("f"),
    }


def test_a_run_trains_and_sends_adapters_alone_as_a_loop_over_clients(tmp_path):
    dataset, weights = federated()
    base = tmp_path / "base.safetensors"
    write_tensors(base, weights)
    model = {"init_from": str(base), "adapters": ADAPTERS}
    options = {
        "num_rounds": 2, "clients_per_round": 3, "local_steps": 2, "batch_size": 0,
        "progress": False, "lanes": 1, "devices": 1,
    }  # fmt: skip
    federation = fljax.algorithms.fedavg(RATE)
    run = fljax.simulate(dataset, "mlp(hidden=[])", federation, **model, **options)
    # frozen: the file's bits
    layer = run.frozen["layers"]["0"]
    np.testing.assert_array_equal(layer["kernel"], weights["layers.0.kernel"], strict=True)
    np.testing.assert_array_equal(layer["bias"], weights["layers.0.bias"], strict=True)
    # bytes: of A and B
    size = 4 * RANK * (FEATURES + CLASSES)
    assert run.curves["comm/client_uplink_bytes_max"][1:].tolist() == [size, size]
    # a loop over clients, in float64
    started = models.lora(models.with_weights(models.mlp((4, 3)), base), RANK, SCALE * RANK)
    assert paths(run.variables.params) == paths(jax.eval_shape(started.init, KEY)[0])
    a, b = first_adapter(dataset, model)
    x, y = (np.asarray(dataset.train.examples.take(np.arange(12))[name]) for name in "xy")
    rows = np.split(np.arange(12), [3, 7])
    for _ in range(2):
        ends = [trained(x[mine], y[mine], a, b, weights) for mine in rows]
        a, b = (np.average([end[k] for end in ends], axis=0, weights=[3, 4, 5]) for k in (0, 1))
    adapter = run.variables.params["layers"]["0"]["dot_general"]
    np.testing.assert_allclose(adapter["a"], a, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(adapter["b"], b, rtol=1e-4, atol=1e-6)
    # the file that the run exports is the model that it adapted
    exported, _ = read_tensors(run.export(tmp_path / "merged.safetensors", names="torch"))
    kernel = weights["layers.0.kernel"] + SCALE * a @ b
    np.testing.assert_allclose(exported["layers.0.weight"].T, kernel, rtol=1e-4, atol=1e-5)
    predict = fljax.predictor(run, models.mlp((4, 3)))
    expected = x @ kernel + weights["layers.0.bias"]
    np.testing.assert_allclose(predict(x.astype("f")), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="This run has no best model"):
        run.export(tmp_path / "best.safetensors", which="best")


def first_adapter(dataset, model):
    """Returns A and B as a run starts from them."""
    from fljax.training.task_choice import as_task
    from fljax.training.trials import TrialInputs, initial_trials

    task = as_task("mlp(hidden=[])", dataset, **model)
    variables = initial_trials(task, [TrialInputs(0, {})], [3]).variables
    adapter = variables.params["layers"]["0"]["dot_general"]
    return np.asarray(adapter["a"][0], float), np.asarray(adapter["b"][0], float)


def trained(x, y, a, b, weights):
    """Returns A and B after two steps of gradient descent on the mean cross entropy."""
    kernel, bias = weights["layers.0.kernel"].astype(float), weights["layers.0.bias"].astype(float)
    for _ in range(2):
        logits = x @ (kernel + SCALE * a @ b) + bias
        errors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(CLASSES)[y]
        slope = SCALE * x.T @ errors / len(x)
        a, b = a - RATE * slope @ b.T, b - RATE * a.T @ slope
    return a, b


def test_a_configuration_says_the_same(tmp_path):
    weights = {"layers.0.weight": np.ones((10, 64), "f"), "layers.0.bias": np.ones(10, "f")}
    write_tensors(tmp_path / "base.safetensors", weights)
    config = {"dataset": "digits", "model": "mlp", "model_options": {"hidden": ()}}
    config |= {"num_clients": 4, "clients_per_round": 2, "adapters": ADAPTERS}
    config["init_from"] = str(tmp_path / "base.safetensors")
    assert paths(parameter_shapes(config)) == {
        "layers/0/dot_general/a": (64, 2),
        "layers/0/dot_general/b": (2, 10),
    }
    for wrong, problem in (
        ({"adapters": "lora(rank=0)"}, "rank = 0 must be at least 1"),
        ({"adapters": "lara"}, "Did you mean 'lora'"),
        ({"model_options": {"hidden": (5,)}}, "not those of the model: without layers.1.bias"),
    ):
        with pytest.raises(ValueError, match=problem):
            parameter_shapes(config | wrong)


def test_constants_that_are_others_are_refused_on_resume():
    from fljax.training.resume import check_identity, frozen_fingerprint

    frozen = {"kernel": np.zeros((4, 3), "f")}
    assert frozen_fingerprint({}) == {}
    now, saved = (
        frozen_fingerprint({"kernel": leaf}) for leaf in (frozen["kernel"] + 1, frozen["kernel"])
    )
    with pytest.raises(ValueError, match="constants of the model was"):
        check_identity(now, saved, "The checkpoint")
    check_identity(now, {}, "An older checkpoint")
    assert frozen_fingerprint({"key": KEY, "none": np.zeros((0, 2))})
