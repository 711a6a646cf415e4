"""Gaps between groups of rows are Fairlearn's; intervals cover what they should."""

import numpy as np
import pytest

from fljax.core import fairness

# Predictions of Adult's test people by a rule: well educated, above the middle of age and working
# hours, or with a capital gain. Rows, of class 1, predicted so, and both, by group; and what
# Fairlearn 0.15.0 says of them.
SEX = [[5421, 590, 758, 307], [10860, 3256, 2513, 1710]]
RACE = [
    [159, 19, 14, 4],
    [480, 133, 141, 82],
    [1561, 179, 206, 88],
    [135, 25, 21, 15],
    [13946, 3490, 2889, 1828],
]
RATES_BY_SEX = {
    "accuracy": [0.8646006271905552, 0.7837016574585636],
    "selection_rate": [0.13982660025825494, 0.23139963167587477],
    "true_positive_rate": [0.5203389830508475, 0.5251842751842751],
    "false_positive_rate": [0.09335541295797971, 0.10560231457127828],
}
GAPS_BY_SEX = {
    "demographic_parity_difference": 0.09157303141761983,
    "demographic_parity_ratio": 0.6042645757280735,
    "equalized_odds_difference": 0.01224690161329857,
    "equalized_odds_ratio": 0.8840280948100594,
    "equal_opportunity_difference": 0.004845292133427659,
    "equal_opportunity_ratio": 0.9907741104172862,
}
GAPS_BY_RACE = {
    "demographic_parity_difference": 0.20569968553459123,
    "demographic_parity_ratio": 0.2997457513716044,
    "equalized_odds_difference": 0.40601503759398494,
    "equalized_odds_ratio": 0.3208012326656394,
    "equal_opportunity_difference": 0.40601503759398494,
    "equal_opportunity_ratio": 0.34146341463414637,
}


def rows_of(table):
    """Returns (right, y, group) of the rows that a table counts, in random order."""
    kinds = []
    for group, (rows, positive, selected, hits) in enumerate(table):
        kinds += [(1, 1, group)] * hits + [(0, 1, group)] * (positive - hits)
        kinds += [(0, 0, group)] * (selected - hits)
        kinds += [(1, 0, group)] * (rows - positive - selected + hits)
    shuffled = np.random.default_rng(0).permutation(np.array(kinds))
    return shuffled.T


@pytest.mark.parametrize(
    ("table", "expected", "of_groups"), [(SEX, GAPS_BY_SEX, RATES_BY_SEX), (RACE, GAPS_BY_RACE, {})]
)
def test_gaps_are_fairlearns(table, expected, of_groups):
    right, y, group = rows_of(table)
    counts = fairness.counts_of(right, y, group, len(table))
    np.testing.assert_array_equal(np.stack(counts, -1), table)
    found = fairness.gaps(counts)
    assert found.keys() == set(fairness.GAPS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    for name, values in of_groups.items():
        np.testing.assert_allclose(fairness.rates(counts)[name], values, atol=1e-12)


def test_clients_add_up():
    right, y, group = rows_of(RACE)
    owners = np.random.default_rng(1).integers(0, 7, len(y))
    by_client = fairness.counts_of(right, y, group, 5, owners, 7)
    np.testing.assert_array_equal(np.stack(by_client).sum(1).T, RACE)


def test_groups_without_a_rate_are_left_out():
    counts = fairness.Counts(*np.array([[4, 2, 0], [2, 0, 0], [1, 1, 0], [1, 0, 0]], float))
    found = fairness.gaps(counts)
    assert found["demographic_parity_difference"] == 0.25
    assert np.isnan(found["equal_opportunity_difference"])


def test_intervals_cover_the_population():
    """Clients of one population: the interval has its gap in about 95 of 100 cases."""
    generator = np.random.default_rng(2)
    covered = 0
    for case in range(100):
        rates = np.clip(generator.normal([0.3, 0.5], 0.1, (40, 2)), 0, 1)
        selected = generator.binomial(50, rates).astype(float)
        rows = np.full((40, 2), 50.0)
        counts = fairness.Counts(rows, np.zeros((40, 2)), selected, np.zeros((40, 2)))
        found = fairness.intervals(counts, resamples=200, seed=case)
        low, high = found["demographic_parity_difference"]
        covered += low <= 0.2 <= high
    assert 87 <= covered <= 99
