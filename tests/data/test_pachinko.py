"""Pachinko and quantity x label: the procedures of their papers, row by row."""

import numpy as np
import pytest

from fljax.data import label_counts, pachinko, quantity_label
from fljax.data.partitions.mixtures import _draw_without_replacement
from fljax.data.partitions.pachinko import _CIFAR100, hierarchical

PARENT = np.array([0, 0, 1, 1])


def walk(coarse, fine, left):
    """Yields (label, chance) of the next row: a walk down the tree of labels that are left."""
    of_coarse = np.array([left[kind == PARENT].sum() > 0 for kind in (0, 1)]) * coarse
    for label in np.flatnonzero(left):
        siblings = (PARENT == PARENT[label]) & (left > 0)
        chance = of_coarse[PARENT[label]] / of_coarse.sum() * fine[label] / fine[siblings].sum()
        yield label, chance


def test_draws_are_those_of_a_walk_down_the_tree_row_by_row():
    coarse = np.array([[0.8, 0.2], [0.3, 0.7]])
    fine = np.array([[0.6, 0.4, 0.1, 0.9], [0.2, 0.8, 0.5, 0.5]])
    slots, left = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 2])
    exact = {(): (1.0, left)}
    for slot in slots:
        exact = {
            (*labels, label): (chance * step, remaining - np.eye(4, dtype=int)[label])
            for labels, (chance, remaining) in exact.items()
            for label, step in walk(coarse[slot], fine[slot], remaining)
        }
    assert abs(sum(chance for chance, _ in exact.values()) - 1) < 1e-12
    rng, draws, seen = np.random.default_rng(0), 3000, dict.fromkeys(exact, 0)
    mixtures = hierarchical(np.log(coarse), np.log(fine), PARENT)
    for _ in range(draws):
        seen[tuple(_draw_without_replacement(mixtures, slots, left, rng).tolist())] += 1
    for labels, (chance, _) in exact.items():
        assert abs(seen[labels] / draws - chance) < 5 * np.sqrt(chance / draws)


def test_coarse_and_fine_shares_have_the_moments_of_their_distributions():
    labels = np.arange(60_000) % 12
    coarse, alpha, beta, clients, n = np.arange(12) // 3, 0.5, 2.0, 2000, 10
    given = {"coarse": coarse, "alpha": alpha, "beta": beta, "rows_per_client": n}
    partition = pachinko(labels, clients, **given)
    counts = label_counts(labels, partition, 12)
    assert np.all(counts.sum(1) == n)
    of_coarse = counts.reshape(clients, 4, 3).sum(2)
    # Dirichlet-multinomial of 4 coarse labels; and of 3 fine ones, given the rows of a coarse one
    variance = n * 0.25 * 0.75 * (n + 4 * alpha) / (1 + 4 * alpha)
    np.testing.assert_allclose(of_coarse.var(0).mean(), variance, rtol=0.1)
    all_of_one = counts[of_coarse[:, 0] == n][:, :3]
    variance = n * (1 / 3) * (2 / 3) * (n + 3 * beta) / (1 + 3 * beta)
    np.testing.assert_allclose(all_of_one.var(0).mean(), variance, rtol=0.25)


def test_coarse_labels_of_cifar100_and_what_is_refused():
    assert np.bincount(_CIFAR100).tolist() == [5] * 20
    labels = np.arange(5000) % 100
    partition = pachinko(labels, 50)
    assert np.array_equal(np.sort(partition.index), np.arange(5000))
    assert partition.sizes.tolist() == [100] * 50
    counts = label_counts(np.array(_CIFAR100)[labels], partition, 20)
    plain = label_counts(np.array(_CIFAR100)[labels], pachinko(labels, 50, alpha=1e6), 20)
    assert (counts > 5).sum(1).mean() < (plain > 0).sum(1).mean() / 2
    for coarse, message in (([0, 1], "labels go from 0 to 99"), ("cifar10", "names no coarse")):
        with pytest.raises(ValueError, match=message):
            pachinko(labels, 50, coarse=coarse)
    with pytest.raises(ValueError, match="beta must lie between 1e-9"):
        pachinko(labels, 50, beta=1e12)


def test_sizes_and_labels_are_skewed_at_once():
    labels = np.arange(40_000) % 10
    sizes = quantity_label(labels, 400, alpha=100.0, sigma=1.0, min_partition_size=0).sizes
    assert abs(np.log(sizes[sizes > 5]).std() - 1.0) < 0.1
    equal = quantity_label(labels, 400, alpha=2.0, sigma=0.0)
    assert equal.sizes.min() >= 99 and equal.sizes.max() <= 101
    n, alpha = 100, 2.0
    # the first clients of all get their mixture: no class has run out yet
    counts = label_counts(labels, equal, 10)
    variance = n * 0.1 * 0.9 * (n + alpha) / (1 + alpha)
    np.testing.assert_allclose(counts.var(0).mean(), variance, rtol=0.15)
    at_least = quantity_label(labels, 400, alpha=0.5, sigma=2.0, min_partition_size=20)
    assert at_least.sizes.min() == 20
    assert np.array_equal(np.sort(at_least.index), np.arange(40_000))
    both = [label_counts(labels, quantity_label(labels, 50, alpha=a), 10) for a in (0.1, 100.0)]
    mixed = [np.mean([(row > 0.02 * row.sum()).sum() for row in counts]) for counts in both]
    assert mixed[0] < mixed[1] / 2
    assert all(len(set(counts.sum(1))) > 25 for counts in both)
    np.testing.assert_array_equal(*(np.sort(counts.sum(1)) for counts in both))
