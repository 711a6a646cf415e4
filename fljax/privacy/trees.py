"""Tree aggregation: noise of prefix sums that grows with the logarithm of the rounds.

DP-FTRL (Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling",
arXiv:2103.00039). The rounds of one tree are its leaves, and each node holds the sum of its leaves
plus noise of its own. The sum of the first t rounds is that of at most log2(t) + 1 nodes, one for
each binary digit of t, so that the server takes a step with

    sum of round t  +  noise of the nodes of t  -  noise of the nodes of t - 1

A node's sum is also the sum of its two halves, each of which has been seen with other noise; the
three are weighted by their variances (Honaker 2015, "Efficient use of differentially private binary
trees", from below). After `restart_every` rounds a new tree begins. With completion the old one is
filled up with rounds that are known to be zero: its sum is then seen by every node on the way to
the root, and fewer errors stay in the model for good.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.transforms import UplinkLink
from fljax.core.values import COUNT, Field, checked
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

__all__ = ["squared_sensitivities", "tree_aggregation", "tree_noise"]

PyTree = Any
_ROUNDS = Field(None, int, COUNT)
# Nodes that are filled up have keys beyond those of all levels.
_FILLED = 64


def tree_aggregation(
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    *,
    restart_every: int | None = None,
    completion: bool = True,
    delta: float | None = None,
) -> Mechanism:
    """Returns differential privacy of users by tree aggregation, DP-FTRL.

    Nothing is drawn at random, so there is no amplification. The sampler must be 'separated': what
    a client adds to a node depends on how many of its turns lie in it.

    Args:
      clip_norm: Bound of the norm of a client's update.
      noise_multiplier: Standard deviation of the noise of a node over the clip norm.
      restart_every: Rounds of a tree; None for the sampler's separation, so that a client has one
        turn in each tree.
      completion: Whether a tree is completed before the next one begins.
      delta: Of (epsilon, delta); None for N^-1.1.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> mechanism = privacy.tree_aggregation(0.3, 10.0, restart_every=16)
      >>> zeros = np.zeros(1000, int)
      >>> setting = privacy.Setting(1000, 50, "separated", 64, 0, *[zeros] * 3, separation=16)
      >>> guarantee = mechanism.guarantee(mechanism.hparams, setting)
      >>> {name: round(value, 2) for name, value in guarantee.epsilon(64).items()}
      {'rdp': 1.45, 'pld': 1.28}
    """
    hparams = noise_hparams(clip_norm, noise_multiplier, delta)
    if restart_every is not None:
        restart_every = checked("restart_every", restart_every, _ROUNDS)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        _check_sampler(setting)
        check_weights(setting, None)
        noise, chosen = float(hp["noise_multiplier"]), delta_of(delta, setting)
        rounds_of_tree, planned = restart_every or setting.separation, setting.num_rounds

        def spent(rounds: int, accountants=ACCOUNTANTS) -> dict[str, float]:
            moved = squared_sensitivities(
                max(rounds, planned), rounds_of_tree, setting.separation, completion
            )
            return gaussian_epsilons(noise, int(moved[rounds]), chosen, accountants)

        turns = f"each client may take part in one of {setting.separation} rounds, always the same"
        return correlated_guarantee(spent, hp, chosen, f"{turns}; nothing is drawn at random")

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        noise = tree_noise(restart_every or setting.separation, completion)
        return correlated_link(noise, hp, setting)

    return Mechanism("tree_aggregation", hparams, guarantee, link)


def _check_sampler(setting: Setting) -> None:
    if setting.sampler != "separated":
        raise ValueError(
            f"sampler={setting.sampler or 'a function of your own'!r} may let a client take part "
            "in any round, and tree_aggregation draws nothing at random that would hide it. Use "
            "sampler='separated', under which its rounds are known in advance; with separation "
            "unset they are fewest."
        )


def tree_noise(restart_every: int, completion: bool = True) -> CorrelatedNoise:
    """Returns the noise of trees; its state holds one model for each level of a tree.

    Args:
      restart_every: Rounds of a tree.
      completion: Whether a tree is completed before the next one begins.

    Example:
      >>> noise, params = tree_noise(restart_every=4), jnp.zeros(100_000)
      >>> state, prefix, variances = noise.init(params), params, []
      >>> for round in range(4):
      ...     drawn, state = noise.draw(state, jnp.int32(round), jax.random.key(round), params)
      ...     prefix += drawn
      ...     variances.append(f"{prefix.var():.1f}")
      >>> variances  # 1, 2/3, 5/3, 4/7
      ['1.0', '0.7', '1.7', '0.6']
    """
    levels = restart_every.bit_length()
    merging, filling = _merging(levels), _filling(restart_every if completion else 1)

    def init(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros((levels, *leaf.shape), leaf.dtype), params)

    def draw(state, round, key, params):
        place = round % restart_every

        def up(carry, left, own, halves, number):
            """Makes the node above of two; what its left half has added so far is taken back."""
            node, change = carry

            def mean(fresh, left, right):
                return own.astype(fresh.dtype) * fresh + halves.astype(fresh.dtype) * (left + right)

            fresh = normal_like(jax.random.fold_in(key, number), params)
            return (
                jax.tree.map(mean, fresh, left, node),
                jax.tree.map(jnp.subtract, change, left),
            )

        def fill(level, carry):
            is_left, own, halves = _row(filling, level)
            left = jax.tree.map(lambda leaf: is_left.astype(leaf.dtype) * leaf[level], state)
            return up(carry, left, own, halves, _FILLED + level)

        def merge(level, carry):
            left = jax.tree.map(lambda leaf: leaf[level], state)
            return up(carry, left, *_row(merging, level + 1), level + 1)

        change = jax.tree.map(jnp.zeros_like, params)
        if len(filling):
            steps = jnp.where((place == 0) & (round > 0), len(filling), 0)
            change = jax.tree.map(jnp.add, *jax.lax.fori_loop(0, steps, fill, (change, change)))
        node = normal_like(jax.random.fold_in(key, 0), params)
        merges = jax.lax.population_count(place ^ (place + 1)) - 1  # the ones at the number's end
        node, change = jax.lax.fori_loop(0, merges, merge, (node, change))
        kept = jax.tree.map(lambda old, new: old.at[merges].set(new), state, node)
        return jax.tree.map(jnp.add, change, node), kept

    return CorrelatedNoise(init, draw)


def _merging(levels: int) -> np.ndarray:
    """Returns the weights of a node's own noise, and of the sum of its halves: [levels, 2]."""
    weights, variance = [(1.0, 0.0)], 1.0
    for _ in range(levels - 1):
        below, variance = 2 * variance, 1 / (1 + 1 / (2 * variance))
        weights.append((variance, variance / below))
    return np.array(weights)


