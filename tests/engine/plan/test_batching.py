"""Local batches: every row of an epoch once, whatever the remainder rule, keyed by client."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.core import random
from fljax.engine.plan import batching
from fljax.engine.plan.batching import LocalWork, make_batches, steps_per_job

WORKS = st.builds(
    LocalWork,
    epochs=st.integers(1, 4),
    steps=st.none(),
    batch_size=st.integers(1, 9),
    remainder=st.sampled_from(["partial", "drop", "wrap"]),
    shuffle=st.booleans(),
    batches=st.just("shuffled"),
    capacity=st.none(),
)


def batches_of(sizes, work, seed=0, round=0, clients=None):
    sizes = np.asarray(sizes, np.int64)
    steps = steps_per_job(sizes, work)
    kept = np.flatnonzero(steps)
    clients = np.arange(len(sizes)) if clients is None else np.asarray(clients)
    made = make_batches(
        sizes[kept],
        steps[kept],
        work,
        seeds=np.full(len(kept), seed),
        rounds=np.full(len(kept), round),
        clients=clients[kept],
        occurrence=np.zeros(len(kept), np.int64),
    )
    real = np.arange(work.batch_size) < made.counts[:, None]
    return {
        int(client): [
            made.positions[s][real[s]].tolist() for s in np.flatnonzero(made.job == number)
        ]
        for number, client in enumerate(clients[kept])
    }


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), work=WORKS)
def test_epochs_cover_every_row(sizes, work):
    for client, steps in batches_of(sizes, work).items():
        size, stream = sizes[client], [row for step in steps for row in step]
        if work.remainder == "partial":
            assert len(stream) == size * work.epochs
            per_epoch = size
        elif work.remainder == "drop":
            per_epoch = size // work.batch_size * work.batch_size
            assert len(stream) == per_epoch * work.epochs
        else:
            assert len(stream) == -(-size * work.epochs // work.batch_size) * work.batch_size
            per_epoch = size
        for epoch in range(work.epochs):
            rows = stream[epoch * per_epoch : (epoch + 1) * per_epoch]
            assert len(set(rows)) == per_epoch
            assert set(rows) <= set(range(size))


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5), steps=st.integers(1, 12))
def test_local_steps_are_exact_and_cycle_through_epochs(sizes, steps):
    work = LocalWork(None, steps, 4)
    for client, made in batches_of(sizes, work).items():
        assert len(made) == steps
        per_epoch = -(-sizes[client] // 4)
        for begin in range(0, steps - per_epoch + 1, per_epoch):
            rows = sum(made[begin : begin + per_epoch], [])
            assert sorted(rows) == list(range(sizes[client]))


def test_order_depends_on_the_client_alone():
    work = LocalWork(2, None, 4)
    together = batches_of([9, 14, 7], work, clients=[5, 2, 8])
    alone = batches_of([14], work, clients=[2])
    assert together[2] == alone[2]


@pytest.mark.parametrize("change", [{"seed": 1}, {"round": 1}, {"clients": [3]}])
def test_order_changes_with_each_coordinate(change):
    work = LocalWork(1, None, 4)
    assert batches_of([40], work) != {0: next(iter(batches_of([40], work, **change).values()))}


def test_order_is_that_of_the_random_words():
    sizes, clients = [5, 1, 30], [4, 9, 2]
    made = batches_of(sizes, LocalWork(3, None, 4), seed=6, round=7, clients=clients)
    for client, size in zip(clients, sizes, strict=True):
        expected = []
        for epoch in range(3):
            words = random.bits(0, "shuffle", 6, 7, client, 0, epoch, np.arange(size))
            expected += sorted(range(size), key=words.tolist().__getitem__)
        assert sum(made[client], []) == expected


def test_keys_that_differ_in_their_lowest_bits_alone_are_told_apart():
    position = np.arange(6)
    for low in ([5, 4, 3, 2, 1, 0], [1, 3, 0, 5, 2, 4]):
        keys = np.array(low, np.uint64) + np.uint64(1 << 40)
        order = batching._sorted_positions(keys, position, 6, np.array([6]))
        np.testing.assert_array_equal(order, np.argsort(low))


@pytest.mark.parametrize("sizes", [[1], [3, 2000, 1, 7], [511, 1, 512, 513, 1], [40] * 100])
def test_orders_are_those_of_a_sort_of_each_run(sizes):
    draw, ends = np.random.default_rng(5), np.cumsum(sizes)
    position = np.concatenate([np.arange(size) for size in sizes])
    run = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    keys = run << np.uint64(50) | draw.integers(0, 1 << 50, len(run), dtype=np.uint64)
    order = batching._sorted_positions(keys, position, max(sizes), ends)
    np.testing.assert_array_equal(order, position[np.argsort(keys)])


def test_epochs_are_shuffled_anew():
    (steps,) = batches_of([40], LocalWork(2, None, 40)).values()
    assert steps[0] != steps[1]
    assert sorted(steps[0]) == sorted(steps[1])


def test_shuffling_is_uniform():
    """Over many clients every position is equally likely to come first (chi-squared, 4 sigma)."""
    sizes = np.full(7000, 7)
    first = [steps[0][0] for steps in batches_of(sizes, LocalWork(1, None, 1)).values()]
    counts = np.bincount(first, minlength=7)
    statistic = ((counts - 1000) ** 2 / 1000).sum()
    assert statistic < 6 + 4 * np.sqrt(12)


def test_unshuffled_rows_stay_in_stored_order():
    work = LocalWork(1, None, 4, shuffle=False)
    assert batches_of([6], work) == {0: [[0, 1, 2, 3], [4, 5]]}


def test_wrap_fills_the_last_batch_from_the_next_epoch():
    work = LocalWork(2, None, 4, remainder="wrap", shuffle=False)
    assert batches_of([5], work) == {0: [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]}
