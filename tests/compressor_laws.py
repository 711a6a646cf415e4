"""Promises of every compressor, as checks of one compressor."""

import math

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

    Vectors of one length share programs. Returns what arrives of them.
    """
    lengths = [x.size for x in vectors]
    encode, decode = jax.jit(compressor.encode), jax.jit(compressor.decode, static_argnums=1)
    payloads, arrived = [encode(KEY, x) for x in vectors], []
    for payload, d in zip(payloads, lengths, strict=True):
        message = compressor.serialize(jax.device_get(payload), d)
        bits = compressor.bits(payload, d)
        assert bits.dtype == jnp.uint32 and bits.shape == ()
        assert len(message) == math.ceil(int(bits) / 8)
        arrived.append(compressor.deserialize(message, d))
    decoded = [decode(payload, d) for payload, d in zip(arrived, lengths, strict=True)]
    for received, payload, d in zip(decoded, payloads, lengths, strict=True):
        np.testing.assert_array_equal(received, decode(payload, d))
        assert received.shape == (d,) and received.dtype == jnp.float32
    return jax.device_get(decoded)


def adversarial(d, size=8, seed=0):
    """Returns float32[V, d], vectors that reach bounds or show a bias.

    All of a vector in its first or last `size` entries, one large block beside small ones, spikes
    with and without noise, constants, halfway values, heavy tails, and very small and large ones.
    """
    generator = np.random.default_rng([seed, d])
    normal, places = generator.standard_normal(d), np.arange(d)
    one, two = places == d // 3, places == d - 1
    block = places < size
    rows = [
        vector(d, seed),
        np.where(block, normal, 0),
        np.where(places >= d - d % size - size, normal, 0),
        np.where(block, 1e3, 1e-3) * normal,
        one,
        two * -2.0 + one,
        one - 1.0 * two,
        one + two,
        one + 0.5 * normal / math.sqrt(d),
        # where ternary values, powers of two and halfway levels vary most
        np.where(one, 1, 1 / (1 + math.sqrt(d))),
        np.full(d, 4 / 3),
        np.full(d, -0.37),
        np.where(one, 1, 0.5),
        np.where(places % 2, 1, -1),
        np.exp(3 * normal) * np.sign(normal),
        1e-15 * normal,
        1e15 * normal,
        np.zeros(d),
    ]
    return np.stack(rows).astype(np.float32)


def draws(compressor, x, count):
    """Returns float64[count, ..., d] of x[..., d], decoded with as many keys."""

    @jax.jit
    def run(keys, rows):
        draw = jax.vmap(lambda key, x: compressor.decode(compressor.encode(key, x), x.size))
        return jax.vmap(draw, (0, None))(keys, rows)

    rows = jnp.asarray(x).reshape(-1, x.shape[-1])
    keys = jax.random.split(jax.random.key(11), (count, len(rows)))
    return np.asarray(run(keys, rows), np.float64).reshape(count, *x.shape)


def check_constants(compressor, x, count):
    """Asserts what a compressor claims, of each of the vectors x[V, d], in the mean of many draws.

    The mean squared error is within omega (or 1 - alpha) of the vector's square, and the mean of
    unbiased draws is as near to the vector as their variance lets it be.
    """
    d, received = x.shape[-1], draws(compressor, x, count)
    exact = x.astype(np.float64)
    square = (exact**2).sum(-1)
    unbiased = compressor.omega is not None
    bound = compressor.omega(d) if unbiased else 1 - compressor.alpha(d)
    squared = ((received - exact) ** 2).sum(-1)
    error = squared.mean(0) - 4 * squared.std(0) / math.sqrt(count)
    assert (error <= (bound * 1.0001 + 1e-9) * square).all(), error / np.maximum(square, 1e-300)
    if unbiased:
        bias = ((received.mean(0) - exact) ** 2).sum(-1)
        assert (bias <= (16 * bound / count + 1e-10) * square).all(), bias / square
