"""Samplers that learn from losses: rpow-d and Oort."""

import numpy as np
import pytest
from selection import reference_selection as reference
from selection.test_draws import assert_drawn_as

from fljax.selection import oort as oort_module
from fljax.selection.by_size import by_size
from fljax.selection.oort import OortState, oort
from fljax.selection.power_of_choice import rpow_d

SIZES = np.array([3, 8, 12, 1, 7, 40, 2, 5, 9, 21])
DURATIONS = np.array([5.0, 1.0, 2.0, 8.0, 3.0, 4.0, 9.0, 2.5, 6.0, 7.0])


def told(clients, losses, weight=4.0):
    clients = np.asarray(clients, np.int32)
    losses = np.asarray(losses, float)
    return {"client": clients, "loss": losses * weight, "weight": np.full(len(clients), weight)}


def test_rpow_d_takes_the_largest_known_losses_of_candidates():
    sampler = rpow_d(10, 3, 5, SIZES, candidates=6)
    candidates = by_size(10, 6, 5, SIZES, replacement=False)
    losses = np.random.default_rng(0).random(10)
    state = sampler.observe(sampler.init(), 0, told(np.arange(10), losses))
    np.testing.assert_allclose(state, losses)
    for round in range(1, 60):
        drawn = candidates.select((), round)[0]
        expected = sorted(drawn, key=lambda client: -losses[client])[:3]
        assert sampler.select(state, round)[0].tolist() == expected


@pytest.mark.parametrize("candidates", [4, 10])
def test_rpow_d_knows_nothing_at_first(candidates):
    """With d = m, or without a loss, it is sampling by size: those drawn first are as likely."""
    sampler = rpow_d(10, 4, 5, SIZES, candidates=candidates)
    same = by_size(10, 4, 5, SIZES, replacement=False)
    state = sampler.init()
    if candidates == 4:
        for round in range(40):
            chosen = sampler.select(state, round)[0]
            assert sorted(chosen) == sorted(same.select((), round)[0])
            state = sampler.observe(state, round, told(chosen, np.arange(4.0)))
    else:  # all are candidates, and ties fall at random
        found = [sampler.select(state, round)[0] for round in range(4000)]
        counts = np.bincount(np.concatenate(found), minlength=10)
        assert np.abs(counts - 1600).max() < 4 * np.sqrt(4000 * 0.4 * 0.6)


def test_what_was_not_kept_is_not_learned():
    sampler = rpow_d(10, 2, 5, SIZES, candidates=4)
    before = sampler.init()
    statistics = told([1, 2], [1.0, 2.0])
    statistics["weight"] = np.array([4.0, 0.0])
    after = sampler.observe(before, 0, statistics)
    assert np.isinf(before).all() and after[1] == 1 and np.isinf(np.delete(after, 1)).all()


def learned(sampler, rounds=4, seed=0):
    """Returns the state of Oort after some rounds of its own cohorts."""
    generator, state = np.random.default_rng(seed), sampler.init()
    for round in range(rounds):
        clients, state = sampler.select(state, round)
        state = sampler.observe(state, round, told(clients, generator.random(len(clients)) + 0.5))
    return state


def test_oort_explores_by_speed():
    sampler = oort(10, 2, 0, SIZES, DURATIONS, exploration=1.0)
    found = [tuple(sampler.select(sampler.init(), round)[0].tolist()) for round in range(4000)]
    assert_drawn_as(found, reference.successive(1 / DURATIONS, 2))


def test_oort_exploits_by_the_utility_of_the_paper():
    options = {"exploration": 0.0, "least_exploration": 0.0, "pacer_seconds": 3.0, "cutoff": 0.5}
    sampler = oort(10, 2, 0, SIZES, DURATIONS, **options)
    utility = np.random.default_rng(3).random(10) * 20
    last = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], np.int32)
    utility[9] = 0
    state = sampler.init()._replace(utility=utility, last=last)
    number = 11
    scores = reference.oort_scores(utility[:9], last[:9], DURATIONS[:9], number, 3.0, 2.0, 95)
    found = oort_module._scores(
        state, np.arange(9), DURATIONS, number, {"penalty": 2.0, "clip_percentile": 95.0}
    )
    np.testing.assert_allclose(found, scores, rtol=1e-12)
    admitted = np.where(scores >= 0.5 * np.sort(scores)[-2], scores, 0)
    assert 2 < np.count_nonzero(admitted) < 9
    # draws differ by their round alone, which the scores depend on: seeds repeat one round
    cohorts = [
        tuple(oort(10, 2, seed, SIZES, DURATIONS, **options).select(state, 10)[0].tolist())
        for seed in range(3000)
    ]
    assert_drawn_as(cohorts, reference.successive(admitted, 2))


