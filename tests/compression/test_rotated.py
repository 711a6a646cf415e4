"""Rotations and what is rounded after them."""

import compressor_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression as c
from fljax.compression.rotated import normal_centroids

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("block", [8, 64])
def test_a_rotation_keeps_lengths_and_comes_back(block):
    x = laws.vector(57)
    code = c.rotation(block=block)
    payload = laws.encoded(code, x)
    assert payload["values"].size == 64
    lengths = np.linalg.norm(np.asarray(payload["values"], np.float64).reshape(-1, block), axis=1)
    blocks = np.pad(x, (0, 7)).astype(np.float64).reshape(-1, block)
    np.testing.assert_allclose(lengths, np.linalg.norm(blocks, axis=1), rtol=1e-5)
    np.testing.assert_allclose(laws.roundtrip(code, x), x, rtol=1e-5, atol=1e-5)


def test_a_rotation_spreads_a_single_coordinate():
    payload = laws.encoded(c.rotation(), 8.0 * np.eye(64, dtype=np.float32)[5])
    np.testing.assert_allclose(np.abs(payload["values"]), np.ones(64), rtol=1e-5)


@pytest.mark.parametrize("code", [c.drive(), c.drive(block=16), c.eden(1), c.eden(2), c.eden(4)])
def test_the_scale_keeps_the_inner_product(code):
    x = laws.vector(64).astype(np.float64)
    received = laws.draws(code, jnp.asarray(x, jnp.float32), 20)
    np.testing.assert_allclose(received @ x, x @ x, rtol=1e-5)


def test_eden_of_one_bit_is_drive():
    x = laws.vector(57)
    np.testing.assert_allclose(
        laws.roundtrip(c.eden(1), x), laws.roundtrip(c.drive(), x), rtol=1e-5
    )


def test_errors_are_those_of_the_papers():
    """Of a long vector: pi / 2 - 1 with one bit, D / (1 - D) with the quantizer's distortion D."""
    x = jnp.asarray(laws.vector(4096))
    for code, expected in [(c.drive(), np.pi / 2 - 1), (c.eden(2), 0.1175 / (1 - 0.1175))]:
        error = laws.draws(code, x, 30) - np.asarray(x)
        relative = (error**2).sum(1) / float(x @ x)
        np.testing.assert_allclose(relative.mean(), expected, rtol=0.03)
        # the mean of several rotations comes nearer: their errors have no common part
        assert (error.mean(0) ** 2).sum() / float(x @ x) < 1.3 * expected / 30


@pytest.mark.parametrize(
    ("code", "bias"),
    [(c.drive(), (0.5, 0.37)), (c.eden(2), (0.031, None)), (c.rotated_uniform(1), (0, 0))],
)
def test_what_is_said_of_the_bias(code, bias):
    """Of two entries, one twice the other, and of one in noise of half its size; 0: unbiased."""
    noise = np.random.default_rng(0).standard_normal(256)
    two, noisy = np.zeros(256), 0.5 * noise / np.linalg.norm(noise)
    two[[3, 9]], noisy[3] = (2, 1), 1
    count = 1600
    for x, expected in zip((two, noisy), bias, strict=True):
        received = laws.draws(code, x.astype(np.float32), count)
        chance = np.sqrt(((received - x) ** 2).sum(1).mean() / count)
        found = np.linalg.norm(received.mean(0) - x) / np.linalg.norm(x)
        if expected is not None:
            assert found == pytest.approx(expected, abs=0.01 + 2 * chance)
    assert (code.omega is not None) == (bias[0] == 0)


@pytest.mark.parametrize(
    ("bits", "positive"),
    [(1, [0.7979]), (2, [0.4528, 1.510]), (3, [0.2451, 0.7560, 1.344, 2.152])],
)
def test_centroids_of_the_normal_law(bits, positive):
    """Table I of Max 1960."""
    levels = normal_centroids(bits)
    np.testing.assert_allclose(levels, -levels[::-1], atol=1e-9)
    np.testing.assert_allclose(levels[levels.size // 2 :], positive, atol=6e-4)


def test_the_same_key_on_both_sides_only():
    code, x = c.rotation(), laws.vector(64)
    payload = laws.encoded(code, x)
    other = payload | {"seed": jax.random.key_data(jax.random.key(99))}
    assert not np.allclose(code.decode(other, 64), x, atol=0.1)


def test_blocks_are_powers_of_two():
    with pytest.raises(ValueError, match="power of two, not 12"):
        c.rotation(block=12)
