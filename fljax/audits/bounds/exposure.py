"""Exposure: how much a language model tells of a secret that it was trained on, in bits.

Carlini et al. 2019, "The secret sharer" (arXiv:1802.08232): a secret is drawn at random among
candidates, such as "the number is 000000000" to "... 999999999", and put among the training text.
With the candidates in the order of their losses under the model,

    exposure = log2 (number of candidates) - log2 (rank of the secret)

0 bits for the last, all bits of the secret for the first. Where candidates are too many to be asked
about, a skew-normal distribution is fitted to the losses of some, and

    exposure = -log2 P[a candidate's loss is at most that of the secret]

An exposure bounds no epsilon: it is of one training run, and says what this model gives away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy

from fljax.core.values import shown

__all__ = ["SkewNormal", "exposure", "extrapolated_exposure", "fitted_losses"]

# Chances below this are integrals, since the difference of two large ones has no digits left. Their
# variable is the logarithm of the distance to the tail's end, from almost nothing to where no tail
# reaches, in scales of the distribution.
_SMALL = 1e-6
_POINTS, _NEAR, _FAR = 4001, 1e-14, 100.0


class SkewNormal(NamedTuple):
    """A skew-normal distribution of losses: density 2 / scale phi(z) Phi(shape z).

    Attributes:
      location, scale, shape: Its numbers; z is (loss - location) / scale.
      p_value: Of the test of Kolmogorov and Smirnov that the losses are from it. The paper does
        without distributions whose p-value is below 0.1; as the fit is to the same losses, it is
        larger than it should be.
    """

    location: float
    scale: float
    shape: float
    p_value: float


def exposure(losses: Any, secrets: Any) -> np.ndarray:
    """Returns the exposure of secrets among all candidates.

    Args:
      losses: float[R], of all candidates under the model, in nats or any other unit.
      secrets: int[k], which of these are the secrets.

    Returns:
      float64[k], in bits. Candidates whose loss is that of a secret come before it, so that a model
      that tells nothing apart exposes nothing.

    Raises:
      ValueError: For losses that are no numbers, or secrets that are no candidates.

    Example:
      >>> exposure([3.0, 0.5, 2.0, 1.0], [1, 3, 0]).tolist()
      [2.0, 1.0, 0.0]
    """
    losses = _losses("losses", losses)
    secrets = np.asarray(secrets).reshape(-1)
    if secrets.size and (
        secrets.dtype.kind not in "iu" or secrets.min() < 0 or secrets.max() >= len(losses)
    ):
        raise ValueError(
            f"secrets = {shown(secrets.tolist())} must be numbers of candidates, from 0 to "
            f"{len(losses) - 1}."
        )
    ranks = np.searchsorted(np.sort(losses), losses[secrets.astype(int)], side="right")
    return np.log2(len(losses) / ranks)


def fitted_losses(losses: Any) -> SkewNormal:
    """Returns the skew-normal distribution of the largest likelihood.

    Args:
      losses: float[n], of candidates at random that are no secrets.

    Raises:
      ValueError: For fewer than three different losses, or such that are not finite.

    Example:
      >>> fit = fitted_losses(10 + np.random.default_rng(0).standard_normal(2000))
      >>> fit.p_value > 0.1
      True
    """
    losses = _losses("losses", losses)
    if len(np.unique(losses)) < 3 or not np.isfinite(losses).all():
        raise ValueError(
            f"losses: {len(np.unique(losses))} different values of {len(losses)} are too few to "
            "fit a distribution, or some are infinite. Give finite losses of more candidates."
        )
    shape, location, scale = scipy.stats.skewnorm.fit(losses)
    fit = SkewNormal(float(location), float(scale), float(shape), 0.0)
    mass = _below(np.sort(losses), fit)
    steps = np.arange(len(mass) + 1) / len(mass)
    apart = max((steps[1:] - mass).max(), (mass - steps[:-1]).max())
    return fit._replace(p_value=float(scipy.stats.kstwo.sf(apart, len(mass))))


def extrapolated_exposure(secrets: Any, fit: SkewNormal, least: float = 0.0) -> np.ndarray:
    """Returns the exposure of secrets by a distribution of the candidates' losses.

    Args:
      secrets: float[k], the losses of the secrets under the model.
      fit: The distribution, from `fitted_losses`.
      least: Below which no loss is, as no negative log-likelihood of a text is below 0.

    Returns:
      float64[k], in bits, at least 0; infinity of a secret whose loss is the least one.

    Raises:
      ValueError: For losses that are no numbers.

    Example:
      >>> normal = SkewNormal(10.0, 1.0, 0.0, 1.0)
      >>> extrapolated_exposure([10.0, 4.0], normal).round(2).tolist()  # 1e-9 is 30 bits
      [1.0, 29.92]
    """
    return np.array([_bits(loss, fit, least) for loss in _losses("secrets", secrets)])


def _bits(loss: float, fit: SkewNormal, least: float) -> float:
    """Returns -log2 of how likely a loss is between the least and this one."""
    if loss <= least:
        return np.inf
    mass = _below(loss, fit) - _below(least, fit)
    log_mass = np.log(mass) if mass > _SMALL else _log_integral(loss, loss - least, fit)
    return max(0.0, -float(log_mass / np.log(2)))


def _log_integral(loss: float, reach: float, fit: SkewNormal) -> float:
    """Returns the logarithm of how likely a loss is from `reach` below another one up to it."""
    reach = min(reach, _FAR * fit.scale)
    logs = np.linspace(np.log(_NEAR * min(reach, fit.scale)), np.log(reach), _POINTS)
    z = (loss - np.exp(logs) - fit.location) / fit.scale
    densities = np.log(2 / (fit.scale * np.sqrt(2 * np.pi))) - z**2 / 2
    heights = densities + scipy.special.log_ndtr(fit.shape * z) + logs
    heights[[0, -1]] -= np.log(2)  # of the trapezoidal rule
    return scipy.special.logsumexp(heights) + np.log(logs[1] - logs[0])


def _below(losses: Any, fit: SkewNormal) -> Any:
    """Returns how likely a loss is below others."""
    z = (losses - fit.location) / fit.scale
    return scipy.special.ndtr(z) - 2 * scipy.special.owens_t(z, fit.shape)


def _losses(name: str, losses: Any) -> np.ndarray:
    """Returns losses as float64[n]."""
    losses = np.asarray(losses, np.float64).reshape(-1)
    if np.isnan(losses).any():
        raise ValueError(
            f"{name}: {np.isnan(losses).sum()} of {len(losses)} losses are NaN. Leave these out, "
            "or take a model that did not diverge."
        )
    return losses
