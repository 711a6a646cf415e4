"""Distributed noise: each client adds a share, and the server sees the sum alone.

The distributed discrete Gaussian (Kairouz, Liu and Steinke 2021, arXiv:2102.06387) and the Skellam
mechanism (Agarwal, Kairouz and Liu 2021, arXiv:2110.04995). A client clips its message, turns it
into integers whose norm is at most D, and adds integer noise of standard deviation s to each;
masks hide it from the server, who unmasks the sum. Of k clients that must arrive,

    D = sqrt(k) s / z

so that the noise of the sum is z times what one client can move it by, whoever is in the cohort: s
is fixed, and the scale of the integers follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.transforms import Participants, UplinkLink
from fljax.core.values import COUNT, DECAY, POSITIVE, Field, Interval, checked
from fljax.privacy import accounting
from fljax.privacy.clipping import clipped
from fljax.privacy.gaussian import first_only, fixed
from fljax.privacy.integer_messages import flat, integers, rotated_back, scale_of, split
from fljax.privacy.integer_noise import NoiseTable, discrete_gaussian_table, draw, skellam_table
from fljax.privacy.local import most_participations
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting
from fljax.privacy.secagg.link import masks
from fljax.privacy.users import check_weights, delta_of

__all__ = ["discrete_gaussian", "skellam", "sum_bound"]

COVERS = (
    "what one user's data change in the sums that a server sees, and so in the models of all "
    "rounds, without a server that is trusted with messages; not whether, and when, it takes part"
)
_NUMBER = Field(None, float, POSITIVE)
_STD = Field(None, int, COUNT, optional=True)
_RING = Field(32, int, Interval(2, 32))
_SHARE = Field(0.0, float, DECAY)
# Standard deviations of a share over the root of the numbers that a client of a cohort answers for.
_FINENESS = 8
# Probability that the sum of a round leaves the ring.
_LEAVES = 1e-15


class Distributed(NamedTuple):
    """Settings of a mechanism of distributed noise.

    Attributes:
      name: Of the mechanism.
      table: Standard deviation of a share -> the table of its noise.
      event: (noise multiplier, standard deviation of a share, numbers of a message, fewest and most
        clients) -> what a round releases.
      share_std: Standard deviation of a share; None for one that is fine enough.
      ring_bits: Of the ring in which integers are summed.
      lost: Share of a cohort that may be lost.
    """

    name: str
    table: Callable[[int], NoiseTable]
    event: Callable[[float, int, int, int, int], accounting.Event]
    share_std: int | None
    ring_bits: int
    lost: float

    def std(self, setting: Setting) -> int:
        """Returns the standard deviation of a share, a whole number."""
        if self.share_std is not None:
            return self.share_std
        fine = math.sqrt(setting.message_size / setting.clients_per_round)
        return math.ceil(_FINENESS * max(1.0, fine))

    def needed(self, clients: Any) -> Any:
        """Returns how many of a cohort must arrive."""
        least = jnp.ceil(clients * (1 - self.lost) - 1e-4)
        return jnp.maximum(least, 1)


def discrete_gaussian(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    delta: float | None = None,
    ring_bits: int = 32,
    share_std: int | None = None,
    lost: float = 0.0,
    graph: str | int = "complete",
    threshold: float = 2 / 3,
) -> Mechanism:
    """Returns distributed differential privacy of users by discrete Gaussian noise.

    Secure aggregation is part of it. Clients round conditionally, and sums are those of integers.
    Who takes part is known to a server that unmasks sums, so no chance in the choice of clients is
    counted: a client spends with each round that it takes part in.

    Args:
      clip_norm: Bound C of the norm of all that a client sends.
      noise_multiplier: z, above 0; the noise of a sum has standard deviation z C, rounding included
        in C.
      delta: Of (epsilon, delta); None for N^-1.1.
      ring_bits: Of a number on the wire; sums leave the ring less than once in 10^15 rounds.
      share_std: Standard deviation of a client's noise in units of its integers; None for 8, or 8
        times the root of the numbers in a message over the clients of a round.
      lost: Share of a cohort that may be lost: those that arrive bring noise enough for it, and a
        sum of fewer is refused.
      graph, threshold: As for `masks`.

    Wire format: ring_bits for each number.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> zeros = np.zeros(1000, int)
      >>> facts = (1000, 100, "uniform", 10, 0, *[zeros] * 3)
      >>> setting = privacy.Setting(*facts, message_size=7850, participations=lambda rounds: 3)
      >>> mechanism = privacy.discrete_gaussian(0.3, 2.0, delta=1e-5)
      >>> promised = mechanism.guarantee(mechanism.hparams, setting)
      >>> {name: round(value, 2) for name, value in promised.epsilon(10).items()}
      {'rdp': 4.01}
    """

    def event(noise: float, std: int, size: int, fewest: int, most: int) -> accounting.Event:
        # what a sum of shares lacks, and the norms that matter to it, grow with their number
        norm = math.sqrt(most) * std / noise
        return accounting.discrete_gaussian(std, norm, _l1(norm, size), size, most)

    kind = Distributed(
        "discrete_gaussian", discrete_gaussian_table, event, share_std, ring_bits, lost
    )
    return _mechanism(kind, clip_norm, noise_multiplier, delta, graph, threshold)


def skellam(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    delta: float | None = None,
    ring_bits: int = 32,
    share_std: int | None = None,
    lost: float = 0.0,
    graph: str | int = "complete",
    threshold: float = 2 / 3,
) -> Mechanism:
    """Returns distributed differential privacy of users by Skellam noise.

    As `discrete_gaussian`, but shares of Skellam noise, the difference of two Poisson numbers, add
    up to Skellam noise exactly.

    Args:
      clip_norm, noise_multiplier, delta, ring_bits, share_std, lost, graph, threshold: As for
        `discrete_gaussian`.

    Wire format: ring_bits for each number.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> zeros = np.zeros(1000, int)
      >>> facts = (1000, 100, "uniform", 10, 0, *[zeros] * 3)
      >>> setting = privacy.Setting(*facts, message_size=7850, participations=lambda rounds: 3)
      >>> mechanism = privacy.skellam(0.3, 2.0, delta=1e-5)
      >>> promised = mechanism.guarantee(mechanism.hparams, setting)
      >>> {name: round(value, 2) for name, value in promised.epsilon(10).items()}
      {'rdp': 4.01}
    """

    def event(noise: float, std: int, size: int, fewest: int, most: int) -> accounting.Event:
        # how far it is from Gaussian noise falls with the number of shares
        norm = math.sqrt(fewest) * std / noise
        return accounting.skellam(fewest * std**2, norm, _l1(norm, size))

    kind = Distributed(
        "skellam", lambda std: skellam_table(std**2), event, share_std, ring_bits, lost
    )
    return _mechanism(kind, clip_norm, noise_multiplier, delta, graph, threshold)


def _l1(norm: float, size: int) -> float:
    """Returns the largest sum of absolute values of integers of a norm."""
    return norm * min(math.sqrt(size), norm)


def _mechanism(
    kind: Distributed, clip_norm, noise_multiplier, delta, graph, threshold
) -> Mechanism:
    hparams = {
        "clip_norm": checked("clip_norm", clip_norm, _NUMBER),
        "noise_multiplier": checked("noise_multiplier", noise_multiplier, _NUMBER),
    }
    if delta is not None:
        accounting.check_delta(delta)
    if kind.share_std is not None:
        checked("share_std", kind.share_std, _STD)
    checked("lost", kind.lost, _SHARE)
    hidden = masks(graph, threshold, ring_bits=checked("ring_bits", kind.ring_bits, _RING))

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        return _guarantee(kind, hp, setting, delta)

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        return _link(kind, hp, setting, hidden)

    return Mechanism(kind.name, hparams, guarantee, link)


def _guarantee(
    kind: Distributed, hp: Mapping[str, float], setting: Setting, delta: float | None
) -> Guarantee:
    check_weights(setting, weight_cap=None)
    if setting.behind != "nothing":
        raise ValueError(
            f"privacy = {kind.name} sends integers behind masks of its own, and no compressor, nor "
            "a second secure aggregation, can follow. Set uplink and secure_aggregation to None."
        )
    noise, std, size = hp["noise_multiplier"], kind.std(setting), setting.message_size
    most = _largest_cohort(setting)
    largest = sum_bound(noise, std, size, most, kind.table(std).largest)
    if largest >= 2 ** (kind.ring_bits - 1):
        raise ValueError(
            f"ring_bits = {kind.ring_bits}: the sum of {most:,} clients may reach {largest:,.0f}. "
            f"Use ring_bits = {math.ceil(math.log2(largest + 1)) + 1}, or a share_std below {std}."
        )
    fewest = int(kind.needed(most)) if setting.sampler == "uniform" else 1
    spent = accounting.spending(
        kind.event(noise, std, size, fewest, most), delta_of(delta, setting)
    )
    turns = most_participations(setting, setting.num_rounds)
    return Guarantee(
        unit="user",
        relation="replace_special",
        sampling=(
            f"who takes part is public; a client takes part in {turns} of {setting.num_rounds} "
            "rounds at most"
        ),
        noise_multiplier=noise,
        clip_norm=hp["clip_norm"],
        delta=delta_of(delta, setting),
        covers=COVERS,
        epsilon=lambda rounds: spent(most_participations(setting, rounds)),
    )


def _largest_cohort(setting: Setting) -> int:
    clients, mean = setting.num_clients, setting.clients_per_round
    if setting.sampler == "uniform":
        return int(mean)
    if setting.sampler in ("poisson", "separated"):
        return min(clients, int(mean + 10 * math.sqrt(mean) + 10))
    return clients


def sum_bound(
    noise_multiplier: float, share_std: int, size: int, clients: int, largest: int
) -> float:
    """Returns what no number of a sum exceeds, but with a probability of 1e-15.

    Random signs make rotated coordinates sub-Gaussian, of a vector of norm r with r^2 / 2^k, where
    2^k of its numbers are turned together; the noise obeys Bernstein's inequality, as differences
    of Poisson numbers do. A union bound takes all numbers together.

    Args:
      noise_multiplier: z.
      share_std: Of a client's noise.
      size: Numbers in a message.
      clients: Most of a round.
      largest: Magnitude of a share.

    Example:
      >>> from fljax.privacy.distributed import sum_bound
      >>> round(sum_bound(1.0, 71, size=7850, clients=100, largest=650))
      17370
    """
    spread = math.log(4 * size / _LEAVES)
    norm = clients * math.sqrt(clients) * share_std / noise_multiplier
    messages = norm * min(1.0, math.sqrt(2 * spread / 2 ** (size.bit_length() - 1)))
    noise = math.sqrt(2 * spread * clients) * share_std + 2 * spread / 3
    return messages + clients + min(noise, clients * largest)


def _link(
    kind: Distributed, hp: Mapping[str, Any], setting: Setting, hidden: UplinkLink
) -> UplinkLink:
    clip_norm, std = hp["clip_norm"], kind.std(setting)
    table = kind.table(std)

    def norm_of(clients: jax.Array) -> jax.Array:
        return jnp.sqrt(kind.needed(clients)) * std / hp["noise_multiplier"]

    def agree(people: Participants) -> tuple:
        return hidden.agree(people), jax.random.fold_in(people.key, 1), people.present.sum()

    def encode(message, state, job, key, agreed):
        graph, shared_key, clients = agreed
        message = first_only(clipped(dict(message), clip_norm), job)
        vector = flat(message)
        noise_key, key = jax.random.split(key)
        sent = integers(vector, clip_norm, norm_of(clients), shared_key, key)
        words = (sent + draw(table, noise_key, vector.size)).astype(jnp.uint32)
        return hidden.encode(split(words, message), state, job, key, graph)

    def decode_sum(message, state, agreed, arrived):
        graph, shared_key, clients = agreed
        sums = hidden.decode_sum(message, state, graph, arrived)
        values = {name: total.sum for name, total in sums.items()}
        numbers = flat(values)
        scale = scale_of(norm_of(clients), clip_norm, numbers.size)
        inverse = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)
        is_enough = arrived.sum() >= kind.needed(clients)
        vector = rotated_back(_signed(numbers, kind.ring_bits) * inverse, shared_key)
        values = split(jnp.where(is_enough, vector, 0), values)
        return {
            name: total._replace(sum=values[name], count=jnp.where(is_enough, total.count, 0))
            for name, total in sums.items()
        }

    def release(sums, state, round, key):
        del round, key
        return {
            name: fixed(total, setting.clients_per_round) for name, total in sums.items()
        }, state

    return hidden._replace(
        encode=encode,
        agree=agree,
        decode_sum=decode_sum,
        release=release,
        weighs=True,
        makes_finite=True,
    )


def _signed(words: jax.Array, ring_bits: int) -> jax.Array:
    """Returns the numbers that words of a ring stand for."""
    shift = 32 - ring_bits
    return ((words << shift).astype(jnp.int32) >> shift).astype(jnp.result_type(float))
