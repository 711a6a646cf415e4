"""Thresholds of signals, of all rows and of each class."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.audits.membership import designs, thresholds
from fljax.audits.membership.observed import Observed


def toy(looks=1):
    rng = np.random.default_rng(0)
    members, classes = designs.halves(6, 40, 0), np.arange(40) % 3
    shadows = rng.gamma(2.0, 1 + classes[:, None], (6, 40, looks)) * (1 - 0.4 * members[..., None])
    return Observed.of(rng.gamma(2.0, 1.0, (40, looks)), shadows, members, classes=classes)


@pytest.mark.parametrize("name", ["loss", "entropy", "modified_entropy"])
def test_lower_signals_are_likelier_of_members(name):
    attack = getattr(thresholds, name)()
    observed = toy(looks=2)
    assert (attack.signal, attack.needs) == (name, ())
    np.testing.assert_allclose(attack.score(observed), -observed.target.mean(-1))


@pytest.mark.parametrize("name", ["loss", "entropy", "modified_entropy"])
def test_each_class_has_the_threshold_that_tells_members_of_shadow_models_best(name):
    observed = toy()
    scores = getattr(thresholds, name)(per_class=True).score(observed)
    for label in range(3):
        of_it = observed.classes == label
        held = observed.members[:, of_it]
        values = observed.shadows[:, of_it, 0]
        limit = (scores + observed.target[:, 0])[of_it]
        np.testing.assert_allclose(limit, limit[0])

        def accuracy(limit, values=values, held=held):
            return ((values[held] <= limit).mean() + (values[~held] > limit).mean()) / 2

        best = max(accuracy(value) for value in values.ravel())
        assert accuracy(limit[0] + 1e-9) == best > 0.55


def test_the_score_is_zero_at_the_threshold():
    shadows, members = np.array([[1.0, 5.0], [6.0, 2.0]]), np.array([[True, False], [False, True]])
    observed = Observed.of([2.0, 2.5], shadows, members, classes=np.array([0, 0]))
    assert thresholds.loss(per_class=True).score(observed).tolist() == [0.0, -0.5]


def test_what_is_not_finite_does_not_count_and_is_last():
    observed = toy()
    observed.shadows[0, 3] = np.nan
    observed.target[[1, 2], 0] = np.nan, np.inf
    scores = thresholds.loss(per_class=True).score(observed)
    assert np.isneginf(scores[[1, 2]]).all() and np.isfinite(np.delete(scores, [1, 2])).all()
    assert np.isneginf(thresholds.loss().score(observed)[[1, 2]]).all()


def test_of_equally_good_thresholds_the_lowest_is_taken():
    assert thresholds.best_threshold(np.array([3.0, 4.0]), np.array([0.0, 1.0])) == 3.0
    assert thresholds.best_threshold(np.array([1.0]), np.array([1.0])) == 1.0


def test_classes_are_asked_for():
    observed = toy()
    attack = thresholds.modified_entropy(per_class=True)
    assert attack.needs == ("in", "out", "classes")
    with pytest.raises(ValueError, match="needs the class of each target"):
        attack.score(observed._replace(classes=np.zeros(0, np.int64)))
    members = observed.members | (observed.classes == 2)
    with pytest.raises(ValueError, match="members of class 2 and 0 of others"):
        attack.score(observed._replace(members=members))
    with pytest.raises(ValueError, match="per_class"):
        thresholds.loss(per_class="yes")
