"""Compressors by name: what is named is what is used, and what is wrong is explained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression
from fljax.compression import names, sizes
from fljax.compression.names import CODES, Names
from fljax.config import ConfigError, resolve

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMS = {"b": jnp.linspace(-1, 1, 4), "w": jnp.sin(jnp.arange(24.0)).reshape(6, 4)}
KEY = jax.random.key(3)
TEXTS = [
    *(name for name in CODES if name not in ("top_k", "rand_k", "prune", "fetch_sgd")),
    "top_k(0.1)", "prune(0.2)", "rand_k(0.2, index_format='seed')", "fetch_sgd(columns=7)",
    "rotation, top_k(0.5), qsgd(bits=4, bucket=None)", "rand_k(0.3, unbiased=False), bf16",
]  # fmt: skip


def pipeline(num_clients=10, traced=(), **keys):
    return names.pipeline(Names(**keys), PARAMS, num_clients, 0, traced)


def sent(link):
    """Returns (payload, client state) of a first update."""
    encode = lambda update: link.encode(update, link.init_client(PARAMS), None, KEY)  # noqa: E731
    return jax.jit(encode)(PARAMS)


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_every_compressor_of_the_library_has_its_name():
    others = {
        "Compressor", "chain", "uplink", "downlink", "index_bits", "error_feedback", "ef21",
        "diana", "marina", "downlink_difference", "downlink_error_feedback",
    }  # fmt: skip
    assert set(CODES) == set(compression.__all__) - others


@pytest.mark.parametrize(
    ("text", "per_leaf", "link"),
    [
        ("top_k(0.25)", False, compression.uplink(compression.top_k(0.25))),
        ("sign", True, compression.uplink(compression.sign(), per_leaf=True)),
        ("int8_channels", False, compression.uplink(compression.int8_channels)),
        ("powersgd(rank=1)", False, compression.powersgd(1)),
        (
            "rand_k(0.5, index_format='raw'), qsgd(4)",
            False,
            compression.uplink(
                compression.chain(compression.rand_k(0.5, index_format="raw"), compression.qsgd(4))
            ),
        ),
    ],
)
def test_a_text_means_the_functions_it_names(text, per_leaf, link):
    (named,) = pipeline(uplink=text, uplink_per_leaf=per_leaf).uplink
    assert_same(sent(named)[0], sent(link)[0])


def test_nothing_named_is_no_compression():
    assert pipeline() == pipeline(uplink="none", downlink="none")
    assert pipeline().uplink == pipeline().downlink == ()


def test_memories_are_those_of_the_library():
    code = compression.uplink(compression.top_k(0.25))
    for text, memory in (
        ("error_feedback", compression.error_feedback(code)),
        ("ef21", compression.ef21(code, 10)),
    ):
        (named,) = pipeline(uplink="top_k(0.25)", uplink_memory=text).uplink
        assert_same(sent(named), sent(memory))


@pytest.mark.parametrize(("text", "rate"), [("diana", 1 / 4), ("diana(rate=0.125)", 1 / 8)])
def test_diana_takes_the_largest_rate_of_its_theory(text, rate):
    # 7 of 28 coordinates: omega = 3
    (link,) = pipeline(uplink="rand_k(0.25)", uplink_memory=text).uplink
    payload, (_, shift) = sent(link)
    decoded = link.decode(payload, ())
    jax.tree.map(lambda h, m: np.testing.assert_allclose(h, rate * m, rtol=1e-6), shift, decoded)


def test_marina_sends_everything_as_often_as_a_compressed_update_is_small():
    keys = {"uplink": "uniform(8)", "uplink_memory": "marina"}
    share = (8 * 28 + 64) / (32 * 28)
    size = names.update_size(Names(**keys), PARAMS, 10)
    assert size.bits == pytest.approx((share + (1 - share) * share) * 32 * 28)
    keys["uplink_memory"] = "marina(probability=1)"
    assert names.update_size(Names(**keys), PARAMS, 10).bits == 32 * 28


@pytest.mark.parametrize("text", TEXTS)
def test_sizes_are_those_of_what_is_sent(text):
    (link,) = pipeline(uplink=text).uplink
    size = names.update_size(Names(uplink=text), PARAMS, 10)
    assert size.bits == int(link.bits(sent(link)[0]))
    assert size.dense_bits == 32 * 28


def test_a_size_is_found_once_for_equal_calls_and_models_of_the_librarys_codes():
    found = {}
    for text in ("top_k(0.25)", "top_k(0.1)"):
        for per_leaf in (False, True):
            for rows in (6, 60):
                params = PARAMS | {"w": jnp.ones((rows, 4))}
                code = names.uplink_code(Names(text, uplink_per_leaf=per_leaf))
                payload, _ = jax.eval_shape(code.link.encode, params, (), None, KEY)
                found[text, per_leaf, rows] = bits = int(code.link.bits(payload))
                assert sizes.uplink_size(code, params).bits == bits
    assert len(set(found.values())) == 8
    # the user's own may be another one under the same name
    for bits in (7, 8):
        own = code._replace(
            calls=[code.calls[0]._replace(name="mine:code")],
            link=code.link._replace(bits=lambda payload, bits=bits: bits),
        )
        assert sizes.uplink_size(own, PARAMS).bits == bits
    assert sizes.uplink_size(code._replace(link=None), params).bits == found["top_k(0.1)", True, 60]


@pytest.mark.parametrize(
    ("text", "per_leaf", "chosen"),
    [
        ("top_k(0.25)", False, [(7, 28)]),
        ("prune(0.25)", True, [(1, 4), (6, 24)]),
        ("rotation, top_k(0.25), int8", False, [(8, 32)]),
        ("top_k(0.5), rand_k(0.5)", False, [(14, 28), (7, 14)]),
    ],
)
def test_positions_are_counted_for_every_sparse_code(text, per_leaf, chosen):
    size = names.update_size(Names(uplink=text, uplink_per_leaf=per_leaf), PARAMS, 10)
    want = [compression.index_bits(k, d) for k, d in chosen]
    assert size.positions == pytest.approx(tuple(map(sum, zip(*want, strict=True))))


def test_codes_that_keep_everything_have_no_positions():
    for text in ("rotation, qsgd(4)", "powersgd", "fetch_sgd", "int8_channels"):
        assert names.update_size(Names(uplink=text), PARAMS, 10).positions is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"uplink": "topk(0.1)"}, "uplink = 'topk.0.1.': .* mean 'top_k'"),
        ({"uplink": "TopK(0.1)"}, "mean 'top_k'"),
        ({"downlink": "zzz"}, "downlink = 'zzz': .*Names are identity, bf16"),
        ({"uplink": "top_k()"}, r"top_k needs fraction. It is top_k\(fraction, index_format="),
        ({"uplink": "qsgd(bit=4)"}, "qsgd has no argument 'bit' = 4. Did you mean 'bits'"),
        ({"uplink": "rand_k(0.1, True)"}, "takes 1 arguments without a name, not 2. It is rand_k"),
        ({"uplink": "top_k('all')"}, "top_k: fraction must lie above 0 .* not 'all'"),
        ({"uplink": "top_k(True)"}, "top_k: fraction must lie above 0 .* not True"),
        ({"uplink": "top_k(1.5)"}, "top_k: fraction must lie above 0 and be at most 1, not 1.5"),
        ({"uplink": "qsgd(9)"}, "uplink = 'qsgd.9.': qsgd: bits must be .* from 2 to 8, not 9"),
        ({"uplink": "qsgd(bucket=0)"}, "qsgd: bucket must be an integer from 1"),
        ({"uplink": "terngrad(clip=-1)"}, "terngrad: clip must be a number above 0"),
        ({"uplink": "terngrad(clip='a')"}, "terngrad: clip must be a number above 0, not 'a'"),
        ({"uplink": "terngrad(clip=True)"}, "terngrad: clip must be a number above 0, not True"),
        ({"uplink": "powersgd(seed='a')"}, "powersgd: seed must be an integer from 0"),
        ({"uplink": "fetch_sgd(seed=0.5)"}, "fetch_sgd: seed must be an integer from 0"),
        ({"uplink": "eden(2, block=2.0)"}, "eden: block must be an integer from 1"),
        ({"uplink": "rotation(block=True)"}, "rotation: block must be an integer from 1"),
        ({"uplink": "rand_k(0.1, unbiased='no')"}, "rand_k: unbiased must be True or False"),
        ({"uplink": "drive(unbiased=1)"}, "drive: unbiased must be True or False"),
        ({"uplink": "int8(stochastic='no')"}, "int8: stochastic must be True or False"),
        ({"uplink": "top_k(0.1"}, "no list of calls"),
        ({"uplink": ""}, "no list of calls"),
        ({"uplink": "compression.top_k(0.1)"}, "no name and no call of one"),
        ({"uplink": "top_k(0.1)(2)"}, "no name and no call of one"),
        ({"uplink": "top_k(print('no'))"}, "must be numbers, quoted texts"),
        ({"uplink": "top_k(*[0.1])"}, "must be numbers, quoted texts"),
        ({"uplink": "top_k(**{'fraction': 0.1})"}, "must be numbers, quoted texts"),
        ({"uplink": "sign, qsgd(4)"}, "sign leaves no floating-point values"),
        ({"uplink": "rotation, powersgd"}, "powersgd is no code of a single vector"),
        ({"uplink": "int8_channels", "uplink_per_leaf": True}, "uplink_per_leaf = True has no"),
        ({"uplink_per_leaf": True}, "no effect with uplink = 'none'"),
        ({"uplink_memory": "ef21"}, "no effect with uplink = 'none'"),
        ({"downlink_memory": "difference"}, "no effect with downlink = 'none'"),
        ({"uplink": "top_k(0.1)", "uplink_memory": "diana"}, "needs an unbiased compressor"),
        ({"uplink": "powersgd", "uplink_memory": "marina"}, "needs an unbiased compressor"),
        ({"uplink": "drive", "uplink_memory": "diana(0.1)"}, "needs an unbiased compressor"),
        ({"uplink": "eden(4)", "uplink_memory": "marina(0.1)"}, "needs an unbiased compressor"),
        ({"uplink": "qsgd", "uplink_memory": "diana(rate=2)"}, "diana: rate must lie above 0"),
        ({"uplink": "qsgd", "uplink_memory": "feedback"}, "mean 'error_feedback'"),
        ({"uplink": "qsgd(level)"}, "must be numbers, quoted texts"),
        ({"uplink": "os:getcwd"}, "os:getcwd returned '.*.str., and a compressor is a fljax"),
        ({"uplink": "os:getcw"}, "has no function 'getcw'"),
        ({"uplink": "no_such_module:f"}, "there is no module 'no_such_module'. It is looked for"),
        ({"uplink": "qsgd", "uplink_memory": "os:getcwd"}, "a memory is a fljax.compression"),
        ({"downlink": "qsgd", "downlink_memory": "diference"}, "mean 'difference'"),
        ({"uplink": "sign", "uplink_memory": "ef21, ef21"}, "names 2 parts; name one"),
        ({"uplink": "fetch_sgd", "uplink_memory": "ef21"}, "ef21 decodes on the client"),
        ({"downlink": "powersgd"}, "powersgd is for updates; use it as uplink"),
        ({"downlink": "rotation, top_k(0.1)"}, "Set downlink_memory = 'difference', .* changes.$"),
        ({"downlink": "rand_k(0.1)"}, r"'difference', .* use rand_k\(..., unbiased=False\)"),
        (
            {"downlink": "prune(0.1)", "downlink_memory": "difference"},
            "downlink = 'prune.0.1.', .*: The size",
        ),
        ({"uplink_mbps": 0.0}, "uplink_mbps = 0.0 must be above 0"),
        ({"quantize_bits": 8}, "called 'uplink': a text such as"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_explained(config, message):
    with pytest.raises(ConfigError, match=message):
        resolve(config)


def test_all_that_is_right_resolves():
    for text in TEXTS:
        assert resolve({"uplink": text}).uplink == text
    both = {"downlink": "top_k(0.1)", "downlink_memory": "difference"}
    assert resolve(both).downlink_memory == "difference"
