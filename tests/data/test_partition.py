"""Partitioners: every row once, sizes as promised, the distributions of the papers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.data import PARTITIONERS, label_counts, make_partition
from fljax.data.partitions.mixtures import _draw_without_replacement, flat
from fljax.data.partitions.repair import repaired_partition

ALPHAS = st.sampled_from([0.01, 0.1, 1.0, 100.0, 1e6])
OPTIONS = {
    "iid": {},
    "dirichlet": {"alpha": 0.3},
    "dirichlet_hsu": {"alpha": 0.3},
    "dirichlet_per_client": {"alpha": 0.3},
    "shards": {"shards_per_client": 2},
    "classes_per_client": {"classes_per_client": 2},
    "quantity": {"sigma": 1.5},
    "quantity_label": {"alpha": 0.3, "sigma": 1.5},
    "pachinko": {"coarse": [c // 3 for c in range(20)], "alpha": 0.3, "beta": 1.0},
    "pfllib_pathological": {"classes_per_client": 2},
    "pfllib_dirichlet": {"alpha": 0.3},
}


def labels_of(seed, rows, num_classes):
    """Labels with gaps: about half of the classes do not occur."""
    rng = np.random.default_rng(seed)
    present = rng.permutation(num_classes)[: max(1, num_classes // 2)]
    return rng.choice(present, size=rows)


def assert_each_row_once(partition, rows, num_clients):
    assert partition.num_clients == num_clients
    assert np.array_equal(np.sort(partition.index), np.arange(rows))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), ALPHAS, st.sampled_from([1, 7, 300, 10_000]), st.integers(0, 4))
@pytest.mark.parametrize("name", ["dirichlet", "dirichlet_hsu", "dirichlet_per_client"])
def test_dirichlet_partitions_own_every_row_once(name, seed, alpha, num_clients, minimum):
    rows = minimum * num_clients + 1 + seed % 5000
    labels = labels_of(seed, rows, 12)
    partition = make_partition(
        name, labels, num_clients, seed, alpha=alpha, min_partition_size=minimum
    )
    assert_each_row_once(partition, rows, num_clients)
    assert partition.sizes.min() >= minimum


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", [name for name in OPTIONS if "dirichlet" not in name])
def test_other_partitions_own_every_row_once(name, data):
    num_clients = data.draw(st.integers(5, 400))
    minimum = data.draw(st.integers(0, 5))
    rows = num_clients * max(2, minimum) + data.draw(st.integers(0, 2000))
    labels = labels_of(rows, rows, 8)
    partition = make_partition(
        name,
        labels,
        num_clients,
        data.draw(st.integers(0, 99)),
        min_partition_size=minimum,
        **OPTIONS[name],
    )
    assert_each_row_once(partition, rows, num_clients)
    assert partition.sizes.min() >= minimum


@pytest.mark.parametrize("name", OPTIONS)
def test_the_seed_decides(name):
    labels = np.random.default_rng(0).integers(0, 10, 500)
    first, again, other = (
        make_partition(name, labels, 20, seed, **OPTIONS[name]) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.index, again.index)
    assert np.array_equal(first.offsets, again.offsets)
    assert not np.array_equal(first.index, other.index)


@pytest.mark.parametrize("name", OPTIONS)
def test_too_many_clients_are_refused_with_the_figures(name):
    with pytest.raises(ValueError, match="21 clients x min_partition_size=1 need 21 rows.* 20"):
        make_partition(name, np.arange(20) % 4, 21, **OPTIONS[name])


@pytest.mark.parametrize(
    "name", ["iid", "dirichlet", "dirichlet_hsu", "dirichlet_per_client", "quantity"]
)
def test_clients_without_rows_are_possible_on_request(name):
    partition = make_partition(name, np.arange(20) % 4, 50, min_partition_size=0, **OPTIONS[name])
    assert_each_row_once(partition, 20, 50)


def test_iid_sizes_differ_by_at_most_one():
    sizes = make_partition("iid", 1003, 10).sizes
    assert sizes.max() - sizes.min() == 1


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    labels, clients, alpha = np.zeros(4000, int), 5, 0.5
    shares = np.stack(
        [
            make_partition("dirichlet", labels, clients, s, alpha=alpha, min_partition_size=0).sizes
            for s in range(600)
        ]
    ) / len(labels)
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / clients, atol=0.04)
    np.testing.assert_allclose(shares.var(axis=0).mean(), variance, rtol=0.1)


@pytest.mark.parametrize("name", ["dirichlet_hsu", "dirichlet_per_client"])
def test_mixtures_of_clients_have_the_moments_of_the_distribution(name):
    labels = np.random.default_rng(0).permutation(60_000) % 10
    clients, alpha = 2000, 2.0
    counts = label_counts(labels, make_partition(name, labels, clients, alpha=alpha), 10)
    n = 30
    assert np.all(counts.sum(axis=1) == n)
    # Dirichlet-multinomial with concentration alpha / 10 for each class.
    variance = n * 0.1 * 0.9 * (n + alpha) / (1 + alpha)
    np.testing.assert_allclose(counts.var(axis=0).mean(), variance, rtol=0.1)


def hsu_reference(labels, num_clients, alpha, turns, rng):
    """Label counts by the procedure of Hsu et al., row by row; or by turns of one row a client."""
    num_classes = labels.max() + 1
    left = np.bincount(labels, minlength=num_classes)
    q = rng.dirichlet(alpha * left / left.sum(), num_clients)
    per_client = labels.size // num_clients
    order = np.arange(num_clients)
    order = np.tile(order, per_client) if turns else np.repeat(order, per_client)
    counts = np.zeros((num_clients, num_classes), int)
    for client in order:
        p = q[client] * (left > 0) + 1e-300 * (left > 0)
        label = rng.choice(num_classes, p=p / p.sum())
        left[label] -= 1
        counts[client, label] += 1
    return counts


def effective_classes(counts):
    """The number of equally frequent classes that are as mixed, client by client: exp(entropy)."""
    p = counts / counts.sum(axis=1, keepdims=True)
    return np.exp(-np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1))


@pytest.mark.parametrize(
    ("name", "turns", "expected"),
    [("dirichlet_hsu", False, 1.23), ("dirichlet_per_client", True, 1.79)],
)
def test_filling_client_by_client_is_less_mixed_than_turns(name, turns, expected):
    labels, clients, alpha = np.arange(5000) % 10, 100, 0.1
    rng = np.random.default_rng(0)
    reference = [
        effective_classes(hsu_reference(labels, clients, alpha, turns, rng)) for _ in range(4)
    ]
    ours = [
        effective_classes(
            label_counts(labels, make_partition(name, labels, clients, seed, alpha=alpha), 10)
        )
        for seed in range(8)
    ]
    assert abs(np.mean(ours) - expected) < 0.1
    assert abs(np.mean(ours) - np.mean(reference)) < 0.1
    # also where many classes are wanted
    mild = label_counts(labels, make_partition(name, labels, clients, alpha=100.0), 10)
    reference = hsu_reference(labels, clients, 100.0, turns, rng)
    difference = effective_classes(mild).mean() - effective_classes(reference).mean()
    assert abs(difference) < 0.3


def test_drawing_without_replacement_equals_drawing_one_after_another():
    q = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    slots, left = np.array([0, 1, 0, 1]), np.array([1, 2, 1])
    exact = {}
    for outcome in itertools.product(range(3), repeat=4):
        chance, remaining = 1.0, left.copy()
        for slot, k in zip(slots, outcome, strict=True):
            open_classes = remaining > 0
            chance *= (q[slot, k] * open_classes[k]) / (q[slot] @ open_classes)
            remaining[k] -= 1
        if chance > 0:
            exact[outcome] = chance
    assert abs(sum(exact.values()) - 1) < 1e-12
    rng = np.random.default_rng(0)
    draws = 6000
    seen = dict.fromkeys(exact, 0)
    for _ in range(draws):
        seen[tuple(_draw_without_replacement(flat(np.log(q)), slots, left, rng).tolist())] += 1
    for outcome, chance in exact.items():
        assert abs(seen[outcome] / draws - chance) < 5 * np.sqrt(chance / draws)


def test_self_balancing_keeps_sizes_close():
    labels = np.arange(10_000) % 10
    plain = make_partition("dirichlet", labels, 10, alpha=0.1)
    balanced = make_partition("dirichlet", labels, 10, alpha=0.1, self_balancing=True)
    assert_each_row_once(balanced, 10_000, 10)
    assert balanced.sizes.std() < plain.sizes.std()
    # Nobody that holds its share already gets more of the next class, which has 1,000 rows.
    assert balanced.sizes.max() <= 1000 + 1000


def test_shards_hold_few_labels():
    labels = np.random.default_rng(0).permutation(2000) % 10
    partition = make_partition("shards", labels, 100, shards_per_client=2)
    counts = label_counts(labels, partition, 10)
    assert np.all(partition.sizes == 20)
    # Shards divide the classes evenly here, so that each is of one label.
    assert np.all((counts > 0).sum(axis=1) <= 2)


def test_more_shards_than_rows_are_refused():
    with pytest.raises(ValueError, match="30 shards, but there are only 20 rows"):
        make_partition("shards", np.arange(20) % 2, 10, shards_per_client=3)


@pytest.mark.parametrize(("clients", "k"), [(3, 4), (10, 1), (10, 3), (25, 10), (4, 3)])
def test_clients_have_the_number_of_classes_asked_for(clients, k):
    labels = np.arange(5000) % 10
    partition = make_partition("classes_per_client", labels, clients, classes_per_client=k)
    counts = label_counts(labels, partition, 10)
    assert np.all((counts > 0).sum(axis=1) == k)
    for column in counts.T:
        owned = column[column > 0]
        assert owned.max() - owned.min() <= 1


@pytest.mark.parametrize(("clients", "k", "message"), [(3, 11, "only 10 classes"), (4, 2, "cover")])
def test_impossible_class_counts_are_refused(clients, k, message):
    with pytest.raises(ValueError, match=message):
        make_partition("classes_per_client", np.arange(500) % 10, clients, classes_per_client=k)


def test_quantity_sizes_are_log_normal():
    sizes = make_partition("quantity", 400_000, 2000, sigma=0.5).sizes
    assert abs(np.log(sizes).std() - 0.5) < 0.04
    assert np.all(make_partition("quantity", 400, 20, sigma=0.0).sizes == 20)


def test_natural_clients_are_numbered_by_sorted_id():
    ids = np.array(["b", "a", "c", "a", "b", "a"])
    partition = make_partition("natural", 6, None, client_ids=ids)
    assert [partition.rows(c).tolist() for c in range(3)] == [[1, 3, 5], [0, 4], [2]]
    taken = {k: make_partition("natural", 6, k, client_ids=ids, seed=1) for k in (1, 2, 3)}
    for k, drawn in taken.items():
        owned = [ids[drawn.rows(c)] for c in range(k)]
        assert drawn.num_clients == k and all(len(set(rows)) == 1 for rows in owned)
        names = [rows[0] for rows in owned]
        assert names == sorted(names) and all(
            (ids == n).sum() == len(r) for n, r in zip(names, owned, strict=True)
        )
        # more of them are the same ones and others
        assert set(taken[1].all_rows()) <= set(drawn.all_rows())
    with pytest.raises(ValueError, match="3 natural clients, not 4"):
        make_partition("natural", 6, 4, client_ids=ids)
    with pytest.raises(ValueError, match="client c has 1 rows"):
        make_partition("natural", 6, None, client_ids=ids, min_partition_size=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_repair_moves_only_as_many_rows_as_needed(data):
    clients = data.draw(st.integers(2, 12))
    owner = np.array(data.draw(st.lists(st.integers(0, clients - 1), min_size=24, max_size=60)))
    minimum = data.draw(st.integers(0, len(owner) // clients))
    labels = np.arange(len(owner)) % 3
    before = np.bincount(owner, minlength=clients)
    partition = repaired_partition(owner, labels, clients, minimum, seed=0)
    after = partition.sizes
    assert_each_row_once(partition, len(owner), clients)
    assert np.array_equal(after[before < minimum], np.full((before < minimum).sum(), minimum))
    new_owner = np.empty_like(owner)
    new_owner[partition.index] = partition.owners()
    assert (new_owner != owner).sum() == np.maximum(minimum - before, 0).sum()
    givers = after < before
    if givers.any():
        # The largest give, down to a common level.
        assert after[givers].max() - after[givers].min() <= 1
        assert before[~givers].max(initial=0) <= after[givers].min() + 1


def test_repair_prefers_the_labels_a_client_has():
    owner = np.array([0] * 40 + [1] * 2 + [2] * 2)
    labels = np.array([0, 1] * 20 + [0, 0] + [1, 1])
    counts = label_counts(labels, repaired_partition(owner, labels, 3, 8, seed=0), 2)
    assert counts[1, 1] <= 2 and counts[2, 0] <= 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dirichelt", {}, "Did you mean 'dirichlet'"),
        ("dirichlet", {"alfa": 1.0}, "Did you mean 'alpha'"),
        ("dirichlet", {"alpha": 0.0}, "alpha = 0.0 must be above 0"),
        ("dirichlet", {"alpha": float("nan")}, "alpha = nan must be above 0"),
        ("quantity", {"sigma": -1.0}, "sigma"),
        ("iid", {"min_partition_size": -1}, "min_partition_size = -1 must be at least 0"),
        ("shards", {"shards_per_client": 1.5}, "shards_per_client = 1.5 .float. must be a whole"),
    ],
)
def test_wrong_names_and_values_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_partition(name, np.arange(100) % 5, 4, **options)


def test_partitions_by_label_refuse_what_is_not_a_label():
    with pytest.raises(ValueError, match="one integer label per row"):
        make_partition("dirichlet", np.zeros((10, 3), int), 2, alpha=1.0)
    with pytest.raises(ValueError, match="one integer label per row"):
        make_partition("shards", np.zeros(10), 2)
    with pytest.raises(ValueError, match="num_clients = 0 must be at least 1"):
        make_partition("iid", 10, 0)
    with pytest.raises(ValueError, match="needs num_clients"):
        make_partition("iid", 10, None)


def test_table_and_options_agree():
    assert set(OPTIONS) | {"natural"} == set(PARTITIONERS)
