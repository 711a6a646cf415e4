"""Scripts that others run in environments of their own: how they time and show, and our part."""

import importlib.util
import itertools

import numpy as np
import pytest


def script(name):
    spec = importlib.util.spec_from_file_location(name, f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rounds_are_timed_by_turns_and_compared_within_a_turn():
    costs, ran = script("peer_privacy_cost"), []
    # of each turn the plain round, then the private one; the first turn is not counted
    durations = [9, 9, 1, 2, 2, 3, 10, 30]
    clock = iter(itertools.accumulate(itertools.chain(*([0, taken] for taken in durations))))
    variants = {
        "none": lambda round: ran.append(round),
        "private": lambda round: ran.append(-round),
    }
    seconds = costs.by_turns(variants, 3, lambda: next(clock))
    assert ran == [0, 0, 1, -1, 2, -2, 3, -3]
    assert seconds == {"none": [1, 2, 10], "private": [2, 3, 30]}
    text = costs.table(seconds)
    assert "| `none` | 2.000 | +0.0% (+0.0% to +0.0%) |" in text
    assert "| `private` | 3.000 | +100.0% (+50.0% to +200.0%) |" in text


@pytest.mark.parametrize("start", [0.1, 5.0])
def test_our_clip_norm_finds_the_median_of_the_messages_that_others_get(start):
    norms = script("peer_clip_norms")
    sent = norms.messages()
    median = np.median(np.linalg.norm(sent, axis=-1))
    path = list(norms.of_fljax(start, sent))
    assert len(path) == norms.ROUNDS
    assert median == pytest.approx(1, abs=0.02)
    assert np.mean(path[-10:]) == pytest.approx(median, rel=0.1)
