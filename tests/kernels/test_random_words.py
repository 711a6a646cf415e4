"""Random words: their definition, what they depend on, and that they look random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quantization_reference import random_words_reference

from fljax_kernels.random_words import keys_of_rows, random_words

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = 1 << 16


@pytest.fixture(scope="module")
def words():
    """One stream of each kind of key: seeds next to each other, and keys derived by threefry."""
    seeds = jax.vmap(jax.random.key)(jnp.arange(4))
    derived = jax.random.split(jax.random.key(7), 4)
    return np.array(random_words(jnp.concatenate([seeds, derived]), SIZE))


def excess(counts, expected):
    """Returns chi² less its mean, in its standard deviations."""
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


def pairs(first, second):
    """Counts the pairs of leading and of trailing four bits."""
    for shift in (0, 28):
        a, b = ((words >> shift) & 15 for words in (first, second))
        yield np.bincount(16 * a + b, minlength=256)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_words_are_the_definition(impl):
    key = jax.random.key(2**33 + 5, impl=impl)
    expected = random_words_reference(list(jax.random.key_data(key)), 100)
    np.testing.assert_array_equal(random_words(key, 100), expected)


def test_a_word_depends_on_its_key_and_its_index_alone():
    keys = jax.random.split(jax.random.key(3), (2, 3))
    together = random_words(keys, 40)
    assert together.dtype == jnp.uint32
    mapped = jax.vmap(lambda keys: random_words(keys, 40), in_axes=1, out_axes=1)(keys)
    np.testing.assert_array_equal(mapped, together)
    np.testing.assert_array_equal(random_words(keys[1, 2], 25), together[1, 2, :25])


def test_bytes_are_uniform(words):
    for stream in words:
        for shift in (0, 8, 16, 24):
            counts = np.bincount((stream >> shift) & 255, minlength=256)
            assert abs(excess(counts, SIZE / 256)) < 5


@pytest.mark.parametrize("distance", [1, 2, 16, 1024])
def test_neighbours_are_independent(words, distance):
    for stream in words:
        for counts in pairs(stream[distance:], stream[:-distance]):
            assert abs(excess(counts, (SIZE - distance) / 256)) < 5


def test_streams_are_independent(words):
    for i in range(len(words)):
        for j in range(i):
            for counts in pairs(words[i], words[j]):
                assert abs(excess(counts, SIZE / 256)) < 5
            assert len(np.intersect1d(words[i], words[j])) < 10


def test_every_bit_of_a_key_changes_every_bit_of_a_word_half_of_the_time():
    data = np.array(jax.random.key_data(jax.random.key(11)))
    flipped = np.repeat(data[None], 64, 0)
    for bit in range(64):
        flipped[bit, bit // 32] ^= np.uint32(1 << bit % 32)
    both = np.concatenate([data[None], flipped])
    one, *others = np.array(random_words(jax.random.wrap_key_data(both), SIZE))
    for other in others:
        changed = ((one ^ other)[:, None] >> np.arange(32) & 1).mean(0)
        np.testing.assert_allclose(changed, 0.5, atol=0.02)


def test_no_word_occurs_twice(words):
    assert all(len(np.unique(stream)) == SIZE for stream in words)


def test_each_vector_needs_a_typed_key_of_its_own():
    x = jnp.zeros((2, 3, 5))
    with pytest.raises(ValueError, match=r"Keys \[2\] do not fit x\[2, 3, 5\].*split"):
        keys_of_rows(jax.random.split(jax.random.key(0)), x)
    with pytest.raises(TypeError, match="wrap_key_data"):
        keys_of_rows(jnp.zeros(2, jnp.uint32), x)
