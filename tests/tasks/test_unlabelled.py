"""Tasks without targets: masked tokens, autoencoders and contrastive learning, against loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import tasks
from fljax.core import metrics
from fljax.data import from_arrays
from fljax.tasks.probes import nearest_neighbors
from fljax.training.task_choice import as_task

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(5)
VOCABULARY, MASK, PAD = 20, 19, 3
ROWS, FEATURES = 7, 6


# Masked tokens


def seen_by(make, outputs, batch):
    """Returns a function of a key: what a model sees in training, and the task's loss of it."""
    seen = []

    def apply(params, x):
        seen.append(x)
        return outputs(x)

    @jax.jit
    def step(key):
        (value, weight), _ = make((lambda key: {}, apply)).loss({}, {}, {}, batch, key, True)
        return seen[-1], value, weight

    return lambda key: jax.device_get(step(key))


def test_tokens_are_masked_as_in_bert():
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, MASK, (300, 40)).astype(np.int32)
    batch = {"x": tokens, "y": tokens * 0, "mask": np.arange(300) < 290}
    bert = lambda model: tasks.masked_token(  # noqa: E731
        model, VOCABULARY, mask_id=MASK, mask_fraction=0.3, pad_id=PAD
    )
    step = seen_by(bert, lambda x: jax.nn.one_hot(x, VOCABULARY), batch)
    seen, value, weight = step(KEY)
    changed = seen != np.where(batch["mask"][:, None], tokens, 0)
    masked = seen == MASK
    assert not changed[tokens == PAD].any() and not (seen[changed] == PAD).any()
    can_be = (tokens != PAD) & batch["mask"][:, None]
    total = can_be.sum()
    # three standard deviations: 0.3 of the tokens, of them 0.8 masks and 0.1 others
    assert abs(weight.sum() / total - 0.3) < 3 * (0.3 * 0.7 / total) ** 0.5
    # of 19 tokens that are no padding, one is the mask and one the token itself
    assert abs(masked.sum() / weight.sum() - (0.8 + 0.1 / 19)) < 0.03
    assert abs((changed & ~masked).sum() / weight.sum() - 0.1 * 17 / 19) < 0.03
    others = np.bincount(seen[changed & ~masked], minlength=VOCABULARY)
    assert (others[[token for token in range(MASK) if token != PAD]] > 0).all()
    wrong, right = np.log(VOCABULARY - 1 + np.e), np.log(VOCABULARY - 1 + np.e) - 1
    kept = weight - changed.sum(1)
    np.testing.assert_allclose(value, changed.sum(1) * wrong + kept * right, rtol=1e-4)
    assert (step(jax.random.key(6))[0] != seen).any()


def test_evaluations_mask_a_row_alike_in_any_batch():
    tokens = np.random.default_rng(1).integers(0, MASK, (30, 12)).astype(np.int32)
    task = tasks.masked_token(
        (lambda key: {}, lambda params, x: jax.nn.one_hot(x, VOCABULARY)), VOCABULARY, mask_id=MASK
    )
    measure = jax.jit(task.measure)
    batch = {"x": tokens, "y": tokens, "mask": np.arange(30) < 28}
    whole = measure({}, {}, {}, batch)
    order = np.random.default_rng(2).permutation(30)
    moved = measure({}, {}, {}, {name: values[order] for name, values in batch.items()})
    for name, (value, weight) in whole.sums.items():
        np.testing.assert_array_equal(moved.sums[name].weight, weight[order])
        np.testing.assert_allclose(moved.sums[name].value, value[order])
    jax.tree.map(np.testing.assert_array_equal, moved.counts, whole.counts)
    assert 0 < whole.sums["loss"].weight.sum() < 0.3 * tokens.size
    assert task.metrics[0].name == "accuracy"
    with pytest.raises(ValueError, match="mask_id = 20"):
        tasks.masked_token(tasks.from_functions(None.__class__, max), VOCABULARY, mask_id=20)


# Autoencoders


