"""Sequences of models and single updates: slopes, inner products, and what they tell."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.audits.membership import curves, updates
from fljax.audits.membership.lira import lira
from fljax.audits.membership.observed import Observed
from fljax.audits.membership.sequences import loss_trend, slopes


def test_slopes_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    rounds, looks = np.array([1, 4, 5, 30]), rng.normal(size=(2, 7, 4))
    expected = np.polyfit(rounds, looks.reshape(-1, 4).T, 1)[0].reshape(2, 7)
    np.testing.assert_allclose(slopes(looks, rounds), expected)
    np.testing.assert_allclose(slopes(looks), slopes(looks, np.arange(10, 14)))


def test_losses_that_fall_faster_are_of_members():
    observed = Observed.of(np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, np.nan, 0.0]]))
    scores = loss_trend().score(observed)
    assert scores[0] == 1.0 and scores[1] == 0.0 and np.isneginf(scores[2])
    with pytest.raises(ValueError, match="two rounds at least"):
        loss_trend().score(Observed.of(np.zeros(3)))
    with pytest.raises(ValueError, match="a round for each look"):
        slopes(np.zeros((3, 2)), [1, 2, 3])


def gradients(rows=30, size=400, rounds=2, seed=0):
    rng = np.random.default_rng(seed)
    each = rng.normal(size=(rounds, rows, size))
    members = np.arange(rows) < rows // 2
    return each, each[:, members].mean(1), members


def test_signals_of_updates_are_as_defined():
    each, update, members = gradients()
    inner = np.einsum("rtd,rd->rt", each, update)
    norms, lengths = np.linalg.norm(update, axis=-1), np.linalg.norm(each, axis=-1)
    cosines = updates.cosine(inner, norms, lengths)
    differences = updates.gradient_difference(inner, norms, lengths)
    assert cosines.shape == differences.shape == (30, 2)
    for row, round in np.ndindex(30, 2):
        u, g = update[round], each[round, row]
        assert cosines[row, round] == pytest.approx(u @ g / np.sqrt((u @ u) * (g @ g)))
        assert differences[row, round] == pytest.approx(u @ u - (u - g) @ (u - g))
    assert curves.judge(cosines.mean(-1), members).auc == 1.0


def test_clients_and_gradients_of_one_model_have_their_axes():
    rng = np.random.default_rng(1)
    inner, norms = rng.normal(size=(5, 3, 7)), rng.random((5, 3)) + 1
    of_rows = rng.random(7) + 1
    for function in (updates.cosine, updates.gradient_difference):
        found = function(inner, norms, of_rows)
        assert found.shape == (5, 7, 3)
        each = function(inner[2], norms[2], np.tile(of_rows, (3, 1)))
        np.testing.assert_allclose(found[2], each)


def test_an_update_or_a_gradient_of_zero_has_no_direction():
    found = updates.cosine(np.zeros((2, 2)), np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    assert (found == 0).all()
    assert np.isnan(updates.cosine(np.array([[np.nan]]), np.array([1.0]), np.array([1.0]))).all()


def test_updates_of_other_clients_are_shadows_without_the_row():
    rng = np.random.default_rng(2)
    rows, size, clients = 40, 3000, 6
    each = rng.normal(size=(rows, size))
    held = np.arange(rows) < 10  # by client 0; the others hold rows of their own
    sent = rng.normal(size=(clients, size)) / np.sqrt(10)
    sent[0] = each[held].mean(0)
    norms, lengths = np.linalg.norm(sent, axis=1), np.linalg.norm(each, axis=1)
    looks = updates.cosine((sent @ each.T)[:, None], norms[:, None], lengths)
    observed = Observed.of(looks[0], looks[1:], np.zeros((clients - 1, rows), bool))
    scores = lira(online=False, signal="cosine").score(observed)
    assert curves.judge(scores, held).auc == 1.0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros(3), np.zeros(()), np.zeros(3)), "inner has shape"),
        ((np.zeros((2, 3)), np.zeros(3), np.zeros(3)), "update_norms"),
        ((np.zeros((2, 3)), np.zeros(2), np.zeros(2)), "gradient_norms have shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message):
    for function in (updates.cosine, updates.gradient_difference):
        with pytest.raises(ValueError, match=message):
            function(*arrays)
