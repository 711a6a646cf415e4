"""LiRA: how much likelier a row's signal is of models with the row than of models without it.

Carlini et al. 2021 (arXiv:2112.03570), Algorithm 1. Shadow models with and without a row give two
normal distributions of its scaled logit, log(p / (1 - p)), and with c what the attacked model says,

    online    log N(c; mean_in, var_in) - log N(c; mean_out, var_out)
    offline   1 - Pr[Z > c], Z from N(mean_out, var_out)

The offline score here is (c - mean_out) / sd_out, which orders rows alike and does not round to 1.

Variances are each row's own, or one for all rows, which few shadow models estimate better: the
paper turns to it below 64. It is that of signals about their own row's centre. The official code
takes the variance about a common mean, in which the differences of rows are, and for models without
the row that of models with it; it centres on medians; and its offline score is the density of N,
which is low on both sides. Variances are divided by the values less the centres, so that with one
shadow model more on one side neither looks narrower.

Of several looks, the paper fits one multivariate normal: "joint" looks. The official code adds up
the looks' own ratios, as "independent" looks do. Offline, the score is how far all looks are moved
by their standard deviations, alike: of independent ones the sum of their scores over the root of
their number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.audits.membership.observed import MembershipAttack, Observed
from fljax.audits.membership.shadows import Side, lowest_where_unknown, side
from fljax.audits.membership.signals import SIGNALS, sign_of
from fljax.core.values import Field, checked

_SWITCH = Field(True, bool)
_VARIANCE = Field("auto", str, ("auto", "global", "per_example"))
_CENTER = Field("mean", str, ("mean", "median"))
_LOOKS = Field("independent", str, ("independent", "joint"))
_SIGNAL = Field("confidence", str, tuple(SIGNALS))
# Shadow models on each side from which on "auto" has a variance for each row: 64 in all.
_MANY = 32
# The square of what the official code adds to standard deviations.
_SMALLEST_VARIANCE = 1e-60
# Directions of joint looks with less than this share of the largest variance are rounding.
_SMALLEST_SHARE = 1e-10


def lira(
    online: bool = True,
    variance: str = "auto",
    center: str = "mean",
    looks: str = "independent",
    signal: str = "confidence",
) -> MembershipAttack:
    """Returns LiRA.

    Args:
      online: Whether there are shadow models with each target, and not only without it.
      variance: "per_example"; "global", one for all targets; or "auto", the former where each
        target has 32 shadow models on each side.
      center: "mean", or "median", as the official code has it.
      looks: "independent" or "joint", of several looks.
      signal: What is taken for normal: the scaled logit, or where a model has none, such as in
        regression, the "loss"; of updates, "cosine" or "gradient_difference".

    Returns:
      The attack. A target whose own signal is not finite has the lowest score.

    Raises:
      ValueError: For options that are none. Its score raises it for targets with too few shadow
        models whose signals are finite.

    Example:
      >>> observed = Observed.of(
      ...     [3.0], shadows=[[2.0], [4.0], [0.0], [2.0]],
      ...     members=[[True], [True], [False], [False]],
      ... )
      >>> lira().score(observed).tolist(), lira(online=False).needs
      ([1.0], ('out',))
    """
    online = checked("online", online, _SWITCH)
    variance, center = checked("variance", variance, _VARIANCE), checked("center", center, _CENTER)
    looks, signal = checked("looks", looks, _LOOKS), checked("signal", signal, _SIGNAL)
    needs = ("in", "out") if online else ("out",)

    def score(observed: Observed) -> np.ndarray:
        sides = [side(observed, name, "lira") for name in needs]
        many = min(each.sizes.min(initial=_MANY) for each in sides) >= _MANY
        own = many if variance == "auto" else variance == "per_example"
        fitted = [_fit(each, center, own, looks == "joint") for each in sides]
        known = np.isfinite(observed.target).all(-1)
        target = np.where(known[:, None], observed.target, 0.0)
        if online:
            found = fitted[0].log_density(target) - fitted[1].log_density(target)
        else:
            found = sign_of(signal) * fitted[0].shift(target)
        return lowest_where_unknown(np.where(known, found, np.nan))

    return MembershipAttack(signal, score, needs)


class Normal(NamedTuple):
    """A normal distribution of the looks at each target.

    Attributes:
      centers: float64[T, Q].
      axes: float64[T or 1, Q, Q], the directions, in columns, in which looks are independent; None
        where these are the looks.
      variances: float64[T or 1, Q] along them.
      sds: float64[T or 1, Q], the standard deviations of the looks, seen along them.
    """

    centers: np.ndarray
    axes: np.ndarray | None
    variances: np.ndarray
    sds: np.ndarray

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Returns float64[T], but for a constant that all have."""
        squares = self._along(values - self.centers) ** 2 / self.variances
        return -(squares + np.log(self.variances)).sum(-1) / 2

    def shift(self, values: np.ndarray) -> np.ndarray:
        """Returns float64[T], the standard score of a move of all looks by their deviations."""
        moved = (self.sds * self._along(values - self.centers) / self.variances).sum(-1)
        return moved / np.sqrt((self.sds**2 / self.variances).sum(-1))

    def _along(self, values: np.ndarray) -> np.ndarray:
        return values if self.axes is None else along(self.axes, values)


