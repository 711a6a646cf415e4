"""Signals: as defined, in long arithmetic where float64 fails the definition, and their edges."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from fljax.audits.membership import signals

NAMES = ("loss", "confidence", "probability", "entropy", "modified_entropy")


def defined(name, logits, label):
    """Returns a signal of one target by its definition, in 200 digits."""
    with localcontext(prec=200):
        weights = [Decimal(float(z)).exp() for z in logits]
        p = [weight / sum(weights) for weight in weights]
        rest = [sum(weights[:i] + weights[i + 1 :]) / sum(weights) for i in range(len(p))]
        others = [i for i in range(len(p)) if i != label]
        found = {
            "loss": lambda: -p[label].ln(),
            "probability": lambda: p[label],
            "confidence": lambda: (p[label] / rest[label]).ln(),
            "entropy": lambda: -sum(each * each.ln() for each in p),
            "modified_entropy": lambda: (
                -rest[label] * p[label].ln() - sum(p[i] * rest[i].ln() for i in others)
            ),
        }
        return float(found[name]())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 20.0, 80.0])
def test_signals_are_as_defined_however_sure_the_model_is(name, scale):
    rng = np.random.default_rng(0)
    logits, y = scale * rng.normal(size=(2, 3, 4)), np.array([0, 3, 1])
    found = signals.of_logits(name, logits, y)
    for model in range(2):
        expected = [defined(name, *row) for row in zip(logits[model], y, strict=True)]
        np.testing.assert_allclose(found[model], expected, rtol=1e-11, atol=1e-300)


def test_confidence_is_exact_where_the_probability_is_one():
    logits = np.array([[60.0, 0.0, 1.0]])
    assert np.exp(-signals.of_logits("loss", logits, [0]))[0] == 1
    expected = 60 - np.log(1 + np.e)
    assert signals.of_logits("confidence", logits, [0])[0] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_many_targets_have_the_mean_of_those_that_count(name):
    rng = np.random.default_rng(1)
    logits, y = rng.normal(size=(2, 4, 3, 3)), rng.integers(0, 3, (4, 3))
    mask = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    y[~mask] = -100  # padding, which is no class
    found = signals.of_logits(name, logits, y, mask)
    assert found.shape == (2, 4) and np.isnan(found[:, 3]).all()
    for model, row in np.ndindex(2, 3):
        each = "loss" if name == "probability" else name
        real = zip(logits[model, row][mask[row]], y[row][mask[row]], strict=True)
        mean = np.mean([defined(each, *pair) for pair in real])
        expected = np.exp(-mean) if name == "probability" else mean
        assert found[model, row] == pytest.approx(expected, rel=1e-12)


def test_losses_tell_what_logits_of_one_target_do():
    logits, y = np.random.default_rng(2).normal(size=(50, 4)), np.arange(50) % 4
    losses = signals.of_logits("loss", logits, y)
    for name in ("loss", "confidence", "probability"):
        from_losses = signals.of_losses(name, losses)
        np.testing.assert_allclose(from_losses, signals.of_logits(name, logits, y), rtol=1e-9)


@pytest.mark.parametrize("loss", [1e-6, 0.01, 0.5, 0.7, 3.0, 40.0, 800.0])
def test_confidence_of_a_loss_is_exact_for_small_and_large_ones(loss):
    with localcontext(prec=400):
        p = (-Decimal(loss)).exp()
        expected = float((p / (1 - p)).ln())
    assert signals.of_losses("confidence", np.array([loss]))[0] == pytest.approx(
        expected, rel=1e-12
    )


def test_a_loss_of_zero_has_a_finite_confidence_above_all_others():
    zero, smallest = signals.of_losses("confidence", np.array([0.0, 2.0**-23]))
    assert np.isfinite(zero) and zero > smallest


def test_modified_entropy_is_low_for_right_answers_alone():
    logits = np.array([[9.0, 0.0, 0.0]])
    right, wrong = (signals.of_logits("modified_entropy", logits, [y])[0] for y in (0, 1))
    assert signals.of_logits("entropy", logits, [0]) == signals.of_logits("entropy", logits, [1])
    assert right < 0.01 and wrong > 5


def test_one_logit_of_two_classes_is_two():
    z = np.array([-2.0, 0.0, 1.0, 50.0])
    pair = signals.two_classes(z)
    np.testing.assert_allclose(signals.of_logits("confidence", pair, [1] * 4), z, atol=1e-14)
    p = 1 / (1 + np.exp(-z[:3]))
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    np.testing.assert_allclose(signals.of_logits("entropy", pair, [0] * 4)[:3], entropy)


def test_logits_without_a_softmax_say_nothing_and_impossible_classes_count_nothing():
    nan = signals.of_logits("loss", np.array([[np.nan, 0.0], [0.0, 0.0]]), [0, 0])
    assert np.isnan(nan[0]) and nan[1] == pytest.approx(np.log(2))
    masked, plain = np.array([[1.0, -np.inf, 0.0]]), np.array([[1.0, 0.0]])
    for name in NAMES:
        found = signals.of_logits(name, masked, [2])
        assert found == pytest.approx(signals.of_logits(name, plain, [1])), name


def test_kinds_offer_signals_and_refuse_others_with_the_remedy():
    assert set(NAMES) == set(signals.offered("next_token")) == set(signals.offered("multi_label"))
    assert signals.offered("mine") == ("loss", "confidence", "probability")
    with pytest.raises(ValueError, match="entropy.*needs probabilities.*regression.*confidence"):
        signals.check_offered("entropy", "regression")
    with pytest.raises(ValueError, match="cosine.*is of updates"):
        signals.check_offered("cosine", "classification")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: signals.of_logits("los", np.zeros((1, 2)), [0]), "not one of loss, confidence"),
        (lambda: signals.of_logits("cosine", np.zeros((1, 2)), [0]), "updates.cosine"),
        (lambda: signals.of_logits("loss", np.zeros(3), [0, 1, 1]), "two_classes"),
        (lambda: signals.of_logits("loss", np.zeros((3, 1)), [0, 0, 0]), "two_classes"),
        (lambda: signals.of_logits("loss", np.zeros((2, 3)), [0, 3]), "from 0 to 2"),
        (lambda: signals.of_logits("loss", np.zeros((2, 3)), [0.5, 1.0]), "whole numbers"),
        (lambda: signals.of_logits("loss", np.zeros((2, 3)), [0, 1], [True]), "mask has shape"),
        (lambda: signals.of_losses("entropy", np.ones(2)), "needs logits"),
        (lambda: signals.of_losses("probability", np.array([-1.0, 2.0])), "never negative"),
    ],
)
def test_what_is_no_signal_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
