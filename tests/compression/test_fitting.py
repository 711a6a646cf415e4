"""Misfits of compressors are told: memories that may grow, updates that do not shrink."""

import jax.numpy as jnp
import pytest

from fljax.compression import fitting
from fljax.compression.names import Names

PARAMS = {"b": jnp.linspace(-1, 1, 4), "w": jnp.sin(jnp.arange(24.0)).reshape(6, 4)}
MEMORIES = [
    ("uplink", "error_feedback"),
    ("uplink", "ef21"),
    ("downlink", "difference"),
    ("downlink", "error_feedback"),
]


@pytest.mark.parametrize(("side", "memory"), MEMORIES)
@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("rand_k(0.25)", "rand_k.0.25. .* at most 3 times"),
        # levels -1, 0, 1 of 14 values in one bucket
        ("top_k(0.5), qsgd(2)", "top_k.0.5., qsgd.2. .* at most 3.74 times"),
        ("rand_k(0.25), int8", "rand_k.0.25. .* at most 3 times"),
        ("rotation, rand_k(0.5), int8", "rand_k.0.5. .* at most 1 times"),
        ("rand_k(0.5), rand_k(0.5)", "rand_k.0.5., rand_k.0.5. .* at most 3 times"),
    ],
)
def test_memories_that_may_grow_are_warned_of(side, memory, text, bound):
    with pytest.warns(UserWarning, match=f"{side}_memory = '{memory}' .* {bound}"):
        fitting.warn_of_growth(Names(**{side: text, f"{side}_memory": memory}), PARAMS)


@pytest.mark.parametrize(("side", "memory"), MEMORIES)
@pytest.mark.parametrize(
    "text",
    [
        "top_k(0.25)",
        "natural",
        "rand_k(0.25, unbiased=False)",
        "fp16",
        "int8_channels",
        "top_k(0.25), qsgd(4)",
        "rotation, top_k(0.25), int8",
    ],
)
def test_others_are_not(side, memory, text, recwarn):
    fitting.warn_of_growth(Names(**{side: text, f"{side}_memory": memory}), PARAMS)
    assert not recwarn.list


def test_diana_is_recommended_to_the_unbiased_alone(recwarn):
    for text in ("rand_k(0.25)", "top_k(0.5), qsgd(2)"):
        fitting.warn_of_growth(Names(text, uplink_memory="error_feedback"), PARAMS)
    assert ["diana" in str(warning.message) for warning in recwarn.list] == [True, False]


def test_memories_of_unbiased_compressors_are_not(recwarn):
    fitting.warn_of_growth(Names("rand_k(0.25)", uplink_memory="diana"), PARAMS)
    fitting.warn_of_growth(Names("rand_k(0.25)", downlink="qsgd(2)"), PARAMS)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("fetch_sgd(0.1, rows=5, columns=20)", "of 896 bits one of 3,200"),
        ("powersgd(8)", "of 896 bits one of 896"),
        ("top_k(1)", "of 896 bits one of 924"),
    ],
)
def test_updates_that_do_not_shrink_are_warned_of(text, bits):
    with pytest.warns(UserWarning, match=bits):
        fitting.warn_of_size(Names(text), PARAMS)


@pytest.mark.parametrize("text", ["none", "identity", "powersgd(1)", "bf16"])
def test_those_that_do_or_should_not_are_not(text, recwarn):
    fitting.warn_of_size(Names(text), PARAMS)
    assert not recwarn.list
