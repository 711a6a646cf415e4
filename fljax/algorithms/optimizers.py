"""Makes optimizers whose state starts anew in each round, and those whose state is kept.

Clients of a federation start their optimizer anew in each round, so that a schedule in it, which
counts the optimizer's own steps, would begin anew as well: it is refused. Where the state is kept
(on the server, by clients that train alone) a schedule runs on.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fljax.core.precision import widened

PyTree = Any

# optax's states that count the steps of a schedule, whatever it is a schedule of
_SCHEDULES = (
    "ScaleByScheduleState", "WrappedScheduleState", "WeightDecaySchedule",
    "ConditionallyTransformState", "ConditionallyMaskState",
)  # fmt: skip
_NOISE = ("AddNoiseState", "DifferentiallyPrivateAggregateState")
# steps at which an unknown state's counts are tried, and those in which moments settle
_COUNTS, _FIRST_STEPS = (1, 2, 5, 10, 100, 1000, 10_000, 100_000, 1_000_000), 8


def check_starts_anew(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    """Raises ValueError if an optimizer would repeat in each round what it should do once a run.

    Counts by which moments are corrected for their start (Adam's) may start anew, as moments do.

    Args:
      optimizer: That of the clients' local steps.
      params: Arrays or shapes of the model's parameters.
    """
    params = jax.eval_shape(widened, params)
    state = jax.eval_shape(optimizer.init, params)
    held = _held(state)
    if noise := [name for name in held if name in _NOISE]:
        raise ValueError(
            f"client_optimizer adds noise from a key of its own ({noise[0]}), and clients "
            "start their optimizer anew in each round: all of them would draw the same noise, in "
            "every round. Draw it from the job's key, in a step of your own or an uplink link."
        )
    schedules = [name for name in held if name in _SCHEDULES]
    if not (schedules or _depends_on_count(optimizer, state, params)):
        return
    found = f" ({schedules[0]})" if schedules else ""
    raise ValueError(
        f"client_optimizer has a schedule{found} that counts local steps, and clients start their "
        "optimizer anew in each round: it would begin again each time. Give the optimizer numbers, "
        "such as hp['client_lr'], and simulate client_lr_schedule=..., a function of the round "
        "that multiplies client_lr."
    )


def at_present(
    optimizer: optax.GradientTransformation, opt_state: PyTree, params: PyTree
) -> PyTree:
    """Returns a state that was kept, with this round's numbers where it holds hyperparameters.

    `optax.inject_hyperparams` copies them into its state, where those of the first round would
    stay for good.
    """
    if "InjectStatefulHyperparamsState" not in _held(opt_state):
        return opt_state

    def one(kept, fresh):
        if not _is_injected(kept):
            return kept
        inner = jax.tree.map(one, kept.inner_state, fresh.inner_state, is_leaf=_is_injected)
        return kept._replace(hyperparams=fresh.hyperparams, inner_state=inner)

    fresh = optimizer.init(widened(params))
    return jax.tree.map(one, opt_state, fresh, is_leaf=_is_injected)


def _is_injected(node: Any) -> bool:
    return type(node).__name__ == "InjectStatefulHyperparamsState"


def _held(node: Any) -> set[str]:
    """Returns the names of the types of all records in a state."""
    names = {type(node).__name__}
    return names.union(*map(_held, _children(node)))


def _children(node: Any) -> list[Any]:
    below = jax.tree.leaves(node, is_leaf=lambda other: other is not node)
    return [] if len(below) == 1 and below[0] is node else below


def _depends_on_count(optimizer, state: PyTree, params: PyTree) -> bool:
    """Returns whether steps depend on counts in records that are not optax's, but to correct.

    Moments that are corrected for their start lead to equal steps under a constant gradient,
    although each step depends on its count.
    """
    marks = _foreign_counts(state)
    if not any(jax.tree.leaves(marks)):
        return False
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)
    first = optimizer.init(ones)
    step, following = optimizer.update(ones, first, ones)

    def depends_on(count):
        counted = lambda mark, leaf: jnp.full_like(leaf, count) if mark else leaf  # noqa: E731
        return not _alike(
            optimizer.update(ones, jax.tree.map(counted, marks, first), ones)[0], step
        )

    earliest = next(filter(depends_on, _COUNTS), None)
    if earliest is None or earliest >= _FIRST_STEPS:
        return earliest is not None
    for _ in range(_FIRST_STEPS):
        after, following = optimizer.update(ones, following, ones)
        if not _alike(after, step):
            return True
    return False


def _foreign_counts(node: Any, of_optax: bool = False) -> PyTree:
    """Returns a tree like the state, true for single integers that are in no record of optax."""
    below = _children(node)
    if not below:
        whole = jnp.issubdtype(getattr(node, "dtype", None), np.integer)
        return whole and node.shape == () and not of_optax
    of_optax = type(node).__module__.startswith("optax.")
    marks = [_foreign_counts(child, of_optax) for child in below]
    structure = jax.tree.structure(node, is_leaf=lambda other: other is not node)
    return jax.tree.unflatten(structure, marks)


def _alike(some: PyTree, others: PyTree) -> bool:
    return all(
        np.allclose(a, b, rtol=1e-3, atol=0)
        for a, b in zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    )
