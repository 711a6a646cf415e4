"""Regression against scikit-learn and formulas in float64; models by name get its outputs."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import config, data, models, tasks
from fljax.config import experiment
from fljax.core import metrics
from fljax.tasks.regression import squares
from fljax.training.task_choice import as_task

pytestmark = pytest.mark.usefixtures("quick_compilation")

OWNERS = np.array([0, 0, 0, 1, 1, 1, 1, 2, 3, 3])
MASK = np.arange(12) < 10


def predictions(outputs, offset=0.0):
    generator = np.random.default_rng(outputs)
    y = generator.standard_normal((12, outputs)) + offset
    y[8:10] = y[8]  # the targets of client 3 do not vary
    return y, y + 0.5 * generator.standard_normal(y.shape)


def judged(task, outputs, y):
    """Returns the sums of the real rows, as an evaluation hands them over."""
    batch = {"x": jnp.zeros((12, 1)), "y": jnp.asarray(y), "mask": jnp.asarray(MASK)}
    measured = jax.jit(task.judge)(jnp.asarray(outputs), batch)
    assert measured.counts is None
    return jax.tree.map(lambda leaf: np.asarray(leaf)[MASK], dict(measured.sums))


def by_scikit_learn(y, out):
    scores = pytest.importorskip("sklearn.metrics")
    return {
        "rmse": scores.root_mean_squared_error(y, out),
        "mae": scores.mean_absolute_error(y, out),
        "r2": scores.r2_score(y, out) if len(y) > 1 else math.nan,
    }


@pytest.mark.parametrize("outputs", [1, 3])
def test_metrics_are_those_of_scikit_learn_for_all_clients_and_groups(outputs):
    y, out = predictions(outputs)
    with jax.enable_x64(True):
        task = tasks.regression(models.mlp((1, outputs)), outputs)
        sums = judged(task, out[:, 0] if outputs == 1 else out, y[:, 0] if outputs == 1 else y)
    y, out = y[MASK], out[MASK]
    found = metrics.global_metrics(task.metrics, sums)
    assert [*found] == ["rmse", "mae", "r2", "loss"]
    assert found == pytest.approx(
        by_scikit_learn(y, out) | {"loss": ((y - out) ** 2).mean()}, rel=1e-12
    )
    table = metrics.client_metrics(task.metrics, sums, OWNERS, 5)
    groups = metrics.group_metrics(task.metrics, sums, OWNERS, np.array([*"abaaa"]))
    rows = {client: OWNERS == client for client in table["client"]}
    for client, of_client in rows.items():
        expected = by_scikit_learn(y[of_client], out[of_client])
        own = {name: table[name][client] for name in expected}
        assert own == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert table["weight"].tolist() == [3 * outputs, 4 * outputs, outputs, 2 * outputs]
    expected = by_scikit_learn(y[~rows[1]], out[~rows[1]])
    assert {name: groups["a"][name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("varies", [True, False])
def test_errors_that_are_not_finite_have_no_r2(varies, wrong):
    y = np.arange(12.0) if varies else np.ones(12)
    out = np.where(np.arange(12) == 3, wrong, y)
    task = tasks.regression(models.mlp((1, 1)))
    assert np.isnan(metrics.global_metrics(task.metrics, judged(task, out, y))["r2"])


def test_targets_far_from_zero_keep_their_variance():
    y, _ = predictions(1, offset=4096.0)
    y = y.astype(np.float32)
    out = y + np.float32(0.25)  # errors without rounding
    sums = judged(tasks.regression(models.mlp((1, 1))), out, y)
    expected = by_scikit_learn(y[MASK].astype(float), out[MASK].astype(float))
    found = metrics.global_metrics(tasks.regression(models.mlp((1, 1))).metrics, sums)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-8)
    wide = (10.0 ** np.arange(-9, 9) * np.random.default_rng(0).random(18)).astype(np.float32)
    parts = np.asarray(squares(jnp.asarray(wide)), np.float64)
    np.testing.assert_array_equal(parts.sum(-1), wide.astype(np.float64) ** 2)


def reference(loss, delta, errors):
    size = np.abs(errors)
    huber = np.where(size <= delta, errors**2 / 2, delta * (size - delta / 2))
    return {"mse": errors**2, "mae": size, "huber": huber}[loss]


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_and_gradients_are_their_formulas(loss):
    y, _ = predictions(2)
    x = np.random.default_rng(5).standard_normal((12, 4))
    w = np.random.default_rng(6).standard_normal((4, 2))
    init, apply = (lambda key: {"w": w}), (lambda params, x: x @ params["w"])
    with jax.enable_x64(True):
        task = tasks.regression((init, apply), 2, loss=loss, delta=0.7)
        batch = {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.asarray(MASK)}

        def total(params):
            (losses, weights), _ = task.loss(params, {}, {}, batch, None, True)
            return losses.sum(), (losses, weights)

        gradient = jax.jit(jax.grad(total, has_aux=True))
        slope, (losses, weights) = gradient({"w": jnp.asarray(w)})
    value = lambda w: reference(loss, 0.7, x @ w - y)  # noqa: E731
    np.testing.assert_allclose(losses, np.where(MASK, value(w).sum(1), 0), rtol=1e-12)
    assert weights.tolist() == [2] * 10 + [0] * 2 and weights.dtype == jnp.int32
    for place in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[place] = 1e-6
        difference = (value(w + step) - value(w - step))[MASK].sum() / 2e-6
        assert slope["w"][place] == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_models_by_name_get_the_outputs_of_the_task_from_python_and_configurations(tmp_path):
    x, y = np.ones((8, 5), np.float32), np.linspace(0, 1, 24).reshape(8, 3)
    plain = {"client_ids": np.arange(8) % 2, "kind": "targets"}
    dataset = data.from_arrays(x, y, **plain)
    (tmp_path / "my_numbers.py").write_text(
        "from fljax import data, tasks\nimport numpy as np\n"
        "def dataset(): return data.from_arrays(np.ones((8, 5)), np.ones((8, 3)), "
        "client_ids=np.arange(8) % 2, kind='targets')\n"
        "def task(model, outputs): return tasks.regression(model, outputs)\n"
    )
    shared = {"model": "mlp(hidden=[4])", "clients_per_round": 2, "code_dir": str(tmp_path)}
    for text in ("regression", "regression(loss='huber', delta=2)", "my_numbers:task"):
        keys = {**shared, "dataset": "my_numbers:dataset", "task": text}
        found = [experiment.make_experiment(config.resolve(keys)).task]
        if ":" not in text:
            found.append(as_task(shared["model"], dataset, text))
        for task in found:
            shapes = jax.eval_shape(task.init, jax.random.key(0))[0]
            assert shapes["layers"]["1"]["kernel"].shape == (4, 3)
    assert tasks.num_outputs("regression", None, data.from_arrays(x, y[:, 0], **plain)
                             .train.examples.spec) == 1  # fmt: skip
    assert tasks.num_outputs("classification", 7) == 7 and tasks.num_outputs(None, None) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mea"}, "loss = 'mea' is not one of .* Did you mean 'mse'"),
        ({"loss": "huber", "delta": 0}, "delta = 0.0 must be above 0"),
        ({"outputs": 0}, "outputs = 0 must be at least 1"),
        ({"metrics": ("rmse", "auc")}, "metrics = 'auc' is not one of 'rmse', 'mae', 'r2'"),
        ({"metrics": ()}, r"metrics = \(\) names none"),
    ],
)
def test_what_is_no_regression_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tasks.regression(models.mlp((4, 1)), **change)


def test_other_widths_are_refused():
    batch = {"x": np.ones((2, 4)), "y": np.ones((2, 3)), "mask": np.ones(2, bool)}
    for outputs, model, message in (
        (1, 3, r"y has the shape \[2, 3\], and a regression task of outputs = 1 wants \[rows, 1\]"),
        (3, 2, r"The model returns the shape \[2, 2\], and .* outputs = 3 .* last layer"),
    ):
        task = tasks.regression(models.mlp((4, model)), outputs)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(task.measure, *jax.eval_shape(task.init, jax.random.key(0)), batch)
    several = {"y": {"a": jax.ShapeDtypeStruct((), float), "b": jax.ShapeDtypeStruct((2,), float)}}
    with pytest.raises(ValueError, match=r"the shape \[\] and \[2\] here"):
        tasks.num_outputs("regression", None, several)


def test_metrics_by_name_come_in_their_order_with_the_loss():
    task = tasks.make("regression(metrics=['r2'], unit='m')", models.mlp((4, 1)), None)
    assert [metric.name for metric in task.metrics] == ["r2", "loss"]
    assert tasks.regression(models.mlp((4, 1)), unit="m").metrics[0].unit == "m"
