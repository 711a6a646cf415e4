"""What every compressor promises, as checks of one compressor."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(3)


def vector(d, seed=0):
    """Returns float32[d] of very different sizes, with a zero and a repeated magnitude."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(d) * np.exp(generator.standard_normal(d))
    x[d // 2] = 0
    if d > 3:
        x[1] = -x[0]
    return x.astype(np.float32)


def encoded(compressor, x, key=KEY):
    return jax.jit(compressor.encode)(key, jnp.asarray(x))


def roundtrip(compressor, x, key=KEY):
    run = jax.jit(lambda key, x: compressor.decode(compressor.encode(key, x), x.size))
    return np.asarray(run(key, jnp.asarray(x)))


def check_wire(compressor, vectors):
    """Bits are those of the bytes, and the bytes hold all that decoding needs.

    Vectors of all lengths share a program. Returns what arrives of them.
    """
    lengths = [x.size for x in vectors]

    @jax.jit
    def encode(key, vectors):
        return [compressor.encode(key, x) for x in vectors]

    @jax.jit
    def decode(payloads):
        return [compressor.decode(payload, d) for payload, d in zip(payloads, lengths, strict=True)]

    payloads, arrived = encode(KEY, vectors), []
    for payload, d in zip(payloads, lengths, strict=True):
        message = compressor.serialize(jax.device_get(payload), d)
        bits = compressor.bits(payload, d)
        assert bits.dtype == jnp.uint32 and bits.shape == ()
        assert len(message) == math.ceil(int(bits) / 8)
        arrived.append(compressor.deserialize(message, d))
    decoded = decode(arrived)
    for received, expected, d in zip(decoded, decode(payloads), lengths, strict=True):
        np.testing.assert_array_equal(received, expected)
        assert received.shape == (d,) and received.dtype == jnp.float32
    return jax.device_get(decoded)


def draws(compressor, x, count):
    """Returns float64[count, d], decoded with as many keys."""
    return draws_of_each(compressor, [x], count)[0]


def draws_of_each(compressor, vectors, count):
    """Returns float64[count, d] for each vector; vectors of all lengths share a program."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def run(key, vectors):
        return [compressor.decode(compressor.encode(key, x), x.size) for x in vectors]

    keys = jax.random.split(jax.random.key(11), count)
    return [np.asarray(one, np.float64) for one in run(keys, vectors)]


def check_unbiased(compressor, d, count=10_000):
    """The mean of many draws is x within 4 standard errors; the variance is within omega."""
    x = vector(d)
    received = draws(compressor, jnp.asarray(x), count)
    error = received.std(0) / math.sqrt(count)
    rounding = 1e-5 * np.abs(x).max()
    assert (np.abs(received.mean(0) - x) <= 4 * error + rounding).all()
    squared = ((received - x) ** 2).sum(1)
    bound = compressor.omega(d) * (x.astype(np.float64) ** 2).sum()
    assert squared.mean() - 4 * squared.std() / math.sqrt(count) <= bound * 1.0001 + 1e-9


def check_contraction(compressor, lengths, count=200):
    """The mean squared error is within 1 - alpha of the squared norm, also of flat vectors."""
    generator = np.random.default_rng(1)
    flat = [generator.choice([-1, 1], d) * np.float32(0.37) for d in lengths]
    vectors = [vector(d) for d in lengths] + [x.astype(np.float32) for x in flat]
    for x, received in zip(vectors, draws_of_each(compressor, vectors, count), strict=True):
        squared = ((received - x) ** 2).sum(1)
        bound = (1 - compressor.alpha(x.size)) * (x.astype(np.float64) ** 2).sum()
        assert squared.mean() - 4 * squared.std() / math.sqrt(count) <= bound * 1.0001 + 1e-9
