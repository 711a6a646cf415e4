"""Spaces and trials: every combination once, draws that stay, names that a file system takes."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.studies import Trial, choice, grid, log_uniform, repeat, sample, uniform

SPACE = {
    "client_lr": log_uniform(1e-4, 1.0),
    "mu": uniform(-1.0, 3.0),
    "batch_size": choice(10, 20, 50),
}


def test_a_grid_is_every_combination_with_the_last_axis_fastest():
    rates, sizes, names = (0.1, 1.0), np.array([10, 20, 50]), ["adam"]
    found = grid({"client_lr": rates, "batch_size": sizes, "server_optimizer": names})
    assert [tuple(values.values()) for values in found] == list(
        itertools.product(rates, sizes.tolist(), names)
    )
    assert {type(values["batch_size"]) for values in found} == {int}, "no NumPy scalars"


@given(st.integers(-(2**70), 2**70), st.integers(1, 20), st.integers(0, 20))
def test_more_draws_and_more_axes_change_no_draw(seed, num, more):
    first = sample(SPACE, num, seed)
    assert sample(SPACE, num + more, seed)[:num] == first
    reordered = {"another": uniform(0, 1), **dict(reversed(SPACE.items()))}
    for values, longer in zip(first, sample(reordered, num, seed), strict=True):
        assert values == {name: longer[name] for name in values}


def test_draws_follow_their_distributions():
    drawn = sample(SPACE, 3000, seed=1)
    rates, mus, sizes = (np.array([values[name] for values in drawn]) for name in SPACE)
    # Kolmogorov and Smirnov's distance to the uniform distribution; 1.95 / sqrt(n) is its 0.1 %
    for positions in ((np.log10(rates) + 4) / 4, (mus + 1) / 4):
        gaps = np.sort(positions) - np.arange(1, 3001) / 3000
        assert np.abs(gaps).max() < 1.95 / np.sqrt(3000) + 1 / 3000
    counts = np.array([(sizes == size).sum() for size in (10, 20, 50)])
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8, "chi-squared, 2 degrees of freedom, 0.1 %"
    assert abs(np.corrcoef(np.log(rates), mus)[0, 1]) < 3.3 / np.sqrt(3000)


@given(st.integers(0, 2**32), st.floats(1e-300, 1e300), st.floats(1.0000001, 1e5))
def test_draws_stay_between_their_bounds(seed, low, factor):
    high = low * factor
    for axis in (log_uniform(low, high), uniform(low, high)):
        assert all(low <= values["x"] <= high for values in sample({"x": axis}, 20, seed))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(1, 1), "low must be below high"),
        (lambda: log_uniform(2, 1), "low must be below high"),
        (lambda: log_uniform(0, 1), "use uniform"),
        (lambda: log_uniform(-1, 1), "use uniform"),
        (lambda: uniform(0, float("inf")), "finite"),
        (lambda: uniform("a", 1), "two numbers"),
        (choice, "no values"),
        (lambda: choice(1, 1), "1 twice"),
        (lambda: grid({}), "needs an axis"),
        (lambda: grid({"client_lr": ()}), "client_lr has no values"),
        (lambda: grid({"client_lr": (0.1, 0.1)}), "0.1 twice"),
        (lambda: grid({"client_lr": (0.1, float("nan"))}), "finite"),
        (lambda: grid({"client_lr": 0.1}), r"written \(0.1,\)"),
        (lambda: grid({"model": "mlp"}), r"written \('mlp',\)"),
        (lambda: grid({"client_lr": uniform(0, 1)}), "draw all axes with sample"),
        (lambda: grid({"client_lr": (0.1, uniform(0, 1))}), "one of the two"),
        (lambda: grid({"seed": (0, 1)}), r"repeat\(configurations, seeds\)"),
        (lambda: grid({"round": (0, 1)}), "column of the results"),
        (lambda: sample({"client_lr": (0.1, 1)}, 2, 0), "choice"),
        (lambda: sample({"client_lr": uniform(0, 1)}, 0, 0), "at least 1"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_configuration_runs_with_every_seed():
    trials = repeat(grid({"client_lr": (0.1, 1.0)}), seeds=(3, 5))
    assert [(t.number, t.values["client_lr"], t.seed) for t in trials] == [
        (0, 0.1, 3),
        (1, 0.1, 5),
        (2, 1.0, 3),
        (3, 1.0, 5),
    ]


def test_what_was_drawn_twice_runs_once():
    trials = repeat([{"a": 1, "b": 2}, {"a": 3, "b": 2}, {"b": 2, "a": 1}], seeds=(0,))
    assert [trial.values["a"] for trial in trials] == [1, 3]


def test_a_name_says_what_the_trial_is():
    trial = Trial(7, {"client_lr": 0.1, "model_options.width": 64}, 1)
    assert trial.name == "0007-client_lr=0.1-model_options.width=64-seed=1"
    assert Trial(12, {}, 0).name == "0012-seed=0"
    odd = Trial(1, {"tau": 1 / 3, "sizes": (8, "é/"), "mu": 0.0}, 0)
    assert odd.name == "0001-tau=0.3333-sizes=_8_-mu=0-seed=0"


scalars = st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans() | st.none()


@given(st.integers(0, 10**6), st.dictionaries(st.text(), scalars), st.integers(0, 2**32 - 1))
def test_names_suit_any_file_system(number, values, seed):
    name = Trial(number, values, seed).name
    assert re.fullmatch(r"[A-Za-z0-9_.=+-]{1,100}", name)
    assert name.startswith(f"{number:04d}-") and name.endswith(f"-seed={seed}")


@pytest.mark.parametrize(
    ("configurations", "seeds", "message"),
    [
        ([], (0,), "no configuration"),
        ([{}], (), "whole numbers"),
        ([{}], 3, "whole numbers"),
        ([{}], (1, 1), "seed twice"),
    ],
)
def test_trials_that_cannot_be_listed_are_refused(configurations, seeds, message):
    with pytest.raises(ValueError, match=message):
        repeat(configurations, seeds)
