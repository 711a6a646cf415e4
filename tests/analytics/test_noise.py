"""Under differential privacy, errors are those that theory says, over seeds of one program."""

import math
from statistics import NormalDist

import numpy as np
import populations
import pytest

import fljax
from fljax.analytics import hierarchy

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

SEEDS = range(24)
CLIENTS = 400
DRAW = np.random.default_rng(5)
X = (DRAW.permutation(CLIENTS).astype(np.float32) + 0.5) / CLIENTS
ITEMS = np.minimum(DRAW.geometric(0.15, CLIENTS) - 1, 29).astype(np.int32)
NOISE = 6.0
PRIVATE = {"privacy": "gaussian", "noise_multiplier": NOISE, "delta": 1e-4, "devices": 1}


@pytest.fixture(scope="module")
def clients():
    return populations.singles(X, ITEMS)


def rms(gaps):
    return float(np.sqrt(np.mean(np.square(gaps))))


def law_of_search(noise, bits):
    """The probability of each code, where a border's S is 2 (rows up to it) - (all rows)."""
    steps = np.linspace(0, 1, 2**bits)
    code = np.searchsorted(steps, X.astype(np.float64) - 1e-9)
    chances = np.ones(1)
    for digit in range(bits):
        size = 2 ** (bits - digit - 1)
        borders = np.arange(len(chances)) * 2 * size + size - 1
        signed = 2 * (code <= borders[:, None]).sum(1) - CLIENTS
        above = np.array([NormalDist().cdf(-value / noise) for value in signed])
        chances = np.stack([chances * (1 - above), chances * above], 1).reshape(-1)
    return steps, chances


def test_a_quantile_errs_as_the_law_of_a_noisy_search_says(clients):
    query = "quantile(0.5, 0, 1, bits=9, weight_cap=1)"
    reply = fljax.ask(clients, query, column="x", seeds=SEEDS, **PRIVATE)
    steps, chances = law_of_search(NOISE, 9)
    ranks = np.array([(steps[0] < steps[-1]) * (X <= step).sum() for step in steps])
    theory = math.sqrt(np.sum(chances * np.square(ranks - CLIENTS / 2)))
    values = np.array([answer.value for answer in reply.answers])
    found = rms((X <= values[:, None]).sum(1) - CLIENTS / 2)
    assert theory / 2 < found < 2 * theory
    # the union bound, and the interval that it gives
    told = reply.answer.details["bound of the error of the rank, in weight"]
    bound = NOISE * NormalDist().inv_cdf(1 - 0.05 / (2 * 9)) / 2
    assert told == pytest.approx(bound)
    within = [low <= 0.5 <= high for low, high in (a.details["interval"] for a in reply.answers)]
    assert sum(within) >= 22
    assert reply.facts["questions"] == 9 and reply.privacy["unit"] == "user"


def test_a_mean_errs_as_the_delta_method_says(clients):
    query = "mean(0, 2, weight_cap=1)"
    reply = fljax.ask(clients, query, column="x", seeds=SEEDS, **PRIVATE)
    gaps = np.array([answer.value for answer in reply.answers]) - X.mean()
    # u = x - 1 in sums and counts whose noise is z sqrt(2)
    theory = NOISE * math.sqrt(2) * math.sqrt(1 + (X.mean() - 1) ** 2) / CLIENTS
    assert reply.answer.standard_error == pytest.approx(theory, rel=0.1)
    assert theory / 1.5 < rms(gaps) < 1.5 * theory


def test_ranges_of_a_hierarchy_err_as_least_squares_say(clients):
    query = "hierarchical_histogram(0, 1, levels=5, weight_cap=1)"
    reply = fljax.ask(clients, query, column="x", seeds=SEEDS, **PRIVATE)
    leaves = np.array([answer.value for answer in reply.answers])
    expected = np.histogram(X.astype(np.float64), 32, (0, 1))[0]
    node = NOISE * math.sqrt(6)
    assert reply.answer.details["noise of a node"] == pytest.approx(node)
    cells = rms(leaves - expected)
    assert reply.answer.standard_error[0] / 1.2 < cells < 1.2 * reply.answer.standard_error[0]
    half = np.arange(32) < 16
    theory = node * math.sqrt(hierarchy.range_variance(half, 5, 2))
    assert theory / 1.6 < rms((leaves - expected) @ half) < 1.6 * theory
    # least squares are better than the leaves as they were asked
    assert cells < node


def test_a_sketch_s_frequencies_err_as_they_tell(clients):
    query = "count_sketch(30, most=30, depth=5, width=256, weight_cap=1)"
    reply = fljax.ask(clients, query, column="y", seeds=SEEDS, **PRIVATE)
    counts = np.bincount(ITEMS, minlength=30)
    gaps, told = [], []
    for answer in reply.answers:
        gaps += [answer.value[item] - counts[item] for item in answer.value]
        told += list(answer.standard_error.values())
    assert rms(told) / 1.5 < rms(gaps) < 1.5 * rms(told)


def test_distinct_items_are_counted_under_noise(clients):
    query = "count_distinct(256, items_per_client=1)"
    private = PRIVATE | {"noise_multiplier": 0.8}
    reply = fljax.ask(clients, query, column="y", seeds=SEEDS, **private)
    values = np.array([answer.value for answer in reply.answers])
    told = rms([answer.standard_error for answer in reply.answers])
    actual = len(np.unique(ITEMS))
    assert abs(values.mean() - actual) < 3 * told / math.sqrt(len(values))
    assert told / 2 < rms(values - actual) < 2 * told
