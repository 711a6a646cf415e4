"""DP-SGD's gradient: each example is clipped, noise is added, and nothing else depends on one."""

import functools

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import toy
from hypothesis import example, given
from hypothesis import strategies as st

from fljax import models, tasks
from fljax.core.gradients import bind
from fljax.privacy.ghost import Product, factored
from fljax.privacy.per_example import clipped_gradients

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

MODELS = {
    "mlp": ((6,), {"hidden": (5,)}),
    "emnist_cnn": ((8, 8, 1), {}),
    "char_lstm": ((7,), {"hidden": 4}),
}
CLASSES, ROWS = 5, 6


def task_and_batch(name):
    """Returns (task, batch of six rows, the last of which is padding), in the type of JAX's."""
    shape, options = MODELS[name]
    generator = np.random.default_rng(0)
    factory = models.make(name, CLASSES, shape, **options)
    mask = jnp.arange(ROWS) < ROWS - 1
    if name == "char_lstm":
        tokens = generator.integers(0, CLASSES, (2, ROWS, *shape)).astype(np.int32)
        return tasks.next_token(factory, CLASSES), dict(zip("xy", tokens, strict=True), mask=mask)
    x = jnp.asarray(3 * generator.standard_normal((ROWS, *shape)))
    y = generator.integers(0, CLASSES, ROWS).astype(np.int32)
    return tasks.classification(factory, CLASSES), {"x": x, "y": y, "mask": mask}


def without_dropout(task):
    """Returns the task in evaluation mode, which draws nothing."""

    def loss(params, frozen, model_state, batch, key, train):
        return task.loss(params, frozen, model_state, batch, key, False)

    return task._replace(loss=loss)


@functools.cache
def case_of(name):
    """Returns (task, variables, batch, gradients of its examples by a loop), all in float64."""
    task, batch = task_and_batch(name)
    task = without_dropout(task)
    # parameters that nothing made small
    variables = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        task.init(nets.KEY),
    )
    params, frozen, model_state = variables

    @jax.jit
    def grads_of(row):
        def mean_loss(params):
            (value, weight), _ = task.loss(params, frozen, model_state, row, None, True)
            return value.sum() / jnp.maximum(weight.sum(), 1)

        return jax.tree.leaves(jax.grad(mean_loss)(params))

    grads = []
    for number in np.flatnonzero(batch["mask"]):
        row = jax.tree.map(lambda leaf: leaf[number : number + 1], batch)  # noqa: B023
        grads.append([np.asarray(leaf, np.float64) for leaf in grads_of(row)])
    return task, variables, batch, grads


@pytest.mark.parametrize("microbatch", [0, 4])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_a_loop_over_examples(name, microbatch, x64):
    task, variables, batch, by_hand = case_of(name)
    norms = [np.sqrt(sum((leaf**2).sum() for leaf in grads)) for grads in by_hand]
    bound = float(np.median(norms))
    scales = [min(1, bound / norm) for norm in norms]
    expected = [
        sum(scale * leaf for scale, leaf in zip(scales, leaves, strict=True))
        for leaves in zip(*by_hand, strict=True)
    ]
    local = bind(task, variables[1], estimator=clipped_gradients(bound, 0.0, microbatch))
    gradient = jax.jit(local.gradient)
    grads, sums, _ = gradient(variables[0], {}, {**batch, "size": jnp.float64(4)}, nets.KEY)
    for leaf, wanted in zip(jax.tree.leaves(grads), expected, strict=True):
        # norms are taken for larger than they are by a millionth
        np.testing.assert_allclose(4 * leaf, wanted, rtol=2e-6, atol=2e-6 * np.abs(wanted).max())
    loss, _ = jax.jit(local.loss, static_argnums=4)(variables[0], {}, batch, nets.KEY, True)
    np.testing.assert_allclose(sums.loss, loss.loss, rtol=1e-9)
    assert sums.weight == loss.weight


def leaves_of(name):
    """Returns the leaves that the gradient of an example has."""
    task, batch = task_and_batch(name)
    params, frozen, _ = task.init(nets.KEY)
    local, found = bind(task, frozen), []

    def gradient(params, row):
        return jax.grad(lambda params: local.loss(params, {}, row, nets.KEY, True)[0].loss)(
            params
        ), ()

    def trace(params, row):
        found.extend(factored(gradient)(params, row)[0])

    jax.eval_shape(trace, params, jax.tree.map(lambda leaf: leaf[:1], batch))
    return found


