"""Repeats of a pass: clients that ask for it go over their rows again before the round goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fljax.engine.program.accumulators import Trained
from fljax.engine.program.inputs import ClientRows
from fljax.engine.program.layout import Work
from fljax.engine.program.passes import Pass

PyTree = Any


def repeated(
    a_pass: Pass, train: Callable[[Pass, ClientRows], Trained], client_rows: ClientRows
) -> Trained:
    """Runs the jobs of a pass, then those whose clients ask for it once more, until none does.

    Each device goes on until its own jobs are done, since nothing crosses meanwhile.

    Args:
      a_pass: The pass.
      train: (pass, client rows) -> what its jobs leave behind.
      client_rows: What clients keep, leaves [J, ...].

    Returns:
      What the last time left behind, with the statistics of the first; "nonfinite" is of any.

    Raises:
      ValueError: If a pass that repeats sends something.
    """
    if a_pass.structure.repeats is None:
        return train(a_pass, client_rows)
    jobs = a_pass.jobs
    running = jobs.accepted & (jobs.client >= 0)
    if a_pass.selected is not None:
        running &= a_pass.selected
    if a_pass.sound is not None:
        running &= a_pass.sound

    def once(running: jax.Array, client_rows: ClientRows) -> Trained:
        return train(a_pass._replace(selected=running), client_rows)

    def asks(index: jax.Array, own: PyTree) -> jax.Array:
        built = a_pass.trials.of_job(a_pass.job(index))
        return _checked(built.algorithm.passes[a_pass.number].repeats(own), a_pass.number)

    def go_on(state):
        return state[0] | state[1].any()

    def next_time(state):
        is_first, running, before = state
        after = once(running, before.client_rows)
        again = jax.vmap(asks)(jnp.arange(len(running)), after.client_rows.algorithm)
        # of a job that is not finite nothing was kept, so it would ask for ever
        broken = after.stats["nonfinite"] > 0
        again &= running & ~broken
        stats = jax.tree.map(
            lambda new, old: jnp.where(is_first, new, old), after.stats, before.stats
        )
        stats["nonfinite"] |= running & broken
        return jnp.bool_(False), again, after._replace(stats=stats)

    shapes = jax.eval_shape(once, running, client_rows)
    if shapes.sums:
        raise ValueError(
            f"Pass {a_pass.number} has `repeats` and sends {', '.join(map(repr, shapes.sums))}; "
            "what a client sends each time would be lost but the last. Let `finish` keep it in the "
            "client's state, and a later pass send it."
        )
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    nothing = nothing._replace(client_rows=client_rows)
    trained = jax.lax.while_loop(go_on, next_time, (jnp.bool_(True), running, nothing))[-1]
    if a_pass.selected is not None:
        return trained
    return trained._replace(stats={n: s for n, s in trained.stats.items() if n != "unselected"})


def resting(work: Work, a_pass: Pass) -> Work:
    """Returns the work of a pass that repeats, whose jobs rest once they are done."""
    if a_pass.structure.repeats is None:
        return work

    def step(message: PyTree, carry: PyTree, index: jax.Array, *more: Any) -> PyTree:
        def go(carry):
            return work.step(message, carry, index, *more)

        return jax.lax.cond(a_pass.selected[index], go, lambda carry: carry, carry)

    return work._replace(step=step)


def _checked(asks: Any, number: int) -> jax.Array:
    """Returns what a rule says, which is one truth value."""
    dtype, shape = jnp.result_type(asks), jnp.shape(asks)
    if shape or dtype != jnp.bool_:
        raise ValueError(
            f"`repeats` of pass {number} returns {dtype}{list(shape)}; it must return one truth "
            "value, such as ~own.converged."
        )
    return jnp.asarray(asks)
