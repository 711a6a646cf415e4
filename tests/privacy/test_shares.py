"""Secret shares: a ring of 2^64 in one word or two limbs, and what servers compute unseen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fljax.privacy import ring, shares

KEY = jax.random.key(5)
RNG = np.random.default_rng(3)
EDGES = np.array([0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(params=[False, True], ids=["limbs", "uint64"])
def width(request):
    """Runs a test in either form of the ring."""
    with jax.enable_x64(request.param):
        yield


def put(numbers):
    """Returns numbers of the ring, from uint64."""
    numbers = np.asarray(numbers, np.uint64)
    if ring.is_wide():
        return jnp.asarray(numbers)
    limbs = [numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)]
    return jnp.asarray(np.stack(limbs, -1).astype(np.uint32))


def get(numbers):
    """Returns uint64, from numbers of the ring."""
    numbers = np.asarray(numbers)
    if numbers.dtype == np.uint64:
        return numbers
    low, high = numbers.astype(np.uint64)[..., 0], numbers.astype(np.uint64)[..., 1]
    return low | high << np.uint64(32)


def grid():
    """Returns pairs of numbers: all pairs of edges, and random ones."""
    pairs = np.stack(np.meshgrid(EDGES, EDGES), -1).reshape(-1, 2)
    return np.concatenate([pairs, RNG.integers(0, 2**64, (200, 2), dtype=np.uint64)]).T


def test_the_ring_computes_modulo_2_to_the_64(width):
    a, b = grid()
    x, y = put(a), put(b)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(get(jax.jit(ring.add)(x, y)), a + b)
        np.testing.assert_array_equal(get(jax.jit(ring.subtract)(x, y)), a - b)
        np.testing.assert_array_equal(get(jax.jit(ring.negative)(x)), np.uint64(0) - a)
        np.testing.assert_array_equal(get(jax.jit(ring.multiply)(x, y)), a * b)
        np.testing.assert_array_equal(get(jax.jit(ring.total)(x)), a.sum())
        left, right = a[:200].reshape(10, 20), b[:200].reshape(20, 10)
        product = (left[:, :, None] * right[None]).sum(1)
        np.testing.assert_array_equal(get(jax.jit(ring.matmul)(put(left), put(right))), product)
        for bits in (1, 16, 31):
            shifted = (a.astype(np.int64) >> bits).astype(np.uint64)
            np.testing.assert_array_equal(
                get(jax.jit(ring.shift, static_argnums=1)(x, bits)), shifted
            )


def test_wraps_are_those_of_integers_without_bounds(width):
    numbers = np.stack([grid()[0], grid()[1], grid()[0][::-1]])
    exact = numbers.astype(np.int64).astype(object).sum(0)
    with np.errstate(over="ignore"):
        around = numbers.sum(0).astype(np.int64).astype(object)
    np.testing.assert_array_equal(
        np.asarray(jax.jit(ring.wraps)(put(numbers))), (exact - around) // 2**64
    )


def test_numbers_are_rounded_to_the_fixed_point_and_come_back(width):
    values = np.float32(RNG.standard_normal(500) * 10.0 ** RNG.integers(-8, 9, 500))
    codes = np.round(values.astype(np.float64) * 2**16).astype(np.int64)
    encoded = jax.jit(partial(ring.encode, fractional_bits=16))(jnp.asarray(values))
    np.testing.assert_array_equal(get(encoded).astype(np.int64), codes)
    np.testing.assert_allclose(ring.decode(encoded, 16), codes / 2**16, rtol=2e-7)


@pytest.mark.parametrize("num_parties", [2, 3])
def test_products_of_shares_are_products(width, num_parties):
    keys = jax.random.split(KEY, 6)
    a, b = RNG.uniform(-100, 100, (2, 6, 6))
    opened = 36 * 8 * num_parties * (num_parties - 1)
    truncation = (0, 0) if num_parties == 2 else (opened, 1)
    costs = []

    @jax.jit
    def products(a, b):
        x, split = shares.split(keys[0], a, num_parties)
        y, _ = shares.split(keys[1], b, num_parties)
        triple = shares.deal_elementwise(keys[2], num_parties, (6, 6))
        by_number, multiplied = shares.multiply(x, y, triple, keys[3])
        triple = shares.deal(keys[4], num_parties, (6, 6), (6, 6))
        by_matrix, _ = shares.matmul(x, y, triple, keys[5])
        costs.extend([split, multiplied])
        return shares.reveal(by_number)[0], shares.reveal(by_matrix)[0]

    by_number, by_matrix = products(jnp.asarray(a), jnp.asarray(b))
    assert costs == [(36 * 8 * num_parties, 1), (2 * opened + truncation[0], 1 + truncation[1])]
    # factors are off by half a unit each, the product by as many units as there are parties
    unit, factor = 2.0**-16, 100
    bound = (factor + num_parties) * unit
    np.testing.assert_allclose(by_number, a * b, atol=bound, rtol=1e-6)
    bound = (6 * factor + num_parties) * unit
    np.testing.assert_allclose(by_matrix, a @ b, atol=bound, rtol=1e-6)


@pytest.mark.parametrize("num_parties", [2, 3, 7])
def test_truncation_rounds_to_a_neighbour(width, num_parties):
    codes = np.concatenate([RNG.integers(-(2**40), 2**40, 300), [0, 1, -1, 255, -256]])
    secret = jax.jit(partial(shares._split, KEY, num_parties=num_parties))(
        put(codes.astype(np.uint64))
    )
    short = jax.jit(lambda held: shares.truncate(held, 8, jax.random.fold_in(KEY, 1))[0])(secret)
    with np.errstate(over="ignore"):
        found = get(short).sum(0).astype(np.int64)
    assert (np.abs(found - codes / 2**8) <= num_parties).all()


@pytest.mark.parametrize("num_servers", [2, 3])
def test_the_sum_of_updates_is_that_of_their_fixed_point_numbers(width, num_servers):
    updates = np.float32(RNG.standard_normal((50, 30)))
    costs = []

    @jax.jit
    def total_of(updates):
        total, cost = shares.aggregate(KEY, updates, num_servers)
        costs.append(cost)
        return total

    total = total_of(jnp.asarray(updates))
    exact = np.round(updates.astype(np.float64) * 2**16).sum(0) / 2**16
    np.testing.assert_array_equal(np.asarray(total, np.float64), exact)
    sent, opened = 50 * 30 * 8 * num_servers, 30 * 8 * num_servers * (num_servers - 1)
    assert costs == [(sent + opened, 2)]


def test_all_shares_but_one_are_uniform_whatever_the_secret(width):
    """Any two of three shares of a constant: their bytes, and the bytes of their sum."""
    secret = jax.jit(lambda values: shares.split(KEY, values, 3)[0])(jnp.full(4000, 1.25))
    numbers = get(secret)
    for held in ([0], [1], [0, 1], [0, 2], [1, 2]):
        with np.errstate(over="ignore"):
            seen = numbers[held].sum(0)
        counts = np.bincount(np.frombuffer(seen.tobytes(), np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="num_parties = 1"):
        shares.split(KEY, jnp.ones(2), 1)
    with pytest.raises(ValueError, match="fractional_bits = 40"):
        shares.split(KEY, jnp.ones(2), 2, fractional_bits=40)
    with pytest.raises(ValueError, match="num_servers = 1"):
        shares.aggregate(KEY, jnp.ones((3, 2)), 1)
