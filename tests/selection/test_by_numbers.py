"""Samplers of sizes and probabilities: exact marginals, and estimates without bias."""

import numpy as np
import pytest
from scipy.stats import chisquare
from selection import reference_selection as reference
from selection.test_draws import RARE, assert_drawn_as

from fljax.core import random
from fljax.core.sampler import Selection
from fljax.selection.by_size import by_size
from fljax.selection.clustered import clustered
from fljax.selection.draws import inclusion, one_of_each, strata
from fljax.selection.importance import importance

SIZES = np.array([3, 0, 12, 1, 7, 40, 2, 5, 9, 21])
ROUNDS = 20_000


def drawn(sampler, rounds=ROUNDS):
    return np.stack([sampler.select((), round)[0] for round in range(rounds)])


def test_by_size_draws_rows_with_replacement():
    found = drawn(by_size(10, 4, seed=1, sizes=SIZES))
    counts = np.bincount(found.ravel(), minlength=10)
    rows = SIZES > 0
    expected = counts.sum() * SIZES / SIZES.sum()
    assert chisquare(counts[rows], expected[rows]).pvalue > RARE and not counts[~rows].any()
    # the places of a cohort are independent: pairs come as their product says
    pairs = np.bincount(found[:, 0] * 10 + found[:, 1], minlength=100)
    chances = np.outer(SIZES, SIZES).ravel() / SIZES.sum() ** 2
    assert chisquare(pairs[chances > 0], ROUNDS * chances[chances > 0]).pvalue > RARE


