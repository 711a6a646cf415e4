"""Measures how near reconstructed rows come to the true ones: PSNR, SSIM, and who is whose."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy

from fljax.core.values import POSITIVE, Field, checked

__all__ = ["Matches", "matched", "psnr", "ssim"]

# Of Wang et al.: the window of 11 x 11 pixels, and what keeps quotients from 0 / 0.
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def psnr(found: Any, true: Any, data_range: float = 1.0) -> np.ndarray:
    """Returns float64[N] peak signal-to-noise ratios: 10 log10(range^2 / mean squared error), dB.

    What an attack has learned shows beside the ratio of a guess that needs none, such as the mean
    of public images: of MNIST's digits, a black image has 10 dB, and the mean digit 12.

    Args:
      found: [N, ...] reconstructions.
      true: [N, ...] what they are of.
      data_range: Largest less least value that data may have: 1 for [0, 1], 255 for bytes.

    Returns:
      Infinite where both are equal, and -inf where the reconstruction is not finite.

    Raises:
      ValueError: For shapes that differ.

    Example:
      >>> psnr(np.full((1, 2, 2), 0.1), np.zeros((1, 2, 2))).round(6).tolist()
      [20.0]
    """
    found, true = _alike(found, true)
    data_range = checked("data_range", data_range, Field(None, float, POSITIVE))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        error = np.square((found - true) / data_range).mean(tuple(range(1, true.ndim)))
        return -10 * np.log10(np.where(np.isnan(error), np.inf, error))


def ssim(found: Any, true: Any, data_range: float = 1.0) -> np.ndarray:
    """Returns float64[N] structural similarities, 1 for equal images.

    Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity": means, variances and covariances in a Gaussian window of 11 x 11 pixels,
    standard deviation 1.5, over all places where it lies inside; then the mean of all places, and
    of the channels. Images of less than 11 pixels get the largest odd window that fits.

    Args:
      found: [N, H, W] or [N, H, W, C] reconstructions.
      true: What they are of.
      data_range: Largest less least value that data may have.

    Returns:
      NaN where the reconstruction is not finite.

    Raises:
      ValueError: For shapes that differ, or are no images.

    Example:
      >>> image = np.arange(64.0).reshape(1, 8, 8) / 64
      >>> ssim(image, image).round(6).tolist(), bool(ssim(1 - image, image)[0] < 0)
      ([1.0], True)
    """
    found, true = _alike(found, true)
    data_range = checked("data_range", data_range, Field(None, float, POSITIVE))
    if found.ndim not in (3, 4):
        raise ValueError(
            f"Rows of the shape {found.shape[1:]} are no images [H, W] or [H, W, C]: compare them "
            "by psnr."
        )
    found, true = np.where(np.isfinite(found), found, np.nan) / data_range, true / data_range
    mean_found, mean_true = _blurred(found), _blurred(true)
    var_found = _blurred(found * found) - mean_found**2
    var_true = _blurred(true * true) - mean_true**2
    covariance = _blurred(found * true) - mean_found * mean_true
    c1, c2 = _K1**2, _K2**2
    similarity = (2 * mean_found * mean_true + c1) * (2 * covariance + c2)
    similarity /= (mean_found**2 + mean_true**2 + c1) * (var_found + var_true + c2)
    return similarity.mean(tuple(range(1, true.ndim)))


def _blurred(images: np.ndarray) -> np.ndarray:
    """Returns Gaussian means of images [N, H, W, ...] at the places where windows lie inside."""
    for axis in (1, 2):
        size = min(_WINDOW, images.shape[axis] - 1 + images.shape[axis] % 2)
        away = np.arange(size) - size // 2
        weights = np.exp(-0.5 * np.square(away / _SIGMA))
        windows = np.lib.stride_tricks.sliding_window_view(images, size, axis=axis)
        images = windows @ (weights / weights.sum())
    return images


class Matches(NamedTuple):
    """Pairs of reconstructed and true rows, in the order of the true ones.

    Attributes:
      found: int64[M], which reconstruction.
      true: int64[M], of which true row; M is the smaller number of both.
      psnr: float64[M], dB.
    """

    found: np.ndarray
    true: np.ndarray
    psnr: np.ndarray


def matched(found: Any, true: Any, data_range: float = 1.0) -> Matches:
    """Returns the pairs of reconstructed and true rows whose squared errors are least in sum.

    No row is in two pairs. An attack does not know whose row is which; this is for those who
    measure it.

    Args:
      found: [K, ...] reconstructions.
      true: [N, ...] true rows.
      data_range: As of `psnr`.

    Raises:
      ValueError: For rows of different shapes.

    Example:
      >>> pairs = matched(np.array([[0.9], [0.1]]), np.array([[0.0], [1.0]]))
      >>> pairs.found.tolist(), pairs.psnr.round().tolist()
      ([1, 0], [20.0, 20.0])
    """
    found, true = np.asarray(found, np.float64), np.asarray(true, np.float64)
    if found.shape[1:] != true.shape[1:] or not found.ndim:
        raise ValueError(
            f"Reconstructed rows have the shape {found.shape[1:]}, true ones {true.shape[1:]}: "
            "compare rows alike."
        )
    size = int(np.prod(true.shape[1:]))
    flat, goal = found.reshape(-1, size), true.reshape(-1, size)
    finite = np.isfinite(flat).all(1)
    clean = np.where(finite[:, None], flat, 0)
    errors = scipy.spatial.distance.cdist(clean, goal, "sqeuclidean")
    errors[~finite] = 1 + 2 * errors.max(initial=0)  # whom nobody else can be paired with
    first, second = scipy.optimize.linear_sum_assignment(errors)
    order = np.argsort(second, kind="stable")
    first, second = first[order], second[order]
    return Matches(first, second, psnr(found[first], true[second], data_range))


def _alike(found: Any, true: Any) -> tuple[np.ndarray, np.ndarray]:
    found, true = np.asarray(found, np.float64), np.asarray(true, np.float64)
    if found.shape != true.shape or found.ndim < 2:
        raise ValueError(
            f"Reconstructions have the shape {found.shape}, and true rows {true.shape}: give the "
            "same number of rows, [N, ...], or pair them with matched."
        )
    return found, true
