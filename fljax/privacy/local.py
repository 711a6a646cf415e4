"""Local privacy: clients randomize what they send, and nobody need be trusted.

Local differential privacy (Kasiviswanathan et al. 2008, arXiv:0803.0924): whatever a client's data
are, what it sends is nearly as likely. Who takes part, and when, is no secret, so chance in the
choice of clients hides nothing, and what a client spends grows with the rounds it takes part in.
The plainest of them is Gaussian noise on each clipped message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import UplinkLink, dense_bits
from fljax.core.trees import all_finite
from fljax.core.values import COUNT, Field, checked
from fljax.privacy import accounting
from fljax.privacy.clipping import clipped
from fljax.privacy.gaussian import noise_hparams, noise_std, normal_like
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.users import delta_of

__all__ = [
    "checked_participations",
    "local_gaussian",
    "local_guarantee",
    "local_link",
    "most_participations",
]

PyTree = Any

COVERS = (
    "what one user's data change in all that it sends, whatever the server does with it; not "
    "whether, and when, it takes part"
)
_PARTICIPATIONS = Field(None, int, COUNT, optional=True)


def local_gaussian(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    delta: float | None = None,
    max_participations: int | None = None,
) -> Mechanism:
    """Returns local differential privacy of users by Gaussian noise on each clipped message.

    The data of a client may move its message by 2 C, so that the noise z C is z / 2 of what it
    hides.

    Args:
      clip_norm: Bound C of the norm of all that a client sends.
      noise_multiplier: z; the noise of a message has standard deviation z C.
      delta: Of (epsilon, delta); None for N^-1.1.
      max_participations: Rounds in which a client's data count; behind them it sends noise alone.
        None counts how often the sampler takes the client that it takes most often.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> zeros = np.zeros(1000, int)
      >>> setting = privacy.Setting(1000, 100, "poisson", 100, 0, *[zeros] * 3)
      >>> mechanism = privacy.local_gaussian(0.3, 10.0, max_participations=20)
      >>> promised = mechanism.guarantee(mechanism.hparams, setting)
      >>> {name: round(value, 2) for name, value in promised.epsilon(100).items()}
      {'rdp': 3.27, 'pld': 2.93}
    """
    hparams = noise_hparams(clip_norm, noise_multiplier, delta)
    most = checked_participations(max_participations)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        return local_guarantee(
            [(accounting.gaussian(hp["noise_multiplier"] / 2), 1)],
            setting,
            delta,
            most,
            noise_multiplier=hp["noise_multiplier"],
            clip_norm=hp["clip_norm"],
        )

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        del setting

        def randomized(message: PyTree, key: jax.Array) -> PyTree:
            message = clipped(message, hp["clip_norm"])
            noise = normal_like(key, message)
            return jax.tree.map(
                lambda x, n: x + (noise_std(hp) * n).astype(x.dtype), message, noise
            )

        return local_link(randomized, most)

    return Mechanism("local_gaussian", hparams, guarantee, link)


def checked_participations(most: Any) -> int | None:
    """Returns a bound of the rounds in which a client's data count; None where there is none.

    Example:
      >>> checked_participations(20)
      20
    """
    return None if most is None else checked("max_participations", most, _PARTICIPATIONS)


def most_participations(setting: Setting, rounds: int, bound: int | None = None) -> int:
    """Returns how many of the first rounds a client takes part in at most.

    Args:
      setting: The run.
      rounds: Of them.
      bound: Of those in which its data count.

    Example:
      >>> ones = np.ones(100, int)
      >>> setting = privacy.Setting(100, 10, "separated", 20, 0, ones, ones, ones, separation=5)
      >>> most_participations(setting, 12), most_participations(setting, 12, bound=2)
      (3, 2)
    """
    if setting.participations is not None:
        most = setting.participations(rounds)
    else:
        most = math.ceil(rounds / max(1, setting.separation))
    return most if bound is None else min(most, bound)


def local_guarantee(
    message: accounting.events.Run,
    setting: Setting,
    delta: float | None,
    bound: int | None,
    *,
    noise_multiplier: float | None = None,
    clip_norm: float | None = None,
    spends: str = "",
) -> Guarantee:
    """Returns what randomized messages promise to the users that send them.

    Args:
      message: Events of one message, between any two values of a client's data.
      setting: The run.
      delta: Of (epsilon, delta); None for N^-1.1.
      bound: Of the rounds in which a client's data count; None for all it takes part in.
      noise_multiplier, clip_norm: As a Guarantee has them.
      spends: What one message spends, in words, where the noise multiplier does not tell.

    Raises:
      ValueError: If clients have weights, which would leave them as they are, or for a delta that
        says nothing.
    """
    if setting.weighting != "uniform":
        weights = "client_weights" if setting.weighting == "own" else "weighting='examples'"
        raise ValueError(
            f"{weights}: a client would tell the server its weight beside its message, and nothing "
            "randomizes that. Use weighting='uniform'."
        )
    spent = accounting.spending(message, delta_of(delta, setting))

    def times(rounds: int) -> int:
        return most_participations(setting, rounds, bound)

    return Guarantee(
        unit="user",
        relation="replace_one",
        sampling=(
            f"who takes part is public; the data of a client count in {times(setting.num_rounds)} "
            f"of {setting.num_rounds} rounds at most{spends and '; '}{spends}"
        ),
        noise_multiplier=noise_multiplier,
        clip_norm=clip_norm,
        delta=delta_of(delta, setting),
        covers=COVERS,
        epsilon=lambda rounds: spent(times(rounds)),
        quick=lambda rounds: spent(times(rounds), ("rdp",))["rdp"],
    )


def local_link(
    randomized: Callable[[PyTree, jax.Array], PyTree],
    bound: int | None = None,
    bits: Callable[[PyTree], jax.Array] = dense_bits,
) -> UplinkLink:
    """Returns the link of clients that randomize all they send.

    What is not finite counts as zero, and so does what a client sends by its second job of a round
    and by those beyond the bound, which it counts itself. A zero is randomized like any message.

    Args:
      randomized: (message, key) -> the message as it is sent, of the same shapes.
      bound: Of the rounds in which a client's data count; None for no bound.
      bits: As of an `UplinkLink`.
    """

    def encode(message, count, job, key):
        counts = job.occurrence == 0
        if bound is not None:
            counts &= count < bound
            count += counts
        kept = counts & all_finite(message)
        message = jax.tree.map(lambda leaf: jnp.where(kept, leaf, 0), dict(message))
        return randomized(message, key), count

    return UplinkLink(
        encode,
        decode=lambda payload, state: payload,
        bits=bits,
        init_client=lambda params: () if bound is None else jnp.zeros((), jnp.int32),
        covers=None,
        refuses_rest=True,
        makes_finite=True,
    )
