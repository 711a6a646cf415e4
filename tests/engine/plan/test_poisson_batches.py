"""Poisson batches: rows by themselves with one probability, in batches that are never cut."""

import numpy as np
import pytest
import toy
from scipy import stats

from fljax import algorithms
from fljax.engine.plan.batching import LocalWork, make_batches
from fljax.engine.plan.poisson_batches import capacity, rate_of


def drawn(sizes, steps, batch_size, rounds=0, clients=None):
    """Returns (positions, counts, job) of one job a size."""
    sizes = np.asarray(sizes, np.int64)
    work = LocalWork(
        None, steps, batch_size, batches="poisson", capacity=capacity(sizes, batch_size)
    )
    made = make_batches(
        sizes,
        np.full(len(sizes), steps),
        work,
        seeds=np.zeros(len(sizes), np.int64),
        rounds=np.full(len(sizes), rounds),
        clients=np.arange(len(sizes)) if clients is None else np.asarray(clients),
        occurrence=np.zeros(len(sizes), np.int64),
    )
    return made.positions, made.counts, made.job


def test_rows_are_drawn_by_themselves_with_one_probability():
    size, rate, steps = 12, 0.25, 40_000
    positions, counts, _ = drawn([size], steps, size * rate)
    real = np.arange(positions.shape[1]) < counts[:, None]
    member = np.zeros((steps, size))
    np.add.at(member, (np.nonzero(real)[0], positions[real]), 1)
    assert set(np.unique(member)) == {0, 1}
    # five standard deviations of a mean of so many
    near = 5 * np.sqrt(rate * (1 - rate) / steps)
    np.testing.assert_allclose(member.mean(0), rate, atol=near)
    pairs = member.T @ member / steps
    off_diagonal = ~np.eye(size, dtype=bool)
    np.testing.assert_allclose(pairs[off_diagonal], rate**2, atol=near)
    # and from one batch to the next
    np.testing.assert_allclose(member[:-1].T @ member[1:] / steps, rate**2, atol=near)
    expected = stats.binom.pmf(np.arange(size + 1), size, rate) * steps
    observed = np.bincount(counts, minlength=size + 1)
    common = expected > 5
    expected *= observed[common].sum() / expected[common].sum()
    assert stats.chisquare(observed[common], expected[common]).pvalue > 1e-4


def test_a_client_s_batches_depend_on_it_alone():
    together = drawn([9, 140, 30], 3, 8, clients=[5, 2, 8])
    alone = drawn([140], 3, 8, clients=[2])
    wide = together[1][together[2] == 1]
    np.testing.assert_array_equal(wide, alone[1])
    for row, other, count in zip(together[0][together[2] == 1], alone[0], alone[1], strict=True):
        np.testing.assert_array_equal(row[:count], other[:count])
    later = drawn([140], 3, 8, rounds=1, clients=[2])
    assert later[0].tolist() != alone[0].tolist()


def test_clients_with_few_rows_train_on_all_of_them():
    positions, counts, _ = drawn([5], 4, 20)
    assert counts.tolist() == [5] * 4
    assert (np.sort(positions[:, :5]) == np.arange(5)).all()


@pytest.mark.parametrize(("rows", "batch"), [(100, 20), (60_000, 240), (300, 1), (5, 20), (1, 1)])
def test_batches_are_cut_once_in_1e20(rows, batch):
    most = capacity(np.array([rows]), batch)
    rate = float(rate_of(np.array([rows]), batch)[0])
    assert stats.binom.sf(most, rows, rate) < 1e-20
    assert most == 1 or stats.binom.sf(most - 1, rows, rate) >= 1e-20


def test_rounds_of_poisson_batches_are_those_of_a_loop(x64, quick_compilation):
    parts, spec = toy.clients(), algorithms.fedavg(0.1, weighting="uniform")
    options = {"local_steps": 3, "batch_size": 4, "batches": "poisson", "shuffle": True}
    cohort = [0, 2, 3, 4, 8]
    results = [
        toy.run_rounds(parts, spec, [cohort], **options, **layout)[0]
        for layout in ({"lanes": 1, "devices": 1}, {"devices": 2, "placement": "stream"})
    ]
    sizes = np.array([len(y) for _, y in parts])
    most = capacity(sizes, 4)
    work = LocalWork(None, 3, 4, batches="poisson", capacity=most)
    start, updates = toy.initial_params(), []
    for client in cohort:
        made = make_batches(
            sizes[[client]], np.array([3]), work, seeds=np.array([0]), rounds=np.array([0]),
            clients=np.array([client]), occurrence=np.array([0]),
        )  # fmt: skip
        x, y = parts[client]
        params = {name: leaf.copy() for name, leaf in start.items()}
        for rows, count in zip(made.positions, made.counts, strict=True):
            rows = rows[:count]
            logits = x[rows] @ params["w"] + params["b"]
            errors = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
            errors /= errors.sum(1, keepdims=True)
            errors[np.arange(count), y[rows]] -= 1
            params["w"] -= 0.1 * x[rows].T @ errors / max(count, 1)
            params["b"] -= 0.1 * errors.sum(0) / max(count, 1)
        updates.append({name: params[name] - start[name] for name in start})
    expected = {
        name: start[name] + np.mean([update[name] for update in updates], 0) for name in start
    }
    for federation in results:
        toy.assert_close(toy.params_of(federation), expected, 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remainder": "drop"}, "remainder = 'drop' has no effect with batches = 'poisson'"),
        ({"shuffle": False}, "shuffle = False has no effect with batches = 'poisson'"),
        ({"batches": "random"}, "batches = 'random'"),
    ],
)
def test_what_means_nothing_to_drawn_batches_is_refused(options, message):
    options = {"shuffle": True, "batches": "poisson"} | options
    with pytest.raises(ValueError, match=message):
        toy.run_rounds(toy.clients(), algorithms.fedavg(0.1), [[0]], **options)


def test_algorithms_without_batches_are_refused():
    with pytest.raises(ValueError, match="no effect with fedsgd"):
        toy.run_rounds(
            toy.clients(), algorithms.fedsgd(0.1), [[0]], batches="poisson", shuffle=True
        )
