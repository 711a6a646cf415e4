"""Correlated noise: what is added to the sum of one round is partly taken back in later ones.

A model is what the sums of all rounds so far have made of it, so the noise of prefix sums counts,
not that of single rounds. With rounds as rows, noise Z of independent normal numbers, and a
strategy C, the server adds z C_clip (C^-1 Z)_t to the sum of round t (Denisov et al. 2022,
"Improved differential privacy for SGD via optimal private linear operators on adaptive streams",
arXiv:2202.08312). Privacy costs as much as C x + Z does, where x is what one client adds to the
sums of the rounds in which it takes part: which these are must be known in advance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax

from fljax.core.precision import summable
from fljax.core.transforms import UPDATE, UplinkLink
from fljax.privacy import accounting
from fljax.privacy.accounting.composition import ACCOUNTANTS
from fljax.privacy.clipping import clipped
from fljax.privacy.gaussian import first_only, fixed, noise_std, with_noise
from fljax.privacy.mechanism import Guarantee, Setting

__all__ = ["CorrelatedNoise", "correlated_guarantee", "correlated_link", "gaussian_epsilons"]

PyTree = Any


class CorrelatedNoise(NamedTuple):
    """Noise whose draws of different rounds depend on each other.

    Attributes:
      init: (params) -> state, arrays on the server.
      draw: (state, round, key, params) -> (noise of this round, state'), where the noise has the
        shapes and types of the params, and is in units of the standard deviation of Z.

    Example:
      Independent noise:

      >>> from fljax.privacy.gaussian import normal_like
      >>> own = CorrelatedNoise(
      ...     init=lambda params: (),
      ...     draw=lambda state, round, key, params: (normal_like(key, params), state),
      ... )
      >>> own.draw((), 0, jax.random.key(0), jnp.zeros(3))[0].shape
      (3,)
    """

    init: Callable[[PyTree], PyTree]
    draw: Callable[[PyTree, jax.Array, jax.Array, PyTree], tuple[PyTree, PyTree]]


def correlated_link(
    noise: CorrelatedNoise, hparams: Mapping[str, Any], setting: Setting
) -> UplinkLink:
    """Returns the link that clips updates, and adds correlated noise to their sums.

    Args:
      noise: What is added.
      hparams: "clip_norm", the bound of an update's norm, and "noise_multiplier", the standard
        deviation of Z over this bound.
      setting: The run; its mean cohort is the denominator of each round.

    Example:
      >>> from fljax.privacy.gaussian import normal_like
      >>> own = CorrelatedNoise(lambda params: (), lambda *given: (normal_like(*given[2:]), ()))
      >>> ones = jnp.ones(100, int)
      >>> setting = Setting(100, 10, "separated", 20, 0, ones, ones, ones)
      >>> link = correlated_link(own, {"clip_norm": 0.5, "noise_multiplier": 0.0}, setting)
      >>> from fljax.core.algorithm import Aggregate, blank_job
      >>> job = blank_job(jax.random.key(0))
      >>> sent, _ = link.encode(jnp.array([3.0, 4.0]), (), job, None)
      >>> total = Aggregate(sent, jnp.float32(1), jnp.float32(1))
      >>> told, _ = link.release(total, (), jnp.int32(0), jax.random.key(0))
      >>> [f"{value:.3f}" for value in (*sent, *told.mean())]
      ['0.300', '0.400', '0.030', '0.040']
    """
    clip_norm = hparams["clip_norm"]

    def encode(update, state, job, key):
        del key
        return first_only({UPDATE: clipped(update, clip_norm)}, job)[UPDATE], state

    def decode(payload, state):
        del state
        return clipped(payload, clip_norm) if setting.behind == "links" else payload

    def release(total, state, round, key):
        drawn, state = noise.draw(state, round, key, total.sum)
        scaled = jax.tree.map(lambda leaf: noise_std(hparams) * leaf, drawn)
        return fixed(with_noise(total, scaled), setting.clients_per_round), state

    return UplinkLink(
        encode,
        decode,
        init_server=lambda params: noise.init(summable(params)),
        refuses_rest=True,
        makes_finite=True,
        release=release,
    )


def gaussian_epsilons(
    noise_multiplier: float,
    squared_sensitivity: float,
    delta: float,
    accountants: Collection[str] = ACCOUNTANTS,
) -> dict[str, float]:
    """Returns {accountant: epsilon} of one Gaussian release; that by privacy losses is exact.

    Args:
      noise_multiplier: Standard deviation of the noise over the clip norm.
      squared_sensitivity: How far one client moves the release, in squares of the clip norm.
      delta: Of (epsilon, delta).
      accountants: Which of "rdp" and "pld".

    Example:
      >>> found = gaussian_epsilons(2.0, 3, 1e-3)
      >>> {name: round(value, 3) for name, value in found.items()}
      {'rdp': 2.971, 'pld': 2.629}
    """
    if not squared_sensitivity:
        return dict.fromkeys(accountants, 0.0)
    noise = noise_multiplier / math.sqrt(squared_sensitivity)
    ways = {
        "rdp": lambda: accounting.epsilon(accounting.gaussian(noise), delta, "rdp"),
        "pld": lambda: accounting.epsilon_of_gaussian(noise, delta),
    }
    return {name: ways[name]() for name in accountants}


def correlated_guarantee(
    spent: Callable[..., dict[str, float]],
    hparams: Mapping[str, float],
    delta: float,
    sampling: str,
) -> Guarantee:
    """Returns what correlated noise promises to users.

    Args:
      spent: (rounds, accountants=("rdp", "pld")) -> {accountant: epsilon} of the first rounds.
      hparams: As `correlated_link` takes them.
      delta: Of (epsilon, delta).
      sampling: How cohorts are drawn, in words.

    Example:
      >>> spent = accounting.spending(accounting.gaussian(2.0), delta=1e-3)
      >>> hparams = {"clip_norm": 0.5, "noise_multiplier": 2.0}
      >>> guarantee = correlated_guarantee(spent, hparams, 1e-3, "everybody takes part")
      >>> guarantee.relation, round(guarantee.quick(2), 3)
      ('replace_special', 2.33)
    """
    return Guarantee(
        unit="user",
        relation="replace_special",
        sampling=sampling,
        noise_multiplier=float(hparams["noise_multiplier"]),
        clip_norm=float(hparams["clip_norm"]),
        delta=delta,
        covers=_COVERS,
        epsilon=spent,
        quick=lambda rounds: spent(rounds, ("rdp",))["rdp"],
    )


_COVERS = (
    "all that one user's data change in what the server learns of a run, which is the models of "
    "all rounds; not the statistics of the record, which the simulator alone sees"
)
