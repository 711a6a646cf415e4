"""Adaptive clipping: the clip norm follows a quantile of the clients' norms, privately.

Andrew et al. 2021, "Differentially private learning with adaptive clipping" (arXiv:1905.03871),
Algorithm 1. Beside its clipped message each client sends a bit, b_i = 1 where the norm of what it
would have sent is at most C. Of a round in which q N clients take part on average,

    b = 1/2 + (sum_i (b_i - 1/2) + N(0, sigma_b^2)) / (q N)
    C <- C exp(-clip_lr (b - quantile))

b_i - 1/2 moves the sum by 1/2 at most, and the messages by C. For both sums together to hide a
client as well as the noise multiplier z does, messages get noise of

    z_delta C        z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)

which is hardly more than z where sigma_b is a twentieth of q N, the default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import UplinkLink
from fljax.core.trees import all_finite
from fljax.core.values import NON_NEGATIVE, POSITIVE, Field, Interval, checked
from fljax.privacy import accounting
from fljax.privacy.clipping import bounded, clipped, within
from fljax.privacy.gaussian import NOISE, first_only, noisy
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.users import users_guarantee

__all__ = ["adaptive_clipping", "noise_of_messages"]

# The name under which a client's bit travels.
BIT = "within_clip_norm"
# Key of the record.
CLIP_NORM = "privacy/clip_norm"
# The clip norm stays within e^30, about 10^13, of where it began.
_FARTHEST = 30.0
# Of sigma_b over q N, in the paper.
_SHARE = 0.05

_START = Field(None, float, POSITIVE)
_QUANTILE = Field(None, float, Interval(0, 1))
_RATE = Field(None, float, NON_NEGATIVE)
_BIT_NOISE = Field(None, float, POSITIVE)


def adaptive_clipping(
    clip_norm: float = 0.1,
    noise_multiplier: float = 1.0,
    *,
    delta: float | None = None,
    quantile: float = 0.5,
    clip_lr: float = 0.2,
    bit_noise: float | None = None,
) -> Mechanism:
    """Returns differential privacy of users whose clip norm follows the norms of messages.

    The record of a round has the clip norm that its clients were told: `privacy/clip_norm`.

    Args:
      clip_norm: Where it begins.
      noise_multiplier: z, of messages and bits together, which epsilon follows from.
      delta: Of (epsilon, delta); None for N^-1.1.
      quantile: The share of clients whose norm shall be at most the clip norm.
      clip_lr: How fast the clip norm moves.
      bit_noise: sigma_b, the standard deviation of the noise of a round's sum of bits; None for a
        twentieth of the clients of a round. More than half of `noise_multiplier`.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> from fljax.privacy.adaptive import adaptive_clipping
      >>> adaptive_clipping(0.1, noise_multiplier=1.0).hparams
      {'clip_norm': 0.1, 'noise_multiplier': 1.0, 'quantile': 0.5, 'clip_lr': 0.2}
    """
    hparams = {
        "clip_norm": checked("clip_norm", clip_norm, _START),
        "noise_multiplier": checked("noise_multiplier", noise_multiplier, NOISE),
        "quantile": checked("quantile", quantile, _QUANTILE),
        "clip_lr": checked("clip_lr", clip_lr, _RATE),
    }
    if bit_noise is not None:
        hparams["bit_noise"] = checked("bit_noise", bit_noise, _BIT_NOISE)
    if delta is not None:
        accounting.check_delta(delta)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        noise, bit_noise = hp["noise_multiplier"], _bit_noise(hp, setting)
        noise_of_messages(noise, bit_noise)
        promised = users_guarantee(noise, setting, delta, clip_norm=None)
        return promised._replace(sent_norm=math.hypot(1, _bit_unit(noise, bit_noise, math) / 2))

    return Mechanism("adaptive_clipping", hparams, guarantee, _link)


def noise_of_messages(noise_multiplier: float, bit_noise: float) -> float:
    """Returns z_delta, the noise multiplier of messages whose bits are published as well.

    Args:
      noise_multiplier: z, of both together.
      bit_noise: sigma_b, of the sum of bits.

    Raises:
      ValueError: If the bits alone cost as much as z allows.

    Example:
      >>> f"{noise_of_messages(1.0, bit_noise=5.0):.6f}"
      '1.005038'
    """
    if noise_multiplier >= 2 * bit_noise:
        raise ValueError(
            f"noise_multiplier = {noise_multiplier:g} must be below 2 bit_noise = "
            f"{2 * bit_noise:g}: the bits that adaptive clipping publishes would alone cost as "
            "much as this noise allows. Raise clients_per_round (bit_noise is a twentieth of it), "
            f"set bit_noise above {noise_multiplier / 2:g}, or use a fixed clip norm: 'gaussian'."
        )
    return _split(noise_multiplier, bit_noise, math)


def _split(noise_multiplier: Any, bit_noise: Any, numpy: Any) -> Any:
    """Returns z_delta, by the functions of `math` or, of traced numbers, of `jax.numpy`."""
    return noise_multiplier / numpy.sqrt(1 - (noise_multiplier / (2 * bit_noise)) ** 2)


def _bit_unit(noise_multiplier: Any, bit_noise: Any, numpy: Any) -> Any:
    """Returns z_delta / sigma_b, or 1 where there is no noise."""
    unit = _split(noise_multiplier, bit_noise, numpy) / bit_noise
    return unit + (noise_multiplier == 0)


def _bit_noise(hp: Mapping[str, Any], setting: Setting) -> Any:
    return hp.get("bit_noise", _SHARE * setting.clients_per_round)


def _link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
    """Returns the link, whose state is how far log C has moved."""
    noise_multiplier, members = hp["noise_multiplier"], setting.clients_per_round
    bit_noise = _bit_noise(hp, setting)
    # Integers have one range. So messages are sent in units of the clip norm, and bits in units in
    # which both have the same noise: together they hide in it whatever shares of a norm they have.
    in_units, bit_unit = setting.behind == "sums", _bit_unit(noise_multiplier, bit_noise, jnp)

    def clip_norm_of(moved):
        return hp["clip_norm"] * jnp.exp(moved)

    def encode(message, state, job, key, moved):
        del key
        clip_norm = clip_norm_of(moved)
        sent = bounded(message, job.weights, clip_norm)
        bit = jnp.where(within(message, clip_norm), 0.5, -0.5)
        sent[BIT] = jnp.where(all_finite(message), bit, 0)  # zeros say nothing of norms
        if in_units:
            sent = _scaled(sent, 1 / clip_norm, bit_unit)
        one = jnp.ones_like(clip_norm)
        return first_only(sent, job), state, {CLIP_NORM: (clip_norm, one)}

    def decode(payload, moved):
        clip_norm = clip_norm_of(moved)
        if setting.behind == "links":
            bit = jnp.clip(jnp.nan_to_num(payload[BIT]), -0.5, 0.5)
            rest = {name: value for name, value in payload.items() if name != BIT}
            return {**clipped(rest, clip_norm), BIT: bit}
        return _scaled(payload, clip_norm, 1 / bit_unit) if in_units else payload

    def release(sums, moved, round, key):
        del round
        key, bit_key = jax.random.split(key)
        told = {name: total for name, total in sums.items() if name != BIT}
        std = _split(noise_multiplier, bit_noise, jnp) * clip_norm_of(moved)
        told = noisy(told, std, members, key)
        std = jnp.where(noise_multiplier == 0, 0, bit_noise)
        bits = sums[BIT].sum + std * jax.random.normal(bit_key, (), sums[BIT].sum.dtype)
        share = 0.5 + bits / members
        moved = moved - hp["clip_lr"] * (share - hp["quantile"])
        return told, jnp.clip(moved, -_FARTHEST, _FARTHEST)

    return UplinkLink(
        encode,
        decode,
        init_server=lambda params: jnp.zeros(()),
        covers=None,
        refuses_rest=True,
        sees_server=True,
        makes_finite=True,
        release=release,
        reports=True,
        adds=(BIT,),
    )


def _scaled(message: Mapping[str, Any], factor: jax.Array, bit_factor: Any) -> dict[str, Any]:
    """Returns the message times a factor, and its bit times another."""
    return {
        name: jax.tree.map(
            lambda leaf, by=bit_factor if name == BIT else factor: (leaf * by).astype(leaf.dtype),
            value,
        )
        for name, value in message.items()
    }
