"""Without noise every statistic is that of all rows together, whatever the cohorts and devices."""

import math

import jax
import numpy as np
import populations
import pytest

import fljax
from fljax.training.asked_report import as_plain, table_of

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

DRAW = np.random.default_rng(3)
SIZES = np.array([5, 0, 1, 13, 2, 7, 0, 3, 21, 1, 4])
OWNER = np.repeat(np.arange(len(SIZES)), SIZES)
ROWS = len(OWNER)
X = DRAW.normal(2e3, 1.0, (ROWS, 2)).astype(np.float32)
Y = DRAW.integers(0, 9, ROWS).astype(np.int32)
GROUPS = np.arange(len(SIZES)) % 2
# in cohorts of 4, whose last one is smaller, with batches that do not divide the rows
HOW = {"clients_per_round": 4, "batch_size": 3, "devices": 2}


@pytest.fixture(scope="module")
def clients():
    return populations.population(SIZES, X, Y, GROUPS)


def weights(weighting):
    """Returns the weight of each row, by the definition."""
    of_client = {"examples": np.ones(len(SIZES)), "uniform": 1 / np.maximum(SIZES, 1)}
    of_client |= {"cap": np.minimum(1, 4 / np.maximum(SIZES, 1))}
    return of_client[weighting][OWNER]


@pytest.mark.parametrize(
    ("weighting", "arguments"),
    [("examples", ""), ("uniform", "weighting='uniform'"), ("cap", "weight_cap=4")],
)
def test_means_are_those_of_all_rows(clients, weighting, arguments):
    reply = fljax.ask(clients, f"mean({arguments})", column="x", **HOW)
    wide, w = X.astype(np.float64), weights(weighting)
    expected = [math.fsum(w * column) / math.fsum(w) for column in wide.T]
    np.testing.assert_allclose(reply.answer.value, expected, rtol=1e-14)
    assert reply.answer.standard_error.tolist() == [0, 0]
    facts = reply.facts
    assert (facts["messages"], facts["rows_read"], facts["rounds"]) == (9, ROWS, 3)
    # a count of 4 bytes, or a weight of 8, and two sums of 8
    assert facts["uplink_bytes"] == 9 * (20 if weighting == "examples" else 24)


def test_the_variance_of_values_far_from_zero_keeps_its_digits(clients):
    reply = fljax.ask(clients, "variance(ddof=1)", column="x[1]", **HOW)
    assert reply.answer.value == pytest.approx(X[:, 1].astype(np.float64).var(ddof=1), rel=1e-12)
    assert reply.facts["questions"] == 2 and reply.facts["rows_read"] == 2 * ROWS


def test_histograms_are_numpy_s(clients):
    low, high, bins = 1998.5, 2001.0, 7
    reply = fljax.ask(clients, f"histogram({low}, {high}, {bins})", column="x[0]", **HOW)
    wide = X[:, 0].astype(np.float64)
    np.testing.assert_array_equal(reply.answer.value, np.histogram(wide, bins, (low, high))[0])
    assert reply.answer.details["below"] == (wide < low).sum()
    assert reply.answer.details["above"] == (wide > high).sum()


def test_cells_begin_where_numpy_s_do():
    """Also where a quotient is rounded across an edge."""
    edges = np.linspace(0, 0.7, 8)
    around = np.concatenate([edges, np.nextafter(edges, 1), np.nextafter(edges, -1)])
    with jax.enable_x64(True):
        from fljax.analytics.histograms import cell_finder

        cells = np.asarray(cell_finder(0, 0.7, 7)(around))
    counts = np.bincount(cells, minlength=9)
    np.testing.assert_array_equal(counts[1:-1], np.histogram(around, 7, (0, 0.7))[0])


LEVELS = (0, 0.1, 1 / 3, 0.5, 0.999, 1)


def test_quantiles_are_rows(clients):
    for column, values in (("x[0]", X[:, 0]), ("y", Y)):
        reply = fljax.ask(clients, f"quantiles({LEVELS})", column=column, **HOW)
        expected = np.quantile(values, LEVELS, method="inverted_cdf")
        np.testing.assert_array_equal(reply.answer.value, expected)
        assert reply.answer.value.dtype == values.dtype


def test_a_quantile_between_bounds_is_right_to_a_step(clients):
    reply = fljax.ask(clients, "quantile(0.25, 1990, 2010, branching=16)", column="x[0]", **HOW)
    expected = np.quantile(X[:, 0].astype(np.float64), 0.25, method="inverted_cdf")
    assert 0 <= reply.answer.value - expected <= 20 / 2**32 * 1.001


