"""Central Gaussian noise: differential privacy of users, with a server that is trusted.

DP-FedAvg (McMahan et al. 2018, "Learning differentially private recurrent language models",
arXiv:1710.06963), with estimator f_f. Of N clients each takes part in a round with probability q;
with clipped messages x_k and weights w_k of at most W,

    (sum_k w_k x_k + N(0, (z W C)^2 I)) / (q N W)

is what the server uses in place of a mean. Neither noise nor denominator depends on who came: a
round without clients makes a step of noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Aggregate
from fljax.core.transforms import UplinkLink
from fljax.core.values import NON_NEGATIVE, POSITIVE, Field, checked
from fljax.privacy import accounting
from fljax.privacy.clipping import bounded, check_clipping, clipped
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.users import users_guarantee

__all__ = [
    "NOISE",
    "checked_clip_norm",
    "first_only",
    "fixed",
    "gaussian",
    "noise_hparams",
    "noise_std",
    "noisy",
    "normal_like",
    "with_noise",
]

PyTree = Any


def gaussian(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    delta: float | None = None,
    clipping: str = "flat",
    weight_cap: float | None = None,
) -> Mechanism:
    """Returns differential privacy of users: clipped messages, Gaussian noise on their sum.

    A client's second job of a round counts as zero, so that it moves a sum no further than one.

    Args:
      clip_norm: Bound C of the norm of all that a client sends; infinity clips nothing.
      noise_multiplier: z; the noise of a sum has standard deviation z C, times `weight_cap`.
      delta: Of (epsilon, delta); None for N^-1.1.
      clipping: "flat", or "per_layer" for arrays that are clipped one by one.
      weight_cap: What a client's weight in means counts at most; None where all weigh alike.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> from fljax.privacy.gaussian import gaussian
      >>> gaussian(0.3, noise_multiplier=2.0).hparams
      {'clip_norm': 0.3, 'noise_multiplier': 2.0}
    """
    check_clipping(clipping)
    hparams = noise_hparams(clip_norm, noise_multiplier, delta)
    if weight_cap is not None:
        hparams["weight_cap"] = checked("weight_cap", weight_cap, _CAP)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        return users_guarantee(
            hp["noise_multiplier"],
            setting,
            delta,
            clip_norm=hp["clip_norm"],
            weight_cap=hp.get("weight_cap"),
        )

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        return _link(hp, setting, clipping)

    return Mechanism("gaussian", hparams, guarantee, link)


NOISE = Field(None, float, NON_NEGATIVE)
_CLIP = Field(None, float, POSITIVE)
_CAP = Field(None, float, POSITIVE)


def checked_clip_norm(clip_norm: Any) -> float:
    """Returns a clip norm; raises ValueError unless it is a positive number or infinity.

    Example:
      >>> checked_clip_norm(math.inf)
      inf
    """
    if isinstance(clip_norm, float) and clip_norm == math.inf:
        return clip_norm
    return checked("clip_norm", clip_norm, _CLIP)


def noise_hparams(
    clip_norm: float, noise_multiplier: float, delta: float | None, clips: str = "message"
) -> dict[str, float]:
    """Returns the numbers of a mechanism that clips and adds noise, as they are traced.

    Args:
      clip_norm, noise_multiplier, delta: As `gaussian` takes them.
      clips: What the mechanism clips, in a word.

    Raises:
      ValueError: If one of them is out of range, or noise is to hide what nothing bounds.

    Example:
      >>> noise_hparams(0.3, 2, delta=None)
      {'clip_norm': 0.3, 'noise_multiplier': 2.0}
    """
    hparams = {
        "clip_norm": checked_clip_norm(clip_norm),
        "noise_multiplier": checked("noise_multiplier", noise_multiplier, NOISE),
    }
    if math.isinf(hparams["clip_norm"]) and noise_multiplier:
        raise ValueError(
            f"clip_norm = inf bounds no {clips}, so no noise hides one: noise_multiplier = "
            f"{noise_multiplier:g} must be 0 with it. Give a clip norm, such as 0.3."
        )
    if delta is not None:
        accounting.check_delta(delta)
    return hparams


def _link(hp: Mapping[str, Any], setting: Setting, clipping: str) -> UplinkLink:
    clip_norm = hp["clip_norm"]
    weight_cap = hp.get("weight_cap", 1.0)

    def encode(message, state, job, key):
        del key
        sent = bounded(message, job.weights, clip_norm, weight_cap, clipping)
        return first_only(sent, job), state

    def decode(payload, server_state):
        del server_state
        if setting.behind == "links":
            return clipped(payload, clip_norm, clipping)
        return payload

    def release(sums, state, round, key):
        del round
        std = noise_std(hp) * weight_cap
        return noisy(sums, std, setting.clients_per_round, key, weight_cap), state

    return UplinkLink(
        encode, decode, covers=None, refuses_rest=True, makes_finite=True, release=release
    )


def first_only(message: Mapping[str, PyTree], job: Any) -> dict[str, PyTree]:
    """Returns the message of a client's first job in a round, and zeros for later ones."""
    first = job.occurrence == 0
    return jax.tree.map(lambda leaf: jnp.where(first, leaf, 0), dict(message))


