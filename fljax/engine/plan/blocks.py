"""Blocks: rounds that are dispatched together, their plans stacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fljax.engine.plan.packed_plan import PackedPlan
from fljax.engine.plan.round_plan import HostPlan

PyTree = Any


def in_blocks(
    planned: Iterable[tuple[PackedPlan, HostPlan]], size: int, ends: Callable[[int], bool]
) -> Iterator[tuple[list[PackedPlan], list[HostPlan]]]:
    """Groups the plans of consecutive rounds.

    A block has `size` rounds or a single one, so that there are two programs at most. What is left
    before an end, or differs in shape because an array had to grow, goes as single rounds.

    Args:
      planned: (plan, facts) of one round after another, plans in NumPy.
      size: Rounds of a block.
      ends: round -> whether no block goes on behind that round.

    Yields:
      (plans, facts) of a block.
    """
    plans: list[PackedPlan] = []
    facts: list[HostPlan] = []
    for plan, fact in planned:
        plans.append(plan)
        facts.append(fact)
        if len(plans) == size and len({_kind(each) for each in plans}) == 1:
            yield plans, facts
        elif len(plans) == size or ends(fact.round):
            yield from _singly(plans, facts)
        else:
            continue
        plans, facts = [], []
    yield from _singly(plans, facts)


def stack(plans: Sequence[PackedPlan]) -> PackedPlan:
    """Returns plans as one, with a leading axis over rounds."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *plans)


def unstack(stats: PyTree, rounds: int) -> list[PyTree]:
    """Returns the statistics of each round of a block; those of a single one are not stacked."""
    if rounds == 1:
        return [stats]
    leaves, tree = jax.tree.flatten(stats)
    return [jax.tree.unflatten(tree, of_round) for of_round in zip(*leaves, strict=True)]


def _singly(plans, facts):
    return (([plan], [fact]) for plan, fact in zip(plans, facts, strict=True))


def _kind(plan: PackedPlan):
    """Returns what plans share that one program can run."""
    return jax.tree.structure(plan), tuple(leaf.shape for leaf in jax.tree.leaves(plan))
