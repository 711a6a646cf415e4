"""RMIA: against its algorithm, pair by pair, and its edges."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.audits.membership import curves, designs
from fljax.audits.membership.observed import Observed
from fljax.audits.membership.rmia import rmia


def toy(models=6, targets=9, population=11, looks=1, seed=0):
    rng = np.random.default_rng(seed)
    members = designs.halves(models + 1, targets, seed)
    hard = rng.normal(size=(targets, looks))
    logits = hard + 1.5 * members[..., None] + rng.normal(size=(models + 1, targets, looks))
    others = rng.normal(size=(population, looks))
    others = others + rng.normal(size=(models + 1, population, looks))
    p, z = (1 / (1 + np.exp(-each)) for each in (logits, others))
    return Observed.of(p[-1], p[:-1], members[:-1], z[-1], z[:-1]), members[-1]


def algorithm(observed, online, a, gamma, look=0):
    """Returns the scores of Algorithm 1, row by row."""
    scores = []
    for x in range(len(observed.target)):
        held = observed.members[:, x]
        without = observed.shadows[~held, x, look].mean()
        if online:
            p_x = (without + observed.shadows[held, x, look].mean()) / 2
        else:
            p_x = ((1 + a) * without + (1 - a)) / 2
        ratio_x = observed.target[x, look] / p_x
        count = 0
        for z in range(len(observed.population)):
            p_z = observed.population_shadows[:, z, look].mean()
            count += ratio_x / (observed.population[z, look] / p_z) > gamma
        scores.append(count / len(observed.population))
    return scores


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(("a", "gamma"), [(0.3, 1.0), (0.0, 1.3), (1.0, 0.8)])
def test_scores_are_those_of_the_algorithm(online, a, gamma):
    observed, _ = toy()
    scores = rmia(online, a, gamma).score(observed)
    np.testing.assert_allclose(scores, algorithm(observed, online, a, gamma), rtol=1e-15)
    assert 0 < scores.std()


def test_several_looks_have_the_mean_score():
    observed, _ = toy(looks=3)
    expected = np.mean([algorithm(observed, True, 0.3, 1.0, look) for look in range(3)], 0)
    np.testing.assert_allclose(rmia().score(observed), expected)


def test_it_tells_members():
    observed, members = toy(models=20, targets=1000, population=300)
    area = curves.judge(observed.target[:, 0], members).auc
    for online in (True, False):
        assert curves.judge(rmia(online).score(observed), members).auc > area + 0.03


def test_what_is_not_finite_does_not_count():
    observed, _ = toy()
    shadows, population = observed.shadows.copy(), observed.population.copy()
    shadows[0, 2], population[4] = np.nan, np.nan
    scores = rmia().score(observed._replace(shadows=shadows, population=population))
    expected = observed._replace(
        population=np.delete(population, 4, 0),
        population_shadows=np.delete(observed.population_shadows, 4, 1),
    )
    plain = np.array(algorithm(expected, True, 0.3, 1.0))
    np.testing.assert_allclose(np.delete(scores, 2), np.delete(plain, 2))
    observed.target[3] = np.nan
    assert rmia().score(observed)[3] == -np.inf


def test_probabilities_of_zero_are_allowed():
    observed, _ = toy()
    observed.target[0] = 0.0
    observed.shadows[:, 1] = 0.0
    scores = rmia().score(observed)
    assert scores[0] == 0.0 and scores[1] == 1.0


def test_what_it_needs_is_said():
    observed, _ = toy()
    assert rmia().needs == ("in", "out", "population") and rmia().signal == "probability"
    assert rmia(online=False).needs == ("out", "population")
    alone = Observed.of(observed.target, observed.shadows, observed.members)
    with pytest.raises(ValueError, match="rmia needs rows of a population"):
        rmia().score(alone)
    with pytest.raises(ValueError, match="rmia needs shadow models with each target"):
        rmia().score(observed._replace(members=np.zeros_like(observed.members)))
    for options in ({"a": 1.5}, {"gamma": 0.0}, {"online": 2}):
        with pytest.raises(ValueError, match=next(iter(options))):
            rmia(**options)


def test_a_row_does_not_exceed_its_equal():
    population, others = np.array([0.2, 0.5, 0.5, 0.7]), np.full((2, 4), 0.5)
    members = np.array([[True], [False]])
    observed = Observed.of([0.5], np.full((2, 1), 0.5), members, population, others)
    assert rmia().score(observed).tolist() == [0.25]
