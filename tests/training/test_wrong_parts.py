"""Parts that are something else, or do not fit together, are named before the first round."""

import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx

import fljax
from fljax import data, models, tasks
from fljax.compression import top_k, uplink
from fljax.core.transforms import Pipeline
from fljax.training.task_choice import as_task

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

FITTING = models.softmax_regression(toy.FEATURES, toy.CLASSES)
NET = nnx.Linear(toy.FEATURES, toy.CLASSES, rngs=nnx.Rngs(0))


def simulate(dataset=None, model=FITTING, **options):
    defaults = {"num_rounds": 1, "clients_per_round": 3, "batch_size": 4, "progress": False}
    dataset = toy.dataset(toy.clients(dtype=np.float32)) if dataset is None else dataset
    return fljax.simulate(dataset, model, **(defaults | options))


@pytest.mark.parametrize(
    ("dataset", "remedy"),
    [
        ("mnist", r"fljax.data.load\('mnist'"),
        ((np.zeros((3, 2)), np.zeros(3)), "from_arrays"),
        ({"x": 1}, "from_arrays"),
        (toy.dataset(toy.clients()).train, "from_arrays"),
        (data.digits, "from_arrays"),
    ],
)
def test_a_dataset_is_a_federated_dataset(dataset, remedy):
    with pytest.raises(TypeError, match=f"dataset = .* is no FederatedDataset.*{remedy}"):
        simulate(dataset)


def takes_no_data(rngs):
    return nnx.Dropout(0.5, rngs=rngs).eval


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "None is no model"),
        ([FITTING], "is no model"),
        (models.mlp, "cannot be made with model.nnx.Rngs.*sizes = "),
        (nnx.Linear, "cannot be made with model.nnx.Rngs"),
        (lambda: NET, "cannot be made with model.nnx.Rngs"),
        (lambda x: x, "must return an nnx.Module, not Rngs"),
        (models.softmax_regression(toy.FEATURES, 3), "returns 3 logits for 4 classes"),
        (models.mlp((toy.FEATURES, 5, 9)), "returns 9 logits for 4 classes"),
        (models.mlp((7, 5, 4)), r"x is float32\[4, 6\], and its first weights .* float32\[7, 5\]"),
        (models.emnist_cnn(4, (8, 8, 1)), r"x is float32\[4, 6\], and its first weights"),
        (tasks.classification(FITTING, 7), "returns 4 logits for 7 classes"),
        (tasks.classification(models.softmax_regression(toy.FEATURES, 3), 3), "3 classes.*has 4"),
        ((lambda key: {}, lambda params, x: x.sum()), r"logits of shape \(\)"),
        ((lambda key: {}, lambda params, x: None), "returns NoneType"),
        ((lambda key: {}, lambda params: None), "cannot be applied"),
        ((lambda key: {}, lambda params, x: x[:, :4]), "has no parameters"),
        (
            (lambda key: {"w": jnp.full((6, 4), jnp.nan)}, lambda params, x: x @ params["w"]),
            r"init gives 24 numbers that are not finite, at params\['w'\]",
        ),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused_with_both_numbers(model, message):
    rounds = []
    with pytest.raises((TypeError, ValueError), match=message):
        simulate(model=model, hooks=[lambda federation, record: rounds.append(record)])
    assert not rounds


def test_modules_and_factories_may_take_each_others_place():
    for model in (NET, lambda rngs: nnx.Linear(toy.FEATURES, toy.CLASSES, rngs=rngs)):
        assert simulate(model=model).summary["rounds"] == 1


def images(preprocess=None):
    generator = np.random.default_rng(0)
    arrays = {
        "x": generator.integers(0, 256, (30, 8, 8, 1)).astype(np.uint8),
        "y": generator.integers(0, 3, 30).astype(np.int32),
    }
    train = data.Split(data.ArrayExamples(arrays), data.iid(30, 5))
    return data.FederatedDataset("images", "classification", 3, train, preprocess=preprocess)