def along(axes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns vectors [T, Q] as seen along the columns of [T or 1, Q, Q].

    Example:
      >>> along(np.array([[[0.0, 1.0], [1.0, 0.0]]]), np.array([[3.0, 4.0]])).tolist()
      [[4.0, 3.0]]
    """
    return (values[:, None, :] @ axes)[:, 0]


def _fit(models: Side, center: str, own: bool, joint: bool) -> Normal:
    """Returns the normal distribution of each target; with variances of its own or of all."""
    centers = models.means() if center == "mean" else models.medians()
    deviations = models.deviations(centers)
    targets, looks = centers.shape
    freedom = models.sizes - 1 if own else np.array([models.counted.sum() - targets])
    _check_freedom(freedom, looks if joint else 1, own, joint)
    if not joint:
        squares = (deviations**2).sum(0) if own else (deviations**2).sum((0, 1))[None]
        variances = np.maximum(squares / freedom[:, None], _SMALLEST_VARIANCE)
        return Normal(centers, None, variances, np.sqrt(variances))
    if own:
        by_target = deviations.swapaxes(0, 1)
        products = by_target.swapaxes(1, 2) @ by_target
    else:
        flat = deviations.reshape(-1, looks)
        products = (flat.T @ flat)[None]
    covariances = products / freedom[:, None, None]
    variances, axes = np.linalg.eigh(covariances)
    # a direction in which looks repeat each other adds nothing: neither distance nor volume
    kept = variances >= variances[:, -1:] * _SMALLEST_SHARE
    axes = axes * kept[:, None, :]
    variances = np.where(kept, np.maximum(variances, _SMALLEST_VARIANCE), 1.0)
    sds = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return Normal(centers, axes, variances, along(axes, sds))


def _check_freedom(freedom: np.ndarray, least: int, own: bool, joint: bool) -> None:
    """Raises ValueError where a variance has too few values."""
    if freedom.min(initial=least) >= least:
        return
    if own:
        other = "variance='global'" + " or looks='independent'" * joint
        raise ValueError(
            f"lira(variance='per_example') needs {least + 1} shadow models of a kind for each "
            f"target, and {int((freedom < least).sum())} targets have fewer, down to "
            f"{int(freedom.min()) + 1}. Train more models, or take {other}."
        )
    raise ValueError(
        "lira needs two shadow models with, or without, the same target to know how signals vary"
        + f", and {least} such differences for joint looks" * joint
        + f"; there are {int(freedom[0])} differences. Train more models."
    )
