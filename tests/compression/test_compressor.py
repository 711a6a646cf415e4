"""Laws of all compressors: sizes, bytes, unbiasedness, contraction; and chains of them."""

import compressor_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression as c
from fljax.compression import names

pytestmark = pytest.mark.usefixtures("quick_compilation")

CODES = [
    c.identity(),
    c.bf16(),
    c.fp16(),
    c.top_k(0.1),
    c.rand_k(0.3),
    c.rand_k(0.3, unbiased=False, index_format="bitmap"),
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
    c.eden(3, block=16),
    c.chain(c.top_k(0.2), c.qsgd(4, bucket=3)),
    c.chain(c.rand_k(0.5), c.int8(stochastic=True, bits=3)),
    c.chain(c.rotation(block=16), c.rand_k(0.5), c.int8(stochastic=True, bits=3)),
]
# Values as of one above, in bytes of another kind.
FORMATS = [
    c.top_k(0.1, index_format="raw"),
    c.top_k(0.1, index_format="bitmap"),
    c.rand_k(0.3, index_format="seed"),
]
# Other values, in bytes of the same kind: drive's length, chains of a small omega, of a large one,
# of an alpha, of none.
VALUES = [
    c.drive(unbiased=False),
    c.chain(c.top_k(0.5), c.qsgd(2)),
    c.chain(c.rand_k(0.5, unbiased=False), c.uniform(4)),
    c.chain(c.rotation(block=8), c.top_k(0.5), c.sign()),
    c.chain(c.rand_k(0.5), c.sign()),
]
LENGTHS = (1, 24, 57)


def fits(code, d):
    return "channels" not in code.name or d % 3 == 0


@pytest.mark.parametrize("code", CODES + FORMATS, ids=lambda code: code.name)
def test_bytes_are_as_many_as_counted_and_zeros_stay_zeros(code):
    vectors = [laws.vector(d) for d in LENGTHS if fits(code, d)]
    denormal = np.float32(1e-41) * laws.vector(24)
    *_, zeros, tiny = laws.check_wire(code, [*vectors, np.zeros(24, np.float32), denormal])
    np.testing.assert_array_equal(zeros, np.zeros(24))
    assert (np.abs(tiny) <= 2.0**-126).all()


CLAIMS = [code for code in CODES + VALUES if code.omega or code.alpha]


@pytest.mark.parametrize("code", CLAIMS, ids=lambda code: code.name)
def test_constants_hold_for_whatever_vector(code):
    """Of one entry, of a few, and of several blocks, the last one not full."""
    for d, count in ((1, 100), (57, 1600)):
        if fits(code, d):
            laws.check_constants(code, laws.adversarial(d), count)


@pytest.mark.parametrize(
    ("code", "d", "size"),
    [
        (c.qsgd(3), 3 * 512 + 1, 512),
        (c.rotated_uniform(4), 5 * 2**15, 2**15),
        (c.rotated_uniform(2), 2**15 + 1, 2**15),
        (c.drive(unbiased=False), 2 * 2**15, 2**15),
        (c.chain(c.rotation(), c.top_k(0.1), c.qsgd(4)), 2**15 + 1, 2**15),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_constants_hold_for_vectors_that_live_in_one_block(code, d, size):
    # the default blocks are large, so a few draws say as much as many of small ones
    laws.check_constants(code, laws.adversarial(d, size)[1:7], 8)


def test_a_block_does_not_pay_for_those_beside_it():
    """The rounding of a block depends on its own bounds, not on a larger one elsewhere."""
    code, beside = c.rotated_uniform(4, block=16), np.zeros(64, np.float32)
    x = np.concatenate([laws.vector(16), beside])
    alone = laws.draws(code, x[:16], 400) - x[:16]
    among = laws.draws(code, x, 400) - x
    np.testing.assert_array_equal(among[:, 16:], 0)
    np.testing.assert_allclose((among**2).sum(1).mean(), (alone**2).sum(1).mean(), rtol=0.1)


@pytest.mark.parametrize("per_leaf", [False, True])
@pytest.mark.parametrize(
    "text", ["rotated_uniform(3, block=8)", "qsgd(3, bucket=8)", "rand_k(0.3), qsgd(4)", "terngrad"]
)
def test_what_memories_take_their_rate_from_holds_for_whole_updates(text, per_leaf):
    """Tensors of several lengths, of which one is large: DIANA's omega bounds what is lost."""
    x = {"a": 1.5, "b": 100 * laws.vector(21), "c": laws.vector(24).reshape(4, 6)}
    x = jax.tree.map(jnp.asarray, x)
    code = names.uplink_code(names.Names(text, uplink_per_leaf=per_leaf))
    omega = names.facts_of(code, x, 4, 0).omega

    @jax.jit
    @jax.vmap
    def run(key):
        arrived = code.link.decode(code.link.encode(x, (), None, key)[0], ())
        return jax.tree.map(jnp.subtract, arrived, x)

    count = 1000
    lost = jax.tree.leaves(run(jax.random.split(laws.KEY, count)))
    lost = np.concatenate([np.asarray(part, np.float64).reshape(count, -1) for part in lost], 1)
    square = sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(x))
    assert (lost**2).sum(1).mean() <= omega * square
    assert (lost.mean(0) ** 2).sum() <= 16 * omega / count * square


def test_every_compressor_says_how_good_it_is():
    assert [code.name for code in CODES + VALUES if not (code.omega or code.alpha)] == [
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
