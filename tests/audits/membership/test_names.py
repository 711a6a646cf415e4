"""Names of attacks, what was observed for them, and models attacked in turn."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.audits.membership import curves, designs
from fljax.audits.membership.lira import lira
from fljax.audits.membership.names import ATTACKS, make_membership
from fljax.audits.membership.observed import MembershipAttack, Observed
from fljax.audits.membership.rmia import rmia
from fljax.audits.membership.signals import SIGNALS
from fljax.audits.membership.thresholds import loss
from fljax.audits.membership.turns import in_turn


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_have_names_and_defaults(name):
    attack = make_membership(name)
    assert isinstance(attack, MembershipAttack) and attack.signal in SIGNALS
    assert set(attack.needs) <= {"in", "out", "population", "classes"}


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_membership.py").write_text(
        "from fljax.audits.membership.observed import MembershipAttack\n"
        "def first(signal='loss'):\n"
        "    return MembershipAttack(signal, lambda observed: -observed.target[:, 0])\n"
        "def nothing():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)


def test_calls_and_functions_of_ones_own(own_module):
    assert make_membership("lira(online=False, variance='global')").needs == ("out",)
    own = make_membership("my_membership:first()")
    assert own.score(Observed.of([2.0, 3.0])).tolist() == [-2.0, -3.0]
    with pytest.raises(ValueError, match="returned 3"):
        make_membership("my_membership:nothing")
    with pytest.raises(ValueError, match="'mood'.*not one of loss"):
        make_membership("my_membership:first(signal='mood')")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("liar", "Did you mean 'lira'"),
        ("loss, entropy", "names 2 parts"),
        ("lira(shadows=3)", "no argument 'shadows'"),
        ("lira(variance='small')", "variance = 'small'"),
        (3, "membership = 3"),
    ],
)
def test_texts_that_name_nothing_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        make_membership(text)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"shadows": np.zeros((2, 4))}, r"shadows has shape \[2, 4, 1\] and must have \[2, 3, 1\]"),
        ({"shadows": np.zeros((2, 3)), "members": np.zeros((2, 3))}, "must be bool"),
        ({"population": np.zeros((4, 2))}, "population has shape"),
        ({"shadows": np.zeros((2, 3)), "population_shadows": np.zeros((2, 4))}, "population_shad"),
        ({"classes": np.zeros(2, int)}, "classes has shape"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        Observed.of(np.zeros(3), **arrays)


def test_models_are_attacked_in_turn_by_the_others():
    rng = np.random.default_rng(0)
    members = designs.halves(5, 30, 0)
    signals = rng.random((5, 30)) * (1 + members) / 2
    population = rng.random((5, 8))
    for attack in (loss(), lira(), rmia()):
        scores = in_turn(attack, signals, members, population)
        for model in range(5):
            rest = np.delete(np.arange(5), model)
            alone = Observed.of(
                signals[model], signals[rest], members[rest], population[model], population[rest]
            )
            np.testing.assert_array_equal(scores[model], attack.score(alone))
        some = in_turn(attack, signals, members, population, attacked=[3, 1])
        np.testing.assert_array_equal(some, scores[[3, 1]])


def test_balanced_designs_tell_nothing_by_themselves():
    """Without a signal, no attack learns from whom the other models hold who is in the last one."""
    rng = np.random.default_rng(1)
    members = designs.halves(9, 600, 1)
    signals, population = rng.random((9, 600)), rng.random((9, 200))
    for attack in (lira(), lira(online=False), rmia(), rmia(online=False)):
        scores = in_turn(attack, signals, members, population)
        area = curves.judge_models(scores, members).pooled.auc
        assert area == pytest.approx(0.5, abs=0.025)  # three standard errors
