"""Clients that train a part of the model: what HeteroFL, FedRolex, FjORD and freezing share.

A client receives the part that it holds, trains it as if there were nothing else, and sends it. The
server averages each number over those who hold it, and one that nobody holds stays as it was:

    w_j <- w_j + sum_i n_i m_ij d_ij / sum_i n_i m_ij         where the denominator is not 0

with m_ij 1 where client i holds the number j. Here all arrays have their full size, and what a
client does not hold is zero in its products, so that many clients of unlike parts train side by
side in one program; that saves traffic, and no operations. The algorithms differ in which part a
client holds in a round, and in which of it trains in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import (
    ServerState,
    after_mean,
    fedavg,
    job_weight,
    loss_stats,
    zero_of,
)
from fljax.core.algorithm import (
    Aggregate,
    Algorithm,
    AlgorithmSpec,
    ClientPass,
    Contribution,
    Job,
    Variables,
    step_key,
)
from fljax.core.gradients import LocalTask, LossSums
from fljax.core.hidden_units import HiddenUnits
from fljax.core.precision import Differences, state_change

PyTree = Any

# What a pass for statistics sends.
_STATISTICS = "statistics"


class Held(NamedTuple):
    """Which part of a model a client holds, and what it computes with.

    Attributes:
      params: Pytree like the parameters: bool[...] of shapes that broadcast to theirs.
      model_state: Likewise of the model's state.
      forward: (params) -> the parameters that its loss is computed with; None for all of them as
        they are, where what is not held is constant.
    """

    params: PyTree
    model_state: PyTree
    forward: Callable[[PyTree], PyTree] | None = None


class Extraction(NamedTuple):
    """The functions that take parts out of a model.

    Attributes:
      held: (job) -> Held, what its client holds in this round.
      in_step: (job) -> Held, what of it trains in this step; None for all of it.
      whole: (Variables) -> Variables, the model that is judged; None for the server's.
    """

    held: Callable[[Job], Held]
    in_step: Callable[[Job], Held] | None = None
    whole: Callable[[Variables], Variables] | None = None


def sub_models(
    name: str,
    extraction: Callable[[LocalTask, Variables], Extraction],
    client_lr: float,
    server_lr: float,
    options: dict[str, Any],
    *,
    all_whole: bool = False,
    static_norm: bool = False,
) -> AlgorithmSpec:
    """Returns FedAvg whose clients train parts of the model.

    Args:
      name: Shown in records.
      extraction: (task, model) -> how parts are taken out; called where shapes are known.
      client_lr, server_lr, options: Arguments of `fedavg`.
      all_whole: Whether everybody's part is the whole model, which is FedAvg.
      static_norm: Whether a second pass over the cohort's rows makes the statistics that judge the
        model, of the whole one after its update, in place of those of parts in training.
    """
    options.setdefault("name", name)
    base = fedavg(client_lr, server_lr, **options)
    if all_whole and not static_norm:
        return base

    # the spec holds numbers, which are no part of a program
    build_base, weighting = base.build, options["weighting"]

    def build(task: LocalTask, hp) -> Algorithm:
        averaging = build_base(task, hp)
        local, known = averaging.passes[0], []

        def parts(variables: Variables) -> Extraction:
            if not known:  # once a trace
                known.append(extraction(task, variables))
            return known[0]

        def init(variables: Variables) -> ServerState:
            parts(variables)  # a model that cannot be divided is refused now
            if static_norm and not jax.tree.leaves(variables.model_state):
                raise ValueError(
                    "static_norm = True has no effect: the model keeps no statistics. Leave it "
                    "out, or use a model with batch normalization."
                )
            return averaging.init(variables)

        def step(message: Variables, carry, batch, job: Job):
            found = parts(message)
            held = found.held(job)
            trained = held if found.in_step is None else found.in_step(job)
            training = build_base(_training(task, trained), hp).passes[0]
            new = training.step(message, carry, batch, job)
            return new._replace(params=_where(held.params, new.params, carry.params))

        def finish(message: Variables, carry, job: Job):
            sent, own, stats = local.finish(message, carry, job)
            held = parts(message).held(job)
            masks = {"update": held.params, "model_state": held.model_state}
            if static_norm:
                sent.pop("model_state")
            sent = {part: _of_part(sent[part], masks[part]) for part in sent}
            return sent, own, stats

        def server_update(server: ServerState, aggregates, round) -> ServerState:
            new = averaging.server_update(server, aggregates, round)
            params = _unless_alone(aggregates["update"], new.variables.params, server.variables)
            state = new.variables.model_state
            if _STATISTICS in aggregates:
                state = after_mean(state, aggregates[_STATISTICS])
            return new._replace(variables=Variables(params, state))

        def after_update(server: ServerState, aggregates) -> Variables:
            return variables(server_update(server, aggregates, jnp.int32(0)))

        def variables(server: ServerState) -> Variables:
            whole = parts(server.variables).whole
            return server.variables if whole is None else whole(server.variables)

        passes = (local._replace(step=step, finish=finish),)
        if static_norm:
            passes += (_statistics(task, weighting, after_update),)
        return averaging._replace(
            init=init,
            passes=passes,
            server_update=server_update,
            variables=variables,
        )

    return base._replace(build=build)


def _statistics(task: LocalTask, weighting: str, model: Callable) -> ClientPass:
    """Returns the pass in which clients read their rows once for the statistics of a model.

    Args:
      task: The bound task.
      weighting: "examples" or "uniform".
      model: (server state, aggregates so far) -> the model.
    """

    def start(message: Variables, own, job: Job):
        zero = zero_of(message.params)
        return message.model_state, LossSums(zero, zero)

    def step(message: Variables, carry, batch, job: Job):
        state, sums = carry
        found, state = task.loss(message.params, state, batch, step_key(job), True)
        return state, jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, found)

    def finish(message: Variables, carry, job: Job):
        state, sums = carry
        change = state_change(state, message.model_state, task.state_changes)
        weight = job_weight(weighting, job, sums.loss)
        return {_STATISTICS: Contribution(change, weight)}, (), loss_stats(sums)

    return ClientPass(model, start, step, finish, schedule="epoch")


def of_widths(
    units: HiddenUnits,
    counts: Callable[[int], jax.Array],
    start: Callable[[int], jax.Array] | None = None,
    scale: jax.Array | None = None,
) -> Held:
    """Returns the part with some units of each layer, one after another.

    Args:
      units: The model's.
      counts: (n) -> int32, how many a layer of n units has.
      start: (n) -> int32, the first of them, from which they go on round the end; None for 0.
      scale: What a layer's results are multiplied by in training; None for nothing.
    """
    held = []
    for n in units.sizes:
        place = jnp.arange(n)
        held.append((place if start is None else (place - start(n)) % n) < counts(n))
    one = jnp.ones((), bool)
    masks = jax.tree.map(
        lambda places: one if (mask := places.mask(held)) is None else mask, units.places
    )

    def forward(params):
        cut = _where(masks.params, params, jax.tree.map(jnp.zeros_like, params))
        if scale is None:
            return cut
        return jax.tree.map(
            lambda makes, leaf: leaf * scale.astype(leaf.dtype) if makes else leaf,
            units.made_by,
            cut,
        )

    return Held(masks.params, masks.model_state, forward)


def narrowed(held: Held, variables: Variables) -> Variables:
    """Returns a model that is zero where nothing is held."""
    return variables._replace(params=held.forward(variables.params))


def _training(task: LocalTask, held: Held) -> LocalTask:
    """Returns a task whose gradient is that of the part alone, and zero elsewhere."""

    def gradient(params, model_state, batch, key):
        if held.forward is None:
            used, back = params, lambda grads: grads
        else:
            used, transpose = jax.vjp(held.forward, params)
            back = lambda grads: transpose(grads)[0]  # noqa: E731
        grads, sums, model_state = task.gradient(used, model_state, batch, key)
        grads = back(grads)
        return _where(held.params, grads, jax.tree.map(jnp.zeros_like, grads)), sums, model_state

    return task._replace(gradient=gradient)


def _where(masks: PyTree, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(jnp.where, masks, new, old)


def _of_part(sent: Contribution, masks: PyTree) -> Contribution:
    """Returns what a client sends of the part that it holds, each number under its own weight."""
    if isinstance(sent.value, Differences):
        masks = Differences(masks)

    def weight_of(mask, leaf):
        weight = sent.weight * mask.astype(sent.weight.dtype)
        return jnp.broadcast_to(weight, leaf.shape) if mask.ndim else weight

    def bits_of(mask, leaf):
        held = jnp.broadcast_to(mask, leaf.shape).sum(dtype=jnp.uint32) if mask.ndim else leaf.size
        return jnp.where(mask.any(), held, 0).astype(jnp.uint32) * (leaf.dtype.itemsize * 8)

    value = jax.tree.map(lambda m, leaf: jnp.where(m, leaf, 0), masks, sent.value)
    bits = sum(jax.tree.leaves(jax.tree.map(bits_of, masks, value)), jnp.uint32(0))
    weight = jax.tree.map(weight_of, masks, value)
    return sent._replace(value=value, weight=weight, bits=bits)


def _unless_alone(update: Aggregate, params: PyTree, before: Variables) -> PyTree:
    """Returns new parameters, or the old ones where no weight arrived.

    The step of a server optimizer with a memory is not zero where a gradient is.
    """
    arrived = jax.tree.map(lambda weight: weight != 0, update.weight)
    return _where(arrived, params, before.params)