def test_oort_divides_a_cohort_as_epsilon_says():
    sampler = oort(200, 10, 0, np.full(200, 5), np.ones(200), exploration_decay=0.5)
    state = learned(sampler, 6)
    for round, explored in ((0, 9), (1, 4), (2, 2), (9, 2)):
        clients, _ = sampler.select(state, round)
        assert len(set(clients.tolist())) == 10
        assert np.count_nonzero(state.last[clients] == 0) == explored


def test_those_of_whom_there_are_too_few_are_made_up_for():
    sampler = oort(10, 4, 0, SIZES, DURATIONS)
    state = sampler.init()
    assert len(set(sampler.select(state, 0)[0].tolist())) == 4  # nobody is explored
    everybody = sampler.observe(state, 0, told(np.arange(10), np.ones(10)))
    for round in range(1, 30):
        assert len(set(sampler.select(everybody, round)[0].tolist())) == 4
    one = sampler.observe(state, 0, told([3], [1.0]))
    assert len(set(sampler.select(one, 400)[0].tolist())) == 4


def test_oort_counts_losses_below_0_as_no_utility():
    sampler = oort(4, 2, 0, np.full(4, 9), np.ones(4), least_exploration=0, exploration=0)
    state = sampler.observe(sampler.init(), 0, told(np.arange(4), [-5.0, -4.0, -3.0, 2.0]))
    assert len(set(sampler.select(state, 5)[0].tolist())) == 2


def test_clients_that_were_drawn_often_are_left_out_while_others_are_left():
    options = {"exploration": 0.0, "least_exploration": 0.0, "most_rounds": 2}
    sampler = oort(6, 2, 0, np.full(6, 5), np.ones(6), **options)
    state = sampler.observe(sampler.init(), 0, told(np.arange(6), np.ones(6)))
    state = sampler.observe(state, 1, told([0, 1, 2], np.full(3, 9.0)))
    for round in range(2, 40):
        assert set(sampler.select(state, round)[0].tolist()) <= {3, 4, 5}
    worn = sampler.observe(state, 2, told([3, 4, 5], np.ones(3)))
    assert len(sampler.select(worn, 3)[0]) == 2


def test_the_pacer_allows_slower_clients_when_utility_falls():
    sampler = oort(4, 1, 0, np.full(4, 10), np.ones(4), window=2, pacer_seconds=3.0)
    state, preferred = sampler.init(), []
    for round, loss in enumerate([5.0, 4.0, 3.0, 2.0, 2.0, 9.0, 9.0]):
        state = sampler.observe(state, round, told([round % 4], [loss]))
        preferred.append(float(state.preferred))
    # windows of two: 9 > 5, 7 > 4, then 5 < 11 and 4 < 18
    assert preferred == [3.0, 3.0, 3.0, 6.0, 9.0, 9.0, 9.0]
    default = oort(10, 2, 0, SIZES, DURATIONS).init()
    assert default.preferred == np.percentile(DURATIONS, 30)


def test_oort_goes_on_from_its_state_and_leaves_it_alone():
    sampler = oort(10, 3, 7, SIZES, DURATIONS)
    state = learned(sampler)
    before = OortState(*(np.copy(leaf) for leaf in state))
    first, _ = sampler.select(state, 9)
    sampler.observe(state, 9, told(first, np.ones(3)))
    again, _ = sampler.select(tuple(state), 9)  # as a checkpoint may give it back
    np.testing.assert_array_equal(first, again)
    for leaf, old in zip(state, before, strict=True):
        np.testing.assert_array_equal(leaf, old)


@pytest.mark.parametrize("durations", [np.zeros(10), np.append(np.zeros(9), 1e12)])
def test_work_may_take_no_time_and_any(durations):
    sampler = oort(10, 4, 7, SIZES, durations, feedback="immediate")
    assert sampler.feedback == "immediate"
    state = learned(sampler, 30)
    assert np.isfinite(state.utility).all() and state.last.max() == 30


REFUSED = [
    (lambda: rpow_d(10, 4, 0, SIZES, candidates=3), "candidates = 3, of whom"),
    (lambda: rpow_d(10, 4, 0, SIZES, candidates=11), "candidates = 11"),
    (lambda: rpow_d(10, 4, 0, SIZES, 5, feedback="none"), "feedback = 'none'"),
    (lambda: oort(10, 4, 0, SIZES, DURATIONS[:9]), "durations has 9 entries"),
    (lambda: oort(10, 4, 0, SIZES, DURATIONS, exploration=1.5), "exploration = 1.5"),
    (lambda: oort(10, 4, 0, SIZES, DURATIONS, window=0), "window = 0"),
    (lambda: oort(10, 4, 0, SIZES * 0, DURATIONS), "sizes are above 0 for 0 of the 10"),
]


@pytest.mark.parametrize(("call", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_arguments_that_do_not_fit_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
