"""Counter-based randomness: the published mixing function, good draws, and keys that separate."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.core import random

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
COORDINATES = st.lists(st.integers(-(2**31), 2**31), min_size=0, max_size=4)


def mix(z):
    """The finalizer of SplitMix64, in Python's integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_mixing_is_splitmix64():
    """The first outputs of the reference implementation for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix(1234567 + n * GOLDEN & MASK) for n in (1, 2, 3)] == published


@given(st.integers(-(2**70), 2**70), st.text(max_size=8), COORDINATES)
def test_words_are_a_chain_of_mixes(seed, purpose, coordinates):
    """One mix for the seed, one for the purpose, and one for each coordinate."""
    word = mix((seed & MASK) + GOLDEN & MASK)
    word = mix(word ^ (zlib.crc32(purpose.encode()) + GOLDEN & MASK))
    for coordinate in coordinates:
        spread = (coordinate & MASK) * 0x94D049BB133111EB + GOLDEN & MASK
        word = mix((word + GOLDEN & MASK) ^ spread)
    assert int(random.bits(seed, purpose, *coordinates)) == word


def test_words_can_be_continued():
    rounds, clients = np.arange(3)[:, None], np.array([-1, 7])
    shared = random.bits(5, "shuffle", rounds)
    before = shared.copy()
    whole = random.bits(5, "shuffle", rounds, clients, 4)
    np.testing.assert_array_equal(random.fold_in(shared, clients, 4), whole)
    np.testing.assert_array_equal(shared, before)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_a_draw_depends_on_its_own_coordinates_alone(seed, clients):
    """A cohort's draws are those of its clients, one by one and in any company."""
    rounds = np.arange(3)[:, None]
    for draw in (random.bits, random.uniform, random.normal):
        together = draw(seed, "test", rounds, np.array(clients))
        assert together.shape == (3, len(clients))
        for round in range(3):
            for place, client in enumerate(clients):
                assert together[round, place] == draw(seed, "test", round, client)


def test_seed_purpose_and_each_coordinate_separate_the_streams():
    place = np.arange(1000)
    streams = [
        random.bits(seed, purpose, *coordinates, place)
        for seed in (0, 1)
        for purpose in ("shuffle", "sampler")
        for coordinates in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    ]
    words = np.concatenate(streams)
    assert len(np.unique(words)) == len(words)


@pytest.fixture(scope="module")
def grid():
    """Coordinates as a planner uses them: small, consecutive numbers."""
    return np.arange(200)[:, None], np.arange(1000)


def test_uniforms_are_uniform(grid):
    found = random.uniform(3, "test", *grid)
    assert found.dtype == np.float64 and 0 < found.min() and found.max() <= 1
    # Kolmogorov and Smirnov's distance: 1.95 / sqrt(n) is passed once in 1,000
    ordered = np.sort(found.ravel())
    ranks = (np.arange(ordered.size) + 0.5) / ordered.size
    assert np.abs(ordered - ranks).max() < 1.95 / np.sqrt(ordered.size)
    assert_uncorrelated(found)


def test_normals_are_normal(grid):
    found = random.normal(3, "test", *grid)
    n = found.size
    assert abs(found.mean()) < 4 / np.sqrt(n)
    assert abs(found.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((found**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((found**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert_uncorrelated(found)


def assert_uncorrelated(values):
    """Neighbours along either axis, within 4 standard deviations of none."""
    z = (values - values.mean()) / values.std()
    for first, second in ((z[1:], z[:-1]), (z[:, 1:], z[:, :-1])):
        assert abs((first * second).mean()) < 4 / np.sqrt(first.size)


def test_every_bit_is_fair(grid):
    words = random.bits(0, "test", *grid)
    for bit in range(64):
        share = (words >> np.uint64(bit) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 4.5 * 0.5 / np.sqrt(words.size)


def test_generators_are_keyed():
    draws = [random.generator(*key).random() for key in ((0, "a", 1), (0, "a", 2), (0, "b", 1))]
    assert len(set(draws)) == 3
    assert random.generator(0, "a", 1).random() == draws[0]
