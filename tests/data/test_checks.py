"""Checks of data: planted faults are found with their client, and policies do what they say."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fljax
from fljax import data
from fljax.config import ConfigError, resolve
from fljax.data.checks.reading import hashes


def clients(x, y, ids, **options):
    return data.from_arrays(np.asarray(x, np.float32), y, client_ids=ids, **options)


CLEAN = ([[1.0, 0], [2, 0], [3, 1], [4, 1], [5, 0], [6, 1]], [0, 1, 0, 1, 0, 1], list("aabbcc"))


def test_clean_data_have_no_findings_and_change_nothing():
    dataset = clients(*CLEAN)
    assert not any(data.check(dataset).counts.values())
    kept = data.checked(dataset, "drop_rows")
    assert kept.train is dataset.train
    assert kept.checks["policy"] == "drop_rows" and not any(kept.checks["found"].values())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1)), min_size=3, max_size=40
    )
)
def test_equal_rows_are_those_that_loops_find(rows):
    ids, values, labels = map(np.array, zip(*rows, strict=True))
    dataset = clients(values[:, None], labels, ids, num_classes=2)
    found = data.check(dataset).rows
    triples = [(ids[r], values[r], labels[r]) for r in dataset.train.rows()]
    want = {
        "duplicates": [t in triples[:k] for k, t in enumerate(triples)],
        "shared": [any(o[1:] == t[1:] and o[0] != t[0] for o in triples) for t in triples],
        "contradictions": [any(o[:2] == t[:2] and o[2] != t[2] for o in triples) for t in triples],
    }
    for name, marks in want.items():
        assert found[name]["train"].tolist() == marks, name


def test_hashes_tell_unlike_rows_apart():
    rng = np.random.default_rng(0)
    x = (rng.random((20_000, 60)) < 0.5).astype(np.float32)  # words that differ in few bits
    split = data.Split(data.ArrayExamples({"x": x, "y": np.zeros(len(x), np.int32)}))
    assert len(np.unique(hashes(split)["x"])) == len(np.unique(x, axis=0))


def test_rows_that_are_tested_on_and_rows_out_of_range():
    x, y, ids = CLEAN
    dataset = clients(x, y, ids, x_test=np.float32([x[3], [7, 7]]), y_test=[y[3], 1])
    report = data.check(dataset, value_range=(0, 5))
    assert report.counts["overlap"] == 1 and report.counts["out_of_range"] == 2
    assert report.table()["overlap"].tolist() == [0, 1, 0]
    assert report.table()["out_of_range"].tolist() == [0, 0, 1]  # the test row is nobody's
    kept = data.checked(dataset, "drop_rows(value_range=(0, 5))")
    assert kept.train.partition.sizes.tolist() == [2, 1, 1]
    assert kept.checks["dropped_rows"] == {"train": 2, "test": 1}
    assert kept.test.examples.arrays["x"].tolist() == [x[3]]


def test_rows_that_are_not_finite_leave_alone_or_with_their_client():
    x, y, ids = CLEAN
    x = np.array(x)
    x[2, 0] = np.nan
    dataset = clients(x, y, ids, on_nonfinite="keep", groups={"side": [0, 1, 1]})
    rows = data.checked(dataset, "drop_rows")
    assert rows.train.partition.sizes.tolist() == [2, 1, 2]
    assert "left out by checks: 1 rows of train" in rows.describe()
    fewer = data.checked(dataset, "exclude")
    assert fewer.client_ids.tolist() == ["a", "c"] and fewer.groups["side"].tolist() == [0, 1]
    assert fewer.checks["excluded_clients"] == ["b"]
    assert "left out by checks: 1 client" in fewer.describe()
    with pytest.raises(ValueError, match=r"(?s)1 row of nonfinite .*'drop_rows' leaves such rows"):
        data.checked(dataset, "error")
    with pytest.warns(UserWarning, match="1 row of nonfinite"):
        assert data.checked(dataset, "warn").train is dataset.train


def test_clients_that_are_unlike_all_others_are_found():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(400, 5)), np.arange(400) % 4
    ids = np.repeat(np.arange(10), 40)
    y[ids == 3] = 0  # a client of one class
    x[ids == 5, :4] = 1.0  # a broken instrument
    lonely = clients(np.append(x, [[0.0] * 5], 0), np.append(y, 1), np.append(ids, 10))
    table = data.check(lonely).table()
    assert np.flatnonzero(table["odd_labels"]).tolist() == [3]
    assert np.flatnonzero(table["constant_features"]).tolist() == [5]
    assert np.flatnonzero(table["few_rows"]).tolist() == [10]


def test_noisy_labels_are_suspected_where_they_are():
    digits = data.digits(partition="dirichlet", alpha=0.5, num_clients=10)
    arrays, rows = digits.train.examples.arrays, digits.train.partition.rows(3)
    wrong, y = rows[::3], arrays["y"].copy()
    y[wrong] = (y[wrong] + 1) % 10
    split = data.Split(data.ArrayExamples({"x": arrays["x"], "y": y}), digits.train.partition)
    report = data.check(dataclasses.replace(digits, train=split))
    assert np.flatnonzero(report.clients["noisy_labels"]).tolist() == [3]
    suspects = digits.train.rows()[report.rows["suspect_labels"]["train"]]
    assert len(set(suspects) & set(wrong)) > 0.75 * len(wrong)
    assert len(set(suspects) - set(wrong)) < 0.01 * len(y)
    assert "noisy_labels" in str(report)


def test_a_run_says_what_was_left_out(tmp_path):
    twice = clients(*(list(part) + list(part) for part in CLEAN))
    kept = data.checked(twice, "drop_rows")
    fljax.simulate(
        kept, fljax.models.softmax_regression(2, 2), fljax.algorithms.fedavg(0.1),
        num_rounds=1, clients_per_round=3, workdir=tmp_path, progress=False, lanes=1, devices=1,
    )  # fmt: skip
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["data_checks"]["dropped_rows"] == {"train": 6}
    assert summary["data_checks"]["found"]["duplicates"] == 6


@pytest.mark.parametrize(
    "policy, said",
    [
        ("drop", "drop_rows"),
        ("warn(min_rows=0)", "min_rows"),
        ("warn(value_range=(2, 1))", "value_range"),
        ("drop_rows(checks=['few_rows'])", "exclude"),
        ("exclude(checks=['twins'])", "duplicates"),
    ],
)
def test_wrong_policies_are_refused_before_data_are_read(policy, said):
    with pytest.raises(ConfigError, match=said):
        resolve({"data_checks": policy})


def test_nothing_is_left_of_data_that_are_all_wrong():
    dataset = clients([[1.0], [2.0]], [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="would leave no client"):
        data.checked(dataset, "exclude(min_rows=2)")
