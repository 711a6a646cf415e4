"""Compares data sets client by client, for tests of readers."""

from __future__ import annotations

import numpy as np

from fljax.data.examples import named_arrays


def assert_equal(one, other):
    """Asserts that two data sets are equal, client by client."""
    assert (one.kind, one.num_classes, one.class_names) == (
        other.kind, other.num_classes, other.class_names,
    )  # fmt: skip
    for name in ("client_ids", "held_out_ids"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.tolist() == theirs.tolist()
    for role in ("train", "val", "test", "held_out"):
        ours, theirs = getattr(one, role), getattr(other, role)
        assert (ours is None) == (theirs is None), role
        if ours is None:
            continue
        assert (ours.partition is None) == (theirs.partition is None), role
        if ours.partition is not None:
            assert ours.partition.sizes.tolist() == theirs.partition.sizes.tolist()
        left, right = (split.examples.take(split.rows()) for split in (ours, theirs))
        if ours.partition is None:  # nobody's rows, in any order
            left, right = ({k: np.sort(v, axis=0) for k, v in s.items()} for s in (left, right))
        left, right = named_arrays(left), named_arrays(right)
        assert left.keys() == right.keys()
        for name in right:
            assert left[name].dtype == right[name].dtype
            np.testing.assert_array_equal(left[name], right[name])