@pytest.mark.parametrize("name", ["softmax_regression", "mlp", "emnist_cnn", "resnet18_gn"])
def test_bytes_that_nobody_scales_are_refused_by_our_models(name):
    with pytest.raises(ValueError, match=r"x is uint8.*image_scaling"):
        simulate(images(), models.make(name, 3, (8, 8, 1)))


def test_bytes_are_scaled_by_a_preprocess_or_by_a_model_of_ones_own():
    ours = models.softmax_regression(64, 3)
    assert simulate(images(data.image_scaling(None)), ours).summary["rounds"] == 1

    def apply(params, x):
        return x.reshape(x.shape[0], -1).astype(jnp.float32) / 255 @ params

    own = (lambda key: jnp.zeros((64, 3)), apply)
    assert simulate(images(), own).summary["rounds"] == 1


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("top_k(0.01)", "'top_k.0.01.' .str. must be a"),
        (top_k(0.1), "must be a"),
        (uplink(top_k(0.1)), "must be a"),
        (Pipeline(uplink=(top_k(0.1),)), r"pipeline.uplink\[0\] = .*UplinkLink"),
        (Pipeline(uplink=uplink(top_k(0.1))), "pipeline.uplink"),
        (Pipeline(aggregator="median"), "pipeline.aggregator = 'median'"),
    ],
)  # fmt: skip
def test_a_pipeline_is_made_of_links(pipeline, message):
    with pytest.raises(ValueError, match=message):
        simulate(pipeline=pipeline)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"w": np.zeros((6, 4))}, "do not fit the model"),
        ("weights.npz", "initial_params"),
        (np.nan, "initial_params"),
    ],
)
def test_initial_parameters_are_those_of_the_model(params, message):
    with pytest.raises(ValueError, match=message):
        simulate(initial_params=params)


def test_initial_parameters_are_finite_numbers():
    own = (lambda key: {"w": jnp.zeros((6, 4))}, lambda params, x: x @ params["w"])
    for leaf in (np.full((6, 4), np.nan), np.full((6, 4), "a"), np.full((6, 4), None)):
        with pytest.raises(ValueError, match="initial_params.*w"):
            simulate(model=own, initial_params={"w": leaf})


def with_loss(change):
    """A classification task whose loss returns something else."""
    task = tasks.classification(FITTING, toy.CLASSES)

    def loss(*arguments):
        (values, weights), state = task.loss(*arguments)
        return change(values, weights, state)

    return task._replace(loss=loss)


@pytest.mark.parametrize(
    ("change", "returned"),
    [
        (lambda values, weights, state: (values, weights, state), r"\(\[4\], \[4\], {}\)"),
        (lambda values, weights, state: (values, weights), r"\(\[4\], \[4\]\)"),
        (lambda values, weights, state: values.mean(), r"\[\]"),
        (lambda v, w, state: ((v.sum(), w.sum()), state), r"\(\(\[\], \[\]\)"),
        (lambda values, weights, state: ((values[:, None], weights), state), r"\(\(\[4, 1\], "),
        (lambda values, weights, state: None, "None"),
    ],
)  # fmt: skip
def test_a_loss_returns_a_value_and_a_weight_of_each_example(change, returned):
    message = r"returns ..value, weight., model_state., .* of shape \[4\].*; this one returned "
    with pytest.raises(ValueError, match=message + returned):
        simulate(model=with_loss(change))


@pytest.mark.parametrize("name", ["classification", "next_token", "binary"])
def test_tasks_of_classes_are_refused_for_data_without(name):
    x, y = np.ones((12, 2), np.float32), np.linspace(0, 1, 12)
    targets = data.from_arrays(x, y, partition="iid", num_clients=3, kind="targets")
    with pytest.raises(ValueError, match=f"task = '{name}' learns classes, .* a task of your own"):
        as_task(models.softmax_regression(2, 3), targets, name)