def test_matrices_of_dense_layers_are_never_multiplied_out():
    assert [isinstance(leaf, Product) for leaf in leaves_of("mlp")] == [False, True] * 2
    # biases, kernels and last dense layer of a convolutional network: the dense ones
    sizes = [
        leaf.left.size * leaf.right.size
        for leaf in leaves_of("emnist_cnn")
        if isinstance(leaf, Product)
    ]
    assert sorted(sizes) == [128 * CLASSES, 2 * 2 * 64 * 128]
    assert not any(isinstance(leaf, Product) for leaf in leaves_of("char_lstm"))


def softmax(clip_norm, noise_multiplier, microbatch=0):
    """Returns the gradient of softmax regression, compiled."""
    estimator = clipped_gradients(clip_norm, noise_multiplier, microbatch)
    return jax.jit(bind(toy.softmax_task(np.float32), {}, estimator=estimator).gradient)


PARAMS = toy.initial_params(np.float32)
gradient_of = functools.cache(softmax)


@functools.cache
def gradient_within(microbatch):
    """Returns that gradient without noise, of a bound as well."""

    @jax.jit
    def gradient(clip_norm, *arguments):
        return softmax(clip_norm, 0.0, microbatch)(*arguments)

    return gradient


def rows(count, width=8, seed=0):
    (x, y), *_ = toy.clients([width], seed, np.float32)
    return {"x": x, "y": y, "mask": np.arange(width) < count, "size": np.float32(4)}


def test_infinite_bounds_without_noise_are_ordinary_training():
    batch = {**rows(6), "size": np.float32(6)}
    grads, sums, _ = gradient_of(np.inf, 0.0)(PARAMS, {}, batch, nets.KEY)
    ordinary = jax.jit(bind(toy.softmax_task(np.float32), {}).gradient)
    expected, expected_sums, _ = ordinary(PARAMS, {}, rows(6), nets.KEY)
    toy.assert_close(grads, expected, 1e-5)
    toy.assert_close(sums, expected_sums, 1e-6)


NASTY = [np.nan, np.inf, -np.inf, 1e30, 1e19, -3e38, 1e-30, 0.0, 1.0]


@given(
    values=st.lists(st.sampled_from(NASTY), min_size=6, max_size=6),
    label=st.integers(0, 3),
    bound=st.sampled_from([0.1, 1.0, 30.0]),
    microbatch=st.sampled_from([0, 3]),
)
@example(values=[1e19] * 6, label=0, bound=1.0, microbatch=0)
def test_one_example_changes_the_sum_by_the_bound_at_most(values, label, bound, microbatch):
    gradient, batch = functools.partial(gradient_within(microbatch), bound), rows(5)
    x, y = batch["x"].copy(), batch["y"].copy()
    x[5], y[5] = np.float32(values), label
    without = gradient(PARAMS, {}, batch, nets.KEY)
    with_it = gradient(PARAMS, {}, {**batch, "x": x, "y": y, "mask": np.arange(8) < 6}, nets.KEY)
    differences = [
        (np.asarray(leaf, np.float64) - np.asarray(other, np.float64)) * 4
        for leaf, other in zip(*map(jax.tree.leaves, (with_it[0], without[0])), strict=True)
    ]
    moved = np.sqrt(sum((leaf**2).sum() for leaf in differences))
    # the sum itself is rounded
    assert moved <= bound * (1 + 1e-6) + 1e-6
    assert np.isfinite(jax.tree.leaves(with_it[1])).all()


@pytest.mark.parametrize("name", MODELS)
def test_no_example_of_any_model_counts_for_more_than_the_bound(name):
    task, batch = task_and_batch(name)
    params, frozen, _ = task.init(nets.KEY)
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    gradient = jax.jit(bind(task, frozen, estimator=clipped_gradients(0.01, 0.0)).gradient)
    for row in range(ROWS - 1):
        alone = {**batch, "mask": jnp.arange(ROWS) == row, "size": jnp.float32(1)}
        grads = jax.tree.leaves(gradient(params, {}, alone, nets.KEY)[0])
        norm = np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in grads))
        assert 0.01 * (1 - 1e-5) <= norm <= 0.01 * (1 + 1e-6)


def test_an_example_that_is_not_finite_counts_as_nothing():
    batch = rows(5)
    broken = batch["x"].copy()
    broken[2, 3] = np.nan
    keep = np.array([0, 1, 3, 4])
    alone = {**rows(4), "x": np.delete(batch["x"], 2, 0)[:8], "y": np.delete(batch["y"], 2)}
    alone = {
        name: np.resize(leaf, (8, *np.shape(leaf)[1:])) if np.ndim(leaf) else leaf
        for name, leaf in alone.items()
    }
    alone["mask"] = np.arange(8) < len(keep)
    gradient = gradient_of(1.0, 0.0)
    got = gradient(PARAMS, {}, {**batch, "x": broken}, nets.KEY)
    toy.assert_close(got[:2], gradient(PARAMS, {}, alone, nets.KEY)[:2], 1e-5)


