"""Quantizers against NumPy in float64."""

import compressor_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression as c

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(("bits", "bucket"), [(2, None), (4, 10), (8, 512)])
def test_qsgd_rounds_each_coordinate_to_a_neighbouring_level(bits, bucket):
    d, s = 57, 2 ** (bits - 1) - 1
    x = laws.vector(d)
    size = min(bucket or d, d)
    norms = [np.linalg.norm(x[n : n + size].astype(np.float64)) for n in range(0, d, size)]
    step = np.repeat(norms, size)[:d] / s
    received = laws.draws(c.qsgd(bits, bucket=bucket), jnp.asarray(x), 300)
    below, above = np.floor(x / step) * step, np.ceil(x / step) * step
    near = [np.isclose(received, edge, rtol=1e-5, atol=1e-6) for edge in (below, above)]
    assert (near[0] | near[1]).all()


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("channels", [None, 1, 4])
def test_nearest_levels(bits, channels):
    x = laws.vector(24)
    s = 2 ** (bits - 1) - 1
    matrix = x.reshape(-1, channels or 1).astype(np.float64)
    step = np.abs(matrix).max(0) / s
    expected = (np.round(matrix / step) * step).reshape(-1)
    received = laws.roundtrip(c.int8(bits=bits, channels=channels), x)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [1, 4])
def test_uniform_levels_lie_between_the_bounds(bits):
    x = laws.vector(57).astype(np.float64)
    step = np.ptp(x) / (2**bits - 1)
    place = (x - x.min()) / step
    received = laws.draws(c.uniform(bits), jnp.asarray(x, jnp.float32), 300)
    near = [
        np.isclose(received, x.min() + edge * step, rtol=1e-5, atol=1e-5)
        for edge in (np.floor(place), np.ceil(place))
    ]
    assert (near[0] | near[1]).all()


def test_channels_are_those_of_the_last_axis():
    assert c.int8_channels((3, 3, 1, 32)).layout(288)["scales"].count == 32
    assert c.int8_channels((32,)).layout(32)["scales"].count == 1
    with pytest.raises(ValueError, match="no tensor whose last axis has 5"):
        c.int8(channels=5).encode(laws.KEY, jnp.zeros(24))


def test_the_same_key_gives_the_same_message():
    code, x = c.qsgd(4), jnp.asarray(laws.vector(57))
    first, again = (laws.encoded(code, x)["levels"] for _ in range(2))
    other = laws.encoded(code, x, jax.random.key(4))["levels"]
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


@pytest.mark.parametrize("bits", [1, 9, 8.0])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="bits must be an integer from 2 to 8"):
        c.qsgd(bits)