def noisy(
    sums: Mapping[str, Aggregate],
    std: jax.Array | float,
    denominator: jax.Array | float,
    key: jax.Array,
    weight_cap: jax.Array | float = 1.0,
) -> dict[str, Aggregate]:
    """Adds Gaussian noise to sums, and puts fixed numbers in place of weights and counts.

    Args:
      sums: {name: Aggregate}.
      std: Standard deviation of the noise of each number.
      denominator: Takes the place of the counts; times `weight_cap` of the weights.
      key: Of the seed, the round and this purpose; each array has noise of its own.
      weight_cap: What a client's weight counts at most.

    Example:
      >>> sums = {"update": Aggregate(jnp.array([30.0]), jnp.float32(3), jnp.float32(3))}
      >>> told = noisy(sums, std=0.0, denominator=10.0, key=jax.random.key(0))["update"]
      >>> told.mean().tolist(), float(told.count)
      ([3.0], 10.0)
    """
    fresh = normal_like(key, {name: total.sum for name, total in sums.items()})
    noise = jax.tree.map(lambda leaf: std * leaf, fresh)
    return {
        name: fixed(with_noise(total, noise[name]), denominator, weight_cap)
        for name, total in sums.items()
    }


def noise_std(hparams: Mapping[str, Any]) -> jax.Array:
    """Returns the noise multiplier times the clip norm, where 0 times infinity is 0.

    Example:
      >>> float(noise_std({"clip_norm": math.inf, "noise_multiplier": 0.0}))
      0.0
    """
    clip_norm, noise_multiplier = hparams["clip_norm"], hparams["noise_multiplier"]
    return jnp.where(noise_multiplier == 0, 0, noise_multiplier * clip_norm)


def normal_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Returns standard normal numbers in the shapes and types of arrays; each has its own key.

    Example:
      >>> normal_like(jax.random.key(0), {"w": jnp.zeros((2, 3))})["w"].shape
      (2, 3)
    """
    leaves, structure = jax.tree.flatten(tree)
    drawn = [
        jax.random.normal(jax.random.fold_in(key, number), leaf.shape, leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


def with_noise(total: Aggregate, noise: PyTree) -> Aggregate:
    """Returns an aggregate whose sum has some noise in it.

    Example:
      >>> total = Aggregate(jnp.array([30.0]), jnp.float32(3), jnp.float32(3))
      >>> with_noise(total, jnp.array([-0.5])).sum.tolist()
      [29.5]
    """
    noisy_sum = jax.tree.map(lambda leaf, drawn: leaf + drawn.astype(leaf.dtype), total.sum, noise)
    return total._replace(sum=noisy_sum)


def fixed(
    total: Aggregate, denominator: jax.Array | float, weight_cap: jax.Array | float = 1.0
) -> Aggregate:
    """Returns an aggregate with fixed numbers in place of its weight and count.

    Args:
      total: The aggregate.
      denominator: Takes the place of the count; times `weight_cap` of the weight.
      weight_cap: What a client's weight counts at most.

    Example:
      >>> total = Aggregate(jnp.array([30.0]), jnp.float32(3), jnp.float32(3))
      >>> fixed(total, 10.0).mean().tolist()
      [3.0]
    """
    weight = jax.tree.map(lambda w: jnp.full_like(w, denominator * weight_cap), total.weight)
    return total._replace(weight=weight, count=jnp.full_like(total.count, denominator))
