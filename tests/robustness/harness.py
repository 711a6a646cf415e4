"""Runs an aggregator or a link of colluders on one stack, as the devices of a round do.

Tests here compute in float64; a test of float32 does so under `jax.enable_x64(False)`. Programs are
compiled once for each rule and shape: who is there, who attacks and what they send are arguments.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from fljax.core.transforms import Cohort
from fljax.engine.devices.execution import AXIS

OF_STACK, SAME, EACH = PartitionSpec(None, AXIS), PartitionSpec(), PartitionSpec(AXIS)


class Applied(NamedTuple):
    """Result of an aggregator on a stack, on the host.

    Attributes:
      value: [d].
      state: What it keeps.
      reports: {name: (value[P], weight[P])}, empty of a rule that reports nothing.
    """

    value: np.ndarray
    state: Any
    reports: dict[str, tuple[np.ndarray, np.ndarray]]


class Attacked(NamedTuple):
    """Result of colluders on a stack [P, d], on the host, and what they keep."""

    stack: np.ndarray
    state: Any


def applied(rule, stack, valid=None, *, devices=1, state=None, traced=None, **cohort) -> Applied:
    """Aggregates a stack, whose rows are zeroed where nobody is.

    Args:
      rule: An Aggregator; with `traced`, the function that makes it.
      stack: [P, d].
      valid: bool[P]; everybody is there unless said.
      devices: Among how many the parameters are divided; d need not be a multiple.
      state: What the rule has kept; what it begins with unless said.
      traced: {argument: number} of the function, which are traced.
      cohort: weights [P], attackers bool[P], clients [P], round, and key, in place of ones, None,
        0 to P - 1, 0 and the key of 0.
    """
    stack, cohort = _inputs(stack, valid, **cohort)
    if state is None:
        state = _made(rule, traced or {}).init(jnp.zeros(stack.shape[1], stack.dtype))
    program = _program(rule, _aggregate, devices, stack.shape[1])
    value, state, reports = program(_divided(stack, devices), cohort, state, traced or {})
    return Applied(np.asarray(value)[: stack.shape[1]], _agreed(state), _agreed(reports))


def attacked(
    link, stack, attackers, valid=None, *, devices=1, state=None, traced=None, **cohort
) -> Attacked:
    """Lets colluders replace their rows of a stack; arguments are those of `applied`."""
    stack, cohort = _inputs(stack, valid, attackers=attackers, **cohort)
    if state is None:
        state = _made(link, traced or {}).init(jnp.zeros(stack.shape[1], stack.dtype))
    program = _program(link, _collude, devices, stack.shape[1])
    sent, state, _ = program(_divided(stack, devices), cohort, state, traced or {})
    return Attacked(np.asarray(sent)[:, : stack.shape[1]], _agreed(state))


def _inputs(
    stack, valid, *, weights=None, attackers=None, clients=None, round=0, key=None
) -> tuple[jax.Array, Cohort]:
    size = len(stack)
    valid = jnp.asarray(np.ones(size, bool) if valid is None else valid)
    stack = jnp.asarray(stack)
    stack = jnp.where(valid[:, None], stack, 0)
    weights = np.ones(size) if weights is None else weights
    clients = np.arange(size) if clients is None else clients
    cohort = Cohort(
        weights=jnp.where(valid, jnp.asarray(weights, stack.dtype), 0),
        valid=valid,
        clients=jnp.where(valid, jnp.asarray(clients, jnp.int32), -1),
        round=jnp.int32(round),
        axis_name=None,  # no argument of a program, which names it
        attackers=None if attackers is None else jnp.asarray(attackers) & valid,
        key=jax.random.key(0) if key is None else key,
    )
    return stack, cohort


def _divided(stack, devices):
    """Returns the stack with zeros behind its columns, as many as devices need to share them."""
    return jnp.pad(stack, ((0, 0), (0, -stack.shape[1] % devices)))


def _made(rule, traced):
    return rule(**traced) if traced or not hasattr(rule, "apply") else rule


def _aggregate(rule, stack, cohort, state):
    value, state, *reports = rule.apply(stack, cohort, state)
    return value, state, reports[0] if reports else {}


def _collude(link, stack, cohort, state):
    return *link.apply(stack, cohort, state, cohort.key), {}


@functools.lru_cache(maxsize=100)
def _program(rule, apply, devices, num_params):
    """Returns the compiled program; states and reports come out once for each device."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), (AXIS,))

    def one_device(stack, cohort, state, traced):
        cohort = cohort._replace(axis_name=AXIS, num_params=num_params)
        value, *rest = apply(_made(rule, traced), stack, cohort, state)
        return value, *jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], rest)

    sharded = jax.shard_map(
        one_device,
        mesh=mesh,
        in_specs=(OF_STACK, SAME, SAME, SAME),
        out_specs=(EACH if apply is _aggregate else OF_STACK, EACH, EACH),
        check_vma=False,
    )
    return jax.jit(sharded)


def _agreed(tree):
    """Returns what all devices have, on the host; they must have the same."""

    def one(leaf):
        for other in leaf[1:]:
            np.testing.assert_array_equal(other, leaf[0])
        return leaf[0]

    return jax.tree.map(one, jax.device_get(tree))
