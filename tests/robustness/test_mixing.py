"""Mixings and chains of them: buckets, nearest neighbours, what is told of clients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from contracts.test_stacks import local_changes
from robustness import by_hand
from robustness import reference_distances as oracle
from robustness.harness import applied

from fljax import algorithms
from fljax.core.transforms import Aggregator, Pipeline, ServerLink, weighted_mean
from fljax.robustness.aggregators.coordinates import median
from fljax.robustness.aggregators.krum import krum
from fljax.robustness.aggregators.mixing import (
    Mixing,
    bucketing,
    chain,
    nearest_neighbour_mixing,
)
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import whole

PLACES, SIZE = 11, 9
STACK = np.random.default_rng(0).standard_normal((PLACES, SIZE)) + 1
VALID = ~np.isin(np.arange(PLACES), [0, 4, 5, 10])
WEIGHTS = np.arange(1.0, PLACES + 1)
HOSTILE = np.isin(np.arange(PLACES), [4, 7])


def kept_in_state(rows):
    """Returns a rule whose state is all that it is given."""

    def apply(stack, cohort, state):
        hostile = jnp.zeros(rows, bool) if cohort.attackers is None else cohort.attackers
        seen = {
            "stack": whole(stack, cohort, cohort.num_params),
            "valid": cohort.valid,
            "weights": cohort.weights,
            "clients": cohort.clients,
            "hostile": hostile,
        }
        return stack.sum(0), seen

    def init(params):
        flat = sum(leaf.size for leaf in jax.tree.leaves(params))
        return {
            "stack": jnp.zeros((rows, flat)),
            "valid": jnp.zeros(rows, bool),
            "weights": jnp.zeros(rows),
            "clients": jnp.zeros(rows, int),
            "hostile": jnp.zeros(rows, bool),
        }

    return Aggregator("stack", apply, init)


THIRDS = chain(bucketing(3), kept_in_state(4))
PAIRS = chain(bucketing(2), kept_in_state(6))


def seen(rule, *args, **options):
    return applied(rule, *args, **options).state[-1]


def members(mixed, stack, weights, size):
    """Returns the row numbers of each bucket, found by trying all sets of their size."""
    sets = oracle.itertools.combinations(range(len(stack)), size)
    means = {
        rows: np.average(stack[list(rows)], axis=0, weights=weights[list(rows)]) for rows in sets
    }
    return [
        next((set(rows) for rows, mean in means.items() if np.allclose(mean, row, rtol=1e-9)), None)
        for row in mixed
    ]


@pytest.mark.parametrize("devices", [1, 2])
def test_buckets_hold_everybody_once(devices):
    drawn = set()
    for seed in range(4):
        found = seen(
            THIRDS, STACK, VALID, weights=WEIGHTS, attackers=HOSTILE, devices=devices,
            key=jax.random.key(seed),
        )  # fmt: skip
        there = np.flatnonzero(VALID)
        assert found["valid"].tolist() == [True, True, True, False]  # 7 of 3, 3 and 1
        mixed = found["stack"]
        full = members(mixed[:2], STACK[VALID], WEIGHTS[VALID], 3)
        last = members(mixed[2:3], STACK[VALID], WEIGHTS[VALID], 1)
        assert set.union(*full, *last) == set(range(7))
        assert not mixed[3].any() and found["clients"][3] == -1
        for place, rows in enumerate(full + last):
            clients = there[list(rows)]
            np.testing.assert_allclose(found["weights"][place], WEIGHTS[clients].sum())
            assert found["clients"][place] in clients
            assert found["hostile"][place] == HOSTILE[clients].any()
        drawn.add(str(full))
    assert len(drawn) > 1


def test_buckets_are_drawn_evenly():
    pairs = np.zeros((PLACES, PLACES))
    for seed in range(60):
        mixed = seen(PAIRS, STACK, key=jax.random.key(seed))["stack"]
        for pair in members(mixed[:5], STACK, np.ones(PLACES), 2):
            pairs[tuple(sorted(pair))] += 1
    # each of 55 pairs is expected 60 x 5 / 55 = 5.5 times
    counts = pairs[np.triu_indices(PLACES, 1)]
    assert counts.sum() == 300 and counts.min() >= 1 and counts.max() <= 15


def test_places_of_nobody_change_nothing():
    # a trial has as many places as all trials beside it need
    usual = seen(THIRDS, STACK, VALID, key=jax.random.key(7))
    valid = np.isin(np.arange(15), [0, 1, 2, 5, 9, 13, 14])
    stack = np.zeros((15, SIZE))
    stack[valid] = STACK[VALID]
    other = seen(chain(bucketing(3), kept_in_state(5)), stack, valid, key=jax.random.key(7))
    for name, rows in usual.items():
        if name != "clients":
            np.testing.assert_array_equal(other[name][:4], rows)


@pytest.mark.parametrize("devices", [1, 2])
def test_nearest_neighbours(devices):
    def make(f):
        return chain(nearest_neighbour_mixing(f), kept_in_state(PLACES))

    for f in (0, 1, 3):
        for valid in (np.ones(PLACES, bool), VALID):
            found = seen(
                make, STACK, valid, devices=devices, traced={"f": float(f)}, attackers=HOSTILE
            )
            mixed = found["stack"]
            expected = oracle.nearest_neighbour_mixing(STACK[valid], f)
            np.testing.assert_allclose(mixed[valid], expected, rtol=1e-9)
            assert not mixed[~valid].any()
            assert found["hostile"].tolist() == (HOSTILE & valid).tolist()
    order = np.random.default_rng(1).permutation(PLACES)
    permuted = seen(make, STACK[order], VALID[order], devices=devices, traced={"f": 3.0})["stack"]
    np.testing.assert_allclose(permuted, mixed[order], rtol=1e-9)


def test_nearest_neighbours_of_huge_updates_in_float32():
    usual = STACK.astype(np.float32)
    rule = chain(nearest_neighbour_mixing(2), kept_in_state(PLACES))
    for size in (1e30, 3e38):
        huge = np.where(HOSTILE[:, None], np.float32(size), usual)
        expected = oracle.nearest_neighbour_mixing(huge.astype(float), 2)
        with jax.enable_x64(False):
            mixed = seen(rule, huge)["stack"]
        np.testing.assert_allclose(mixed[~HOSTILE], expected[~HOSTILE], rtol=1e-5)
        assert np.isfinite(mixed).all()


def test_means_of_the_largest_floats_are_finite():
    most = np.finfo(np.float32).max
    stack = np.full((PLACES, SIZE), most)
    stack[:, 0] *= -1
    with jax.enable_x64(False):
        for rule in (THIRDS, chain(nearest_neighbour_mixing(2), kept_in_state(PLACES))):
            found = seen(rule, stack.astype(np.float32), VALID)
            for row in found["stack"][found["valid"]]:
                np.testing.assert_allclose(row, stack[0], rtol=1e-5)


def test_a_chain_ends_in_the_weighted_mean_or_a_rule():
    expected = np.average(STACK[VALID], axis=0, weights=WEIGHTS[VALID])
    for rule in (chain(), chain(weighted_mean), chain(bucketing(2)), chain(bucketing(99))):
        found = applied(rule, STACK, VALID, weights=WEIGHTS)
        np.testing.assert_allclose(found.value, expected, rtol=1e-9)
        assert rule.weighs and not rule.reports
    alone, plain = (applied(rule, STACK) for rule in (chain(krum(1)), krum(1)))
    np.testing.assert_array_equal(alone.value, plain.value)


def test_what_a_rule_rejects_is_told_of_clients():
    first = Aggregator(
        "stack",
        lambda stack, cohort, state: (
            stack[0], state,
            rejections(jnp.arange(len(stack)) == 0, cohort)
            | {"norm": (2.0 * cohort.valid, cohort.valid)},
        ),
        reports=(*REJECTIONS, "norm"),
    )  # fmt: skip
    rule = chain(bucketing(3), first)
    found = applied(rule, STACK, VALID, attackers=HOSTILE)
    (kept,) = members(found.value[None], STACK[VALID], np.ones(VALID.sum()), 3)
    kept = np.isin(np.arange(PLACES), np.flatnonzero(VALID)[list(kept)])
    for name, wrong, of in (
        ("robustness/rejected", VALID & ~kept, VALID),
        ("robustness/false_positives", VALID & ~kept & ~HOSTILE, VALID & ~HOSTILE),
        ("robustness/false_negatives", VALID & kept & HOSTILE, VALID & HOSTILE),
        ("norm", 2 * VALID, VALID),
    ):
        value, weight = found.reports[name]
        assert value.tolist() == wrong.tolist() and weight.tolist() == of.tolist()
    assert rule.reports == first.reports


def drops(*places, name=None):
    """Returns a mixing that zeroes rows, counts its rounds, and reports."""

    def apply(stack, cohort, state):
        kept = ~jnp.isin(jnp.arange(len(stack)), jnp.array(places))
        reports = rejections(kept, cohort)
        if name is not None:
            reports = {name: (kept, cohort.valid)}
        return jnp.where(kept[:, None], stack, 0), cohort, state + 1, reports

    reports = REJECTIONS if name is None else (name,)
    return Mixing(apply, init=lambda params: jnp.int32(0), reports=reports)


def test_parts_reject_together_and_keep_states_apart():
    rule = chain(drops(1), drops(3), drops(5, name="own"))
    found = applied(rule, STACK, VALID, state=(jnp.int32(4), jnp.int32(7), jnp.int32(0), ()))
    assert np.flatnonzero(found.reports["robustness/rejected"][0]).tolist() == [1, 3]
    assert found.state[:3] == (5, 8, 1) and rule.reports == (*REJECTIONS, "own")


def test_parts_have_keys_of_their_own():
    def keep(stack, cohort, state):
        return stack, cohort, jax.random.key_data(cohort.key)

    rule = chain(Mixing(keep), Mixing(keep))
    one, other, _ = applied(rule, STACK, state=((), (), ())).state
    assert one.tolist() != other.tolist()


def test_too_few_updates():
    rule = chain(bucketing(2), krum(2))
    assert rule.problem(13) is None and not rule.weighs
    expected = "krum needs at least 2 f + 3 = 7 updates, and there may be 6, of 12 that are mixed"
    assert rule.problem(12) == expected
    twice = chain(bucketing(2), nearest_neighbour_mixing(1), weighted_mean)
    assert twice.problem(5) is None and not twice.weighs
    single = chain(bucketing(8), median())
    assert single.problem(8) == "bucketing(8) leaves a single bucket, the mean of all updates, of 8"
    expected = "median needs at least 3 updates, and there may be 2, of 9 that are mixed"
    assert single.problem(9) == expected
    assert chain(bucketing(3), median()).problem(9) is None
    assert twice.problem(4).startswith("nearest_neighbour_mixing needs at least 2 f + 1 = 3")
    assert krum(2).problem(6) == chain(nearest_neighbour_mixing(1), krum(2)).problem(6)


SUM = Aggregator("sum", lambda aggregate, state: (aggregate, state))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: bucketing(0), "s = 0 must be at least 1"),
        (lambda: bucketing(1.5), "s = 1.5 .*whole number"),
        (lambda: jax.jit(lambda s: bucketing(s).size(4))(3), "traces"),
        (lambda: nearest_neighbour_mixing(-1), "f = -1 must be at least 0"),
        (lambda: chain(krum(1), bucketing(2)), r"parts\[0\] = .*a rule stands at the end"),
        (lambda: chain(krum(1), krum(1)), r"parts\[0\] = .* must be a Mixing"),
        (lambda: chain(bucketing(2), SUM), "needs = 'sum': it sees sums alone"),
        (lambda: chain(drops(1, name="own"), drops(2, name="own")), "report 'own'"),
    ],
)
def test_wrong_chains_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_buckets_change_from_round_to_round_and_not_with_devices():
    cohort = [0, 2, 3, 8, 5, 7]
    changes, weights = local_changes(toy.initial_params(), cohort)
    rows = np.stack([by_hand.flat(changes[client]) for client in cohort])
    weights = np.array([weights[client] for client in cohort])
    # the model stays as it is, so that clients send the same in all rounds
    pipeline = Pipeline(
        aggregator=chain(bucketing(2), kept_in_state(3)), server=(ServerLink(_nothing),)
    )
    runs = []
    for layout in harness.LAYOUTS:
        run = harness.rounds(algorithms.fedavg(0.2), [cohort] * 3, layout, pipeline=pipeline)
        kept = [state.pipeline.aggregator[-1]["stack"] for state in run.states]
        runs.append([stack[0] for stack in kept])
    buckets = [members(kept, rows, weights, 2) for kept in runs[0]]
    assert all(set.union(*pairs) == set(range(6)) for pairs in buckets)
    assert len({str(sorted(map(sorted, pairs))) for pairs in buckets}) > 1
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-9)


def _nothing(aggregate, state, round, key):
    return aggregate._replace(sum=jax.tree.map(jnp.zeros_like, aggregate.sum)), state
