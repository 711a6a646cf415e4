"""Searches: who is given out, who goes on, and that a resumed search is the uninterrupted one."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.studies import TrialScore, repeat, successive_halving
from fljax.studies import given as all_of

# few different values, so that ties are common
values = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)
reductions = st.integers(2, 5)


def trials(num):
    return repeat([{"client_lr": 1.0 / (i + 1)} for i in range(num)])


def ranks(told):
    """Returns each value's place, the highest first, earlier trials first among equals."""
    told = np.asarray(told)
    earlier = np.tril(told[:, None] == told, -1).sum(axis=1)
    return (told > told[:, None]).sum(axis=1) + earlier


def one_by_one(search, told, round):
    return [search.tell(search.ask(), round, value) for value in told]


def test_trials_are_given_out_in_order_and_run_to_their_end():
    search = all_of(trials(3))
    given_out = [search.ask() for _ in range(4)]
    assert given_out == [*trials(3), None]
    assert search.ask() is None
    assert all(search.tell(trial, round, -1e9) for trial in given_out[:3] for round in (1, 500))


@given(values, reductions)
def test_a_trial_goes_on_among_the_best_told_so_far(told, reduction):
    search = successive_halving(trials(len(told)), 4, 8, reduction)
    goes_on = one_by_one(search, told, 4)
    for n in range(1, len(told) + 1):
        assert goes_on[n - 1] == (ranks(told[:n])[-1] < math.ceil(n / reduction))
        if told[n - 1] > max(told[: n - 1], default=-math.inf):
            assert goes_on[n - 1], "the best so far goes on"


@given(values, reductions, st.randoms())
def test_of_values_told_together_exactly_the_best_go_on_in_any_order(told, reduction, random):
    def together(order):
        search = successive_halving(trials(len(told)), 4, 8, reduction)
        scores = [TrialScore(trials(len(told))[i], 4, told[i]) for i in order]
        return dict(zip(order, search.tell_all(scores), strict=True)), search.state()

    order = list(range(len(told)))
    goes_on, state = together(order)
    assert [goes_on[i] for i in order] == list(ranks(told) < math.ceil(len(told) / reduction))
    random.shuffle(order)
    assert together(order) == (goes_on, state)


@given(values, values, reductions)
def test_of_a_later_group_no_more_go_on_than_the_rung_has_room_for(first, second, reduction):
    every = trials(len(first) + len(second))
    search = successive_halving(every, 4, 8, reduction)
    search.tell_all([TrialScore(t, 4, v) for t, v in zip(every, first, strict=False)])
    rest = zip(every[len(first) :], second, strict=True)
    goes_on = search.tell_all([TrialScore(trial, 4, value) for trial, value in rest])
    room = math.ceil(len(every) / reduction)
    best = ranks(first + second)[len(first) :] < room
    assert goes_on == list(best)
    assert sum(goes_on) <= room


@given(values, reductions)
def test_losses_are_accuracies_upside_down(told, reduction):
    high = successive_halving(trials(len(told)), 1, 8, reduction)
    low = successive_halving(trials(len(told)), 1, 8, reduction, maximize=False)
    assert one_by_one(high, told, 1) == one_by_one(low, [-value for value in told], 1)


def drive(search, tellings, alive):
    """Tells what a script of (trial, value) says, round after round; asks for one a round."""
    log = []
    for round, told in tellings:
        log.append(search.ask())
        for number, value in told:
            if alive.get(number, True):
                alive[number] = search.tell(trials(8)[number], round, value)
                log.append((number, round, alive[number]))
    return log


told_values = st.floats(allow_nan=True, allow_infinity=True, width=16)
scripts = st.lists(st.lists(st.tuples(st.integers(0, 7), told_values), max_size=6), max_size=30)


@settings(deadline=None)
@given(scripts, st.integers(0, 30), reductions)
def test_a_resumed_search_is_the_uninterrupted_one(script, cut, reduction):
    def search():
        return successive_halving(trials(8), 2, 30, reduction)

    script = list(enumerate(script, start=1))
    whole, alive = search(), {}
    log = drive(whole, script, alive)

    before, after, alive_again = search(), search(), {}
    log_again = drive(before, script[:cut], alive_again)
    after.load(json.loads(json.dumps(before.state(), allow_nan=False)))
    log_again += drive(after, script[cut:], alive_again)
    assert (log_again, alive_again) == (log, alive)
    assert after.state() == whole.state()


def test_a_value_counts_at_the_highest_rung_it_is_the_first_beyond():
    every = trials(3)
    search = successive_halving(every, 10, 90, reduction=3)
    assert [rung["round"] for rung in search.state()["rungs"]] == [10, 30], "90 is the end"
    search.tell(every[0], 9, 5.0)
    search.tell(every[0], 25, 1.0)
    search.tell(every[0], 29, 7.0)
    search.tell(every[1], 44, 3.0)
    told = {rung["round"]: rung["values"] for rung in search.state()["rungs"]}
    assert told == {10: [[0, 1.0]], 30: [[1, 3.0]]}


def test_a_value_told_again_after_a_restart_changes_nothing():
    every = trials(2)
    search = successive_halving(every, 10, 90)
    first = [search.tell(every[0], 10, 1.0), search.tell(every[1], 10, 0.5)]
    state = search.state()
    again = [search.tell(every[1], 10, 2.0), search.tell(every[0], 10, 0.0)][::-1]
    assert first == again == [True, False]
    assert search.tell(every[1], 30, 9.0) is False, "what was stopped stays stopped"
    assert search.state() == state


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverged_trial_stops_and_is_compared_with_nobody(value):
    every = trials(3)
    for search in (all_of(every), successive_halving(every, 10, 90)):
        assert not search.tell(every[0], 3, value)
        assert not search.tell(every[0], 10, 100.0)
        assert search.tell(every[1], 10, -100.0)
        assert search.tell(every[2], 9, 1.0)


def test_errors_say_what_to_do():
    search = successive_halving(trials(2), 10, 90)
    for rounds in ((0, 9), (9, 9)):
        with pytest.raises(ValueError, match="min_rounds < max_rounds"):
            successive_halving(trials(2), *rounds)
    for reduction in (1, 2.5):
        with pytest.raises(ValueError, match="whole number"):
            successive_halving(trials(2), 1, 9, reduction)
    with pytest.raises(ValueError, match="no trial"):
        all_of([])
    with pytest.raises(ValueError, match="same number"):
        all_of([trials(1)[0]] * 2)
    with pytest.raises(ValueError, match="Trial 2 is not part"):
        search.tell(trials(3)[2], 1, 0.0)
    with pytest.raises(ValueError, match="one value at a time"):
        search.tell_all([TrialScore(trials(1)[0], 1, 0.0)] * 2)
    with pytest.raises(ValueError, match=r"rounds \[10, 30\], this one at \[5, 15, 45\]"):
        successive_halving(trials(2), 5, 90).load(search.state())
    for _ in range(2):
        search.ask()
    with pytest.raises(ValueError, match="given out trial 1"):
        successive_halving(trials(1), 10, 90).load(search.state())
