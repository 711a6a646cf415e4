"""Tasks of several labels an example against scikit-learn, for all rows, clients and groups."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax
from fljax import data, models, tasks
from fljax.core import metrics
from fljax.training.task_choice import as_task

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS, LABELS = 26, 7
MASK = np.arange(ROWS + 2) < ROWS
OWNERS = np.arange(ROWS) % 3
NAMES = tuple(
    f"{name}_{mean}"
    for name in ("precision", "recall", "f1")
    for mean in ("micro", "macro", "weighted")
)
OF_ROWS = ("subset_accuracy", "label_accuracy", "f1_samples", "recall_at_5", "log_loss")


def examples():
    """Returns scores with ties, and labels of which one always applies and one never does."""
    generator = np.random.default_rng(0)
    scores = generator.integers(-4, 5, (ROWS + 2, LABELS)) / 2 - 0.25
    labels = scores + 2 * generator.standard_normal(scores.shape) > 0
    labels[:, 0], labels[:, 1], labels[3] = True, False, False
    return scores, labels.astype(np.int64)


SCORES, Y = examples()


def measured(task, scores=SCORES):
    batch = {"x": jnp.zeros((len(scores), 1)), "y": jnp.asarray(Y), "mask": jnp.asarray(MASK)}
    sums, counts = jax.device_get(jax.jit(task.judge)(jnp.asarray(scores), batch))
    return jax.tree.map(lambda leaf: leaf[MASK], dict(sums)), counts


def by_scikit_learn(scores, y):
    learn = pytest.importorskip("sklearn.metrics")
    predicted, expected = (scores > 0).astype(int), {}
    for mean in ("micro", "macro", "weighted", "samples"):
        found = learn.precision_recall_fscore_support(y, predicted, average=mean, zero_division=0)
        expected |= dict(zip((f"{n}_{mean}" for n in ("precision", "recall", "f1")), found[:3]))  # noqa: B905
    expected = {name: expected[name] for name in (*NAMES, "f1_samples")}
    expected["subset_accuracy"] = learn.accuracy_score(y, predicted)
    expected["label_accuracy"] = 1 - learn.hamming_loss(y, predicted)
    p = 1 / (1 + np.exp(-scores))
    expected["log_loss"] = learn.log_loss(y.ravel(), p.ravel(), labels=[0, 1])
    both = [k for k in range(LABELS) if 0 < y[:, k].sum() < len(y)]
    areas = [learn.roc_auc_score(y[:, k], scores[:, k]) for k in both]
    expected["auc_macro"] = np.mean(areas)
    expected["auc_micro"] = learn.roc_auc_score(y.ravel(), scores.ravel())
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    expected["recall_at_5"] = np.take_along_axis(y, best, 1).sum() / y.sum()
    return expected


def test_metrics_equal_scikit_learn_for_all_rows_clients_and_groups():
    names = (*NAMES, *OF_ROWS, "auc_macro", "auc_micro")
    with jax.enable_x64(True):
        task = tasks.multi_label(models.mlp((1, LABELS)), LABELS, metrics=names)
        sums, counts = measured(task)
    assert counts is None and [metric.name for metric in task.metrics] == [*names, "loss"]
    scores, y = SCORES[MASK], Y[MASK]
    found = metrics.global_metrics(task.metrics, sums)
    assert found.pop("loss") == pytest.approx(found["log_loss"], abs=1e-12)
    assert found == pytest.approx(by_scikit_learn(scores, y), abs=1e-12)
    table = metrics.client_metrics(task.metrics, sums, OWNERS, 3)
    groups = metrics.group_metrics(task.metrics, sums, OWNERS, np.array([*"aba"]))
    for client in range(3):
        expected = by_scikit_learn(scores[client::3], y[client::3])
        assert {name: table[name][client] for name in expected} == pytest.approx(
            expected, abs=1e-12
        )
    expected = by_scikit_learn(scores[OWNERS != 1], y[OWNERS != 1])
    assert {name: groups["a"][name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_scores_that_are_no_numbers_are_never_right():
    task = tasks.multi_label(models.mlp((1, LABELS)), LABELS, metrics=OF_ROWS[:4])
    rows = np.arange(0, ROWS, 2)
    broken = SCORES.copy()
    broken[rows] = np.nan
    found = metrics.global_metrics(task.metrics, measured(task, broken)[0])
    best = np.argsort(-SCORES, axis=1, kind="stable")[:, :5]
    hits = np.take_along_axis(Y, best, 1)
    hits[rows] = 0
    assert found["recall_at_5"] == pytest.approx(hits[MASK].sum() / Y[MASK].sum(), abs=1e-12)
    broken[:] = np.nan
    found = metrics.global_metrics(task.metrics, measured(task, broken)[0])
    assert [found[name] for name in OF_ROWS[:4]] == [0, 0, 0, 0]


def test_the_f1_of_samples_is_exact_in_single_precision():
    learn = pytest.importorskip("sklearn.metrics")
    task = tasks.multi_label(models.mlp((1, LABELS)), LABELS, metrics=["f1_samples"])
    found = metrics.global_metrics(task.metrics, measured(task, SCORES.astype(np.float32))[0])
    expected = learn.f1_score(Y[MASK], SCORES[MASK] > 0, average="samples", zero_division=0)
    assert found["f1_samples"] == pytest.approx(expected, abs=1e-15)


def test_histograms_of_scores_are_off_by_their_bound_at_most(monkeypatch):
    module = sys.modules["fljax.tasks.multi_label"]  # the package names the function so
    monkeypatch.setattr(module, "MOST_CLASSES", LABELS - 1)
    names = ("auc_macro", "auc_micro", "auc_macro_error", "auc_micro_error", *NAMES)
    task = tasks.multi_label(models.mlp((1, LABELS)), LABELS, metrics=names, auc="histogram(12)")
    sums, counts = measured(task)
    assert sums.keys() == {"loss"}  # counted on the devices, whatever the number of labels
    found = metrics.global_metrics(task.metrics, sums, counts)
    expected = by_scikit_learn(SCORES[MASK], Y[MASK])
    assert {name: found[name] for name in NAMES} == pytest.approx(
        {name: expected[name] for name in NAMES}, abs=1e-12
    )
    for name in ("auc_macro", "auc_micro"):
        assert 0 < found[f"{name}_error"] < 0.1
        assert abs(found[name] - expected[name]) <= found[f"{name}_error"]
    broken = SCORES.copy()
    broken[4, 2] = np.nan
    found = metrics.global_metrics(task.metrics, *measured(task, broken))
    assert np.isnan([found["auc_macro"], found["auc_micro_error"]]).all()


def labelled(y):
    generator = np.random.default_rng(1)
    x = generator.standard_normal((len(y), 4)).astype(np.float32)
    ids = np.arange(len(y)) % 3
    return data.from_arrays(
        x, y, client_ids=ids, x_test=x, y_test=y, test_client_ids=ids, kind="targets"
    )


def test_a_run_by_name_judges_clients_by_labels():
    dataset = labelled(Y[MASK][:, 2:5])
    run = fljax.simulate(
        dataset, "softmax_regression", task="multi_label(positive_weights='balanced')",
        num_rounds=2, clients_per_round=3, batch_size=4, eval_clients=-1, progress=False,
    )  # fmt: skip
    assert jax.tree.leaves(run.variables.params)[1].shape == (4, 3)
    x, y = (dataset.test.examples.arrays[name] for name in "xy")
    kernel = run.variables.params["layers"]["0"]
    scores = x @ np.asarray(kernel["kernel"]) + np.asarray(kernel["bias"])
    learn = pytest.importorskip("sklearn.metrics")
    assert run.curves["eval/test/auc_micro"][-1] == pytest.approx(
        learn.roc_auc_score(y.ravel(), scores.ravel())
    )
    expected = [
        learn.f1_score(y[n::3], scores[n::3] > 0, average="micro", zero_division=0)
        for n in range(3)
    ]
    np.testing.assert_allclose(run.client_metrics["f1_micro"], expected)
    assert run.curves["eval/clients/mean"][-1] == pytest.approx(np.mean(expected))


def test_two_classes_may_be_one_label_with_one_output():
    y = np.array([0, 1, 1, 0, 1, 0])
    dataset = data.from_arrays(np.ones((6, 2)), y, client_ids=np.arange(6) % 2)
    task = as_task("softmax_regression", dataset, "multi_label")
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert shapes[0]["layers"]["0"]["kernel"].shape == (2, 1)
    batch = {**dataset.train.examples.take(np.arange(6)), "mask": np.ones(6, bool)}
    measured = jax.eval_shape(task.measure, *shapes, batch)
    assert measured.sums["loss"].value.shape == (6,)
    ratings = as_task("softmax_regression", dataset, "regression")
    assert jax.eval_shape(ratings.init, jax.random.key(0))[0]["layers"]["0"]["bias"].shape == (1,)


def test_targets_that_are_no_labels_are_refused_by_row_and_label():
    y = np.array([[0, 1], [1, 1], [0, 2], [1, 0]])
    dataset = labelled(y)
    with pytest.raises(ValueError, match="train targets of 'arrays': y, row 2, label 1, is 2: a"):
        fljax.simulate(
            dataset, "softmax_regression", task="multi_label", num_rounds=1, clients_per_round=3
        )
    task = as_task(models.mlp((4, 3)), dataset, "multi_label")
    batch = {**dataset.train.examples.take(np.arange(4)), "mask": np.ones(4, bool)}
    with pytest.raises(ValueError, match=r"returns logits of shape \[4, 3\], and .* 2 labels"):
        jax.eval_shape(task.measure, *jax.eval_shape(task.init, jax.random.key(0)), batch)
