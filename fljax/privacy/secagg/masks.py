"""Hides messages behind masks that cancel in their sum: pairwise masks and masks of one's own.

Of two neighbours i < j in a round's graph, i adds words of a generator that both can start, and j
subtracts them; each client also adds words of its own, which hide a message whose pairwise masks
have become known because it arrived too late (Bonawitz et al. 2017, CCS; 2017/281). The server
learns the sum of all that arrived once it takes away the masks of their own of those who arrived,
and the masks between them and those who were lost. The graph is complete, or each client has k
neighbours (Bell et al. 2020, CCS; 2020/704).

Here both ends of a pair run in one program, which derives all keys from one of seed and round. How
keys are agreed on and shared among strangers is a protocol of the host.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fljax.core.transforms import Participants
from fljax_kernels import threefry

PyTree = Any
# The two halves of a flat vector of words, each of which is made by one word of a block.
Halves = tuple[jax.Array, jax.Array]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("order", "place", "size", "reach", "secret", "present", "stays"),
    meta_fields=("axis_name",),
)
@dataclasses.dataclass(frozen=True)
class Graph:
    """The graph of a round, on whose edges pairwise masks lie.

    Clients stand in a random order on a ring, and are neighbours of the nearest `reach` on either
    side (a Harary graph): of all, if the reach is half the ring.

    Attributes:
      order: int32[P] the position of the cohort at each place of the ring, present ones first.
      place: int32[P] the place of each position.
      size: int32[] how many are present.
      reach: int32[] neighbours on either side, at most size // 2.
      secret: uint32[2] what the keys of pairs are derived from. A client's own mask is that between
        it and itself.
      present: bool[P].
      stays: bool[P] who is there until the end of the round, to answer for the secrets of others.
      axis_name: Mesh axis of the devices, None where there is one; no array.
    """

    order: jax.Array
    place: jax.Array
    size: jax.Array
    reach: jax.Array
    secret: jax.Array
    present: jax.Array
    stays: jax.Array
    axis_name: str | None = None

    def neighbours(self, place: jax.Array, distance: jax.Array) -> tuple:
        """Returns the positions at a distance on either side, and whether these are two.

        Args:
          place: On the ring.
          distance: 0 is the place itself.
        """
        size = jnp.maximum(self.size, 1)
        up, down = (self.order[(place + d) % size] for d in (distance, size - distance))
        return up, down, (2 * distance != size) & (distance > 0)


def make_graph(people: Participants, degree: int | None, vanishing: float = 0.0) -> Graph:
    """Returns the graph of a round.

    Args:
      people: Who takes part.
      degree: Neighbours of each client, an even number; None for all.
      vanishing: Share of clients that are gone after their upload, drawn at random.
    """
    capacity = people.present.shape[0]
    key, secret, fates = jax.random.split(people.key, 3)
    # those who are absent come last
    rank = jax.random.bits(key, (capacity,), jnp.uint32) >> 1
    order = jnp.argsort(jnp.where(people.present, rank, jnp.uint32(0xFFFFFFFF))).astype(jnp.int32)
    places = jnp.arange(capacity, dtype=jnp.int32)
    place = jnp.zeros(capacity, jnp.int32).at[order].set(places, unique_indices=True)
    size = people.present.sum(dtype=jnp.int32)
    reach = capacity // 2 if degree is None else degree // 2
    return Graph(
        order,
        place,
        size,
        jnp.minimum(reach, size // 2),
        jax.random.key_data(secret),
        people.present,
        jax.random.uniform(fates, (capacity,)) >= vanishing,
        people.axis_name,
    )


def pair_key(secret: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Returns the two words of the key of a pair of positions, the smaller one first.

    A position and itself have the key of its own mask.
    """
    return threefry((secret[0], secret[1]), (first, second))


