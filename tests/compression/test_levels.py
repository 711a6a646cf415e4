"""Levels of compressors as hyperparameters: traced, they do what the same number does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compression.test_names import KEY, PARAMS, pipeline

from fljax.compression.names import CODES, LEVELS
from fljax.config import ConfigError, default_config, resolve
from fljax.core.algorithm import Variables
from fljax.core.transforms import Pipeline, PipelineSpec, as_configured, hparams_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUMBERS = {"fraction": (0.03, 0.5, 1.0), "bits": (2, 8)}
TEXTS = [
    *((name + "({})", NUMBERS[LEVELS[name]]) for name in LEVELS if name != "int8"),
    ("int8(bits={})", NUMBERS["bits"]),
    ("int8(bits={}, stochastic=True)", NUMBERS["bits"]),
    ("rotation, qsgd({})", (4,)),
    ("qsgd({}, bucket=5)", (4,)),
    ("top_k({}, index_format='raw')", (0.5,)),
]  # fmt: skip


def assert_close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def through(link, update, state=None):
    """Returns (what arrives, bits, client state) of an update."""
    state = link.init_client(PARAMS) if state is None else state
    payload, state = link.encode(update, state, None, KEY)
    return link.decode(payload, ()), link.bits(payload), state


@pytest.mark.parametrize(("per_leaf", "memory"), [(False, "none"), (True, "error_feedback")])
@pytest.mark.parametrize(("text", "numbers"), TEXTS, ids=[text for text, _ in TEXTS])
def test_a_traced_level_is_the_number(text, numbers, per_leaf, memory):
    keys = {"uplink_memory": memory, "uplink_per_leaf": per_leaf}
    spec = pipeline(uplink=text.format("level"), uplink_level=numbers[0], **keys)
    assert hparams_of(spec) == {"uplink_level": numbers[0]}

    def twice(link):
        first = through(link, PARAMS)
        return first, through(link, jax.tree.map(jnp.cos, PARAMS), first[-1])

    @jax.jit
    def by_level(level):
        return twice(spec.build({"uplink_level": level}).uplink[0])

    plain = [pipeline(uplink=text.format(number), **keys).uplink[0] for number in numbers]

    # all levels of a sweep at once, as trials side by side are
    together = jax.vmap(by_level)(jnp.array(numbers, jnp.float32))
    for place, expected in enumerate(jax.jit(lambda: [twice(link) for link in plain])()):
        found = jax.tree.map(lambda leaf, place=place: leaf[place], together)
        for one, other in zip(found, expected, strict=True):
            assert one[1] == other[1], "bits"
            jax.tree.map(assert_close, one[::2], other[::2])


def test_the_downlink_has_a_level_as_well():
    spec = pipeline(downlink="qsgd(level)", downlink_level=4, downlink_memory="difference")
    assert isinstance(spec, PipelineSpec)
    (link,), (expected,) = (
        as_configured(one).downlink
        for one in (spec, pipeline(downlink="qsgd(4)", downlink_memory="difference"))
    )
    heard = [one.apply(Variables(PARAMS, ()), link.init(PARAMS), KEY) for one in (link, expected)]
    jax.tree.map(np.testing.assert_array_equal, *heard)


def test_without_levels_a_pipeline_is_none_of_hyperparameters():
    assert isinstance(pipeline(uplink="qsgd(4)"), Pipeline)


@pytest.mark.parametrize("name", sorted(set(CODES) - set(LEVELS)))
def test_no_other_compressor_has_a_level(name):
    with pytest.raises(ValueError, match=f"{name}.*(level|positional)"):
        pipeline(uplink=f"{name}(level)", uplink_level=0.5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"uplink": "qsgd(level)"}, "needs a number as uplink_level, which is None"),
        ({"uplink": "qsgd(4)", "uplink_level": 4}, "which has 0: write 'level'"),
        ({"uplink": "qsgd(level, bucket=level)", "uplink_level": 4}, "bucket of qsgd shapes"),
        ({"uplink": "qsgd(level)", "uplink_level": 40}, "from 2 to 8, not 40"),
        ({"uplink": "qsgd(level)", "uplink_level": 4.5}, "from 2 to 8, not 4.5"),
        ({"uplink": "top_k(level)", "uplink_level": 1.5}, "at most 1, not 1.5"),
        ({"uplink_level": 4}, "uplink_level = 4.0 has no effect with uplink = 'none'"),
        ({"uplink": "top_k(level), qsgd(8)", "uplink_level": 0.1}, "on a traced level"),
        (
            {"uplink": "qsgd(level)", "uplink_level": 4, "uplink_memory": "diana"},
            r"takes its rate .* Give it one: 'diana\(0.1\)'",
        ),
        ({"downlink": "uniform(level)"}, "needs a number as downlink_level"),
    ],
)
def test_what_is_wrong_is_explained(keys, message):
    config = default_config()
    for name, value in keys.items():
        config[name] = value
    with pytest.raises(ConfigError, match=message):
        resolve(config)
