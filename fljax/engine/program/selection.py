"""Selection on the devices: which jobs the later passes of a round keep, and which cannot go on."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Chosen
from fljax.engine.program import keys
from fljax.engine.program.cohort_order import gathered, in_cohort_order
from fljax.engine.program.passes import Pass
from fljax.engine.program.trials import Built


def still_sound(a_pass: Pass, stats: dict[str, jax.Array]) -> jax.Array | None:
    """Returns bool[J], the jobs that can go on to the next pass; None for all.

    A client whose work was not finite has nothing to go on with. Where the uplink makes zeros of
    it, the client takes part all the same, as noise is for a fixed number of them.

    Args:
      a_pass: The pass.
      stats: {name: [J]} of the pass.
    """
    is_last = a_pass.number + 1 == len(a_pass.trials.first.algorithm.passes)
    if is_last or a_pass.trials.first.pipeline.makes_finite:
        return None
    finite = stats["nonfinite"] == 0
    return finite if a_pass.sound is None else finite & a_pass.sound


def select(a_pass: Pass, stats: dict[str, jax.Array]) -> tuple[jax.Array | None, jax.Array | None]:
    """Returns which jobs of this device later passes keep, and factors of their updates.

    Args:
      a_pass: The pass, whose rule decides.
      stats: {name: [J]} of the pass.

    Returns:
      (bool[J], None without any rule; float[J], None where no rule says any).

    Raises:
      ValueError: If the last pass has a rule, or one returns something else.
    """
    if a_pass.structure.select is None:
        return a_pass.selected, a_pass.scale
    if a_pass.number + 1 == len(a_pass.trials.first.algorithm.passes):
        raise ValueError(
            f"Pass {a_pass.number} selects jobs for the passes after it, but it is the last one. "
            "Leave out `select`, or give it to an earlier pass."
        )
    jobs = a_pass.jobs
    stats, trials = jax.tree.map(
        lambda column: in_cohort_order(gathered(column), a_pass.cohort_index),
        (stats | {"lot": _lots(a_pass)}, jobs.trial),
    )

    def one_trial(built: Built, trial: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        arrived = (stats["jobs"] > 0) & (trials == trial)
        chosen = built.algorithm.passes[a_pass.number].select(stats, arrived)
        kept, scale = chosen if isinstance(chosen, Chosen) else (chosen, None)
        _check_rule(a_pass, "bool", kept, jnp.result_type(kept) == jnp.bool_, arrived.shape)
        if scale is not None:
            is_float = jnp.issubdtype(jnp.result_type(scale), jnp.floating)
            _check_rule(a_pass, "a scale of float", scale, is_float, arrived.shape)
        return kept & arrived, scale

    numbers = jnp.arange(len(a_pass.trials.rounds), dtype=jnp.int32)
    kept, scale = a_pass.trials.each(one_trial, numbers)
    if scale is not None:
        scale = scale[jobs.trial, jobs.position]
        scale = scale if a_pass.scale is None else scale * a_pass.scale
    else:
        scale = a_pass.scale
    return kept[jobs.trial, jobs.position] & (jobs.client >= 0), scale


def _lots(a_pass: Pass) -> jax.Array:
    """Returns float32[J], a random number of each job, whatever lane or device it ran on."""

    def of_job(index: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(a_pass.job(index).key, keys.LOT))

    return jax.vmap(of_job)(jnp.arange(len(a_pass.jobs.client)))


def _check_rule(a_pass: Pass, kind: str, found: jax.Array, fits: bool, shape: tuple) -> None:
    if not fits or jnp.shape(found) != shape:
        raise ValueError(
            f"`select` of pass {a_pass.number} returns {jnp.result_type(found)}"
            f"{list(jnp.shape(found))}; it must return {kind}{list(shape)}, one for each job of "
            "the cohort."
        )