def test_by_size_without_replacement_draws_among_those_that_are_left():
    found = drawn(by_size(10, 2, seed=2, sizes=SIZES, replacement=False), ROUNDS // 2)
    assert_drawn_as([tuple(pair) for pair in found.tolist()], reference.successive(SIZES, 2))


@pytest.mark.parametrize(
    "probabilities", ["sizes", "uniform", [1, 1, 5, 2, 3, 1, 100, 1, 1, 4]], ids=str
)
def test_horvitz_and_thompson_estimate_without_bias(probabilities):
    """Over 1e5 draws the bias is below 3 standard errors, and clients come as pi says."""
    count, draws = 4, 100_000
    weights = {"sizes": SIZES, "uniform": SIZES > 0}.get(str(probabilities))
    weights = np.where(SIZES > 0, probabilities if weights is None else weights, 0).astype(float)
    pi = reference.inclusion(weights, count)
    np.testing.assert_allclose(inclusion(weights, count), pi, atol=1e-12)
    sampler = importance(10, count, 4, SIZES, probabilities)
    updates = np.random.default_rng(0).standard_normal(10)
    # the draws of all rounds at once
    order = random.generator(4, "sampler/importance/order").permutation(10)
    certain, others = order[pi[order] == 1], order[(pi[order] > 0) & (pi[order] < 1)]
    left = count - len(certain)
    picks, turns = (
        random.uniform(4, f"sampler/importance/{name}", np.arange(draws)[:, None], np.arange(left))
        for name in ("picks", "turns")
    )
    free = others[one_of_each(strata(pi[others], left), picks, turns)]
    found = np.concatenate([np.broadcast_to(certain, (draws, len(certain))), free], axis=1)
    for round in range(0, draws, 9_999):
        selection, _ = sampler.select((), round)
        assert isinstance(selection, Selection)
        np.testing.assert_array_equal(selection.clients, found[round])
        factors = count * SIZES[selection.clients] / SIZES.sum() / pi[selection.clients]
        np.testing.assert_allclose(selection.scale, factors)
    scale = np.divide(count * SIZES / SIZES.sum(), pi, out=np.zeros(10), where=pi > 0)
    means = (scale * updates)[found].mean(1)
    error = means.std() / np.sqrt(draws)
    assert abs(means.mean() - updates @ SIZES / SIZES.sum()) < 3 * max(error, 1e-15)
    counts = np.bincount(found.ravel(), minlength=10)
    spread = np.sqrt(draws * pi * (1 - pi))
    assert (np.abs(counts - draws * pi) <= 4 * spread + 1e-6).all()
    assert all(len(set(cohort)) == count for cohort in found[:200].tolist())
    assert sampler.has_scale and sampler.separation == 1


def test_importance_in_proportion_to_sizes_needs_no_factors():
    selection, _ = importance(6, 2, 0, np.array([4, 5, 6, 5, 4, 6])).select((), 0)
    np.testing.assert_allclose(selection.scale, 1)


def test_everybody_is_drawn_where_everybody_must_be():
    selection, _ = importance(4, 3, 0, np.array([5, 0, 1, 2]), "uniform").select((), 7)
    assert sorted(selection.clients.tolist()) == [0, 2, 3]
    np.testing.assert_allclose(np.sort(selection.scale), 3 * np.array([1, 2, 5]) / 8)


def urns_of(sampler, count, num_clients, rounds=ROUNDS):
    """Counts how often each urn gave each client."""
    found = drawn(sampler, rounds)
    return np.stack([np.bincount(found[:, urn], minlength=num_clients) for urn in range(count)])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_urns_by_size_are_those_of_the_paper(count):
    found = urns_of(clustered(10, count, 6, SIZES), count, 10)
    for counts, balls in zip(found, reference.urns_by_size(SIZES.tolist(), count), strict=True):
        there = balls > 0
        assert not counts[~there].any()
        if there.sum() > 1:
            expected = ROUNDS * balls[there] / balls.sum()
            assert chisquare(counts[there], expected).pvalue > RARE


def test_urns_by_labels_hold_clients_alike_and_are_unbiased():
    """A client of more rows than an urn holds has one alone; kinds that fit are not mixed."""
    kinds = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    sizes = np.array([4, 5, 6, 6, 5, 4, 5, 5, 5, 22])
    labels = np.eye(3)[kinds] * 10 + np.random.default_rng(0).random((10, 3))
    sampler = clustered(10, 6, 1, sizes, labels, by="labels")
    found = urns_of(sampler, 6, 10)
    total = found.sum(0)
    expected = 6 * ROUNDS * sizes / sizes.sum()
    assert np.abs(total - expected).max() < 4 * np.sqrt(expected.max())
    assert np.count_nonzero(found[:, 9] == ROUNDS) == 1  # 22 of 67 / 6 rows an urn: one of its own
    even = clustered(6, 3, 0, np.full(6, 4), np.eye(3)[[0, 1, 2, 0, 1, 2]], by="labels")
    for round in range(50):
        assert sorted((even.select((), round)[0] % 3).tolist()) == [0, 1, 2]


def test_urns_by_labels_of_odd_populations():
    for sizes in ([5], [5, 0], [0, 1, 1], [1] * 7, [100, 1, 1]):
        sizes = np.array(sizes)
        labels = np.random.default_rng(1).random((len(sizes), 4))
        for count in range(1, len(sizes) + 1):
            found = drawn(clustered(len(sizes), count, 3, sizes, labels, by="labels"), 2000)
            assert (sizes[found] > 0).all()
            expected = 2000 * count * sizes / sizes.sum()
            counts = np.bincount(found.ravel(), minlength=len(sizes))
            assert np.abs(counts - expected).max() <= 4 * np.sqrt(expected.max())


def test_clustered_sampling_varies_less_than_sampling_by_size():
    values = SIZES / SIZES.max() + np.random.default_rng(2).random(10)
    plain, urns = (
        values[drawn(sampler, 5000)].mean(1).var()
        for sampler in (by_size(10, 4, 0, SIZES), clustered(10, 4, 0, SIZES))
    )
    assert urns < 0.9 * plain


REFUSED = [
    (lambda: by_size(3, 1, 0, np.zeros(3, int)), "sizes are above 0 for 0 of the 3"),
    (lambda: by_size(3, 3, 0, np.array([1, 0, 1]), replacement=False), "for 2 of the 3"),
    (lambda: by_size(3, 4, 0, np.ones(3)), "clients_per_round = 4, but the population has 3"),
    (lambda: by_size(3, 1, 0, np.ones(2)), "sizes has 2 entries"),
    (lambda: by_size(3, 1, 0, np.ones(3), replacement="no"), "must be True or False"),
    (lambda: importance(3, 2, 0, np.ones(3), "rows"), "choose 'sizes' or 'uniform'"),
    (lambda: importance(3, 2, 0, np.ones(3), [1, 0, 1]), "client 1 has 1 rows"),
    (lambda: importance(3, 2, 0, np.ones(3), [1, -1, 1]), r"probabilities\[1\] = -1"),
    (lambda: importance(3, 2, 0, np.array([1, 0, 0])), "above 0 for 1 of the 3"),
    (lambda: clustered(3, 2, 0, np.ones(3), by="labels"), "there are no labels"),
    (lambda: clustered(3, 2, 0, np.ones(3), np.ones((2, 2)), by="labels"), r"shape \[2, 2\]"),
    (lambda: clustered(2, 2, 0, np.ones(2), np.eye(2) * [1, 0], by="labels"), "no direction"),
    (lambda: clustered(3, 2, 0, np.ones(3), by="loss"), "is not one of 'sizes', 'labels'"),
]


@pytest.mark.parametrize(("call", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_arguments_that_do_not_fit_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
