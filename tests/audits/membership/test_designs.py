"""Designs: balanced by target, by model and by subset, and otherwise random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.audits.membership import designs
from fljax.audits.membership.curves import judge_models
from fljax.audits.membership.lira import lira
from fljax.audits.membership.turns import in_turn


def half(number):
    return {number // 2, -(-number // 2)}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 99))
def test_designs_are_balanced_by_target_model_and_subset(num_models, subsets, seed):
    members = designs.within(num_models, subsets, seed)
    assert members.shape == (num_models, len(subsets)) and members.dtype == bool
    assert set(members.sum(0)) <= half(num_models)
    assert set(members.sum(1)) <= half(len(subsets))
    for subset in set(subsets):
        of_it = np.array(subsets) == subset
        assert set(members[:, of_it].sum(1)) <= half(of_it.sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 99))
def test_rows_of_a_user_are_in_or_out_together(num_models, owners, seed):
    members = designs.whole(num_models, owners, seed)
    users, first, owner = np.unique(owners, return_index=True, return_inverse=True)
    by_user = members[:, first]
    assert (by_user[:, owner] == members).all()
    assert set(by_user.sum(0)) <= half(num_models)
    assert set(by_user.sum(1)) <= half(len(users))


def test_models_of_whole_users_have_like_numbers_of_rows():
    owners = np.repeat(np.arange(40), np.arange(1, 41))
    sizes = designs.whole(16, owners, 0).sum(1)
    assert np.abs(sizes - len(owners) / 2).max() <= 10  # half of what pairs differ by, 1 each of 20


def test_draws_follow_the_seed_and_are_spread_evenly():
    members = designs.halves(64, 200, 0)
    np.testing.assert_array_equal(members, designs.halves(64, 200, 0))
    assert (members != designs.halves(64, 200, 1)).any()
    # models share a quarter of the targets: of 100 pairs, each alike with probability 1/2
    both = (members[:, None] & members[None])[np.triu_indices(64, 1)].sum(-1)
    assert abs(both.mean() - 50) < 1 and 60 < (members[0] != members[1]).sum() < 140
    # which model one is in says nothing of where it stands
    assert 0.4 < members[:, :100].mean() < 0.6


def test_of_an_odd_number_of_models_half_the_targets_are_in_one_more():
    counts = designs.halves(33, 2000, 3).sum(0)
    assert (counts == 16).sum() == (counts == 17).sum() == 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: designs.halves(0, 5, 0), "num_models = 0"),
        (lambda: designs.halves(2, 0, 0), "num_targets = 0"),
        (lambda: designs.halves(2, 5, -1), "seed = -1"),
        (lambda: designs.within(2, [], 0), "subsets have shape"),
        (lambda: designs.whole(2, [[1, 2]], 0), "owners have shape"),
    ],
)
def test_what_is_no_design_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("models", [5, 7, 8, 16])
def test_coins_leave_each_model_others_with_each_target_and_without(models):
    members = designs.coins(models, np.arange(600), seed=4)
    least = 1 if models < 7 else 2
    for number in range(models):
        others = np.delete(members, number, 0).sum(0)
        assert (others >= least).all() and (others <= models - 1 - least).all()


def test_coins_of_the_first_model_are_fair_and_depend_on_nothing():
    members = designs.coins(9, np.arange(40_000), seed=1)
    others = members[1:].sum(0)
    assert abs(members[0].mean() - 0.5) < 4 * 0.5 / 200
    for number in np.unique(others):
        chosen = members[0, others == number]
        assert abs(chosen.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(chosen))
    np.testing.assert_array_equal(members[0], designs.coins(5, np.arange(40_000), seed=1)[0])


def test_an_attack_that_knows_nothing_is_at_chance_with_coins_and_below_it_with_halves():
    signals, found = np.random.default_rng(0).normal(size=(12, 4000)), {}
    drawn = {
        "coins": designs.coins(12, np.arange(4000), seed=2),
        "halves": designs.halves(12, 4000, seed=2),
    }
    for name, members in drawn.items():
        scores = in_turn(lira(), signals, members)
        found[name] = judge_models(scores, members).pooled.auc
    assert abs(found["coins"] - 0.5) < 0.01 and found["halves"] < 0.49
