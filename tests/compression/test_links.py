"""Compressors as links: trees, leaf by leaf, behind one another; and in a federation."""

import compressor_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness

from fljax import algorithms
from fljax import compression as c
from fljax.compression import links
from fljax.core import transmission
from fljax.core.algorithm import Contribution, Variables, blank_job
from fljax.core.transforms import Pipeline

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORTS = [[0, 1, 2, 3], [3, 4, 8, 0], [5, 3, 0, 4]]
TREE = {
    "b": np.array([3, -1], np.float32),
    "n": np.arange(3, dtype=np.int32),
    "w": np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3),
}


def through(link, value, key=laws.KEY):
    """Returns (what arrives, bits)."""
    sent = jax.jit(lambda value: link.encode(value, (), None, key)[0])(value)
    return jax.jit(lambda sent: link.decode(sent, ()))(sent), int(link.bits(sent))


def test_one_vector_for_all_floating_leaves():
    received, bits = through(c.uplink(c.top_k(0.5)), TREE)
    np.testing.assert_array_equal(received["b"], [3, 0])
    np.testing.assert_allclose(received["w"], [[-2, -1.2, 0], [0, 0, 2]], rtol=1e-6)
    np.testing.assert_array_equal(received["n"], TREE["n"])
    assert bits == 3 * 32 + 8 + 4 * 32


def test_leaf_by_leaf_each_has_its_own_scale():
    received, bits = through(c.uplink(c.int8(bits=2), per_leaf=True), TREE)
    np.testing.assert_array_equal(received["b"], [3, 0])
    np.testing.assert_array_equal(received["w"], [[-2, -2, 0], [0, 2, 2]])
    assert bits == 3 * 32 + 2 * 32 + 8 * 2
    received, bits = through(c.uplink(lambda shape: c.int8_channels(shape)), TREE)
    np.testing.assert_allclose(received["w"], TREE["w"], atol=2 / 127)
    assert bits == 3 * 32 + (1 + 3) * 32 + 8 * 8


def test_leaves_of_one_shape_draw_different_numbers():
    link = c.uplink(c.rand_k(0.5), per_leaf=True)
    first, second = through(link, (jnp.ones(40), jnp.ones(40)))[0]
    assert (np.asarray(first) != np.asarray(second)).any()


def test_dtypes_come_back():
    value = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
    received, _ = through(c.uplink(c.qsgd(8)), value)
    assert received["a"].dtype == jnp.bfloat16 and received["b"].dtype == jnp.float32


def test_a_link_behind_another_compresses_its_values():
    x = laws.vector(40)
    pipeline = Pipeline(uplink=(c.uplink(c.top_k(0.25, index_format="raw")), c.uplink(c.int8())))

    @jax.jit
    def transmit(update):
        message = {"update": Contribution(update, jnp.float32(1))}
        job = blank_job(laws.KEY)
        sent, _, bits, _ = transmission.encode(pipeline, message, ((), ()), job, laws.KEY, ((), ()))
        received = transmission.decode(pipeline, sent, ((), ()))
        return received["update"]["x"], bits

    received, bits = transmit({"x": jnp.asarray(x)})
    together = c.chain(c.top_k(0.25, index_format="raw"), c.int8())
    np.testing.assert_array_equal(received, laws.roundtrip(together, x))
    # the positions travel as the int32 they are
    assert int(bits) == 10 * 32 + 32 + 10 * 8


def test_nothing_to_compress():
    assert through(c.uplink(c.top_k(0.5)), ()) == ((), 0)


def test_downlink_compresses_the_whole_message_and_counts_it():
    message = Variables(TREE, {"mean": jnp.ones(4)})
    link = c.downlink(c.bf16())
    received, state = link.apply(message, (), laws.KEY)
    assert state == ()
    np.testing.assert_allclose(received.params["w"], TREE["w"], rtol=2**-8)
    assert int(link.bits(received)) == 3 * 32 + (8 + 4) * 16
    with pytest.raises(ValueError, match="does not show what was sent"):
        c.downlink(c.prune(0.1))


@pytest.fixture(scope="module")
def uncompressed():
    with jax.enable_x64(True):
        return harness.rounds(algorithms.fedavg(0.2), COHORTS).params


@pytest.mark.parametrize(
    "code", [c.top_k(1.0), c.identity(), c.rand_k(1.0)], ids=lambda code: code.name
)
def test_lossless_settings_are_no_compression(code, uncompressed):
    with jax.enable_x64(True):
        pipeline = Pipeline(uplink=(c.uplink(code),), downlink=(c.downlink(code),))
        run = harness.rounds(algorithms.fedavg(0.2), COHORTS, pipeline=pipeline)
        toy.assert_close(run.params, uncompressed, 1e-12)


def counting(link, calls):
    """The link, with a note of each run of its encoder and of its decoder."""

    def noted(name, function):
        def run(*args):
            jax.debug.callback(lambda: calls.append(name))
            return function(*args)

        return run

    return link._replace(encode=noted("encode", link.encode), decode=noted("decode", link.decode))


def test_the_uplink_runs_once_a_job():
    calls = []
    pipeline = Pipeline(uplink=(counting(c.uplink(c.qsgd(4)), calls),))
    harness.rounds(algorithms.fedavg(0.2), [[0, 2, 3, 4]], pipeline=pipeline)
    jax.effects_barrier()
    assert calls.count("encode") == calls.count("decode") == 4


@pytest.mark.parametrize(
    "code",
    [c.rand_k(0.3), c.chain(c.top_k(0.4), c.int8(stochastic=True))],
    ids=lambda code: code.name,
)
def test_devices_and_lanes_change_nothing(code):
    """Each job draws its own numbers, wherever it runs."""
    with jax.enable_x64(True):
        runs = [
            harness.rounds(
                algorithms.fedavg(0.2), COHORTS, layout, pipeline=Pipeline(uplink=(c.uplink(code),))
            )
            for layout in harness.LAYOUTS
        ]
        toy.assert_close(runs[1].params, runs[0].params, 1e-9)
        payload = jax.eval_shape(code.encode, laws.KEY, jnp.zeros(28))
        bits = int(code.bits(payload, 28))
        for round, cohort in enumerate(COHORTS):
            expected = {client: bits for client in cohort if client != 1}
            assert runs[1].by_client("uplink_bits", round) == expected


def test_the_form_of_a_value_is_static():
    sent, _ = c.uplink(c.bf16()).encode(TREE, (), None, laws.KEY)
    assert isinstance(sent, links.Sent) and hash(sent.form) == hash(sent.form)
    assert len(jax.tree.leaves(sent)) == 2
