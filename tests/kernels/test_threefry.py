"""The cipher is the one of JAX's keys, on devices and in NumPy, and fits the published vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from fljax_kernels import threefry


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # kat_vectors of Random123: threefry2x32, 20 rounds
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_published_vectors(key, counter, words):
    one = [np.array([word], np.uint32) for word in (*key, *counter)]
    found = threefry((one[0], one[1]), (one[2], one[3]))
    assert [int(word[0]) for word in found] == list(words)


def test_words_are_those_of_jax_and_of_numpy():
    key, counters = jax.random.key_data(jax.random.key(7)), jnp.arange(34, dtype=jnp.uint32) * 77
    both = threefry((key[0], key[1]), (counters[:17], counters[17:]))
    np.testing.assert_array_equal(jnp.concatenate(both), threefry_2x32(key, counters))
    host = threefry(tuple(np.asarray(key)), (np.asarray(counters[:17]), np.asarray(counters[17:])))
    jax.tree.map(np.testing.assert_array_equal, both, host)
