"""Mixing: what is done to all updates before a rule sees them, and chains of it.

A mixing makes a stack of updates of a stack of updates: it averages some of them, or shortens them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.permutations import shuffled
from fljax.core.transforms import Aggregator, Cohort, weighted_mean
from fljax.core.values import COUNT, NON_NEGATIVE, Field, checked, wrong
from fljax.robustness.arguments import check_count, too_few
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import mean_of, square_distances

__all__ = ["Mixing", "bucketing", "chain", "nearest_neighbour_mixing"]

PyTree = Any


class Mixing(NamedTuple):
    """A stack of updates made of another one, in front of a rule.

    Attributes:
      apply: (stack[P, d], cohort, state) -> (stack'[P', d], cohort', state'[, reports]), where
        cohort' tells of the rows of stack', zero where it is not valid, and reports are as those of
        an `Aggregator`, of the rows of stack; the key of cohort' does not matter.
      init: (params) -> state.
      size: (n) -> how many updates come out of n.
      rows: (cohort) -> int32[P], into which row of stack' each update goes; None where each keeps
        its row.
      reports: The names of what `apply` reports.
      weighs: Whether it counts clients by their weights, or does not weigh them at all.
      problem: (number of updates) -> why it promises nothing for so few, or None; None for never.

    Example:
      >>> halved = Mixing(lambda stack, cohort, state: (stack / 2, cohort, state))
      >>> halved.apply(jnp.ones((2, 3)), None, ())[0].sum().tolist(), halved.size(2)
      (3.0, 2)
    """

    apply: Callable[..., tuple]
    init: Callable[[PyTree], PyTree] = lambda params: ()
    size: Callable[[int], int] = lambda n: n
    rows: Callable[[Cohort], jax.Array] | None = None
    reports: tuple[str, ...] = ()
    weighs: bool = True
    problem: Callable[[int], str | None] | None = None


def chain(*parts: Mixing | Aggregator) -> Aggregator:
    """Returns the rule that applies mixings one after another, and a rule at the end.

    Each part has a key of its own. What parts report is told of clients: of a client that is in a
    row with others, what is told of the row. A client is rejected where any part rejects it.

    Args:
      parts: Mixings, and an aggregator of a stack, or the weighted mean, which is also what ends a
        chain without one.

    Raises:
      ValueError: If something is no mixing, if the rule does not hold the stack, asks for an update
        of the server's own, or remembers clients that are mixed with others, or if two parts report
        different numbers by one name.

    Example:
      >>> from fljax.robustness.aggregators.krum import krum
      >>> chain(bucketing(2), krum(f=1)).problem(10) is None
      True
      >>> chain(bucketing(2), krum(f=2)).problem(10)
      'krum needs at least 2 f + 3 = 7 updates, and there may be 5, of 10 that are mixed'
    """
    mixings, rule = parts, weighted_mean
    if parts and isinstance(parts[-1], Aggregator):
        *mixings, rule = parts
    rule = _MEAN if rule is weighted_mean else rule
    _check(mixings, rule)

    def init(params: PyTree) -> tuple:
        return tuple(part.init(params) for part in (*mixings, rule))

    def apply(stack: jax.Array, cohort: Cohort, states: tuple):
        now, row = cohort, jnp.arange(len(stack))
        new_states, told = [], []
        for place, (mixing, state) in enumerate(zip(mixings, states[:-1], strict=True)):
            now = _with_key(now, cohort.key, place)
            rows = mixing.rows(now) if mixing.rows else jnp.arange(len(stack))
            stack, now, state, *reports = mixing.apply(stack, now, state)
            told += _of_clients(reports, row)
            new_states.append(state)
            row = rows[row]
        now = _with_key(now, cohort.key, len(mixings))
        value, state, *reports = rule.apply(stack, now, states[-1])
        told += _of_clients(reports, row)
        return value, (*new_states, state), _together(told, cohort)

    parts = (*mixings, rule)
    return Aggregator(
        "stack",
        apply,
        init,
        reports=tuple(dict.fromkeys(name for part in parts for name in part.reports)),
        weighs=all(part.weighs for part in parts),
        problem=lambda n: _problem(mixings, rule, n),
        root=rule.root,
        by_client=rule.by_client,
    )


def bucketing(s: int) -> Mixing:
    """Returns the mixing that averages updates in random buckets, drawn anew in each round.

    Karimireddy, He and Jaggi 2022 (arXiv:2006.09365). The updates that arrived are shuffled and
    divided into buckets of s, of which the last may hold less. A bucket has the weighted mean of
    its updates and the sum of their weights, and is hostile if any of them is; `Cohort.clients` has
    its first client.

    Args:
      s: How many updates are in a bucket. Shapes depend on it, so that it is not traced.

    Raises:
      ValueError: If it is no whole number above 0.

    Example:
      >>> bucketing(2).size(5)
      3
    """
    s = checked("s", s, Field(None, int, COUNT))

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        buckets = -(-len(stack) // s)
        order = shuffled(cohort.key, cohort.valid)
        members = jnp.pad(order, (0, buckets * s - len(order))).reshape(buckets, s)
        there = (jnp.arange(buckets * s) < cohort.valid.sum()).reshape(buckets, s)
        weights = jnp.where(there, cohort.weights[members], 0).astype(stack.dtype)
        total = weights.sum(1)
        shares = weights / jnp.maximum(total, jnp.finfo(stack.dtype).tiny)[:, None]

        def add(place, mixed):
            # one member of each bucket at a time, so that no second stack is made
            return mixed + shares[:, place, None] * stack[members[:, place]]

        mixed = jax.lax.fori_loop(0, s, add, jnp.zeros((buckets, stack.shape[1]), stack.dtype))
        valid, hostile = there.any(1), cohort.attackers
        of_buckets = cohort._replace(
            weights=total.astype(cohort.weights.dtype),
            valid=valid,
            clients=jnp.where(valid, cohort.clients[members[:, 0]], -1),
            attackers=None if hostile is None else (hostile[members] & there).any(1),
        )
        return _finite(mixed), of_buckets, state

    def rows(cohort: Cohort) -> jax.Array:
        return jnp.argsort(shuffled(cohort.key, cohort.valid)) // s

    def problem(n: int) -> str | None:
        if n <= 1 or n > s:
            return None
        return f"bucketing({s}) leaves a single bucket, the mean of all updates, of {n}"

    return Mixing(apply, size=lambda n: -(-n // s), rows=rows, problem=problem)


def nearest_neighbour_mixing(f: Any) -> Mixing:
    """Returns the mixing that replaces each update by the mean of the n - f nearest to it.

    Allouah et al. 2023 (arXiv:2302.01772), who call it NNM; an update is itself the nearest to it,
    and of equal distances the first ones in the cohort count. Clients count alike. What a rule
    tells of a mixed update is told of the client in whose place it stands.

    Args:
      f: How many updates may be hostile, with n >= 2 f + 1; may be traced.

    Raises:
      ValueError: If it is no number of updates.

    Example:
      >>> nearest_neighbour_mixing(f=3).problem(6)
      'nearest_neighbour_mixing needs at least 2 f + 1 = 7 updates, and there may be 6'
    """
    check_count("f", f, NON_NEGATIVE)

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        valid = cohort.valid
        order = jnp.argsort(square_distances(stack, cohort), axis=1)
        near = jnp.argsort(order, axis=1) < jnp.maximum(valid.sum() - f, 1)
        near = (near & valid[:, None] & valid[None]).astype(stack.dtype)
        # shares first, since a sum of rows may be too large
        shares = near / jnp.maximum(near.sum(1), 1)[:, None]
        mixed = jnp.matmul(shares, stack, precision=jax.lax.Precision.HIGHEST)
        return _finite(mixed), cohort, state

    problem = too_few("nearest_neighbour_mixing", "2 f + 1", 2 * f + 1)
    return Mixing(apply, weighs=False, problem=problem)


_MEAN = Aggregator("stack", lambda stack, cohort, state: (mean_of(stack, cohort.weights), state))


def _finite(rows: jax.Array) -> jax.Array:
    """Returns means of finite rows, which rounding may have carried beyond the largest float."""
    most = jnp.finfo(rows.dtype).max
    return jnp.clip(rows, -most, most)


def _check(mixings: Sequence[Mixing], rule: Aggregator) -> None:
    for place, part in enumerate(mixings):
        if not isinstance(part, Mixing):
            raise wrong(f"parts[{place}]", part, "a Mixing; a rule stands at the end, and only one")
    if rule.needs != "stack":
        raise ValueError(
            f"The rule behind mixings has needs = {rule.needs!r}: it sees sums alone, and mixings "
            "hold all updates. Use one with needs='stack', or leave it out for the weighted mean."
        )
    if rule.root is not None and mixings:
        raise ValueError(
            "The rule behind mixings judges updates by the server's own, which would be mixed with "
            "those of clients. Leave the mixings out."
        )
    if rule.by_client and any(mixing.rows for mixing in mixings):
        raise ValueError(
            "The rule behind mixings remembers what each client has sent, and buckets hold several "
            "of them. Leave the buckets out."
        )
    parts: tuple[Any, ...] = (*mixings, rule)
    names = [name for part in parts for name in part.reports if name not in REJECTIONS]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two parts of a chain report {name!r}. Leave one out, or rename one.")


def _problem(mixings: Sequence[Mixing], rule: Aggregator, n: int) -> str | None:
    """Returns why a chain promises nothing for n updates, of the first part that says so."""
    left, parts = n, (*mixings, rule)
    part: Any
    for part in parts:
        if part.problem and (found := part.problem(left)):
            return found if left == n else f"{found}, of {n} that are mixed"
        left = part.size(left) if isinstance(part, Mixing) else left
    return None


def _with_key(cohort: Cohort, key: jax.Array | None, place: int) -> Cohort:
    return cohort._replace(key=None if key is None else jax.random.fold_in(key, place))


def _of_clients(reports: list[dict], row: jax.Array) -> list[dict]:
    """Returns what a part reports, of clients whose updates are in its rows."""
    return jax.tree.map(lambda of_rows: of_rows[row], reports)


def _together(told: list[dict], cohort: Cohort) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns what all parts report, of clients that are there."""
    valid, found = cohort.valid, {}
    for reports in told:
        found |= {name: pair for name, pair in reports.items() if name not in REJECTIONS}
    found = jax.tree.map(lambda of_clients: jnp.where(valid, of_clients, 0), found)
    rejected = [reports[REJECTIONS[0]][0] > 0 for reports in told if REJECTIONS[0] in reports]
    if rejected:
        found |= rejections(~jnp.stack(rejected).any(0), cohort)
    return found
