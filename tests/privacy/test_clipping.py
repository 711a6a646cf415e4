"""No message is longer than the clip norm, whatever is in it."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.privacy.clipping import bounded, clipped

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZES = {"b": (4,), "w": (5, 7), "z": (0, 3)}
# Around the largest and the smallest numbers of float32, and where squares leave its range.
SCALES = (0.0, 1e-45, 1e-38, 1e-30, 1e-22, 1e-3, 1.0, 7.3, 1e18, 1e20, 1e30, 3.4e38)
BOUNDS = (1e-6, 0.1, 1.0, 37.0, 1e10, math.inf)


def norm(tree):
    leaves = jax.tree.leaves(tree)
    return np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in leaves))


clip = {
    kind: jax.jit(lambda value, bound, kind=kind: clipped(value, bound, kind))
    for kind in ("flat", "per_layer")
}


@pytest.mark.parametrize("scale", SCALES)
def test_norms_are_bounded_operation_by_operation(scale):
    """XLA divides by a number as it is, or multiplies by its inverse, which may be subnormal."""
    value = {"w": np.array([1, -1, 0.5], np.float32) * np.float32(scale)}
    np.testing.assert_array_equal(clipped(value, 0.1)["w"], clip["flat"](value, 0.1)["w"])
    if scale > 1e-3:
        np.testing.assert_allclose(norm(clipped(value, 0.1)), 0.1, rtol=1e-6)


@hypothesis.given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(SCALES), min_size=3, max_size=3),
    st.sampled_from(BOUNDS),
    st.sampled_from(("flat", "per_layer")),
)
@hypothesis.settings(max_examples=300)
def test_norms_are_bounded_and_directions_kept(seed, scales, bound, kind):
    generator = np.random.default_rng(seed)
    value = {
        name: (generator.uniform(-1, 1, shape) * scale).astype(np.float32)
        for (name, shape), scale in zip(SIZES.items(), scales, strict=True)
    }
    got = jax.device_get(clip[kind](value, np.float32(bound)))
    bound = float(np.float32(bound))
    assert norm(got) <= bound * (1 + 1e-6)
    parts = [value] if kind == "flat" else [{name: leaf} for name, leaf in value.items()]
    share = bound if kind == "flat" else bound / math.sqrt(len(SIZES))
    for part in parts:
        length = norm(part)
        if length < share * (1 - 1e-6):
            for name in part:  # bit for bit
                np.testing.assert_array_equal(got[name], value[name])
        elif length > share * (1 + 1e-6):
            for name, leaf in part.items():
                expected = leaf.astype(np.float64) * (share / length)
                np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=share * 1e-7)


@pytest.mark.parametrize("fill", ["equal", "normal", "decaying"])
def test_norms_of_large_models_are_bounded(fill):
    """Sums of a million squares in float32 are near enough."""
    size = 1_206_590
    value = {
        "equal": np.full(size, 1 / 3),
        "normal": np.random.default_rng(0).standard_normal(size),
        "decaying": 1 / np.arange(1, size + 1),
    }[fill].astype(np.float32)
    got = norm(clip["flat"](value, 0.3))
    assert 0.3 * (1 - 1e-6) <= got <= 0.3 * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["flat", "per_layer"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_zero(kind, broken):
    value = {"w": np.ones(3, np.float32), "b": np.array([1, broken], np.float32)}
    assert norm(clip[kind](value, 0.5)) == 0


def test_integers_and_truth_values_are_clipped_as_numbers():
    value = {"count": np.array([3, 0], np.int8), "seen": np.array([True, False])}
    got = clip["flat"](value, 1.0)
    assert {leaf.dtype.name for leaf in got.values()} == {"float32"}
    np.testing.assert_allclose(got["count"], [3 / math.sqrt(10), 0], rtol=1e-6)
    np.testing.assert_allclose(got["seen"], [1 / math.sqrt(10), 0], rtol=1e-6)


bounded_message = jax.jit(bounded)


@hypothesis.given(
    st.floats(0, 1e6, width=32), st.floats(0, 1e6, width=32), st.floats(0.5, 1e4, width=32)
)
def test_weights_count_up_to_a_cap(first, second, cap):
    message = {"update": jnp.array([3.0, -4.0]), "control": {"c": jnp.array([12.0])}}
    weights = {"update": jnp.float32(first), "control": {"c": jnp.float32(second)}}
    sent = bounded_message(message, weights, 6.5, jnp.float32(cap))
    for name, weight in (("update", first), ("control", second)):
        arrives = norm(sent[name]) * weight
        expected = min(weight, float(np.float32(cap))) * norm(message[name]) * 0.5
        np.testing.assert_allclose(arrives, expected, rtol=1e-6)
    assert norm([np.float64(first) * np.asarray(sent["update"], np.float64),
                 np.float64(second) * np.asarray(sent["control"]["c"], np.float64)]) <= (
        cap * 6.5 * (1 + 1e-6)
    )  # fmt: skip


def test_what_is_no_way_of_clipping_is_refused():
    from fljax.privacy.gaussian import gaussian

    with pytest.raises(ValueError, match="clipping = 'per_leaf' is not one of 'flat', 'per_layer'"):
        gaussian(0.3, clipping="per_leaf")