def rows(seed=0):
    x = np.random.default_rng(seed).random((ROWS, FEATURES)).astype(np.float32)
    x[-1] = np.nan
    return {"x": x.reshape(ROWS, 2, 3), "y": np.arange(ROWS) % 2, "mask": np.arange(ROWS) < 6}


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_autoencoders_equal_a_formula(loss):
    batch, weights = rows(), np.random.default_rng(1).standard_normal((6, 6)).astype(np.float32)
    model = (lambda key: weights, lambda weights, x: x.reshape(len(x), -1) @ weights)
    task = tasks.autoencoder(model, loss=loss)
    sums = jax.device_get(jax.jit(task.measure)(weights, {}, {}, batch).sums)
    x = np.float64(batch["x"][:-1]).reshape(6, 6)
    made = x @ np.float64(weights)
    shares = 1 / (1 + np.exp(-made))
    each = ((made - x) ** 2).mean(1)
    if loss == "bce":
        each = -(x * np.log(shares) + (1 - x) * np.log(1 - shares)).mean(1)
        made = shares
    np.testing.assert_allclose(sums["loss"].value, [*each, 0], rtol=1e-5)
    found = metrics.global_metrics(task.metrics, sums)
    expected = {"loss": each.mean(), "rmse": np.sqrt(((made - x) ** 2).mean())}
    assert found == pytest.approx(expected, rel=1e-5)
    table = metrics.client_metrics(task.metrics, sums, np.arange(ROWS) % 3, 3)
    own = [np.sqrt(((made - x)[client::3] ** 2).mean()) for client in range(3)]
    np.testing.assert_allclose(table["rmse"], own, rtol=1e-5)


def test_a_reconstruction_has_the_inputs_size():
    task = tasks.autoencoder((lambda key: {}, lambda params, x: x[:, 0]))
    with pytest.raises(ValueError, match=r"shape \[7, 3\]; \[7, 6\] is wanted"):
        jax.eval_shape(task.measure, {}, {}, {}, rows())


# Contrastive learning


def nt_xent(views, temperature):
    """Returns (losses of examples, which views are told) of pairs of vectors, one by one."""
    vectors = np.float64(views).reshape(-1, views.shape[-1])  # both views of an example beside
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    losses, told = [], []
    for place, vector in enumerate(vectors):
        similar = {n: vector @ other for n, other in enumerate(vectors) if n != place}
        own = similar[place ^ 1]
        whole = sum(np.exp(each / temperature) for each in similar.values())
        losses.append(np.log(whole) - own / temperature)
        told.append(sum(each >= own for each in similar.values()) == 1)
    return np.reshape(losses, (-1, 2)).mean(1), np.array(told)


def shifted(key, x):
    return x + jax.random.normal(key, x.shape)


def test_losses_of_views_are_those_of_loops():
    batch, make = rows(), partial(tasks.contrastive, temperature=0.3, augment=shifted)
    seen, value, weight = seen_by(make, lambda x: x.reshape(len(x), -1)[:, :4], batch)(KEY)
    np.testing.assert_array_equal(weight, batch["mask"])
    first, second = np.split(seen.reshape(2 * ROWS, -1), 2)
    views = np.stack([first, second], 1)[:-1, :, :4]
    np.testing.assert_allclose(value, [*nt_xent(views, 0.3)[0], 0], rtol=1e-5)
    assert not np.allclose(first, second)


def test_views_are_augmented_by_name():
    batch = rows()
    make = partial(tasks.contrastive, augment="flip, flip(vertical=True)")
    seen, *_ = seen_by(make, lambda x: x.reshape(len(x), -1), batch)(KEY)
    for view, image in zip(seen.reshape(2, ROWS, 2, 3).swapaxes(0, 1), batch["x"], strict=True):
        kinds = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
        if not np.isnan(image).any():  # no padding
            assert all(any((each == kind).all() for kind in kinds) for each in view)
    for augment, message in (("mixup", "Leave mixup out"), ("flop", "flip"), (3, "augment = 3")):
        with pytest.raises(ValueError, match=message):
            make((lambda key: {}, lambda params, x: x), augment=augment)


