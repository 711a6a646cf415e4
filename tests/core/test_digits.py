"""Numbers keep the digits that say something, whatever their size."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.core.digits import apart, decimals, figures
from fljax.recording import progress
from fljax.studies.columns import with_sd
from fljax.studies.selection import Spread

SIZES = st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30)


@given(SIZES, st.integers(2, 8))
def test_figures_are_right_to_their_last_digit(value, digits):
    assert float(figures(value, digits)) == pytest.approx(value, rel=0.5001 * 10 ** (1 - digits))


@given(st.lists(SIZES, min_size=1, max_size=6))
def test_numbers_that_differ_in_six_digits_look_different(values):
    write = apart(values)
    for value in values:
        for other in values:
            if figures(value, 6) != figures(other, 6):
                assert write(value) != write(other)


def test_a_rounded_step_and_what_is_no_number():
    assert (decimals(9.996, 3), decimals(9.994, 3)) == (1, 2)
    assert apart([9.994, 9.996])(9.996) == "10.0"
    assert figures(0.0) == "0.000" and figures(math.nan) == "nan" and figures(math.inf) == "inf"


def test_small_values_are_shown_in_progress_and_in_tables():
    stream = io.StringIO()
    shown = progress(1, stream=stream, line_seconds=0.0)
    shown.update(1, {"train/loss": 1.25e-6, "eval/test/accuracy": 0.00031})
    shown.close()
    assert "loss 1.250e-06, test accuracy 0.0003100" in stream.getvalue()
    assert with_sd(Spread(1.25e-6, 3e-7)) == "0.00000125 ± 0.00000030"
    assert with_sd(Spread(0.75, math.nan)) == "0.7500"
    assert with_sd(Spread(43_666_709.3, 2_071_410.2)) == "43,666,709 ± 2,071,410"