def test_noise_is_there_whatever_the_batch_holds():
    gradient, keys = gradient_of(0.5, 3.0), jax.random.split(nets.KEY, 4_000)

    @jax.jit
    def noises(batch):
        grads = jax.vmap(lambda key: gradient(PARAMS, {}, batch, key)[0])(keys)
        return jnp.concatenate([leaf.reshape(len(keys), -1) for leaf in jax.tree.leaves(grads)], 1)

    empty, full = noises(rows(0)), noises(rows(5))
    # of 28 coordinates in 4,000 draws: standard errors of .2 % and 1.6 %
    assert abs(np.std(empty) / (0.5 * 3.0 / 4) - 1) < 0.01
    assert np.abs(np.mean(empty, 0)).max() < 5 * 0.375 / len(keys) ** 0.5
    correlations = np.corrcoef(empty.T) - np.eye(28)
    assert np.abs(correlations).max() < 5 / len(keys) ** 0.5
    # the noise of a step does not depend on its batch
    signal = gradient_of(0.5, 0.0)(PARAMS, {}, rows(5), nets.KEY)[0]
    signal = np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(signal)])
    np.testing.assert_allclose(full - signal, empty, atol=1e-6)


def test_noise_dropout_and_steps_have_keys_of_their_own():
    gradient = gradient_of(1.0, 1.0)
    first, again, later = (
        gradient(PARAMS, {}, rows(0), key)[0]["w"]
        for key in (nets.KEY, nets.KEY, jax.random.fold_in(nets.KEY, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), later.ravel())[0, 1]) < 0.9

    def loss(params, frozen, model_state, batch, key, train):
        drop = jax.random.normal(key, (len(batch["y"]), *first.shape))
        values = (params["w"] * drop).sum((1, 2)) + params["b"].sum()
        return (values, jnp.ones(len(batch["y"]), int)), model_state

    local = bind(
        toy.softmax_task(np.float32)._replace(loss=loss), {},
        estimator=clipped_gradients(np.inf, 0.0),
    )  # fmt: skip
    batch = {**rows(2, 2), "size": 1.0}
    drawn = jax.jit(local.gradient)(PARAMS, {}, batch, nets.KEY)[0]["w"]
    # two examples draw two masks, and neither is the noise
    assert np.abs(np.corrcoef(drawn.ravel(), first.ravel())[0, 1]) < 0.9
    assert abs(np.std(drawn) - 2**0.5) < 0.5


def test_numbers_are_traced():
    @jax.jit
    def gradient(bound, noise):
        local = bind(toy.softmax_task(np.float32), {}, estimator=clipped_gradients(bound, noise))
        return local.gradient(PARAMS, {}, rows(5), nets.KEY)[0]

    for bound, noise in ((0.5, 0.0), (2.0, 1.0)):
        expected = gradient_of(bound, noise)(PARAMS, {}, rows(5), nets.KEY)[0]
        toy.assert_close(gradient(bound, noise), expected, 1e-5)
    assert gradient._cache_size() == 1


def test_statistics_of_batches_are_refused():
    task = tasks.classification(nets.Net, nets.CLASSES)
    params, frozen, model_state = task.init(nets.KEY)
    local = bind(task, frozen, estimator=clipped_gradients(1.0, 1.0))
    with pytest.raises(ValueError, match="mix the examples of a batch.*GroupNorm"):
        local.gradient(params, model_state, nets.examples(), nets.KEY)


def test_bfloat16_is_clipped_in_float32():
    task, batch = task_and_batch("mlp")
    params, frozen, _ = task.init(nets.KEY)
    local = bind(task, frozen, estimator=clipped_gradients(0.1, 0.0), compute_dtype="bfloat16")
    batch = {**batch, "size": jnp.float32(1)}
    # of one row, whose gradient is above the bound
    batch["mask"] = jnp.arange(ROWS) < 1
    grads = jax.jit(local.gradient)(params, {}, batch, nets.KEY)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}
    norm = np.sqrt(sum((np.float64(leaf) ** 2).sum() for leaf in jax.tree.leaves(grads)))
    assert 0.1 * (1 - 1e-5) < norm <= 0.1 * (1 + 1e-6)
