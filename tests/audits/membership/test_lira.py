"""LiRA: against densities target by target, on normal toys where it is optimal, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from fljax.audits.intervals import clopper_pearson
from fljax.audits.membership import curves, designs
from fljax.audits.membership.lira import lira
from fljax.audits.membership.observed import Observed


def toy(models=8, targets=12, looks=1, seed=0, shift=1.0):
    """Returns signals whose mean differs by target, and by whether a model holds it."""
    rng = np.random.default_rng(seed)
    members = designs.halves(models + 1, targets, seed)
    base = 3 * rng.normal(size=(targets, looks))
    mixed = rng.normal(size=(looks, looks)) + 2 * np.eye(looks) if looks > 1 else np.eye(1)
    noise = rng.normal(size=(models + 1, targets, looks)) @ mixed
    signals = base + shift * members[..., None] + noise
    return Observed.of(signals[-1], signals[:-1], members[:-1]), members[-1]


def sides(observed):
    """Yields (values of models with a target, of those without it, what is seen) of each target."""
    for t, seen in enumerate(observed.target):
        held = observed.members[:, t]
        yield observed.shadows[held, t], observed.shadows[~held, t], seen


def pooled(observed, which, center, joint=False):
    """Returns the variance of each look, or all covariances, about the centres of the targets."""
    groups = [pair[which] for pair in sides(observed)]
    rests = np.concatenate([group - center(group, axis=0) for group in groups])
    freedom = len(rests) - len(groups)
    return rests.T @ rests / freedom if joint else (rests**2).sum(0) / freedom


@pytest.mark.parametrize("center", [np.mean, np.median])
@pytest.mark.parametrize("variance", ["global", "per_example"])
@pytest.mark.parametrize("looks", [1, 3])
def test_scores_are_those_of_normal_densities(center, variance, looks):
    observed, _ = toy(looks=looks)
    every = [pooled(observed, which, center) for which in (0, 1)]
    expected, offline = [], []
    for held, without, seen in sides(observed):
        ratios = []
        for number, group in enumerate((held, without)):
            middle = center(group, axis=0)
            own = ((group - middle) ** 2).sum(0) / (len(group) - 1)
            var = own if variance == "per_example" else every[number]
            ratios.append(norm.logpdf(seen, middle, np.sqrt(var)))
            z = (seen - middle) / np.sqrt(var)
        expected.append((ratios[0] - ratios[1]).sum())
        offline.append(z.sum() / np.sqrt(looks))
    options = {"variance": variance, "center": center.__name__}
    np.testing.assert_allclose(lira(**options).score(observed), expected, rtol=1e-9, atol=1e-9)
    found = lira(online=False, **options).score(observed)
    np.testing.assert_allclose(found, offline, rtol=1e-9, atol=1e-9)
    if looks == 1:  # the paper's score, which orders alike
        assert (np.argsort(found) == np.argsort(norm.cdf(offline))).all()


@pytest.mark.parametrize("variance", ["global", "per_example"])
def test_joint_looks_have_the_density_of_a_multivariate_normal(variance):
    observed, _ = toy(models=14, looks=3)
    every = [pooled(observed, which, np.mean, joint=True) for which in (0, 1)]
    expected, offline = [], []
    for held, without, seen in sides(observed):
        ratio = []
        for number, group in enumerate((held, without)):
            cov = np.cov(group.T) if variance == "per_example" else every[number]
            ratio.append(multivariate_normal.logpdf(seen, group.mean(0), cov))
        expected.append(ratio[0] - ratio[1])
        # the most powerful direction against a move of each look by its own deviation
        weights = np.linalg.solve(cov, np.sqrt(np.diag(cov)))
        offline.append(weights @ (seen - without.mean(0)) / np.sqrt(weights @ cov @ weights))
    attack = lira(variance=variance, looks="joint")
    np.testing.assert_allclose(attack.score(observed), expected, rtol=1e-8, atol=1e-8)
    found = lira(online=False, variance=variance, looks="joint").score(observed)
    np.testing.assert_allclose(found, offline, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["global", "per_example"])
def test_a_look_that_repeats_another_adds_nothing_to_joint_ones(online, variance):
    observed, _ = toy()
    twice = Observed.of(
        observed.target.repeat(2, -1), observed.shadows.repeat(2, -1), observed.members
    )
    once = lira(online, variance).score(observed)
    found = lira(online, variance, looks="joint").score(twice)
    # the length of (x, x) is that of x times the root of 2, with and without the target
    np.testing.assert_allclose(found, once, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("looks", ["independent", "joint"])
@pytest.mark.parametrize("variance", ["global", "per_example"])
def test_units_of_the_signal_do_not_matter(looks, variance):
    observed, _ = toy(models=14, looks=2)
    scale = np.array([3.0, 0.2])
    other = Observed.of(observed.target * scale + 5, observed.shadows * scale + 5, observed.members)
    for online in (True, False):
        attack = lira(online, variance, looks=looks)
        np.testing.assert_allclose(attack.score(other), attack.score(observed), atol=1e-8)


def test_on_normal_signals_it_attains_what_the_best_test_does():
    shift = 1.0
    observed, members = toy(models=200, targets=4000, shift=shift, seed=5)
    scores = lira().score(observed)
    verdict = curves.judge(scores, members)
    # a standard error of 0.008, and what 100 models of a side do not know, which is 0.002
    assert verdict.auc == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=0.025)
    low, high = clopper_pearson((scores[members] > 0).sum(), members.sum(), 0.999)
    assert low < norm.cdf(shift / 2) < high
    threshold = curves.judge(observed.target[:, 0], members).auc
    assert verdict.auc > threshold + 0.1  # targets differ by more than membership does


def test_without_a_difference_it_tells_nothing():
    for online in (True, False):
        observed, members = toy(models=20, targets=4000, shift=0.0, seed=6)
        area = curves.judge(lira(online).score(observed), members).auc
        assert area == pytest.approx(0.5, abs=0.03)


def test_losses_are_lower_of_members():
    observed, members = toy(models=40, targets=1000, shift=-2.0)
    for online in (True, False):
        area = curves.judge(lira(online, signal="loss").score(observed), members).auc
        assert area > 0.85
        assert lira(online, signal="loss").signal == "loss"


def test_a_shadow_model_that_is_not_finite_does_not_count():
    observed, _ = toy(looks=2)
    spoilt = observed.shadows.copy()
    spoilt[0, 3, 1], spoilt[1, 5, 0] = np.nan, -np.inf
    scores = lira(variance="per_example").score(observed._replace(shadows=spoilt))
    plain = lira(variance="per_example").score(observed)
    changed = np.flatnonzero(scores != plain)
    assert changed.tolist() == [3, 5]
    for target, model in ((3, 0), (5, 1)):
        rest = np.delete(np.arange(8), model)
        alone = Observed.of(
            observed.target[[target]],
            observed.shadows[rest][:, [target]],
            observed.members[rest][:, [target]],
        )
        assert lira(variance="per_example").score(alone) == pytest.approx(scores[[target]])


def test_a_target_whose_own_signal_is_not_finite_is_last():
    observed, _ = toy()
    observed.target[[2, 4], 0] = np.nan, np.inf
    for attack in (lira(), lira(online=False), lira(looks="joint")):
        scores = attack.score(observed)
        assert np.isneginf(scores[[2, 4]]).all() and np.isfinite(np.delete(scores, [2, 4])).all()


def test_signals_that_never_vary_give_finite_scores():
    shadows = np.array([[1.0], [1.0], [0.0], [0.0]])
    members = np.array([[True], [True], [False], [False]])
    for looks in ("independent", "joint"):
        for seen, sign in ((1.0, 1), (0.0, -1), (0.9, 1)):
            score = lira(looks=looks).score(Observed.of([seen], shadows, members))
            assert np.isfinite(score).all() and np.sign(score[0]) == sign


def test_variances_are_of_each_row_where_there_are_many_models():
    for models, variance in ((62, "global"), (64, "per_example")):
        observed, _ = toy(models=models, targets=6)
        balanced = observed._replace(members=designs.halves(models, 6, 1))
        auto, chosen = (lira(variance=name).score(balanced) for name in ("auto", variance))
        np.testing.assert_array_equal(auto, chosen)


def test_what_it_cannot_do_is_refused_with_the_remedy():
    observed, _ = toy()
    always = observed._replace(members=np.ones_like(observed.members))
    with pytest.raises(ValueError, match="without each target.*12 of 12.*such as target 0"):
        lira().score(always)
    with pytest.raises(ValueError, match="models with each target"):
        lira().score(observed._replace(members=~always.members))
    lira(online=False).score(observed._replace(members=~always.members))  # which needs none
    spoilt = observed.shadows.copy()
    spoilt[:, 7] = np.nan
    with pytest.raises(ValueError, match="target 7.*1 of them had some.*not finite"):
        lira().score(observed._replace(shadows=spoilt))
    two = Observed.of(observed.target, observed.shadows[:2], designs.halves(2, 12, 0))
    with pytest.raises(ValueError, match="per_example.*needs 2 shadow models.*variance='global'"):
        lira(variance="per_example").score(two)
    with pytest.raises(ValueError, match="two shadow models"):
        lira().score(two)
    wide, _ = toy(looks=6)
    with pytest.raises(ValueError, match="needs 7 shadow models.*looks='independent'"):
        lira(variance="per_example", looks="joint").score(wide)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"online": "no"}, "online"),
        ({"variance": "own"}, "variance = 'own' is not one of 'auto'"),
        ({"center": "mode"}, "center"),
        ({"looks": "all"}, "looks"),
        ({"signal": "losses"}, "Did you mean 'loss'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        lira(**options)