def _row(table: np.ndarray, level: jax.Array) -> list[jax.Array]:
    return list(jnp.asarray(table, float)[level])


def _filling(rounds: int) -> np.ndarray:
    """Returns how the nodes on the way to the root of a tree that has ended are completed.

    Returns:
      [levels, 3]: for the node above each level, whether its left half was complete, and the
      weights of its own noise and of the sum of its halves; no rows where the tree was complete.
    """
    if rounds & (rounds - 1) == 0:
        return np.zeros((0, 3))
    complete = _merging(rounds.bit_length())[:, 0]  # variances
    rows, variance = [], 0.0
    for level in range((rounds - 1).bit_length()):
        is_left = rounds >> level & 1
        below = variance + is_left * complete[level]
        variance = 1 / (1 + 1 / below) if below else 0.0
        rows.append((is_left, variance, variance / below if below else 0.0))
    return np.array(rows)


@functools.lru_cache(maxsize=64)
def squared_sensitivities(
    rounds: int, restart_every: int, separation: int, completion: bool = True
) -> np.ndarray:
    """Returns how far one client moves all nodes that have been seen, in squares of the clip norm.

    A client takes part in every `separation`-th round, and adds the clip norm to each of them; a
    node that holds c of these moves by c.

    Args:
      rounds: Of the run.
      restart_every: Rounds of a tree.
      separation: Rounds between two turns of a client.
      completion: Whether a tree is completed before the next one begins.

    Returns:
      int64[rounds + 1], the sums of squares after so many rounds, of the client that moves most.

    Example:
      Four leaves, two nodes above them, and a root, which hold one or two turns of a client:

      >>> squared_sensitivities(rounds=4, restart_every=4, separation=2).tolist()
      [0, 1, 2, 3, 8]
    """
    first = np.arange(separation)  # rounds in which clients have their first turns
    moved, found = np.zeros(separation, np.int64), [0]

    def turns_before(round: int) -> np.ndarray:
        return (round - first + separation - 1) // separation

    for round in range(rounds):
        place, end = round % restart_every + 1, round + 1
        nodes = [(end - size, end) for size in _sizes(place) if place % size == 0]
        if completion and place == 1 and round:
            cut = [restart_every % size for size in _sizes(2 * restart_every - 1)]
            nodes += [(round - held, round) for held in cut if held]
        for start, stop in nodes:
            moved = moved + (turns_before(stop) - turns_before(start)) ** 2
        found.append(int(moved.max()))
    result = np.array(found)
    result.setflags(write=False)  # it is kept
    return result


def _sizes(largest: int) -> list[int]:
    """Returns 1, 2, 4, ... up to a number."""
    return [1 << level for level in range(largest.bit_length())]
