"""The parts of queries against their definitions, without an engine."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.analytics import codes as code
from fljax.analytics import distinct, errors, hierarchy, names, sketches
from fljax.analytics.counting import counts
from fljax.analytics.hashing import mixed, row_hashes
from fljax.analytics.order import noise_bound
from fljax.analytics.query import Asked
from fljax.analytics.ranges import checked_range
from fljax.analytics.weighting import checked_weighting

pytestmark = pytest.mark.usefixtures("quick_compilation")

SEARCH = hypothesis.settings(max_examples=20)


def tree_matrix(levels, branching):
    """[nodes, leaves] of zeros and ones: which leaves lie below a node, level after level."""
    leaves = branching**levels
    rows = [
        np.repeat(np.eye(branching**level), branching ** (levels - level), axis=1)
        for level in range(levels + 1)
    ]
    assert rows[0].shape == (1, leaves)
    return np.concatenate(rows)


@pytest.mark.parametrize(("levels", "branching"), [(1, 2), (3, 2), (2, 3), (2, 4), (1, 7)])
def test_consistent_counts_are_least_squares(levels, branching):
    draw = np.random.default_rng(levels)
    matrix = tree_matrix(levels, branching)
    noisy = draw.normal(size=len(matrix))
    best = matrix @ np.linalg.lstsq(matrix, noisy, rcond=None)[0]
    np.testing.assert_allclose(hierarchy.consistent(noisy, levels, branching), best, atol=1e-12)
    weights = draw.normal(size=matrix.shape[1])
    expected = weights @ np.linalg.inv(matrix.T @ matrix) @ weights
    assert hierarchy.range_variance(weights, levels, branching) == pytest.approx(expected)


def test_a_range_of_a_hierarchy_has_less_noise_than_its_cells_added_up():
    half = np.concatenate([np.ones(128), np.zeros(128)])
    # clip norms: 3 for the nine levels, 1 for a flat histogram
    assert 9 * hierarchy.range_variance(half, 8, 2) < 128 / 4


FINITE = st.floats(allow_nan=False, width=32)


@SEARCH
@hypothesis.given(st.lists(FINITE, min_size=12, max_size=12))
def test_codes_of_floats_keep_their_order_and_lead_back(values):
    values = np.array(values, np.float32)
    codes = code.exact_codes(jnp.float32)
    found = np.asarray(codes.of(jnp.asarray(values)))
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order].astype(np.int64)) >= 0).all()
    np.testing.assert_array_equal(codes.value(found), values)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint32", "float64", "bool"])
def test_codes_of_other_types_lead_back(dtype):
    extremes = {"bool": [0, 1], "float64": [-1e300, -1.5, 0, 1e-300, 7.25]}.get(dtype)
    if extremes is None:
        info = np.iinfo(dtype)
        extremes = [info.min, max(info.min, -1), 0, 1, info.max]
    with jax.enable_x64(True):
        codes = code.exact_codes(np.dtype(dtype))
        found = np.asarray(codes.of(jnp.asarray(np.array(extremes, dtype))))
    assert (np.diff(found.astype(object)) >= 0).all() and int(found.max()) < 2**codes.bits
    np.testing.assert_array_equal(
        codes.value(found), np.array(extremes).astype(codes.value(found).dtype)
    )


def test_codes_of_steps_are_the_next_step_above():
    bounds = checked_range(-1, 3)
    with jax.enable_x64(True):
        values = np.random.default_rng(0).uniform(-2, 4, 100)
        codes = code.even_codes(bounds, 5)
        found = np.asarray(codes.of(jnp.asarray(values)))
    steps = np.linspace(-1, 3, 32)
    expected = np.minimum(np.searchsorted(steps, values - 1e-12), 31)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("noise", [0.5, 1.0, 1.5])
def test_zeros_are_told_without_bias_under_noise(noise):
    draw = np.random.default_rng(0)
    for whole, expected in ((0, 1), (1, 0), (2, 0), (7, 0), (40, 0)):
        told = distinct.zero_chances(whole + noise * draw.normal(size=400_000), noise)
        spread = told.std() / math.sqrt(len(told))
        assert abs(told.mean() - expected) < 4 * spread + 1e-6
        assert spread < math.exp(noise**2 * math.pi**2 / 2) / 100


def test_the_closed_form_of_zero_chances_is_its_integral():
    t = (np.arange(200_000) + 0.5) * math.pi / 200_000
    for noise, total in ((0.7, -1.3), (1.0, 0.0), (1.8, 12.4)):
        integral = np.mean(np.cos(t * total) * np.exp(noise**2 * t**2 / 2))
        found = distinct.zero_chances(np.array([total]), noise)[0]
        assert found == pytest.approx(integral, rel=1e-6)


def test_linear_counting_has_the_error_that_its_paper_says():
    cells, items, draw = 400, 500, np.random.default_rng(1)
    found = []
    for _ in range(300):
        zeros = np.bincount(draw.integers(0, cells, items), minlength=cells) == 0
        found.append(distinct.union_sizes(zeros[None].astype(float), [((0,), 1)]))
    values, told = np.array(found).T
    load = items / cells
    theory = math.sqrt(cells * (math.exp(load) - load - 1))
    assert abs(values.mean() - items) < 4
    assert 0.85 < values.std() / theory < 1.15 and 0.85 < np.median(told) / theory < 1.15


def test_an_intersection_of_bitmaps_has_the_error_it_tells():
    cells, draw = 1000, np.random.default_rng(2)
    signed = [((0,), 1), ((1,), 1), ((0, 1), -1)]
    found = []
    for _ in range(300):
        place = draw.integers(0, cells, 900)
        members = [place[:600], place[300:]]  # 300 of them are common to both
        zeros = np.stack([np.bincount(own, minlength=cells) == 0 for own in members])
        found.append(distinct.union_sizes(zeros.astype(float), signed))
    values, told = np.array(found).T
    assert abs(values.mean() - 300) < 6 and 0.8 < values.std() / np.median(told) < 1.25


def test_a_full_bitmap_says_nothing():
    assert math.isnan(distinct.union_sizes(np.zeros((1, 8)), [((0,), 1)])[0])


@SEARCH
@hypothesis.given(st.lists(st.integers(-1, 5), min_size=12, max_size=12), st.booleans())
def test_counts_are_bincount_s(cells, many):
    size = 5 if not many else 2**16
    mask = np.arange(len(cells)) % 3 > 0
    known = [
        cell for cell, counts_in in zip(cells, mask, strict=True) if counts_in and 0 <= cell < size
    ]
    found = counts(jnp.asarray(cells, jnp.int32).reshape(-1), jnp.asarray(mask), size)
    np.testing.assert_array_equal(found, np.bincount(np.array(known, int), minlength=size))


def test_hashes_spread_and_depend_on_places():
    words = np.asarray(mixed(jnp.arange(2**16, dtype=jnp.uint32)))
    assert len(np.unique(words)) == 2**16
    loads = np.bincount(words % 256, minlength=256)
    assert np.square(loads - 256).sum() / 256 < 256 + 5 * math.sqrt(2 * 256)  # chi-squared
    rows = jnp.array([[0, 1], [1, 0], [0, 1]], jnp.uint8)
    first, second, again = np.asarray(row_hashes(rows)).tolist()
    assert first == again != second
    assert row_hashes(jnp.array([0.0])) == row_hashes(jnp.array([-0.0]))


@pytest.mark.parametrize("noise", [0.0, 8.0])
def test_a_sketch_s_errors_are_those_that_theory_says(noise):
    depth, width, items = 5, 256, 2000
    draw = np.random.default_rng(0)
    frequencies = draw.zipf(2.2, items).clip(max=500).astype(float)
    cells, signs = map(np.asarray, sketches.places_of(jnp.arange(items), depth, width))
    sums = noise * draw.normal(size=(depth, width))
    for row in range(depth):
        np.add.at(sums[row], cells[row], signs[row] * frequencies)
    estimated = sketches.estimates(sums, np.arange(items))
    head = np.argsort(-estimated)[:32]
    theory = sketches.sketch_error(sums, head, estimated[head], noise)
    found = np.sqrt(np.mean((estimated - frequencies) ** 2))
    assert theory / 1.5 < found < 1.5 * theory


def test_the_jackknife_of_a_mean_is_its_standard_error():
    draws = np.random.default_rng(0).normal(size=12)
    asked = Asked(clients=120, share=0.1, cohorts=draws)
    expected = draws.std(ddof=1) / math.sqrt(12) * math.sqrt(0.9)
    assert errors.jackknife(lambda total: total / 12, asked) == pytest.approx(expected)
    again = asked._replace(replaced=True)
    assert errors.jackknife(lambda total: total / 12, again) == pytest.approx(
        expected / math.sqrt(0.9)
    )


def test_a_union_bound_holds():
    bound, draw = noise_bound(2.0, 10), np.random.default_rng(0)
    beyond = (np.abs(2.0 * draw.normal(size=(100_000, 10))) > bound).any(1).mean()
    assert 0.04 < beyond < 0.05


def test_weights_have_the_bounds_they_promise():
    sums, rows = {"n": jnp.float32(12)}, jnp.int32(12)
    for rule, told in ((("examples", None), 12), (("examples", 5), 5), (("uniform", None), 1)):
        weighting = checked_weighting(*rule)
        assert float(weighting.of(sums, rows)["n"]) == pytest.approx(told)
        assert told <= weighting.most


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("histogramm(0, 1)", "Did you mean"),
        ("mean(low=1)", "give high too"),
        ("mean(3, 3)", "low must be below high"),
        ("mean(weighting='uniform', weight_cap=2)", "no effect with weighting = 'uniform'"),
        ("variance(ddof=2)", "must be 0, or 1"),
        ("histogram(0, 1, bins=0)", "at least 1"),
        ("hierarchical_histogram(0, 1, levels=24, branching=10)", "make 1,0.* cells"),
        ("quantile(1.5)", "at most 1"),
        ("quantile(0.5, bits=8)", "no effect without low and high"),
        ("quantile(0.5, branching=3)", "a power of two"),
        ("quantiles('median')", "a list of numbers"),
        ("count_sketch(10)", "whole numbers"),
        ("k_means(2)", "Give these, or centres"),
        ("k_means(2, centres=[1, 2, 3])", "2 lists of 2 numbers"),
        ("union_size(groups=1)", "2 to 8"),
        ("builtins:dict()", "a query is a fljax"),
    ],
)
def test_wrong_arguments_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        names.make(text, {})


def test_queries_of_numbers_refuse_vectors():
    like = jax.ShapeDtypeStruct((3,), jnp.float32)
    for text in ("histogram(0, 1)", "quantile(0.5)", "hierarchical_histogram(0, 1)"):
        with pytest.raises(ValueError, match=r"Name one of their features as the column"):
            names.make(text, {"like": like})


def test_whole_numbers_have_their_codes_between_bounds_beyond_their_type():
    values = jnp.array([-3, 0, 5], jnp.int32)
    with jax.enable_x64(True):
        for low, high in ((-1e10, 1e10), (-(2**31), 2**31 - 1), (0, 1e10), (-1e10, 4)):
            codes = code.whole_codes(checked_range(low, high))
            found = codes.value(np.asarray(codes.of(values)))
            assert found.tolist() == np.clip([-3, 0, 5], low, high).tolist()
        below = code.whole_codes(checked_range(-5, 300)).of(jnp.array([0, 255], jnp.uint8))
        assert below.tolist() == [5, 260]


def test_whole_numbers_need_one_between_their_bounds():
    with pytest.raises(ValueError, match="none between"):
        code.whole_codes(checked_range(0.2, 0.8))
