"""Trials: every configuration with every seed, under names that a file system takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.studies import Trial, grid, repeat


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
def test_errors_say_what_to_do(configurations, seeds, message):
    with pytest.raises(ValueError, match=message):
        repeat(configurations, seeds)
