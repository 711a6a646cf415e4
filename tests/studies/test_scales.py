"""Scales: the one on which values are spread evenly, and ticks that lie where they say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.studies import log_uniform, sample, uniform
from fljax.studies.scales import Scale, scale_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((0.01, 0.1, 1.0), "log"),
        ((10, 20, 50), "log"),
        ((1, 2, 3, 4), "linear"),
        ((0.0, 0.9, 0.99), "linear"),
        ((-1.0, 1.0), "linear"),
        ((0.01, 0.1), "log"),
        ((1, 2), "linear"),
        (("sgd", "adam"), "names"),
        ((True, False), "names"),
        ((None, 0.5), "names"),
    ],
)
def test_the_scale_follows_the_values(values, kind):
    assert scale_of(values).kind == kind


@given(st.integers(0, 2**32))
def test_draws_are_laid_out_as_they_were_drawn(seed):
    drawn = sample({"a": log_uniform(1e-4, 10.0), "b": uniform(0.0, 1.0)}, 50, seed)
    assert scale_of(sorted(one["a"] for one in drawn)).kind == "log"
    assert scale_of(sorted(one["b"] for one in drawn)).kind == "linear"


bounds = st.tuples(st.floats(1e-6, 1e3), st.floats(1.01, 1e9))


@given(st.sampled_from(["linear", "log"]), bounds)
def test_ticks_lie_where_their_labels_say(kind, bounds):
    low, high = bounds[0], bounds[0] * bounds[1]
    scale = Scale(kind, (low, high))
    for at, label in scale.ticks() + scale.round_ticks():
        assert -1e-9 <= at <= 1 + 1e-9
        # labels have four digits
        slack = 1e-3 * high / (high - low) if kind == "linear" else 1e-3 / math.log(high / low)
        assert at == pytest.approx(scale.position(float(label)), abs=slack)


def test_few_values_and_names_have_a_tick_each():
    assert Scale("log", (0.1, 1.0, 10.0)).ticks() == [
        (0.0, "0.1"),
        (pytest.approx(0.5), "1"),
        (1.0, "10"),
    ]
    places, labels = zip(*Scale("names", ("sgd", "adam")).ticks(), strict=True)
    assert labels == ("sgd", "adam") and places == (0.25, 0.75)
    assert Scale("linear", (3.0, 3.0)).position(3.0) == 0.5
