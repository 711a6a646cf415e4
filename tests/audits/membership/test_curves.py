"""Curves: against pairs counted one by one, thresholds tried one by one, and known intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.audits.membership import curves

SCORED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=25)


def area(scores, members):
    """Returns the share of pairs that are in order, ties halved, counted one by one."""
    pairs = [(a > b) + (a == b) / 2 for a in scores[members] for b in scores[~members]]
    return np.mean(pairs) if pairs else np.nan


def best_rates(scores, members, most):
    """Returns the best true positive rate of all thresholds, and what its false one is."""
    found = (0.0, 0.0)
    for threshold in scores:
        called = scores >= threshold
        false, true = called[~members].mean(), called[members].mean()
        if false <= most:
            found = max(found, (true, false))
    return found


@settings(max_examples=30, deadline=None)
@given(SCORED, st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_numbers_are_those_of_pairs_and_thresholds_tried_one_by_one(scored, most):
    scores = np.array([score for score, _ in scored], float)
    members = np.array([member for _, member in scored])
    verdict = curves.judge(scores, members, rates=(most,))
    assert verdict.auc == pytest.approx(area(scores, members), nan_ok=True)
    if members.all() or not members.any():
        assert np.isnan(verdict.rates[0].tpr) and np.isnan(verdict.balanced_accuracy)
        return
    rate = verdict.rates[0]
    true, false = best_rates(scores, members, most)
    # the lowest threshold that is allowed finds the most, and may accuse more than it must
    assert rate.tpr == pytest.approx(true) and false - 1e-12 <= rate.attained <= most
    called = scores >= rate.threshold
    assert called[members].mean() == rate.tpr and called[~members].mean() == rate.attained
    accuracies = [
        (1 + (scores[members] >= t).mean() - (scores[~members] >= t).mean()) / 2 for t in scores
    ]
    assert verdict.balanced_accuracy == pytest.approx(max(0.5, *accuracies))


@settings(max_examples=20, deadline=None)
@given(SCORED)
def test_a_monotone_transform_of_scores_changes_nothing_and_a_sign_mirrors_the_area(scored):
    scores = np.array([score for score, _ in scored], float)
    members = np.array([member for _, member in scored])
    verdict = curves.judge(scores, members)
    moved = curves.judge(np.exp(scores) - 7, members)
    assert repr(verdict._replace(rates=())) == repr(moved._replace(rates=()))
    assert curves.judge(-scores, members).auc == pytest.approx(1 - verdict.auc, nan_ok=True)


def test_a_strict_rate_with_few_others_accuses_none_of_them():
    scores = np.arange(500, dtype=float)
    members = scores >= 400
    members[450] = False
    rate = curves.judge(scores, members, rates=(0.001,)).rates[0]
    assert (rate.attained, rate.tpr, rate.threshold) == (0.0, 49 / 99, 451.0)


def test_a_rate_that_is_a_whole_number_of_others_is_reached_whatever_is_rounded():
    for others in (100, 1000, 700):
        scores = np.concatenate([np.arange(others), [-1.0]])
        members = np.arange(others + 1) == others
        for hits in range(1, 100):
            step = int(curves.roc(scores, members).at(hits / 100))
            assert step == hits * others // 100


def test_ties_are_judged_together():
    rate = curves.judge([1.0] * 10, [True] * 5 + [False] * 5, rates=(0.5,)).rates[0]
    assert (rate.tpr, rate.attained, rate.threshold) == (0.0, 0.0, np.inf)


def test_rates_have_the_interval_of_clopper_and_pearson():
    # 7 of 20 at 95 %: [0.1539, 0.5922] in tables
    scores = np.concatenate([np.full(7, 2.0), np.zeros(13), np.ones(40)])
    verdict = curves.judge(scores, np.arange(60) < 20, rates=(0.01,))
    rate = verdict.rates[0]
    assert (round(rate.low, 4), rate.tpr, round(rate.high, 4)) == (0.1539, 0.35, 0.5922)
    wider = curves.judge(scores, np.arange(60) < 20, rates=(0.01,), confidence=0.99).rates[0]
    assert wider.low < rate.low and wider.high > rate.high


def test_several_models_are_pooled_and_averaged():
    rng = np.random.default_rng(0)
    members = rng.random((3, 40)) < 0.5
    scores = rng.normal(size=(3, 40)) + members
    judgement = curves.judge_models(scores, members, rates=(0.1,))
    areas = [area(*pair) for pair in zip(scores, members, strict=True)]
    mean, sd = judgement.spread()["auc"]
    assert mean == pytest.approx(np.mean(areas)) and sd == pytest.approx(np.std(areas, ddof=1))
    assert judgement.pooled.auc == pytest.approx(area(scores.ravel(), members.ravel()))
    assert judgement.pooled.members == members.sum()
    tprs = [verdict.rates[0].tpr for verdict in judgement.each]
    assert judgement.spread()["tpr@0.1"][0] == pytest.approx(np.mean(tprs))


def test_models_without_members_are_left_out_of_means():
    scores, members = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[True, False], [False, False]])
    mean, sd = curves.judge_models(scores, members).spread()["auc"]
    assert mean == 1.0 and np.isnan(sd)


def test_subsets_are_judged_by_their_own_rows():
    rng = np.random.default_rng(1)
    members, labels = rng.random((2, 60)) < 0.5, np.arange(60) % 3
    scores = rng.normal(size=(2, 60)) + members * labels
    found = curves.judge_subsets(scores, members, labels)
    assert list(found) == ["0", "1", "2"]
    for label, verdict in found.items():
        of_it = labels == int(label)
        expected = area(scores[:, of_it].ravel(), members[:, of_it].ravel())
        assert verdict.auc == pytest.approx(expected)
    one = curves.judge_subsets(scores[0], members[0], np.full(60, "all"))["all"]
    assert one == curves.judge(scores[0], members[0])


def test_records_are_plain_json():
    judgement = curves.judge_models([[1.0, 0.0], [1.0, 0.0]], [[True, False], [True, True]])
    text = json.dumps(curves.plain(judgement), allow_nan=False)
    found = json.loads(text)
    assert found["pooled"]["members"] == 3 and found["each"][1]["auc"] is None
    assert found["spread"]["auc"] == {"mean": 1.0, "sd": None}
    subsets = curves.plain(curves.judge_subsets([1.0, 0.0], [True, False], [0, 0]))
    assert json.loads(json.dumps(subsets, allow_nan=False))["0"]["auc"] == 1.0
    assert curves.plain(curves.roc([1.0], [True]))["thresholds"] == [None, 1.0]


def test_curves_for_plots_hold_the_rates():
    curve = curves.roc(np.array([5.0, 4.0, 3.0, 2.0]), np.array([True, False, True, False]))
    assert curve.rates(np.array([0.0, 0.49, 0.5, 1.0])).tolist() == [0.5, 0.5, 1.0, 1.0]
    assert np.isnan(curves.roc([1.0], [False]).rates(0.5))
    empty = curves.judge(np.zeros(0), np.zeros(0, bool))
    assert (empty.members, empty.others) == (0, 0) and np.isnan(empty.auc)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curves.judge([np.nan, 1.0], [True, False]), "1 of 2 scores are NaN"),
        (lambda: curves.judge([1.0], [1]), "bool"),
        (lambda: curves.judge([1.0, 2.0], [True]), "shape"),
        (lambda: curves.judge([1.0], [True], rates=(1.5,)), "rates = 1.5"),
        (lambda: curves.judge([1.0], [True], confidence=95), "confidence = 95"),
        (lambda: curves.judge_models([1.0], [True]), "models, rows"),
        (lambda: curves.judge_subsets([1.0], [True], [0, 1]), "a label for each row"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
