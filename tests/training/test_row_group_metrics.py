"""Runs report each group of rows, and gaps between groups, as loops over rows would."""

import jax
import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, tasks
from fljax.core import fairness
from fljax.training.record_keys import evaluation_keys

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

GENERATOR = np.random.default_rng(0)
SEX = np.where(GENERATOR.random(160) < 0.4, "f", "m")
X = GENERATOR.standard_normal((160, 3)).astype(np.float32)
Y = (X[:, 0] + 0.5 * (SEX == "m") + GENERATOR.standard_normal(160) > 0).astype(int)


def adult_like(**options):
    return data.from_arrays(X, Y, row_groups={"sex": SEX}, num_clients=8, **options)


def task():
    return tasks.classification(models.softmax_regression(3, 2), 2)


def test_groups_of_rows_are_reported():
    dataset = adult_like(own_test_fraction=0.5)
    run = fljax.simulate(
        dataset,
        task(),
        algorithms.fairfed(0.5, 0.3),
        num_rounds=2,
        clients_per_round=4,
        eval_every=2,
        progress=False,
    )
    rows = dataset.test.rows()
    params = run.variables.params
    bias, kernel = sorted(jax.tree.leaves(params), key=np.ndim)
    logits = X[rows] @ kernel + bias
    predicted, y, sex = np.asarray(logits).argmax(1), Y[rows], SEX[rows]
    last = {key: curve[-1] for key, curve in run.curves.items()}
    for value in "fm":
        own = sex == value
        assert last[f"eval/groups/sex/{value}/accuracy"] == np.mean(predicted[own] == y[own])
        assert last[f"eval/groups/sex/{value}/selection_rate"] == np.mean(predicted[own] == 1)
        assert last[f"eval/groups/sex/{value}/true_positive_rate"] == np.mean(
            predicted[own & (y == 1)] == 1
        )
    gap = "eval/fairness/sex/demographic_parity_difference"
    parity = abs(np.mean(predicted[sex == "f"]) - np.mean(predicted[sex == "m"]))
    assert last[gap] == pytest.approx(parity, abs=1e-12)
    assert last[f"{gap}/low"] <= last[f"{gap}/high"]
    keys = {key for key in last if key.startswith(("eval/groups/", "eval/fairness/"))}
    bounds = {key for key in keys if key.endswith(("/low", "/high"))}
    assert len(bounds) == 2 * len(fairness.GAPS)
    assert keys - bounds == {
        key for key in evaluation_keys(dataset, task().metrics) if "/sex/" in key
    }


def test_clients_own_models_are_reported_by_groups_of_rows_too():
    """Each client's rows are judged by the model that it kept, as a loop over clients would."""
    dataset = adult_like(own_test_fraction=0.4)
    kept = {}

    def keep(federation, record):
        rows = federation.store.rows_of(np.arange(8), 0).algorithm
        kept["params"] = jax.tree.map(np.asarray, rows.params)

    run = fljax.simulate(
        dataset,
        task(),
        algorithms.local_only(0.5),
        num_rounds=2,
        clients_per_round=8,
        eval_every=2,
        eval_personal=-1,
        hooks=[keep],
        progress=False,
    )
    bias, kernel = sorted(jax.tree.leaves(kept["params"]), key=np.ndim)
    predicted, rows = [], []
    for client in range(8):
        own = dataset.test.partition.rows(client)
        predicted.append((X[own] @ kernel[client] + bias[client]).argmax(1))
        rows.append(own)
    predicted, rows = np.concatenate(predicted), np.concatenate(rows)
    y, sex = Y[rows], SEX[rows]
    last = {key: curve[-1] for key, curve in run.curves.items()}
    for value in "fm":
        own = sex == value
        found = f"eval/personal/groups/sex/{value}"
        assert last[f"{found}/accuracy"] == np.mean(predicted[own] == y[own])
        assert last[f"{found}/true_positive_rate"] == np.mean(predicted[own & (y == 1)] == 1)
    parity = abs(np.mean(predicted[sex == "f"]) - np.mean(predicted[sex == "m"]))
    gap = "eval/personal/fairness/sex/demographic_parity_difference"
    assert last[gap] == pytest.approx(parity, abs=1e-12)
    assert last[f"{gap}/low"] <= last[f"{gap}/high"]
    keys = {key for key in last if key.startswith("eval/personal/") and "/sex/" in key}
    named = evaluation_keys(dataset, task().metrics, eval_personal=-1)
    assert len(named) == len(set(named))
    assert {key for key in keys if not key.endswith(("/low", "/high"))} == {
        key for key in named if key.startswith("eval/personal/") and "/sex/" in key
    }


def test_the_model_sees_no_groups_and_splits_keep_them():
    dataset = adult_like(own_test_fraction=0.25, val_fraction=0.25)
    numbers = (SEX == "m").astype(int)
    for split in (dataset.train, dataset.val, dataset.test):
        found = split.examples.take(split.rows())
        np.testing.assert_array_equal(found["groups"]["sex"], numbers[split.rows()])
        assert found["x"].shape[1] == 3
    assert dataset.row_groups == {"sex": ("f", "m")}
    assert dataset.population.row_groups == {"sex": 2}


def test_dropped_rows_take_their_groups_along():
    x = X.copy()
    x[3] = np.nan
    with pytest.warns(UserWarning, match="dropped"):
        dataset = data.from_arrays(
            x, Y, row_groups={"sex": SEX}, num_clients=2, on_nonfinite="drop"
        )
    kept = np.delete((SEX == "m").astype(int), 3)
    np.testing.assert_array_equal(dataset.train.examples.arrays["groups"]["sex"], kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_groups": {"sex": SEX[:5]}}, "one whole number or text for each of the 160 rows"),
        ({"row_groups": {"age": np.arange(160)}}, "160 values, of which 100"),
        ({"row_groups": ["f"]}, "row_groups"),
        ({"row_groups": {"sex": SEX}, "x_test": X, "y_test": Y}, "both need the same names"),
    ],
)
def test_wrong_groups_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(X, Y, num_clients=8, **options)


@pytest.mark.parametrize(
    ("spec", "dataset", "message"),
    [
        (algorithms.fairfed(), data.from_arrays(X, Y, num_clients=8), "no groups of rows"),
        (algorithms.fairfed(sensitive="race"), adult_like(), "sensitive = 'race'"),
        (algorithms.afl(fair_among="groups"), adult_like(), "have no groups"),
        (algorithms.gifair(fair_among="groups"), adult_like(), "have no groups"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_algorithms_refuse_data_without_their_groups(spec, dataset, message):
    with pytest.raises(ValueError, match=message):
        fljax.simulate(dataset, task(), spec, num_rounds=1, clients_per_round=4, progress=False)


def test_an_aggregator_beside_a_rule_of_the_algorithm_is_refused():
    from fljax.core.transforms import Aggregator, Pipeline

    median = Aggregator("stack", lambda stack, cohort, state: (jax.numpy.median(stack, 0), state))
    with pytest.raises(ValueError, match="a rule of its own"):
        fljax.simulate(
            adult_like(),
            task(),
            algorithms.fedmgda(),
            num_rounds=1,
            clients_per_round=4,
            pipeline=Pipeline(aggregator=median),
            progress=False,
        )
