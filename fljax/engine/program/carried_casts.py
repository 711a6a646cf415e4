"""Casts of weights taken out of local steps: once when a job starts, then with every update.

With `compute_dtype="bfloat16"` a step begins with a cast of its weights. On an accelerator that is
a kernel for each weight, which reads it in float32 and writes it in bfloat16. The update of the
step before has had the same numbers at hand. So what a job carries gets copies of the weights that
its steps cast, and each step makes those of its new weights, which XLA does in the kernel that
updates them. The weights stay float32, and results are the same bit for bit. What a job does is
rewritten for it, so that algorithms and models know nothing of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from fljax.core.jaxprs import bind, inlined
from fljax.engine.program.layout import WeightLayout, Work, as_given
from fljax.engine.program.transposition import Traced, trace

PyTree = Any

# Smaller weights are cast by the kernels that read them.
_MIN_SIZE = 2**14


class _Cast(NamedTuple):
    """A cast of a step: of which leaf of the carry, into which type, by which equations."""

    leaf: int
    dtype: Any
    equations: frozenset[int]


def carried_casts(
    work: Work, message: PyTree, client_rows: PyTree, arguments: tuple, summed: bool
) -> WeightLayout:
    """Returns the layout whose carry holds the weights as steps cast them; see `WeightLayout`.

    The arguments are those of `transposed_weights`. Where a step casts no weights, nothing changes.
    """
    del summed
    index, *_ = arguments
    carry = jax.eval_shape(work.start, message, index, client_rows)
    step = trace(work.step, message, carry, *arguments)
    casts = _casts(step)
    if not casts or step.results != jax.tree.structure(carry):
        return as_given(work)

    def with_copies(carry):
        leaves = jax.tree.leaves(carry)
        return carry, tuple(leaves[cast.leaf].astype(cast.dtype) for cast in casts)

    def start(*arguments):
        return with_copies(work.start(*arguments))

    def one_step(message, carry, *arguments):
        carry, copies = carry
        copy_of = {
            number: copy
            for cast, copy in zip(casts, copies, strict=True)
            for number in cast.equations
        }

        def apply(equation, operands):
            copy = copy_of.get(id(equation))
            return bind(equation, operands) if copy is None else [copy]

        leaves = step.arguments.flatten_up_to((message, carry, *arguments))
        return with_copies(step.results.unflatten(inlined(step.jaxpr, step.consts, leaves, apply)))

    def finish(message, carry, *arguments):
        return work.finish(message, carry[0], *arguments)

    return as_given(Work(start, one_step, finish))


def _casts(step: Traced) -> list[_Cast]:
    """Returns the casts of large weights to narrower types."""
    message, carry, *_ = step.arguments.children()
    held = step.jaxpr.invars[message.num_leaves :][: carry.num_leaves]
    place = {var: leaf for leaf, var in enumerate(held) if _is_large(var)}
    found: dict[tuple[int, Any], set[int]] = {}
    for equation in step.jaxpr.eqns:
        cast = equation.invars[0] if _narrows(equation) else None
        leaf = place.get(cast) if isinstance(cast, core.Var) else None
        if leaf is not None:
            dtype = equation.outvars[0].aval.dtype
            found.setdefault((leaf, dtype), set()).add(id(equation))
    return [_Cast(*key, frozenset(equations)) for key, equations in found.items()]


def _is_large(var: Any) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.floating) and var.aval.size >= _MIN_SIZE


def _narrows(equation: Any) -> bool:
    if equation.primitive.name != "convert_element_type":
        return False
    old, new = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    return jnp.issubdtype(new, jnp.floating) and new.itemsize < old.itemsize
