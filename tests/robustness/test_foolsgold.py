"""FoolsGold against loops in NumPy: sybils, histories, clients that come again."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import by_hand
from robustness import reference_vectors as oracle
from robustness.harness import applied

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.robustness.aggregators import foolsgold as module
from fljax.robustness.aggregators.foolsgold import foolsgold
from fljax.robustness.aggregators.mixing import bucketing, chain
from fljax.robustness.aggregators.norm_bounding import norm_bound

PLACES, SIZE, CLIENTS = 8, 15, 20
RULE = foolsgold(CLIENTS)


def updates(seed=0):
    """Returns a stack in which three clients send nearly the same."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((PLACES, SIZE))
    stack[[1, 4, 6]] = stack[1] + 0.05 * rng.standard_normal((3, SIZE))
    return stack


STACK = updates()
NUMBERS = np.array([3, 11, 0, 19, 7, 2, 5, 14])
SYBILS = np.isin(np.arange(PLACES), [1, 4, 6])
VALID = ~np.isin(np.arange(PLACES), [0, 4])


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("valid", [np.ones(PLACES, bool), VALID])
def test_it_is_what_the_paper_says(devices, valid):
    state, history = None, {}
    for seed, order in enumerate(([0, 1, 2, 3, 4, 5, 6, 7], [7, 0, 2, 1, 3, 4, 6, 5])):
        stack, numbers = updates(seed), NUMBERS[order]
        found = applied(RULE, stack, valid, devices=devices, state=state, clients=numbers)
        value, rates = oracle.foolsgold(stack[valid], numbers[valid].tolist(), history)
        np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)
        rejected = found.reports["robustness/rejected"][0]
        assert np.flatnonzero(rejected).tolist() == np.flatnonzero(valid)[rates == 0].tolist()
        kept = {client: row for client, row in enumerate(found.state) if row.any()}
        assert set(kept) == set(history)
        for client, row in kept.items():
            np.testing.assert_allclose(row, history[client], rtol=1e-12)
        state = jnp.asarray(found.state)


def test_sybils_have_no_rate_and_others_do():
    wrong = applied(RULE, STACK, clients=NUMBERS, attackers=SYBILS).reports
    assert wrong["robustness/false_negatives"][0].sum() == 0
    assert wrong["robustness/false_negatives"][1].sum() == 3
    assert wrong["robustness/false_positives"][0].sum() == 0


def test_it_does_not_depend_on_order_nor_on_what_is_traced():
    order = np.random.default_rng(2).permutation(PLACES)
    plain = applied(RULE, STACK, VALID, clients=NUMBERS)
    permuted = applied(RULE, STACK[order], VALID[order], clients=NUMBERS[order])
    np.testing.assert_allclose(permuted.value, plain.value, rtol=1e-12)
    make = functools.partial(foolsgold, CLIENTS)
    traced = applied(make, STACK, VALID, clients=NUMBERS, traced={"confidence": 1.0})
    np.testing.assert_allclose(traced.value, plain.value, rtol=1e-12)
    half = applied(make, STACK, clients=NUMBERS, traced={"confidence": 0.5}).value
    value, _ = oracle.foolsgold(STACK, NUMBERS.tolist(), {}, 0.5)
    np.testing.assert_allclose(half, value, rtol=1e-9, atol=1e-12)


def test_one_client_twice_is_no_sybil_of_itself():
    numbers = np.where(np.arange(PLACES) == 5, NUMBERS[2], NUMBERS)
    found = applied(RULE, STACK, clients=numbers)
    value, _ = oracle.foolsgold(STACK, numbers.tolist(), {})
    np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.state[NUMBERS[2]], STACK[2] + STACK[5], rtol=1e-12)


def test_extremes():
    alone = applied(RULE, STACK, np.arange(PLACES) == 3, clients=NUMBERS)
    np.testing.assert_allclose(alone.value, STACK[3], rtol=1e-12)
    for row in STACK:  # whose cosine to itself is 1 but for rounding
        same = applied(RULE, np.tile(row, (PLACES, 1)), VALID, clients=NUMBERS)
        np.testing.assert_array_equal(same.value, np.zeros(SIZE))
    zeros = applied(RULE, np.zeros((PLACES, SIZE)), clients=NUMBERS)
    assert not zeros.value.any() and zeros.reports["robustness/rejected"][0].sum() == 0
    nobody = applied(RULE, STACK, np.zeros(PLACES, bool), clients=NUMBERS)
    assert not nobody.value.any() and not nobody.state.any()


def test_float32_and_huge_updates():
    huge = np.where(SYBILS[:, None], 1e30, STACK)
    for stack in (STACK, huge):
        expected, _ = oracle.foolsgold(stack, NUMBERS.tolist(), {})
        with jax.enable_x64(False):
            found = applied(RULE, stack.astype(np.float32), clients=NUMBERS).value
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # the sum of two rounds is no float
    largest = np.where(SYBILS[:, None], np.sign(STACK[SYBILS][:1]) * 3e38, STACK)
    expected, _ = oracle.foolsgold(largest, NUMBERS.tolist(), {})
    with jax.enable_x64(False):
        state = None
        for _ in range(2):
            found = applied(RULE, largest.astype(np.float32), clients=NUMBERS, state=state)
            np.testing.assert_allclose(found.value, expected, rtol=1e-5, atol=1e-5)
            state = jax.numpy.asarray(found.state)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="num_clients = 0 must be at least 1"):
        foolsgold(0)
    with pytest.raises(ValueError, match="confidence = 0.0 must be above 0"):
        foolsgold(3, confidence=0.0)
    with mock.patch.object(module, "physical_bytes", lambda: 16 * 10**9):
        with pytest.raises(ValueError, match=r"1,000,000 clients.* 4,800.0 GB, where 16.0 GB are"):
            foolsgold(10**6).init({"w": jax.ShapeDtypeStruct((1_200_000,), jnp.float32)})


def test_it_stands_behind_no_buckets():
    with pytest.raises(ValueError, match="remembers what each client has sent"):
        chain(bucketing(2), RULE)
    assert chain(norm_bound(1.0), RULE).by_client


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_remember_each_client(layout):
    rule = lambda rows, clients, weights, history: (  # noqa: E731
        oracle.foolsgold(rows, clients, history)[0], history,
    )  # fmt: skip
    params, history = by_hand.rounds(rule, {})
    pipeline = Pipeline(aggregator=foolsgold(len(toy.SIZES)))
    run = harness.rounds(algorithms.fedavg(0.2), by_hand.COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    kept = run.states[-1].pipeline.aggregator[0]
    for client, row in enumerate(kept):
        np.testing.assert_allclose(row, history.get(client, np.zeros_like(row)), rtol=1e-9)
