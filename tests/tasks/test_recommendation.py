"""Recommendation against loops over users and items, and scikit-learn's NDCG."""

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from flax import nnx

import fljax
from fljax import algorithms, data, models, tasks
from fljax.core import metrics

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

ITEMS, ROWS, KEY = 12, 9, jax.random.key(3)


def users(seed=0, ties=True):
    """Returns (params, batch): scores of all users with ties, and users with few or no items."""
    generator = np.random.default_rng(seed)
    scores = generator.standard_normal((ROWS, ITEMS)).astype(np.float32)
    scores = np.round(scores) if ties else scores
    x, y = np.zeros((2, ROWS, 4), np.int32)
    for row in range(ROWS):
        drawn = generator.permutation(np.arange(1, ITEMS))[: generator.integers(2, 9)]
        x[row, : len(drawn[:4])], y[row, : len(drawn[4:])] = drawn[:4], drawn[4:]
    y[0] = x[0]  # a training row
    y[1] = 0
    x[-1], y[-1] = 10**6, 10**6
    return jnp.asarray(scores), {"x": x, "y": y, "mask": np.arange(ROWS) < ROWS - 1}


def task(**options):
    network = tasks.from_functions(lambda key: None, lambda scores, x: scores)
    return tasks.recommendation(network, ITEMS, cutoffs=(1, 3, 20), **options)


def candidates(batch, row):
    """Returns (items to recommend, the other candidates) of a user, as sets."""
    y = {*batch["y"][row].tolist()} - {0}
    return y, set(range(1, ITEMS)) - {*batch["x"][row].tolist()} - y


def judged(scores, batch, rows, k):
    """Returns mean NDCG and recall at k of users who have items to recommend."""
    ndcg, recall = [], []
    for row in rows:
        y, others = candidates(batch, row)
        if not y:
            continue
        order = sorted(y | others, key=lambda item: (-scores[row, item], item in y, item))
        gains = [1 / np.log2(place + 2) for place, item in enumerate(order[:k]) if item in y]
        ndcg.append(sum(gains) / sum(1 / np.log2(place + 2) for place in range(min(k, len(y)))))
        recall.append(len(gains) / len(y))
    return np.mean(ndcg), np.mean(recall)


def test_places_are_those_of_sorted_candidates():
    scores, batch = users()
    sums = jax.device_get(jax.jit(task().measure)(scores, {}, {}, batch).sums)
    found = metrics.global_metrics(task().metrics, sums)
    owners = np.arange(ROWS) % 3
    table = metrics.client_metrics(task().metrics, sums, owners, 3)
    for k in (1, 3, 20):
        names = [f"ndcg@{k}", f"recall@{k}"]
        expected = judged(np.float64(scores), batch, range(ROWS - 1), k)
        np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-12)
        for place, client in enumerate(table["client"]):
            rows = np.flatnonzero(owners[:-1] == client)
            own = judged(np.float64(scores), batch, rows, k)
            np.testing.assert_allclose([table[name][place] for name in names], own, rtol=1e-12)


def test_ndcg_is_scikit_learn_s():
    ndcg_score = pytest.importorskip("sklearn.metrics").ndcg_score
    scores, batch = users(1, ties=False)
    found = metrics.global_metrics(
        task().metrics, jax.jit(task().measure)(scores, {}, {}, batch).sums
    )
    each = []
    for row in range(ROWS - 1):
        y, others = candidates(batch, row)
        items = sorted(y | others)
        if y:
            is_chosen = [[item in y for item in items]]
            each.append(ndcg_score(is_chosen, [np.float64(scores)[row, items]], k=3))
    assert found["ndcg@3"] == pytest.approx(np.mean(each), rel=1e-12)


