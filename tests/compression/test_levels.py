"""Levels of compressors as hyperparameters: traced, they do what the same number does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compression.test_names import KEY, PARAMS, pipeline

from fljax.compression import names
from fljax.compression.names import CODES, LEVELS
from fljax.core.algorithm import Variables
from fljax.core.transforms import Pipeline, PipelineSpec, as_configured, hparams_of

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

OTHERS = sorted(set(CODES) - set(LEVELS) - {"fetch_sgd"})
NUMBERS = {"fraction": (0.03, 0.5, 1.0), "bits": (2, 8)}
EACH = [
    *((name + "({})", NUMBERS[LEVELS[name]]) for name in LEVELS if name != "int8"),
    ("int8(bits={})", NUMBERS["bits"]),
]
# levels beside other arguments, and in chains
BESIDE = [
    ("int8(bits={}, stochastic=True)", NUMBERS["bits"]),
    ("rotation, qsgd({})", (4,)),
    ("qsgd({}, bucket=5)", (4,)),
    ("top_k({}, index_format='raw')", (0.5,)),
]
PLAIN, LEAF_BY_LEAF = (False, "none"), (True, "error_feedback")
CASES = [
    pytest.param(*case, *how, id=f"{case[0]}-{how[1]}")
    for cases, how in ((EACH + BESIDE, PLAIN), (EACH, LEAF_BY_LEAF))
    for case in cases
]


def assert_close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def through(link, update, state=None):
    """Returns (what arrives, bits, client state) of an update."""
    state = link.init_client(PARAMS) if state is None else state
    payload, state = link.encode(update, state, None, KEY)
    return link.decode(payload, ()), link.bits(payload), state


@pytest.mark.parametrize(("text", "numbers", "per_leaf", "memory"), CASES)
def test_a_traced_level_is_the_number(text, numbers, per_leaf, memory):
    keys = {"uplink_memory": memory, "uplink_per_leaf": per_leaf}
    spec = pipeline(uplink=text.format(numbers[0]), traced=["uplink"], **keys)
    ((name, number),) = hparams_of(spec).items()
    assert number == numbers[0]

    def twice(link):
        first = through(link, PARAMS)
        return first, through(link, jax.tree.map(jnp.cos, PARAMS), first[-1])

    @jax.jit
    def by_level(level):
        return twice(spec.build({name: level}).uplink[0])

    plain = [pipeline(uplink=text.format(number), **keys).uplink[0] for number in numbers]

    # all levels of a sweep at once, as trials side by side are
    together = jax.vmap(by_level)(jnp.array(numbers, jnp.float32))
    for place, expected in enumerate(jax.jit(lambda: [twice(link) for link in plain])()):
        found = jax.tree.map(lambda leaf, place=place: leaf[place], together)
        for traced, fixed in zip(found, expected, strict=True):
            assert traced[1] == fixed[1], "bits"
            jax.tree.map(assert_close, traced[::2], fixed[::2])


def test_the_downlink_has_levels_as_well():
    spec = pipeline(downlink="qsgd(4)", downlink_memory="difference", traced=["downlink"])
    assert hparams_of(spec) == {"downlink[0].bits": 4}
    assert isinstance(spec, PipelineSpec)
    (link,), (expected,) = (
        as_configured(made).downlink
        for made in (spec, pipeline(downlink="qsgd(4)", downlink_memory="difference"))
    )
    heard = [
        jax.jit(lambda each=each: each.apply(Variables(PARAMS, ()), each.init(PARAMS), KEY))()
        for each in (link, expected)
    ]
    jax.tree.map(np.testing.assert_array_equal, *heard)


def test_no_number_is_traced_unasked():
    assert isinstance(pipeline(uplink="qsgd(4)"), Pipeline)


@pytest.mark.parametrize(
    ("keys", "traced"),
    [
        *(({"uplink": name + "(0.5)" * (name == "rand_k")}, set()) for name in OTHERS),
        # codes of a chain have a fixed size; behind top_k come as many entries as it keeps
        ({"uplink": "top_k(0.1), qsgd(8)"}, {"uplink[1].bits"}),
        ({"uplink": "rotation, top_k(0.1)"}, set()),
        ({"uplink": "qsgd(bits=4, bucket=5)"}, {"uplink[0].bits"}),
        ({"uplink": "qsgd"}, {"uplink[0].bits"}),
        # diana's rate follows from the number of bits
        ({"uplink": "qsgd(4)", "uplink_memory": "diana"}, set()),
        ({"uplink": "qsgd(4)", "uplink_memory": "diana(0.1)"}, {"uplink[0].bits"}),
        # a downlink counts its bits from a fixed size
        ({"downlink": "top_k(0.1)", "downlink_memory": "difference"}, set()),
        ({"downlink": "uniform(4)", "uplink": "sign"}, {"downlink[0].bits"}),
    ],
)
def test_numbers_that_shape_the_program_are_not_traced(keys, traced):
    assert set(hparams_of(pipeline(**keys, traced=["uplink", "downlink"]))) == traced


def test_texts_that_differ_in_traced_numbers_are_one_program():
    def program(text):
        keys = names.Names(uplink=text)
        return names.without_numbers(keys, ["uplink[0].bits"])

    assert program("qsgd(2)") == program("qsgd(bits=4, bucket=512)") != program("qsgd(2, bucket=5)")
    assert program("uniform(2)") != program("qsgd(2)") != program("none")