def test_a_hierarchy_s_leaves_are_the_histogram(clients):
    query = "hierarchical_histogram(1998, 2002, levels=2, branching=3)"
    reply = fljax.ask(clients, query, column="x[0]", **HOW)
    expected = np.histogram(X[:, 0].astype(np.float64), 9, (1998, 2002))[0]
    np.testing.assert_allclose(reply.answer.value, expected, atol=1e-12)


def lloyd(rows, centres, steps):
    for _ in range(steps):
        gaps = np.square(rows[:, None] - centres).sum(-1)
        nearest = gaps.argmin(1)
        for place in range(len(centres)):
            if (nearest == place).any():
                centres[place] = rows[nearest == place].mean(0)
    return centres


def test_k_means_is_lloyd_s_on_all_rows(clients):
    begin = [[1999.0, 2000.0], [2000.0, 2001.0], [2001.0, 1999.0], [9e3, 9e3]]
    reply = fljax.ask(clients, f"k_means(4, centres={begin}, steps=3)", column="x", **HOW)
    expected = lloyd(X.astype(np.float64), np.array(begin), 3)
    np.testing.assert_allclose(reply.answer.value, expected, rtol=1e-12)
    assert reply.answer.value[3].tolist() == [9e3, 9e3]  # nobody is near


def test_distinct_rows_are_counted_alone_and_in_groups(clients):
    alone = fljax.ask(clients, "count_distinct(65536)", column="x", **HOW)
    assert abs(alone.answer.value - ROWS) < 1  # all rows differ, and hardly two share a cell
    both = fljax.ask(clients, "intersection_size(cells=4096)", column="y", **HOW)
    own = [set(Y[GROUPS[OWNER] == group].tolist()) for group in (0, 1)]
    assert both.answer.value == pytest.approx(len(own[0] & own[1]), abs=0.2)
    sizes = both.answer.details["items of each group"]
    assert sizes == pytest.approx([len(items) for items in own], abs=0.2)


def test_a_sketch_wide_enough_finds_frequencies(clients):
    reply = fljax.ask(clients, "count_sketch(9, most=3, depth=5, width=512)", column="y", **HOW)
    counts = np.bincount(Y, minlength=9)
    expected = np.argsort(-counts, kind="stable")[:3]
    assert reply.answer.value == {int(item): counts[item] for item in expected}


def test_rows_that_are_not_finite_do_not_count():
    x = np.array([1.0, np.nan, 3.0, np.inf, 5.0], np.float32)
    reply = fljax.ask(populations.population([2, 2, 1], x), "mean", devices=1)
    assert reply.answer.value == 3 and reply.facts["rows_left_out"] == 2


def test_nobody_who_counts_gives_no_number():
    x = np.full(3, np.nan, np.float32)
    assert math.isnan(fljax.ask(populations.singles(x), "mean", devices=1).answer.value)


def test_whole_numbers_beyond_float32_are_exact():
    """Sums of a billion, in which float32 would skip 64 units at a time."""
    y = np.full(64, 2**24 + 1, np.int64)
    reply = fljax.ask(populations.singles(y), "mean", devices=1)
    assert reply.answer.value == 2**24 + 1


def test_a_sample_tells_its_error():
    x = DRAW.normal(size=400).astype(np.float32)
    replies = fljax.ask(
        populations.singles(x), "mean", sample=0.1, cohorts=8, seeds=range(40), devices=1
    )
    values = np.array([answer.value for answer in replies.answers])
    errors = np.array([answer.standard_error for answer in replies.answers])
    assert replies.facts["share"] == 0.1 and replies.facts["messages"] == 40 * 40
    # of 40 clients without replacement
    theory = x.std(ddof=1) / math.sqrt(40) * math.sqrt(1 - 0.1)
    assert 0.7 < np.sqrt(np.mean((values - x.mean()) ** 2)) / theory < 1.4
    assert 0.8 < np.sqrt(np.mean(errors**2)) / theory < 1.25


def test_replies_are_written_and_shown(clients):
    reply = fljax.ask(clients, "mean", column="x", **HOW)
    plain = as_plain(reply)
    assert plain["answers"][0]["value"] == pytest.approx(X.astype(float).mean(0).tolist())
    assert "mean" in table_of({"first": reply}) and "uplink" in table_of({"first": reply})