def test_losses_are_those_of_loops():
    scores, batch = users(2, ties=False)
    reference = np.float64(scores)
    (value, weight), _ = jax.jit(task().loss, static_argnums=5)(scores, {}, {}, batch, KEY, True)
    for row in range(ROWS):
        y, others = candidates(batch, row) if row < ROWS - 1 else (set(), set())
        whole = np.exp(reference[row, sorted(y | others)]).sum()
        terms = [np.log(whole) - reference[row, item] for item in y]
        assert weight[row] == len(y)
        np.testing.assert_allclose(value[row], sum(terms), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_others_are_drawn_uniformly_from_what_is_free(loss):
    """A loss of many others is their expectation; the drawn ones are never the user's own."""
    scores, batch = users(3, ties=False)
    many = 4000
    sampled = task(loss=loss, negatives=many)
    (value, weight), _ = jax.jit(sampled.loss, static_argnums=5)(scores, {}, {}, batch, KEY, True)
    for row in range(1, ROWS - 1):
        y, others = candidates(batch, row)
        own = np.float64(scores)[row, sorted(y)][:, None]
        free = np.float64(scores)[row, sorted(others)]
        if loss == "bpr":
            terms = np.log1p(np.exp(free - own)).mean(1)
        else:
            terms = np.log1p(many * np.exp(free - own).mean(1))
        np.testing.assert_allclose(value[row], terms.sum(), rtol=0.05)
        assert weight[row] == len(y)


def test_evaluations_draw_the_same_in_any_batch():
    scores, batch = users(4)
    measure = jax.jit(task(loss="bpr").measure)
    whole = measure(scores, {}, {}, batch).sums["loss"].value
    order = np.random.default_rng(0).permutation(ROWS)
    moved = {name: values[order] for name, values in batch.items()}
    np.testing.assert_allclose(
        measure(scores[order], {}, {}, moved).sums["loss"].value, whole[order]
    )
    assert not np.isnan(whole).any() and whole[-1] == 0


def test_what_does_not_fit_is_refused():
    scores, batch = users()
    with pytest.raises(ValueError, match=r"x is float32\[9, 4\]"):
        jax.eval_shape(task().measure, scores, {}, {}, batch | {"x": batch["x"].astype(np.float32)})
    with pytest.raises(ValueError, match=r"shape \[9, 5\]; \[9, 12\] is wanted"):
        jax.eval_shape(task().measure, scores[:, :5], {}, {}, batch)
    for cutoffs in ((), (3, 3), (0,), "10"):
        with pytest.raises(ValueError, match="cutoffs"):
            tasks.recommendation(models.matrix_factorization(5), 5, cutoffs=cutoffs)


def pairs():
    """Returns 40 users of two tastes, who choose 5 of the 8 items of theirs."""
    generator = np.random.default_rng(0)
    people = [f"user{number:02}" for number in range(40)]
    chosen = [generator.permutation(8)[:5] + 8 * (number % 2) for number in range(40)]
    return np.repeat(people, 5), np.concatenate(chosen)


def test_histories_are_in_the_order_of_times():
    people, items = np.array([*"bababb"]), np.array([7, 5, 5, 9, 7, 9])
    times = [3, 1, 2, 4, 9, 1]
    found = data.from_interactions(people, items, times)
    assert found.client_ids.tolist() == ["a", "b"] and found.num_classes == 4
    assert found.train.examples.take(np.arange(2))["x"].tolist() == [[1, 0], [3, 1]]
    test = found.test.examples.take(found.test.rows())
    assert test["x"].tolist() == [[1, 0], [3, 1]] and test["y"].tolist() == [[3, 0], [2, 0]]
    longest = data.from_interactions(people, items, times, longest=1)
    assert longest.train.examples.take(np.arange(2))["x"].tolist() == [[1], [1]]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_of_choices_are_read(suffix, tmp_path):
    people, items = pairs()
    names = [f"item{number}" for number in items]
    times = np.random.default_rng(1).permutation(len(items))
    path = tmp_path / f"choices.{suffix}"
    table = pyarrow.table({"who": people, "what": names, "stars": items, "when": times})
    write = pyarrow.csv.write_csv if suffix == "csv" else pyarrow.parquet.write_table
    write(table, path)
    columns = {"user": "who", "item": "what", "time": "when"}
    found = data.load("interactions", path=str(path), held_out=2, val_fraction=0.0, **columns)
    expected = data.from_interactions(people, names, times, held_out=2)
    assert found.client_ids.tolist() == expected.client_ids.tolist()
    for split in ("train", "test"):
        rows = [getattr(each, split) for each in (found, expected)]
        rows = [each.examples.take(each.rows()) for each in rows]
        for part in ("x", "y"):
            np.testing.assert_array_equal(rows[0][part], rows[1][part])
    with pytest.raises(ValueError, match="no column 'whom'.*did you mean 'who'"):
        data.interactions(str(path), user="whom")
    write(table.set_column(1, "what", pyarrow.array([None, *names[1:]])), path)
    with pytest.raises(ValueError, match="row 1, column 'what': this is missing"):
        data.interactions(str(path), **columns)


def test_users_keep_their_vectors_and_learn_from_each_other():
    dataset = data.from_interactions(*pairs())
    model = models.make("matrix_factorization(dim=4)", dataset.num_classes, (4,))
    run = fljax.simulate(
        dataset,
        tasks.make("recommendation(cutoffs=[3])", model, dataset.num_classes),
        algorithms.fedper(1.0, personal="user"),
        num_rounds=20, clients_per_round=40, batch_size=1, local_epochs=3, eval_personal=-1,
        eval_every=20, progress=False,
    )  # fmt: skip
    # one of the 4 items of one's taste that are left, or one of all 12: 0.53 or 0.18 at best
    assert run.curves["eval/personal/mean"][-1] > 0.4
    assert run.curves["eval/test/ndcg@3"][-1] < 0.3


def test_the_factorization_is_that_of_loops():
    x = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 0]])
    model = models.matrix_factorization(5, dim=2, user="history")(nnx.Rngs(0))
    items, bias, history = (
        np.float64(each[...]) for each in (model.items, model.bias, model.history)
    )
    for row, found in zip(x, jax.jit(lambda x: model(x))(x), strict=True):
        for item in range(5):
            others = [other for other in row if other not in (0, item)]
            user = sum((history[other] for other in others), np.zeros(2))
            score = user @ items[item] / max(len(others), 1) ** 0.5 + bias[item]
            np.testing.assert_allclose(found[item], score, rtol=1e-5, atol=1e-6)
    personal = models.matrix_factorization(5, dim=2)(nnx.Rngs(0))
    np.testing.assert_array_equal(personal(x[:, 0]), personal(x)[0, x[:, 0]])
    with pytest.raises(ValueError, match="choose user='personal'"):
        model(x[:, 0])
