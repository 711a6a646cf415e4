"""Statistics of a partition against plain loops, and that the figure can be drawn."""

import numpy as np
import pytest

from fljax import data
from fljax.data import Partition, label_counts, load, partition_statistics, plot_partition
from fljax.data.dataset import partition_by_owner
from fljax.data.partitions.statistics import label_divergence, split_label_counts


def entropy_bits(p):
    return -sum(v * np.log2(v) for v in p if v > 0)


def test_label_counts_equal_a_loop():
    rng = np.random.default_rng(0)
    labels, owner = rng.integers(0, 4, 50), rng.integers(0, 6, 50)
    counts = label_counts(labels, partition_by_owner(owner, 7), 5)
    for client in range(7):
        for label in range(5):
            assert counts[client, label] == np.sum((owner == client) & (labels == label))


def test_several_labels_a_row_are_all_counted():
    labels = np.array([[0, 1, 1], [2, 2, 2]])
    assert label_counts(labels, Partition([0, 1, 2]), 3).tolist() == [[1, 2, 0], [0, 0, 3]]


def test_label_divergence_equals_the_definition():
    counts = np.array([[3, 0, 1], [0, 5, 0], [0, 0, 0], [2, 2, 2]])
    whole = counts.sum(axis=0) / counts.sum()
    expected = []
    for row in counts[[0, 1, 3]]:
        p = row / row.sum()
        m = (p + whole) / 2
        divergences = [sum(a * np.log2(a / b) for a, b in zip(d, m, strict=True) if a > 0)
                       for d in (p, whole)]  # fmt: skip
        expected.append(np.mean(divergences))
    np.testing.assert_allclose(label_divergence(counts), expected, rtol=1e-12)


def test_statistics_of_known_partitions():
    counts = np.diag([4, 4, 4, 4])
    stats = partition_statistics(Partition([0, 4, 8, 12, 16, 16]), np.vstack([counts, np.zeros(4)]))
    assert stats.num_empty == 1 and stats.size_min == 0 and stats.size_median == 4
    assert stats.effective_classes == pytest.approx(1.0)
    q = np.array([0.25] * 4)
    m = (np.eye(4)[0] + q) / 2
    assert stats.label_divergence == pytest.approx(entropy_bits(m) - entropy_bits(q) / 2)
    same = partition_statistics(Partition([0, 4, 8]), np.full((2, 4), 1))
    assert same.label_divergence == pytest.approx(0.0, abs=1e-12)
    assert same.effective_classes == pytest.approx(4.0)
    assert "4.00 per client" in str(same)


def test_lazy_and_stored_examples_count_alike():
    lazy, stored = (load("synthetic", num_clients=5, materialize=m) for m in (False, True))
    assert np.array_equal(split_label_counts(lazy), split_label_counts(stored))


@pytest.mark.parametrize("clients", [1, 10, 1000])
def test_figure_is_drawn(clients, tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 3000)
    partition = partition_by_owner(rng.zipf(1.5, 3000) % clients, clients)
    figure = plot_partition(
        partition, label_counts(labels, partition, 10), title="t", path=tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert f"{clients:,} clients" in figure.get_suptitle()


def test_targets_without_classes_have_sizes_alone(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((30, 3)), generator.standard_normal((30, 2))
    dataset = data.from_arrays(x, y, kind="targets", partition="quantity", num_clients=4)
    partition = dataset.train.partition
    found = data.partition_statistics(partition)
    assert (found.num_rows, found.size_max) == (30, partition.sizes.max())
    assert found.label_divergence is None and found.effective_classes is None
    assert str(found).endswith("labels             none: the targets have no classes")
    figure = data.plot_partition(partition, title="floats", path=tmp_path / "sizes.png")
    assert len(figure.axes) == 1 and (tmp_path / "sizes.png").exists()
    with pytest.raises(ValueError, match=r"no labels to count. partition_statistics\(partition\)"):
        data.split_label_counts(dataset)
