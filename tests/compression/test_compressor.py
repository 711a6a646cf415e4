"""Laws of all compressors: sizes, bytes, unbiasedness, contraction; and chains of them."""

import compressor_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression as c

pytestmark = pytest.mark.usefixtures("quick_compilation")

CODES = [
    c.identity(),
    c.bf16(),
    c.fp16(),
    c.top_k(0.1),
    c.top_k(0.1, index_format="raw"),
    c.top_k(0.1, index_format="bitmap"),
    c.rand_k(0.3),
    c.rand_k(0.3, unbiased=False, index_format="bitmap"),
    c.rand_k(0.3, index_format="seed"),
    c.prune(0.3),
    c.qsgd(8),
    c.qsgd(2, bucket=None),
    c.qsgd(3, bucket=7),
    c.int8(),
    c.int8(stochastic=True, bits=4),
    c.int8(channels=3),
    c.uniform(1),
    c.uniform(5),
    c.sign(),
    c.terngrad(),
    c.terngrad(clip=2.5),
    c.natural(),
    c.rotation(),
    c.rotation(block=8),
    c.rotated_uniform(2),
    c.rotated_uniform(3, block=8),
    c.drive(),
    c.drive(unbiased=False),
    c.eden(3, block=16),
    c.chain(c.top_k(0.2), c.qsgd(4, bucket=3)),
    c.chain(c.rand_k(0.5), c.int8(stochastic=True, bits=3)),
    c.chain(c.rotation(block=16), c.rand_k(0.5), c.int8(stochastic=True, bits=3)),
    # of a small omega, of a large one, of an alpha
    c.chain(c.top_k(0.5), c.qsgd(2)),
    c.chain(c.rand_k(0.5, unbiased=False), c.uniform(4)),
    c.chain(c.rotation(block=8), c.top_k(0.5), c.sign()),
    c.chain(c.rand_k(0.5), c.sign()),
]
LENGTHS = (1, 2, 24, 57)


def fits(code, d):
    return "channels" not in code.name or d % 3 == 0


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_bytes_are_as_many_as_counted_and_zeros_stay_zeros(code):
    vectors = [laws.vector(d) for d in LENGTHS if fits(code, d)]
    denormal = np.float32(1e-41) * laws.vector(24)
    *_, zeros, tiny = laws.check_wire(code, [*vectors, np.zeros(24, np.float32), denormal])
    np.testing.assert_array_equal(zeros, np.zeros(24))
    assert (np.abs(tiny) <= 2.0**-126).all()


@pytest.mark.parametrize("code", [c for c in CODES if c.omega], ids=lambda code: code.name)
def test_unbiased_with_bounded_variance(code):
    laws.check_unbiased(code, 24)


@pytest.mark.parametrize("code", [c for c in CODES if c.alpha], ids=lambda code: code.name)
def test_contraction(code):
    laws.check_contraction(code, (3, 24))


def test_every_compressor_says_how_good_it_is():
    assert [code.name for code in CODES if not (code.omega or code.alpha)] == [
        "fp16",
        "terngrad(2.5)",
        "drive",
        "eden(3)",
        "rand_k(0.5), sign",
    ]


@pytest.mark.parametrize(
    ("second", "left", "alpha"),
    [
        (c.top_k(0.5), 0, 0.5 * 0.5),
        (c.rand_k(0.8), 0, 0.5 * (1 - 0.25)),
        (c.rand_k(0.25), 20, 1 - 3),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_constants_of_chains_are_reached(second, left, alpha):
    """By a flat vector, or by one that has no more coordinates than are sent."""
    code = c.chain(c.top_k(0.5), second)
    x = np.where(np.arange(40) < left, 0, np.float32(0.5))
    squared = ((laws.draws(code, jnp.asarray(x), 2000) - x) ** 2).sum(1).mean()
    assert code.alpha(40) == pytest.approx(alpha)
    assert squared == pytest.approx((1 - alpha) * (x**2).sum(), rel=0.1)


def test_chain_compresses_the_values_alone():
    code = c.chain(c.top_k(0.25), c.int8())
    x = laws.vector(40)
    largest = np.sort(np.argsort(-np.abs(x), kind="stable")[:10])
    step = np.abs(x).max() / 127
    expected = np.zeros(40)
    expected[largest] = np.round(x[largest] / step) * step
    np.testing.assert_allclose(laws.roundtrip(code, x), expected, rtol=1e-5, atol=1e-7)
    payload = laws.encoded(code, x)
    assert int(code.bits(payload, 40)) == 40 + 32 + 10 * 8  # the bitmap is smaller than 10 x 6 bits


def test_chain_refuses_what_has_no_values():
    with pytest.raises(ValueError, match="no floating-point values"):
        c.chain(c.qsgd(8), c.bf16())
    with pytest.raises(ValueError, match="size depends on the values"):
        c.chain(c.prune(0.1), c.bf16())


def test_a_message_of_another_length_is_refused():
    code = c.int8()
    message = code.serialize(jax.device_get(laws.encoded(code, jnp.ones(24))), 24)
    with pytest.raises(ValueError, match="has 28 bytes, but .* 34 bytes"):
        code.deserialize(message, 30)
