"""Clients are clustered by their labels, or by any table of numbers."""

import consoles
import numpy as np
import pytest

from fljax import data
from fljax.core.clusterings import adjusted_rand_index

PLANTED = np.arange(40) % 4


def label_counts(seed=0):
    """Returns counts of eight labels, of which each of four clusters prefers two."""
    preferred = np.repeat(np.eye(4) * 9 + 0.3, 2, axis=1)
    generator = np.random.default_rng(seed)
    return generator.poisson(preferred[PLANTED])


@pytest.mark.parametrize("distance", ["jensenshannon", "cosine", "euclidean"])
def test_planted_clusters_are_found(distance):
    counts = label_counts()
    counts[7] = 0
    found = data.cluster_clients(counts, 4, distance=distance)
    known = np.arange(40) != 7
    assert found[7] == -1
    assert adjusted_rand_index(found[known], PLANTED[known]) == 1
    assert found[:4].tolist() == [0, 1, 2, 3]
    figure = data.plot_client_clusters(counts, found, distance=distance, title="four")
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (39, 39)
    # clusters stand side by side
    assert drawn[:9, :9].mean() < drawn[:9, 12:].min()


def test_updates_are_clustered_by_their_direction():
    generator = np.random.default_rng(1)
    ways = generator.standard_normal((4, 50))
    updates = ways[PLANTED] * generator.uniform(0.1, 10, (40, 1))
    found = data.cluster_clients(updates, 4, distance="cosine")
    assert adjusted_rand_index(found, PLANTED) == 1


def test_clients_that_are_alike_stay_together():
    assert data.cluster_clients(np.ones((3, 2)), 2).tolist() == [0, 0, 0]
    assert data.cluster_clients(np.zeros((2, 2)), 2).tolist() == [-1, -1]
    assert data.cluster_clients(np.array([[1, 0], [0, 0]]), 2).tolist() == [0, -1]
    assert data.cluster_clients(label_counts(), 1).tolist() == [0] * 40


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match=r"must be a table \[clients, numbers\]"):
        data.cluster_clients(np.ones(3), 2)
    with pytest.raises(ValueError, match="must be a table"):
        data.cluster_clients(np.full((2, 2), np.nan), 2)
    with pytest.raises(ValueError, match="negative numbers"):
        data.cluster_clients(-np.ones((2, 2)), 2)
    with pytest.raises(ValueError, match="distance"):
        data.cluster_clients(np.ones((2, 2)), 2, distance="l1")


def test_the_command_line_says_which_clusters_there_are(tmp_path, monkeypatch, capsys):
    told = consoles.call(
        monkeypatch, capsys, "partition", "--dataset=digits", "--partition=shards",
        "--num_clients=20", "--clusters=3", f"--out={tmp_path / 'partition.png'}",
    )  # fmt: skip
    (line,) = [line for line in told.out.splitlines() if line.startswith("clusters")]
    sizes = line.removeprefix("clusters").split(" clients")[0].split(",")
    assert sum(map(int, sizes)) == 20 and len(sizes) == 3
    assert (tmp_path / "partition_clusters.png").stat().st_size > 1000
