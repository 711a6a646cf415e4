"""Banded matrix factorization: noise that takes back what it added in the last rounds.

BandMF (Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization: a unified approach to
private training", arXiv:2306.08153), with a strategy C that is the same in every round:

    z-hat_t = (z_t - c_1 z-hat_{t-1} - ... - c_{b-1} z-hat_{t-b+1}) / c_0

where z_t is independent noise and c has norm 1. No two rounds that are b or more apart share a
column of C, so a client that pauses for as long costs no more than under independent noise of the
same rounds; and where it is drawn at random whenever its turn comes, its privacy is amplified as in
DP-SGD. The coefficients minimize the mean squared error of all prefix sums. They are found once, on
the host, in float64: with A for prefix sums, |A C^-1|_F^2 = sum_t (n - t) w_t^2, where w is the
solution of C w = 1, and its gradient is a correlation of w with the solution of C^T v = (n - t) w.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from fljax.core.transforms import UplinkLink
from fljax.core.values import COUNT, Field, checked
from fljax.privacy import accounting
from fljax.privacy.accounting.composition import ACCOUNTANTS
from fljax.privacy.gaussian import noise_hparams, normal_like
from fljax.privacy.matrix_noise import (
    CorrelatedNoise,
    correlated_guarantee,
    correlated_link,
    gaussian_epsilons,
)
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.users import check_weights, delta_of

__all__ = ["banded_matrix", "banded_noise", "coefficients", "prefix_sum_error"]

PyTree = Any
_COUNT = Field(None, int, COUNT)
# Samplers that draw each client by its own coin whenever it is its turn.
_BY_COIN = ("poisson", "separated")


def banded_matrix(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    bands: int | None = None,
    horizon: int | None = None,
    delta: float | None = None,
) -> Mechanism:
    """Returns differential privacy of users by banded matrix factorization.

    Clients must pause for at least `bands` rounds between two participations, which
    sampler='separated' sees to. A client then costs as much as in as many rounds as it has turns:
    under independent noise it would be as exposed, and models would be noisier. Where it is drawn
    at random at its turns, these count as Poisson samples.

    Args:
      clip_norm: Bound of the norm of a client's update.
      noise_multiplier: Standard deviation of the noise Z over the clip norm.
      bands: Rounds over which noise is correlated; the server keeps bands - 1 models. 1 is
        independent noise; None is the sampler's separation, the most there may be.
      horizon: Rounds for which errors are smallest; None is those of the run, which it must keep
        when it is resumed.
      delta: Of (epsilon, delta); None for N^-1.1.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> mechanism = privacy.banded_matrix(0.3, 4.0, bands=8)
      >>> zeros = np.zeros(1000, int)
      >>> setting = privacy.Setting(1000, 50, "separated", 100, 0, *[zeros] * 3, separation=20)
      >>> guarantee = mechanism.guarantee(mechanism.hparams, setting)
      >>> {name: round(value, 2) for name, value in guarantee.epsilon(100).items()}
      {'rdp': 1.88, 'pld': 1.67}
    """
    hparams = noise_hparams(clip_norm, noise_multiplier, delta)
    if bands is not None:
        bands = checked("bands", bands, _COUNT)
    if horizon is not None:
        horizon = checked("horizon", horizon, _COUNT)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        _check_separation(bands, setting)
        check_weights(setting, None)
        noise, chosen = float(hp["noise_multiplier"]), delta_of(delta, setting)
        rate, separation = _rate(setting), setting.separation
        sample = accounting.spending(accounting.poisson_gaussian(noise, rate), chosen)

        def spent(rounds: int, accountants=ACCOUNTANTS) -> dict[str, float]:
            turns = -(-rounds // separation)
            if rate < 1:
                return sample(turns, accountants)
            return gaussian_epsilons(noise, turns, chosen, accountants)

        how = f"with probability {rate:.6g}" if rate < 1 else "or not, which is not counted upon"
        turns = f"each client may take part once in {separation} rounds"
        return correlated_guarantee(spent, hp, chosen, f"{turns}, {how}")

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        column = coefficients(horizon or setting.num_rounds, bands or setting.separation)
        return correlated_link(banded_noise(column), hp, setting)

    return Mechanism("banded_matrix", hparams, guarantee, link, fixed_rounds=horizon is None)


def _check_separation(bands: int | None, setting: Setting) -> None:
    """Refuses samplers under which a client may come back while noise is still correlated."""
    needed, kept = bands or 1, setting.separation
    if kept >= needed:
        return
    cohort, population = setting.clients_per_round, setting.num_clients
    fewer = cohort * needed > population
    raise ValueError(
        f"bands = {needed} needs {needed} rounds between two participations of a client, and "
        f"sampler={setting.sampler or 'a function of your own'!r} keeps {kept}. Use "
        f"sampler='separated' with separation={needed}"
        + f" and clients_per_round={population // needed} or fewer" * fewer
        + ", or fewer bands."
    )


def _rate(setting: Setting) -> float:
    """Returns the probability that a client takes part whenever it is its turn."""
    if setting.sampler not in _BY_COIN:
        return 1.0
    return min(1.0, setting.clients_per_round * setting.separation / setting.num_clients)


def banded_noise(coefs: np.ndarray) -> CorrelatedNoise:
    """Returns the noise C^-1 Z of a banded strategy; its state holds bands - 1 models.

    The coefficients are part of the state, so that a run that is resumed keeps its strategy.

    Args:
      coefs: float64[bands], the first column of C down to its last band.

    Example:
      >>> noise = banded_noise(np.array([0.8, 0.6]))
      >>> params, key = jnp.zeros(2), jax.random.key(0)
      >>> first, state = noise.draw(noise.init(params), jnp.int32(0), key, params)
      >>> second, _ = noise.draw(state, jnp.int32(1), key, params)  # of the same z
      >>> bool(jnp.allclose(second, first - 0.75 * first))
      True
    """
    past = len(coefs) - 1

    def init(params: PyTree) -> PyTree:
        shapes = jax.tree.map(lambda leaf: jnp.zeros((past, *leaf.shape), leaf.dtype), params)
        return {"coefficients": jnp.asarray(coefs, float), "past": shapes if past else ()}

    def draw(state, round, key, params):
        column, fresh = state["coefficients"], normal_like(key, params)
        if not past:
            return jax.tree.map(lambda leaf: leaf / column[0].astype(leaf.dtype), fresh), state
        # a ring: what round t has drawn lies at place t % past
        ago = 1 + (round - 1 - jnp.arange(past)) % past

        def drawn(new, old):
            weights = column[ago].astype(new.dtype)
            back = jnp.tensordot(weights, old, axes=1, precision="highest")
            return (new - back) / column[0].astype(new.dtype)

        noise = jax.tree.map(drawn, fresh, state["past"])
        kept = jax.tree.map(lambda old, new: old.at[round % past].set(new), state["past"], noise)
        return noise, {**state, "past": kept}

    return CorrelatedNoise(init, draw)


@functools.lru_cache(maxsize=64)
def coefficients(rounds: int, bands: int) -> np.ndarray:
    """Returns the banded strategy of the least error: the first column of C, of norm 1.

    Args:
      rounds: n, whose prefix sums count alike.
      bands: b, from 1, which is independent noise, to n.

    Returns:
      float64[min(bands, rounds)].

    Example:
      >>> c = coefficients(rounds=100, bands=3)
      >>> c.round(3).tolist(), round(float(c @ c), 6)
      ([0.719, 0.532, 0.447], 1.0)
    """
    bands = min(checked("bands", bands, _COUNT), checked("rounds", rounds, _COUNT))
    place = np.arange(1, bands)
    # the strategy without bands for the largest error (Fichtenberger et al., arXiv:2202.11205)
    start = np.cumprod([1.0, *((2 * place - 1) / (2 * place))])
    found = scipy.optimize.minimize(
        _log_error, start, args=(rounds,), jac=True, method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9},
    )  # fmt: skip
    best = found.x / np.linalg.norm(found.x)
    best.setflags(write=False)
    return best


def _log_error(column: np.ndarray, rounds: int) -> tuple[float, np.ndarray]:
    """Returns log(|A C^-1|_F^2 |c|^2), which no scale of c changes, and its gradient."""
    bands = np.tile(column[:, None], rounds)
    left = np.arange(rounds, 0, -1.0)
    solution, _ = scipy.linalg.lapack.dtbtrs(bands, np.ones(rounds), uplo="L")
    error, norm = left @ solution**2, column @ column
    dual, _ = scipy.linalg.lapack.dtbtrs(bands, left * solution, uplo="L", trans="T")
    slope = [dual[band:] @ solution[: rounds - band] for band in range(len(column))]
    return math.log(error * norm), -2 * np.array(slope) / error + 2 * column / norm


def prefix_sum_error(coefs: np.ndarray, rounds: int, participations: int = 1) -> float:
    """Returns the root mean squared error of prefix sums, where the sensitivity is paid for.

    Args:
      coefs: float64[bands], the first column of C.
      rounds: n.
      participations: k of one client, at least `bands` rounds apart.

    Returns:
      |A C^-1|_F / sqrt(n) times the sensitivity |c| sqrt(k): the error that comes with noise as
      large as this sensitivity.

    Example:
      >>> round(prefix_sum_error(np.ones(1), 1024, 32), 2)  # independent noise
      128.06
      >>> round(prefix_sum_error(coefficients(1024, 32), 1024, 32), 2)
      28.03
    """
    log_error, _ = _log_error(np.asarray(coefs, float), rounds)
    return math.sqrt(math.exp(log_error) * participations / rounds)
