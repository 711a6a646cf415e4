"""AUC equals a count of all pairs, for all rows, clients and groups, at every evaluation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import fljax
from fljax import data, tasks
from fljax.core import metrics
from fljax.tasks.ranked import AUC

pytestmark = pytest.mark.usefixtures("quick_compilation")


def by_pairs(scores, labels):
    """Returns the share of pairs in which the positive example is ahead; ties count one half."""
    positive, negative = scores[labels > 0], scores[labels == 0]
    if not len(positive) or not len(negative):
        return math.nan
    differences = positive[:, None].astype(float) - negative[None]
    return np.where(differences == 0, 0.5, differences > 0).mean()


@given(
    pairs=st.lists(
        st.tuples(st.sampled_from([-3e38, -1.0, 0.0, 1e-30, 0.5, 2.0]), st.integers(0, 1)),
        max_size=25,
    )
)
def test_ranks_count_pairs(pairs):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs], int)
    np.testing.assert_allclose(tasks.auc(scores, labels), by_pairs(scores, labels), rtol=1e-12)


def test_scores_that_are_no_numbers_have_no_rank():
    assert math.isnan(tasks.auc(np.array([1.0, np.nan]), np.array([0, 1])))


def test_clients_and_groups_have_auc_of_their_own():
    generator = np.random.default_rng(0)
    owners = generator.integers(0, 5, 60)
    labels = np.where(owners == 3, 1, generator.integers(0, 2, 60))
    scores = generator.integers(0, 9, 60).astype(np.float32)
    ones = np.ones(60, np.int32)
    sums = {
        name: (values, ones)
        for name, values in (("loss", scores), ("score", scores), ("label", labels))
    }
    both = (AUC, metrics.LOSS)
    everybody = metrics.global_metrics(both, sums)
    assert everybody["auc"] == pytest.approx(by_pairs(scores, labels))
    table = metrics.client_metrics(both, sums, owners, 7)
    expected = [by_pairs(scores[owners == n], labels[owners == n]) for n in range(5)]
    np.testing.assert_allclose(table["auc"], expected)
    assert table["client"].tolist() == [0, 1, 2, 3, 4] and math.isnan(table["auc"][3])
    groups = metrics.group_metrics(both, sums, owners, np.array([*"aabbbcc"]))
    assert groups["a"]["auc"] == pytest.approx(by_pairs(scores[owners < 2], labels[owners < 2]))


@given(
    pairs=st.lists(st.tuples(st.floats(-6, 6, width=32), st.integers(0, 1)), min_size=1),
    bins=st.integers(2, 30),
)
@settings(max_examples=50)
def test_histograms_are_off_by_their_bound_at_most(pairs, bins):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    edges = np.log(np.arange(1, bins) / np.arange(bins - 1, 0, -1)).astype(np.float32)
    places = np.searchsorted(edges, scores, side="right")
    counts = np.stack([np.bincount(places[labels == of], minlength=bins) for of in (0, 1)])
    area, bound = tasks.auc_of_histograms(counts)
    exact = by_pairs(scores, labels)
    if math.isnan(exact):
        assert math.isnan(area) and math.isnan(bound)
    else:
        assert abs(area - exact) <= bound + 1e-12
        assert area == pytest.approx(by_pairs(places, labels))  # scores of a bin are equal


def test_histograms_add_up_over_clients_and_groups():
    generator = np.random.default_rng(2)
    x = (3 * generator.standard_normal((40, 1))).astype(np.float32)
    y, owners = generator.integers(0, 2, 40), np.arange(40) % 3
    apply = lambda params, x: jnp.concatenate([0 * x, x], 1)  # noqa: E731
    model = (lambda key: {}, apply)
    batch = {"x": x, "y": y, "mask": np.ones(40, bool)}
    found = {}
    for text in ("exact", "histogram(8)"):
        task = tasks.binary(model, auc=text, metrics=("auc", "f1", "recall_macro"))
        sums = jax.device_get(jax.jit(task.measure)({}, {}, {}, batch)).sums
        everybody = metrics.global_metrics(task.metrics, sums)
        table = metrics.client_metrics(task.metrics, sums, owners, 3)
        found[text] = [everybody, *({name: table[name][n] for name in everybody} for n in range(3))]
        rows = owners < 2
        groups = metrics.group_metrics(task.metrics, sums, owners, np.array([*"aab"]))
        of_group = metrics.global_metrics(
            task.metrics, jax.tree.map(lambda leaf, rows=rows: leaf[rows], dict(sums))
        )
        assert groups["a"] == pytest.approx(of_group)
    names = [metric.name for metric in task.metrics]
    assert names == ["auc", "f1", "recall_macro", "loss"]
    for own, rows in zip(
        found["exact"], [owners < 3, *(owners == n for n in range(3))], strict=True
    ):
        assert own["auc"] == pytest.approx(by_pairs(x[rows, 0], y[rows]))
        hits = (y[rows] * (x[rows, 0] > 0)).sum()
        assert own["f1"] == pytest.approx(2 * hits / (y[rows].sum() + (x[rows] > 0).sum()))
    with_bound = tasks.binary(model, auc="histogram(8)")
    assert [metric.name for metric in with_bound.metrics][:2] == ["auc", "auc_error"]
    sums = jax.device_get(jax.jit(with_bound.measure)({}, {}, {}, batch)).sums
    table = metrics.client_metrics(with_bound.metrics, sums, owners, 3)
    for client in range(3):
        exact, near = found["exact"][1 + client]["auc"], found["histogram(8)"][1 + client]["auc"]
        assert 0 < abs(exact - near) <= table["auc_error"][client] < 0.2
    for own, other in zip(*found.values(), strict=True):
        assert own["f1"] == other["f1"]
    broken = jnp.asarray(x).at[5].set(jnp.nan)
    sums = jax.device_get(jax.jit(with_bound.measure)({}, {}, {}, {**batch, "x": broken})).sums
    assert math.isnan(metrics.global_metrics(with_bound.metrics, sums)["auc"])


def test_padding_and_batches_change_nothing():
    generator = np.random.default_rng(1)
    x = generator.standard_normal((50, 3)).astype(np.float32)
    y = (x[:, 0] + generator.standard_normal(50) > 0).astype(np.int32)
    dataset = data.from_arrays(
        x[:30], y[:30], client_ids=np.arange(30) % 3, x_test=x[30:], y_test=y[30:],
        test_client_ids=np.arange(20) % 3,
    )  # fmt: skip
    init = lambda key: {"w": jnp.array([[0.0, 0.3], [0.0, -0.2], [0.0, 0.1]])}  # noqa: E731
    task = tasks.binary((init, lambda params, x: x @ params["w"]))
    run = fljax.simulate(
        dataset, task, num_rounds=1, clients_per_round=3, batch_size=5, eval_batch_size=7,
        eval_clients=-1, progress=False,
    )  # fmt: skip
    weights = np.asarray(run.variables.params["w"])
    scores = x[30:] @ (weights[:, 1] - weights[:, 0])
    assert run.curves["eval/test/auc"][-1] == pytest.approx(by_pairs(scores, y[30:]))
    expected = [by_pairs(scores[n::3], y[30:][n::3]) for n in range(3)]
    assert run.curves["eval/clients/mean"][-1] == pytest.approx(np.nanmean(expected))


def test_more_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes = 4"):
        tasks.binary(toy.softmax_task, num_classes=4)
