"""bfloat16 in the clients' forward and backward passes, and nowhere else."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import toy
from equations import equations_of
from flax import nnx

import fljax_kernels
from fljax import algorithms, models, tasks
from fljax.core.gradients import bind

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

MODELS = {
    "softmax_regression": ((6,), {}),
    "mlp": ((6,), {"hidden": (5,)}),
    "emnist_cnn": ((8, 8, 1), {}),
    "resnet18_gn": ((8, 8, 1), {"width": 2}),
    "char_lstm": ((7,), {"hidden": 4}),
}
BFLOAT16 = jnp.dtype(jnp.bfloat16)


def task_and_batch(name, classes=5, rows=4):
    shape, options = MODELS[name]
    generator = np.random.default_rng(0)
    factory = models.make(name, classes, shape, **options)
    mask = np.arange(rows) < rows - 1
    if name == "char_lstm":
        tokens = generator.integers(1, classes, (2, rows, *shape)).astype(np.int32)
        return tasks.next_token(factory, classes), dict(zip("xy", tokens, strict=True), mask=mask)
    x = generator.standard_normal((rows, *shape)).astype(np.float32)
    y = generator.integers(0, classes, rows).astype(np.int32)
    return tasks.classification(factory, classes), {"x": x, "y": y, "mask": mask}


def dtypes(variables):
    return {variable.aval.dtype for variable in variables if hasattr(variable.aval, "dtype")}


@pytest.mark.parametrize("name", MODELS)
def test_products_are_bfloat16_and_gradients_float32(name):
    task, batch = task_and_batch(name)
    params, frozen, model_state = jax.eval_shape(task.init, nets.KEY)
    gradient = bind(task, frozen, compute_dtype="bfloat16").gradient
    traced = jax.make_jaxpr(gradient)(params, model_state, batch, nets.KEY).jaxpr
    products = [
        equation
        for equation in equations_of(traced)
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    assert len(products) >= 2
    for product in products:
        assert dtypes(product.invars) | dtypes(product.outvars) == {BFLOAT16}
    assert dtypes(traced.outvars) == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("softmax_regression", 0.01), ("mlp", 0.02), ("char_lstm", 0.05), ("emnist_cnn", 0.2)],
)
def test_gradients_are_those_of_float32_up_to_rounding(name, tolerance):
    """A number is good to 2^-9; where ReLU and max-pooling switch, a gradient is less so."""
    task, batch = task_and_batch(name)
    params, frozen, model_state = task.init(jax.random.key(0))

    def gradient(dtype):
        local = bind(task, frozen, compute_dtype=dtype)
        return jax.jit(local.gradient)(params, model_state, batch, nets.KEY)[:2]

    (grads, sums), (lower, lower_sums) = gradient("float32"), gradient("bfloat16")
    np.testing.assert_allclose(lower_sums.loss, sums.loss, rtol=0.02)
    assert lower_sums.weight == sums.weight
    flat, lower_flat = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (grads, lower))
    error = np.linalg.norm(flat - lower_flat) / np.linalg.norm(flat)
    assert 1e-5 < error < tolerance


class Smooth(nnx.Module):
    """A table, convolutions, a normalization, pooling by means; nothing that switches."""

    def __init__(self, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (3, 1)))
        self.conv1, self.conv2 = (
            nnx.Conv(
                *sizes, (3, 3), conv_general_dilated=fljax_kernels.conv_general_dilated, rngs=rngs
            )
            for sizes in ((1, 6), (6, 8))
        )
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.conv1(jnp.take(self.table[...], x, axis=0)))
        x = nnx.avg_pool(x, (4, 4), (2, 2))
        return self.out(jnp.tanh(self.norm(self.conv2(x))).mean((1, 2)))


def test_gradients_of_a_smooth_model_are_good_to_two_digits_in_every_leaf():
    """Biases, tables and scales are sums over tens of thousands of positions."""
    generator = np.random.default_rng(0)
    batch = {
        "x": generator.integers(0, 3, (32, 24, 24)),
        # one class: nothing cancels
        "y": np.zeros(32, np.int32),
        "mask": np.ones(32, bool),
    }
    task = tasks.classification(Smooth, 5)
    params, frozen, model_state = task.init(jax.random.key(0))
    found, expected = (
        jax.jit(bind(task, frozen, compute_dtype=dtype).gradient)(
            params, model_state, batch, nets.KEY
        )[0]
        for dtype in ("bfloat16", "float32")
    )
    for (path, exact), leaf in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True
    ):
        error = np.linalg.norm(leaf - exact) / np.linalg.norm(exact)
        assert error < 0.02, (jax.tree_util.keystr(path), error)


def test_float32_with_the_choices_of_bfloat16_has_its_gradient():
    """They differ by which way ReLU and max-pooling switch."""
    widths, classes, rows = (64, 512, 64), 5, 64
    generator = np.random.default_rng(0)

    def init(key):
        sizes = [(64, widths[1]), (widths[1] // 4, widths[2]), (widths[2], classes)]
        return [jnp.asarray(generator.standard_normal(s) / s[0] ** 0.5, jnp.float32) for s in sizes]

    def apply(params, x, choices=None):
        """Returns logits and choices: where ReLU is on, which of four is the largest."""
        made = []

        def choose(best):
            made.append(best if choices is None else choices[len(made)])
            return made[-1]

        x = x @ params[0]
        x = jnp.where(choose(x > 0), x, 0).reshape(rows, -1, 4)
        x = jnp.take_along_axis(x, choose(x.argmax(-1, keepdims=True)), -1)[..., 0]
        x = x @ params[1]
        return jnp.where(choose(x > 0), x, 0) @ params[2], made

    params = init(None)
    x = generator.standard_normal((rows, 64)).astype(np.float32)
    batch = {"x": x, "y": generator.integers(0, classes, rows), "mask": np.ones(rows, bool)}
    lower = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(jnp.bfloat16), (params, x))
    choices = jax.jit(lambda p, x: apply(p, x)[1])(*lower)

    def gradient(dtype, choices=None):
        model = (lambda key: params, lambda params, x: apply(params, x, choices)[0])
        local = bind(tasks.classification(model, classes), {}, compute_dtype=dtype)
        grads = jax.jit(local.gradient)(params, {}, batch, nets.KEY)[0]
        return jax.flatten_util.ravel_pytree(grads)[0]

    found, own, given = gradient("bfloat16"), gradient("float32"), gradient("float32", choices)
    far, near = (
        np.linalg.norm(found - baseline) / np.linalg.norm(own) for baseline in (own, given)
    )
    assert near < 0.006 < 0.012 < far, (near, far)


def test_batch_statistics_stay_float32_and_metrics_know_nothing_of_it():
    task = tasks.classification(nets.Net, nets.CLASSES)
    params, frozen, model_state = jax.jit(task.init)(jax.random.key(0))
    batch = nets.with_padding(nets.examples())
    local, lower = (bind(task, frozen, compute_dtype=d) for d in ("float32", "bfloat16"))
    _, _, state = jax.jit(local.gradient)(params, model_state, batch, nets.KEY)
    _, _, lower_state = jax.jit(lower.gradient)(params, model_state, batch, nets.KEY)
    for leaf, other in zip(*map(jax.tree.leaves, (state, lower_state)), strict=True):
        assert other.dtype == np.float32
        np.testing.assert_allclose(other, leaf, rtol=0.02, atol=0.01)
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.jit(lower.measure)(params, model_state, batch),
        jax.jit(local.measure)(params, model_state, batch),
    )


def test_integers_and_targets_stay_as_they_are():
    seen = {}

    def loss(params, frozen, model_state, batch, key, train):
        seen.update(jax.tree.map(lambda leaf: leaf.dtype, {"params": params, **batch}))
        value = params["w"] * batch["x"]["value"] + batch["x"]["id"]
        return (value, batch["mask"].astype(jnp.int32)), model_state

    task = tasks.Task(lambda key: ({"w": jnp.ones(())}, {}, {}), loss, None, (), "own")
    x = {"id": np.full(3, 257, np.int32), "value": np.ones(3, np.float32)}
    batch = {"x": x, "y": np.ones(3, np.float32), "mask": np.ones(3, bool)}
    params = task.init(None)[0]
    local = bind(task, {}, compute_dtype="bfloat16")
    grads, sums, _ = local.gradient(params, {}, batch, nets.KEY)
    assert seen["params"]["w"] == seen["x"]["value"] == BFLOAT16
    assert (seen["x"]["id"], seen["y"], seen["mask"]) == (np.int32, np.float32, np.bool_)
    assert grads["w"].dtype == sums.loss.dtype == np.float32


def run(compute_dtype, spec, cohorts=([0, 1, 2, 3], [3, 4, 8], [5, 6, 7, 0, 4, 2]) * 3):
    parts = toy.clients(dtype=np.float32)
    task = toy.softmax_task(np.float32)
    return toy.run_rounds(parts, spec, list(cohorts), task=task, compute_dtype=compute_dtype)


@pytest.mark.parametrize(
    "spec", [algorithms.fedopt("adam", 0.2, 0.05), algorithms.scaffold(0.2)], ids=lambda s: s.name
)
def test_rounds_are_those_of_float32_to_two_digits(spec):
    federation, stats = run("float32", spec)
    lower, lower_stats = run("bfloat16", spec)
    toy.assert_close(toy.params_of(lower), toy.params_of(federation), 0.02)
    with pytest.raises(AssertionError):
        toy.assert_close(toy.params_of(lower), toy.params_of(federation), 1e-5)
    for round_stats, other in zip(stats, lower_stats, strict=True):
        np.testing.assert_allclose(other[0]["loss"].sum(), round_stats[0]["loss"].sum(), rtol=0.02)
        assert {name: leaf.dtype for name, leaf in other[0].items()} == {
            name: leaf.dtype for name, leaf in round_stats[0].items()
        }


def test_nothing_that_outlives_a_step_is_bfloat16():
    """Carries of loops (local models, optimizers, sums), client rows and the server's state."""
    federation, _ = run("bfloat16", algorithms.scaffold(0.2))
    ((plan, facts),) = federation.plans(0, 1)
    rows = federation.store.gather(facts.trials, facts.clients)
    traced = federation.program.trace(federation.state, rows, plan, federation.inputs).jaxpr
    found = list(equations_of(traced.jaxpr))
    loops = [equation for equation in found if equation.primitive.name == "while"]
    assert len(loops) >= 3
    kept = [*traced.jaxpr.outvars, *(variable for loop in loops for variable in loop.outvars)]
    assert BFLOAT16 not in dtypes(kept)
    products = [equation for equation in found if equation.primitive.name == "dot_general"]
    assert products
    assert all(dtypes(product.invars) == {BFLOAT16} for product in products)


def test_unknown_dtypes_are_refused():
    with pytest.raises(ValueError, match="compute_dtype = 'float16' is not one of 'float32'"):
        run("float16", algorithms.fedavg(0.1), cohorts=[[0]])
