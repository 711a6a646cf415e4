"""PSNR, SSIM and pairs of reconstructed and true rows, against loops written from the papers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.audits.reconstruction.similarity import matched, psnr, ssim


def window_of(size: int) -> np.ndarray:
    """Returns Wang et al.'s window [size, size], 11 at most and odd, of unit sum."""
    size = min(11, size if size % 2 else size - 1)
    middle = size // 2
    window = np.array(
        [
            [np.exp(-((i - middle) ** 2 + (j - middle) ** 2) / (2 * 1.5**2)) for j in range(size)]
            for i in range(size)
        ]
    )
    return window / window.sum()


def ssim_of_one(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Returns the mean of SSIM over places, from equations 13 to 17 of the paper."""
    window = window_of(len(x))
    size, values = len(window), []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * both + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


@pytest.mark.parametrize("size", [5, 8, 12, 14])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_is_that_of_the_paper(size, data_range):
    rng = np.random.default_rng(size)
    true = rng.uniform(0, data_range, (3, size, size))
    found = true + rng.normal(0, 0.2 * data_range, true.shape)
    expected = [ssim_of_one(a, b, data_range) for a, b in zip(found, true, strict=True)]
    np.testing.assert_allclose(ssim(found, true, data_range), expected, atol=1e-10)


def test_channels_count_alike_and_equal_images_are_1():
    rng = np.random.default_rng(0)
    true, found = rng.uniform(size=(2, 2, 16, 16, 3))
    by_channel = [ssim(found[..., c], true[..., c]) for c in range(3)]
    np.testing.assert_allclose(ssim(found, true), np.mean(by_channel, 0), atol=1e-12)
    np.testing.assert_allclose(ssim(true, true), 1)
    assert np.isnan(ssim(np.full((1, 8, 8), np.inf), true[:1, :8, :8, 0])).all()


def test_psnr_counts_decibels():
    true = np.zeros((4, 5))
    found = np.array([[0.1] * 5, [1.0] * 5, [0.0] * 5, [np.nan] * 5])
    assert psnr(found, true).round(9).tolist() == [20, 0, np.inf, -np.inf]
    np.testing.assert_allclose(psnr(255 * found[:2], true[:2], 255), psnr(found[:2], true[:2]))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**20))
def test_pairs_have_the_least_error_in_sum(num_found, num_true, seed):
    rng = np.random.default_rng(seed)
    found, true = rng.normal(size=(num_found, 3)), rng.normal(size=(num_true, 3))
    pairs = matched(found, true)

    def error(chosen):
        return sum(((found[i] - true[j]) ** 2).sum() for i, j in chosen)

    few = min(num_found, num_true)
    possible = [
        list(zip(a, b, strict=True))
        for a in itertools.combinations(range(num_found), few)
        for b in itertools.permutations(range(num_true), few)
    ]
    got = error(zip(pairs.found, pairs.true, strict=True))
    assert got == pytest.approx(min(map(error, possible)))
    assert (np.diff(pairs.true) > 0).all() and len(set(pairs.found)) == few


def test_rows_that_are_not_finite_are_paired_last():
    found = np.array([[np.nan, 0], [5.0, 5.0], [0.0, 0.0]])
    pairs = matched(found, np.array([[5.0, 5.0], [0.0, 1.0]]))
    assert pairs.found.tolist() == [1, 2]
    pairs = matched(found[:2], np.array([[5.0, 5.0], [0.0, 1.0]]))
    assert pairs.found.tolist() == [1, 0] and pairs.psnr[1] == -np.inf
    assert matched(np.zeros((0, 2)), np.zeros((3, 2))).found.shape == (0,)


def test_rows_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*pair them with matched"):
        psnr(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"are no images.*compare them by psnr"):
        ssim(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="compare rows alike"):
        matched(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="data_range = 0.0 must be above 0"):
        psnr(np.zeros((2, 3)), np.zeros((2, 3)), 0)
