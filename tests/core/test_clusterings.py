"""The adjusted Rand index is scikit-learn's."""

import numpy as np
import pytest

from fljax.core.clusterings import adjusted_rand_index, clusters_of

# (things, clusters of the one and of the other, scikit-learn 1.9.1's adjusted_rand_score)
RANDOM = [
    (30, 3, 4, 0.35989068740803026),
    (200, 5, 2, 0.2058848179746139),
    (57, 10, 10, 0.11056466302367941),
    (7, 7, 1, 0.4878048780487805),
    (40, 6, 40, 0.3278566094100075),
]


@pytest.mark.parametrize("seed", range(len(RANDOM)))
def test_random_clusterings(seed):
    """Half of the things keep their cluster, the others draw one."""
    size, clusters, drawn, expected = RANDOM[seed]
    generator = np.random.default_rng(seed)
    first = generator.integers(0, clusters, size)
    second = np.where(generator.random(size) < 0.5, first, generator.integers(0, drawn, size))
    assert adjusted_rand_index(first, second) == pytest.approx(expected, rel=1e-12)
    assert adjusted_rand_index(second.astype(str), first * 7 - 3) == pytest.approx(expected)
    assert adjusted_rand_index(first, first.max() - first) == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
        ([0, 0, 0, 0], [0, 1, 2, 3], 0.0),
        ([0, 0], [1, 1], 1.0),
        ([3], [4], 1.0),
        ([0, 1, 2], [2, 0, 1], 1.0),
    ],
)
def test_edges(first, second, expected):
    assert adjusted_rand_index(first, second) == pytest.approx(expected, rel=1e-12)


def test_clusterings_of_other_things_are_refused():
    with pytest.raises(ValueError, match=r"not shapes \[2\] and \[3\]"):
        adjusted_rand_index([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match=r"not shapes \[0\]"):
        adjusted_rand_index([], [])


def test_jobs_without_a_cluster_are_in_none():
    stats = {"loss": np.ones(3), "cluster_10": np.array([0, 1, 0]), "cluster_2": [1, 0, 0]}
    assert clusters_of(stats).tolist() == [2, 10, -1]
    assert clusters_of({"loss": np.ones(3)}) is None
