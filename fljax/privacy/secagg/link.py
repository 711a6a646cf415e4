"""Secure aggregation as links of the uplink: numbers become integers, and these are masked."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Participants, UplinkLink
from fljax.core.values import DECAY, FACTOR, Field, Interval, checked, wrong
from fljax.privacy.secagg.fixed_point import fixed_point, ring_size
from fljax.privacy.secagg.masks import Graph, Halves, enough, make_graph, masked, unmasked
from fljax.privacy.secagg.refusals import refused_share

PyTree = Any


def secure_aggregation(
    bits: int = 16,
    clip: float | Mapping[str, float] = 1.0,
    *,
    by_norm: bool = False,
    rounding: str = "stochastic",
    max_weight: float = 1.0,
    graph: str | int = "complete",
    threshold: float = 2 / 3,
    vanishing: float = 0.0,
    ring_bits: int = 32,
) -> UplinkLink:
    """Returns the last link of an uplink, behind which a server sees the sum of a cohort alone.

    It sends integers and weights (`fixed_point`) behind masks (`masks`). The sum is that of the
    integers bit for bit, whoever is lost.

    Args:
      bits, clip, by_norm, rounding, max_weight: As for `fixed_point`. Behind a mechanism of
        differential privacy, `by_norm` with its clipping norm keeps what it promises; `max_weight`
        must not be exceeded by those of the clients, or weights are cut off.
      graph, threshold, vanishing: As for `masks`.
      ring_bits: As for both.

    Example:
      >>> link = privacy.secure_aggregation(bits=20, clip=0.5, graph=32)
      >>> # simulate(..., secure_aggregation=link)
    """
    codes = fixed_point(
        bits,
        clip,
        by_norm=by_norm,
        rounding=rounding,
        max_weight=max_weight,
        ring_bits=ring_bits,
    )
    hidden = masks(graph, threshold, vanishing=vanishing, ring_bits=ring_bits)

    def agree(people: Participants) -> Graph:
        codes.agree(people)
        return hidden.agree(people)

    def encode(message, state, job, key, graph):
        payload, _, report = codes.encode(message, (), job, key, ())
        return *hidden.encode(payload, state, job, key, graph), report

    def decode_sum(message, state, graph, arrived):
        return codes.decode_sum(hidden.decode_sum(message, state, graph, arrived), (), (), arrived)

    return codes._replace(
        bits=hidden.bits,
        agree=agree,
        encode=encode,
        decode_sum=decode_sum,
        refused_share=hidden.refused_share,
    )


def masks(
    graph: str | int = "complete",
    threshold: float = 2 / 3,
    *,
    vanishing: float = 0.0,
    ring_bits: int = 32,
) -> UplinkLink:
    """Returns the link that hides integers of a ring behind masks which cancel in their sum.

    It stands last, behind a link that makes uint32 words of the whole message. A single message is
    uniformly distributed over the ring. Clients that are lost after the round began, or whose work
    is not finite, have their masks taken away by the server. If too few are left for that, the
    round's sum is refused: no update, and the clients count as `train/clients_refused`.

    Args:
      graph: Whom a client shares masks with: "complete" for everybody, or an even number of
        neighbours; `masking_graph` finds one that suffices.
      threshold: Share of each client's neighbours that must answer to reveal its secrets. Two
        messages are needed in any case, since the sum of one is that message.
      vanishing: Share of clients that are lost after their upload, drawn anew in each round: their
        messages count, but they answer for nobody.
      ring_bits: Of the ring, at most 32.

    Wire format: ring_bits for each number; the keys of the protocol are not counted.

    Raises:
      ValueError: For settings out of range, and in a run whose payloads are no uint32 words.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> pipeline = Pipeline(uplink=(privacy.fixed_point(), privacy.masks(graph=16)))
    """
    ring_bits = checked("ring_bits", ring_bits, Field(32, int, Interval(2, 32)))
    threshold = checked("threshold", threshold, Field(2 / 3, float, FACTOR))
    vanishing = checked("vanishing", vanishing, Field(0.0, float, DECAY))
    degree = _degree(graph)

    def agree(people: Participants) -> Graph:
        return make_graph(people, degree, vanishing)

    def encode(message: dict[str, PyTree], state, job, key, graph: Graph):
        words, tree = _halves(message)
        payload = tree(masked(graph, job.position, words))
        return jax.tree.map(lambda leaf: leaf & _ring(ring_bits), payload), state

    def decode_sum(message, state, graph: Graph, arrived):
        words, tree = _halves({name: total.sum for name, total in message.items()})
        accepted = enough(graph, arrived, threshold)
        sums = tree(unmasked(graph, words, arrived))
        sums = jax.tree.map(lambda leaf: jnp.where(accepted, leaf & _ring(ring_bits), 0), sums)
        return {
            name: total._replace(sum=sums[name], count=jnp.where(accepted, total.count, 0))
            for name, total in message.items()
        }

    return UplinkLink(
        encode,
        decode=lambda payload, state: payload,
        bits=lambda payload: ring_size(payload, ring_bits),
        linear=True,
        covers=None,
        refuses_rest=True,
        agree=agree,
        decode_sum=decode_sum,
        refused_share=functools.partial(
            refused_share, degree=degree, threshold=threshold, vanishing=vanishing
        ),
    )


def _degree(graph: str | int) -> int | None:
    if graph == "complete":
        return None
    if isinstance(graph, str) or isinstance(graph, bool):
        raise wrong("graph", graph, '"complete", or an even number of neighbours, such as 32')
    degree = checked("graph", graph, Field(32, int, Interval(2, 2**16)))
    if degree % 2:
        raise wrong("graph", graph, "an even number: as many neighbours on either side of a ring")
    return degree


def _ring(bits: int) -> jax.Array:
    return jnp.uint32(2**bits - 1)


def _halves(message: dict[str, PyTree]):
    """Returns (all words of a message as two halves, a function that makes a message of such).

    Raises:
      ValueError: If there is anything but uint32 words.
    """
    leaves, structure = jax.tree.flatten(message)
    for name, value in message.items():
        for leaf in jax.tree.leaves(value):
            if leaf.dtype != jnp.uint32:
                raise ValueError(
                    f"Masks hide words of a ring, uint32, but {name!r} has numbers of type "
                    f"{leaf.dtype}. Put fljax.privacy.fixed_point() before the masks, or use "
                    "fljax.privacy.secure_aggregation(), which is both."
                )
    flat = jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
    half = -(-flat.size // 2)
    padded = jnp.pad(flat, (0, 2 * half - flat.size))

    def tree(words: Halves) -> dict[str, PyTree]:
        flat = jnp.concatenate(words)
        ends = list(itertools.accumulate(leaf.size for leaf in leaves))[:-1]
        parts = jnp.split(flat[: sum(leaf.size for leaf in leaves)], ends)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)

    return (padded[:half], padded[half:]), tree