def test_evaluations_compare_rows_whatever_the_batches():
    batch = rows(2)
    model = (lambda key: {}, lambda params, x: x.reshape(len(x), -1)[:, :4])
    task = tasks.contrastive(model, augment=shifted, compared=4, neighbors=1)
    measure = jax.jit(task.measure)
    whole = jax.device_get(measure({}, {}, {}, batch).sums)
    halves = [{k: v[cut] for k, v in batch.items()} for cut in (slice(0, 5), slice(2, 7))]
    parts = [jax.device_get(measure({}, {}, {}, half).sums) for half in halves]
    found = metrics.global_metrics(task.metrics, whole)
    joined = {
        name: metrics.Sum(*(np.r_[first, second[3:]] for first, second in zip(*pair, strict=True)))
        for name, pair in ((name, [part[name] for part in parts]) for name in whole)
    }
    assert metrics.global_metrics(task.metrics, joined) == pytest.approx(found, rel=1e-6)
    views = whole["views"].value[:-1]
    each = [nt_xent(some, 0.5) for some in (views[:4], views[4:])]
    losses, told = (np.concatenate(column) for column in zip(*each, strict=True))
    expected = {"loss": losses.mean(), "contrastive_accuracy": told.mean()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    apart = ((views[:, 0] - views[:, 1]) ** 2).sum(1).mean()
    assert found["alignment"] == pytest.approx(apart, rel=1e-6)
    vectors = batch["x"][:-1].reshape(6, -1)[:, :4]
    similar = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    np.fill_diagonal(similar, -2)
    labels = batch["y"][:-1]
    assert found["knn_accuracy"] == (labels[similar.argmax(1)] == labels).mean()


def test_vectors_that_are_no_numbers_have_no_neighbors():
    vectors, labels = np.eye(6)[[0, 0, 1, 1, 2, 2]], np.zeros(6, int)
    assert nearest_neighbors(vectors, labels, 1) == 1
    vectors[[0, 2]] = np.nan
    vectors[3] = -np.inf
    assert nearest_neighbors(vectors, labels, 3) == 3 / 6
    assert nearest_neighbors(np.full((6, 3), np.nan), labels, 3) == 0


def test_gradients_are_finite_where_nothing_is_compared():
    batch = rows() | {"mask": np.arange(ROWS) < 1}
    model = (lambda key: jnp.ones(()), lambda scale, x: scale * x.reshape(len(x), -1))
    task = tasks.contrastive(model)
    total = lambda scale: task.loss(scale, {}, {}, batch, KEY, True)[0][0].sum()  # noqa: E731
    loss, slope = jax.jit(jax.value_and_grad(total))(1.0)
    assert abs(loss) < 1e-5 and np.isfinite(slope)


@pytest.mark.parametrize(
    ("task", "first"),
    [
        (partial(tasks.masked_token, num_classes=9, mask_id=1), "f1_macro"),
        (tasks.autoencoder, "rmse"),
        (tasks.contrastive, "alignment"),
        (tasks.survival, "loss"),
        (partial(tasks.segmentation, num_classes=2), "dice"),
        (partial(tasks.recommendation, num_classes=9, cutoffs=[2, 5]), "recall@5"),
    ],
)
def test_the_metric_that_chooses_is_named(task, first):
    made = task((lambda key: {}, lambda params, x: x), metrics=[first])
    assert [metric.name for metric in made.metrics] == list(dict.fromkeys([first, "loss"]))
    with pytest.raises(ValueError, match="metrics = 'accurate'"):
        task((lambda key: {}, lambda params, x: x), metrics=["accurate"])


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("autoencoder(loss='bce')", 12),
        ("contrastive(augment='flip', neighbors=3)", 64),
        ("contrastive(dimensions=5)", 5),
        ("classification(num_classes=4)", 4),
        ("survival", 1),
    ],
)
def test_models_by_name_have_the_outputs_that_a_task_wants(text, outputs):
    """Also where the data have classes, which these tasks do not learn, or fewer."""
    images = from_arrays(
        np.zeros((9, 3, 4, 1), np.float32), np.arange(9) % 3, partition="iid", num_clients=3
    )
    task = as_task("mlp(hidden=[7])", images, text)
    params, *_ = jax.eval_shape(task.init, KEY)
    assert params["layers"]["1"]["kernel"].shape == (7, outputs)
    batch = {"x": np.zeros((2, 3, 4, 1), np.float32), "y": np.zeros(2, np.int32)}
    if text != "survival":
        jax.eval_shape(task.measure, params, {}, {}, batch | {"mask": np.ones(2, bool)})