def mask_words(key: tuple[Any, Any], size: int) -> np.ndarray:
    """Returns uint32[size] words of a mask on the host, as the round program adds them."""
    half = -(-size // 2)
    words = threefry(tuple(np.asarray(word) for word in key), _counters(half, np))
    return np.concatenate(words)[:size]


def _counters(half: int, numpy: Any = jnp) -> tuple[Any, Any]:
    return numpy.arange(half, dtype=np.uint32), numpy.zeros(half, np.uint32)


def with_masks(
    graph: Graph,
    position: jax.Array,
    words: Halves,
    wanted: jax.Array,
    distances: tuple[Any, Any],
    negative: Any = False,
) -> Halves:
    """Adds the masks between a position and those at some distances from it on the ring.

    Args:
      graph: Of the round.
      position: int32[].
      words: What they are added to.
      wanted: bool[P], of whom they are added.
      distances: (first, last + 1); at 0 is the position itself, whose mask is its own.
      negative: Whether they are subtracted instead.
    """
    place, counters = graph.place[position], _counters(words[0].shape[0])

    def add(words: Halves, neighbour: jax.Array, counts: jax.Array | bool) -> Halves:
        first, second = jnp.minimum(position, neighbour), jnp.maximum(position, neighbour)
        key = pair_key(graph.secret, first.astype(jnp.uint32), second.astype(jnp.uint32))
        mask = threefry(key, counters)
        # the words of a mask, their negatives, or zeros, without a product
        sign, kept = (
            jnp.where(condition, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))
            for condition in ((position > neighbour) ^ negative, counts & wanted[neighbour])
        )
        return tuple(w + (((m ^ sign) - sign) & kept) for w, m in zip(words, mask, strict=True))

    def one_distance(distance, words):
        up, down, are_two = graph.neighbours(place, distance)
        return add(add(words, up, True), down, are_two)

    return lax.fori_loop(*distances, one_distance, words)


def masked(graph: Graph, position: jax.Array, words: Halves) -> Halves:
    """Returns the words of a client behind all its masks."""
    return with_masks(graph, position, words, graph.present, (0, graph.reach + 1))


def unmasked(graph: Graph, total: Halves, arrived: jax.Array) -> Halves:
    """Returns the sum of the words of those who arrived, without any mask.

    A lost client's masks between it and those who arrived are what it would have added to a message
    of zeros; so the server adds them. Devices divide the positions among themselves.

    Args:
      graph: Of the round.
      total: Sum of the masked words.
      arrived: bool[P], whose words are in it.
    """
    devices, device, axis_name = 1, 0, graph.axis_name
    if axis_name is not None:
        devices, device = lax.axis_size(axis_name), lax.axis_index(axis_name)
    capacity = arrived.shape[0]

    def one_position(number, rest):
        position = number * devices + device
        within = position < capacity
        position = jnp.minimum(position, capacity - 1).astype(jnp.int32)
        here = arrived[position]
        # of those who arrived their own mask, of the lost all others, of nobody none
        begin, end = jnp.where(here, 0, 1), jnp.where(here, 1, graph.reach + 1)
        end = jnp.where(within & graph.present[position], end, begin)
        return with_masks(graph, position, rest, arrived, (begin, end), negative=here)

    nothing = tuple(jnp.zeros_like(words) for words in total)
    rest = lax.fori_loop(0, -(-capacity // devices), one_position, nothing)
    if axis_name is not None:
        rest = lax.psum(rest, axis_name)
    return tuple(t + r for t, r in zip(total, rest, strict=True))


def enough(graph: Graph, arrived: jax.Array, threshold: float) -> jax.Array:
    """Returns whether enough clients answer for every secret that the server may need.

    A client shares its secrets among its neighbours, of whom those answer who have arrived and
    stay. Two of these are needed in any case.

    Args:
      graph: Of the round.
      arrived: bool[P].
      threshold: Share of the neighbours that must answer.
    """
    here = (arrived & graph.stays).astype(jnp.int32)
    everyone = jnp.arange(here.shape[0])

    def one_distance(number, counts):
        up, down, are_two = graph.neighbours(graph.place[everyone], number + 1)
        return counts + here[up] + here[down] * are_two

    answers = lax.fori_loop(0, graph.reach, one_distance, jnp.zeros_like(here))
    neighbours = jnp.minimum(2 * graph.reach, graph.size - 1)
    # a product that is off by some ulps asks for nobody more
    needed = jnp.ceil(threshold * neighbours - 1e-4)
    return jnp.where(graph.present, answers >= needed, True).all() & (here.sum() >= 2)
