"""Counting within groups, against loops over the entries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fljax.engine.plan.counting import earlier_equals, ranges


@given(st.lists(st.integers(0, 6), max_size=12))
def test_ranges_lie_end_to_end(lengths):
    expected = [number for length in lengths for number in range(length)]
    assert ranges(np.array(lengths, np.int64)).tolist() == expected


@given(st.lists(st.integers(-3, 3), max_size=12) | st.permutations(range(8)))
def test_equal_entries_are_numbered(keys):
    expected = [keys[:place].count(key) for place, key in enumerate(keys)]
    assert earlier_equals(np.array(keys, np.int64)).tolist() == expected
