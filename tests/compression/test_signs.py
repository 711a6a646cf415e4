"""Signs, three values and powers of two against NumPy."""

import compressor_laws as laws
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression as c

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_signs_with_the_mean_magnitude():
    x = laws.vector(57)
    expected = np.where(x >= 0, 1, -1) * np.abs(x.astype(np.float64)).mean()
    np.testing.assert_allclose(laws.roundtrip(c.sign(), x), expected, rtol=1e-6)
    payload = laws.encoded(c.sign(), x)
    assert int(c.sign().bits(payload, 57)) == 32 + 57


@pytest.mark.parametrize("clip", [None, 1.5])
def test_terngrad_has_three_values(clip):
    x = laws.vector(57).astype(np.float64)
    bound = np.inf if clip is None else clip * x.std()
    clipped = np.clip(x, -bound, bound)
    largest = np.abs(clipped).max()
    received = laws.draws(c.terngrad(clip=clip), jnp.asarray(x, jnp.float32), 4_000)
    thirds = np.round(received / largest)
    np.testing.assert_allclose(received, thirds * largest, rtol=1e-5)
    # the sign is never wrong, and the share of zeros is that of the magnitude
    assert (thirds * np.sign(x) >= 0).all()
    share = np.abs(thirds).mean(0)
    expected = np.abs(clipped) / largest
    assert (np.abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / 4_000) + 1e-6).all()


def test_natural_compression_rounds_to_a_neighbouring_power_of_two():
    x = laws.vector(57)
    x[:3] = [1, -4, 0]
    received = laws.draws(c.natural(), jnp.asarray(x), 300)
    np.testing.assert_array_equal(received[:, :3], np.tile([1.0, -4.0, 0.0], (300, 1)))
    lower = np.exp2(np.floor(np.log2(np.abs(x[x != 0]).astype(np.float64))))
    ratio = received[:, x != 0] / (lower * np.sign(x[x != 0]))
    assert np.isin(ratio, [1, 2]).all()
