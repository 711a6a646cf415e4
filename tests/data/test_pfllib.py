"""PFLlib's two partitions, against loops that follow its rules client by client."""

import math

import numpy as np
import pytest

from fljax.data import label_counts, make_partition


def classes_of_clients(num_clients, num_classes, per_client):
    """Returns [(clients that share a class), ...] by the rule "pat", dealt by hand."""
    quota, shared = dict.fromkeys(range(num_clients), per_client), []
    for _ in range(num_classes):
        takers = [client for client, left in quota.items() if left][
            : math.ceil(num_clients / num_classes * per_client)
        ]
        for client in takers:
            quota[client] -= 1
        shared.append(takers)
    return shared


@pytest.mark.parametrize(
    ("num_clients", "num_classes", "per_client"), [(20, 10, 2), (15, 10, 2), (10, 4, 1), (12, 5, 5)]
)
def test_pathological_clients_share_classes_as_the_rule_says(num_clients, num_classes, per_client):
    labels = np.random.default_rng(1).permutation(np.arange(6000) % num_classes)
    expected = classes_of_clients(num_clients, num_classes, per_client)
    shares = []
    for seed in range(40):
        partition = make_partition(
            "pfllib_pathological", labels, num_clients, seed, classes_per_client=per_client,
            min_partition_size=0,
        )  # fmt: skip
        counts = label_counts(labels, partition, num_classes)
        for label, takers in enumerate(expected):
            assert np.flatnonzero(counts[:, label]).tolist() == takers
            equal = counts[:, label].sum() / len(takers)
            found = counts[takers[:-1], label]
            assert np.all(found >= int(equal / 10)) and np.all(found < equal)
            shares += (found / equal).tolist()
    np.testing.assert_allclose(np.mean(shares), 0.55, atol=0.02)  # uniform from .1 to 1
    np.testing.assert_allclose(np.std(shares), 0.9 / math.sqrt(12), rtol=0.05)


def test_balanced_clients_get_equal_parts_of_their_classes():
    labels = np.random.default_rng(1).permutation(np.arange(6000) % 10)
    partition = make_partition("pfllib_pathological", labels, 20, balanced=True)
    counts = label_counts(labels, partition, 10)
    for label, takers in enumerate(classes_of_clients(20, 10, 2)):
        assert counts[takers, label].tolist() == [150] * 4 and counts[:, label].sum() == 600


def test_classes_that_nobody_would_own_are_refused():
    labels = np.arange(100) % 10
    with pytest.raises(ValueError, match="3 clients x 2 classes leave class number 6 of 10"):
        make_partition("pfllib_pathological", labels, 3, classes_per_client=2)
    with pytest.raises(ValueError, match="classes_per_client=11"):
        make_partition("pfllib_pathological", labels, 30, classes_per_client=11)


def dirichlet_by_hand(labels, num_clients, alpha, least, rng):
    """[N, K] rows by the rule "dir", until each client has enough."""
    sizes_of_classes = np.bincount(labels)
    while True:
        rows = [[0] * len(sizes_of_classes) for _ in range(num_clients)]
        for label, size in enumerate(sizes_of_classes):
            p = rng.dirichlet([alpha] * num_clients)
            p = [
                share if sum(own) < len(labels) / num_clients else 0
                for share, own in zip(p, rows, strict=True)
            ]
            ends = [int(sum(p[: client + 1]) / sum(p) * size) for client in range(num_clients)]
            for client, (start, end) in enumerate(
                zip([0, *ends], [*ends[:-1], size], strict=False)
            ):
                rows[client][label] = end - start
        if min(map(sum, rows)) >= least:
            return np.array(rows)


def test_dirichlet_clients_are_those_of_the_rule():
    labels, clients, alpha, least, draws = np.arange(1000) % 10, 8, 0.1, 20, 150
    rng = np.random.default_rng(0)
    by_hand = [dirichlet_by_hand(labels, clients, alpha, least, rng) for _ in range(draws)]
    found = [
        label_counts(
            labels,
            make_partition(
                "pfllib_dirichlet", labels, clients, seed, alpha=alpha, min_partition_size=least
            ),
            10,
        )
        for seed in range(draws)
    ]
    for counts in found:
        assert counts.sum() == 1000 and counts.sum(1).min() >= least
        # nobody who has an equal share gets more of the next class
        before = np.cumsum(counts, 1) - counts
        assert not counts[before >= 1000 / clients].any()
    for statistic in (
        lambda counts: counts.sum(1).std(),
        lambda counts: counts.sum(1).min(),
        lambda counts: (counts > 0).sum(1).mean(),
        lambda counts: (counts.max(1) / counts.sum(1)).mean(),
    ):
        ours, theirs = (np.array([statistic(c) for c in each]) for each in (found, by_hand))
        error = np.sqrt((ours.var() + theirs.var()) / draws)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
