"""Plain SGD steps of dense layers fused with the gradients that they take.

A gradient that is scaled by a number, added to a dense layer's weights and used for nothing else
need not be written to memory: `fljax_kernels.dense_update` adds it to each tile of the weights as
it reads them for the gradient by the layer's input. A local step then reads the weights twice and
writes them once, instead of reading them three times and writing gradient and weights. The traced
step shows where that is so: in plain SGD on matrices, not with momentum, weight decay, corrections
or clipping. Algorithms and models know nothing of it.

A lane that waits for others has no rows. Weights that are kept aside for it would be copied before
they are updated; so where there are updates, the step itself leaves a carry without rows as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from fljax.core.jaxprs import bind, inlined
from fljax.engine.program.layout import Work
from fljax.engine.program.transposition import Traced, is_matrix, trace
from fljax_kernels.dense_update import MAX_ROWS, dense_update

PyTree = Any

# Of smaller weights the card notices nothing but the number of kernels.
_MIN_SIZE = 2**12
# What a step's scale is computed from: numbers, hyperparameters of some trials.
_MAX_SCALE_SIZE = 2**10


class _Update(NamedTuple):
    """An update of weights, by the equations that it consists of.

    Attributes:
      leaf: Which argument of the step the weights are.
      scale: What their gradient is multiplied by.
      product: x and dy -> gradient [in, out]; where it is turned, dy and x -> [out, in].
      turned: Whether the gradient is the product's transpose.
      between: From the product to what is added.
      total: The sum with the weights.
      passed_back: dy and weights -> gradient by the input; None where nobody wants it.
    """

    leaf: int
    scale: core.Var
    product: Any
    turned: bool
    between: tuple[Any, ...]
    total: Any
    passed_back: Any


def fused_updates(work: Work, message: PyTree, client_rows: PyTree, arguments: tuple) -> Work:
    """Returns what a job does with the updates of dense layers fused, where there are any.

    Args:
      work: What a job does.
      message: Arrays or shapes of one job's message.
      client_rows: Arrays or shapes of what one job's client keeps.
      arguments: Arrays or shapes of `index, rows, count, time`.
    """
    index, *_ = arguments
    carry = jax.eval_shape(work.start, message, index, client_rows)
    step = trace(work.step, message, carry, *arguments)
    held = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(carry)]
    if step.results != jax.tree.structure(carry) or held != _kinds(step.jaxpr.outvars):
        return work  # the loop over steps says best what is wrong
    updates = _updates(step)
    if not updates:
        return work
    fused = {update.total.outvars[0] for update in updates}

    def fused_step(message, carry, index, rows, count, time):
        leaves = step.arguments.flatten_up_to((message, carry, index, rows, count, time))
        scales = [
            jnp.where(count > 0, scale, 0)
            for scale in _values_of([update.scale for update in updates], step, leaves)
        ]
        results: dict[int, list] = {}

        def fuse(update, scale, operands):
            x, dy = reversed(operands) if update.turned else operands
            weights, passed_back = dense_update(
                leaves[update.leaf], x, dy, scale, update.product.params["precision"],
                passes_back=update.passed_back is not None,
            )  # fmt: skip
            results[id(update.total)] = [weights]
            if update.passed_back is not None:
                results[id(update.passed_back)] = [passed_back]
            for equation in (update.product, *update.between):
                results[id(equation)] = [None]  # nobody reads it

        of_product = {
            id(update.product): (update, scale)
            for update, scale in zip(updates, scales, strict=True)
        }

        def apply(equation, operands):
            if id(equation) in of_product:
                fuse(*of_product[id(equation)], operands)
            found = results.get(id(equation))
            return bind(equation, operands) if found is None else found

        after = [
            new if isinstance(var, core.Var) and var in fused else jnp.where(count > 0, new, old)
            for var, new, old in zip(
                step.jaxpr.outvars,
                inlined(step.jaxpr, step.consts, leaves, apply),
                jax.tree.leaves(carry),
                strict=True,
            )
        ]
        return step.results.unflatten(after)

    return work._replace(step=fused_step, waits=True)


def has_updates(step: Callable, message: PyTree, carry: PyTree, *arguments: PyTree) -> bool:
    """Returns whether a step has updates of dense layers that can be fused.

    Args:
      step: (message, carry, ...) -> carry; traced, not run.
      message, carry, *arguments: Arrays or shapes of its arguments.
    """
    return bool(_updates(trace(step, message, carry, *arguments)))


def _kinds(variables: Any) -> list[tuple[Any, Any]]:
    return [(var.aval.shape, var.aval.dtype) for var in variables]


def _updates(step: Traced) -> list[_Update]:
    """Returns the updates of a step that can be fused."""
    jaxpr = step.jaxpr
    uses = Counter(var for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, core.Var))
    uses.update(var for var in jaxpr.outvars if isinstance(var, core.Var))
    made_by = {var: equation for equation in jaxpr.eqns for var in equation.outvars}
    message, *_ = step.arguments.children()
    carried = jaxpr.invars[message.num_leaves :][: len(jaxpr.outvars)]
    # what becomes of weights of the carry
    after = {old: new for old, new in zip(carried, jaxpr.outvars, strict=True) if _is_large(old)}

    def alone(var, name: str):
        """Returns the equation of this primitive that makes what is used but once, or None."""
        equation = made_by.get(var) if isinstance(var, core.Var) and uses[var] == 1 else None
        return equation if equation is not None and equation.primitive.name == name else None

    def update_in(total) -> _Update | None:
        weights, added = _sorted(total.invars, lambda var: var in after)
        scaled = alone(added, "mul")
        if scaled is None or after.get(weights) is not total.outvars[0]:
            return None
        scale, gradient = _sorted(scaled.invars, lambda var: not var.aval.shape)
        turned = alone(gradient, "transpose")
        product = alone(turned.invars[0] if turned else gradient, "dot_general")
        if product is None or not _fits(product, weights) or not _is_known(scale, product, jaxpr):
            return None
        between = (turned, scaled) if turned else (scaled,)
        dy = product.invars[0 if turned else 1]
        later = jaxpr.eqns[jaxpr.eqns.index(product) :]
        back = next((eqn for eqn in later if _passes_back(eqn, dy, weights)), None)
        return _Update(
            jaxpr.invars.index(weights), scale, product, bool(turned), between, total, back
        )

    totals = [
        eqn for eqn in jaxpr.eqns if eqn.primitive.name == "add" and _is_large(eqn.outvars[0])
    ]
    return [update for update in map(update_in, totals) if update is not None]


def _sorted(pair, comes_first) -> tuple:
    """Returns the two operands of a sum or product, the one meant ahead."""
    one, other = pair
    return (one, other) if isinstance(one, core.Var) and comes_first(one) else (other, one)


def _is_large(var: Any) -> bool:
    return is_matrix(var) and var.aval.size >= _MIN_SIZE


def _fits(product: Any, weights: core.Var) -> bool:
    contracted = product.params["dimension_numbers"] == (((0,), (0,)), ((), ()))
    dtypes = {var.aval.dtype for var in (*product.invars, *product.outvars, weights)}
    return contracted and len(dtypes) == 1 and product.invars[0].aval.shape[0] <= MAX_ROWS


def _passes_back(equation: Any, dy: core.Var, weights: core.Var) -> bool:
    return (
        equation.primitive.name == "dot_general"
        and list(equation.invars) == [dy, weights]
        and equation.params["dimension_numbers"] == (((1,), (1,)), ((), ()))
    )


def _is_known(scale: Any, product: Any, jaxpr: core.Jaxpr) -> bool:
    """Returns whether a scale is a number that follows from few others, and not from a product."""
    if not isinstance(scale, core.Var) or scale.aval.shape:
        return False
    needed = _equations_of([scale], jaxpr)
    small = all(var.aval.size <= _MAX_SCALE_SIZE for eqn in needed for var in eqn.outvars)
    return small and not any(equation is product for equation in needed)


def _equations_of(variables: list[core.Var], jaxpr: core.Jaxpr) -> list:
    """Returns the equations that variables follow from, in order."""
    wanted, found = set(variables), []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            found.append(equation)
            wanted.update(var for var in equation.invars if isinstance(var, core.Var))
    return found[::-1]


def _values_of(variables: list[core.Var], step: Traced, leaves: list) -> list:
    """Returns the values of a few variables of a step, which is computed no further."""
    values = dict(zip(step.jaxpr.constvars, step.consts, strict=True))
    values |= dict(zip(step.jaxpr.invars, leaves, strict=True))
    for equation in _equations_of(variables, step.jaxpr):
        operands = [
            var.val if isinstance(var, core.Literal) else values[var] for var in equation.invars
        ]
        values.update(zip(equation.outvars, bind(equation, operands), strict=True))
    return [values[var] for var in variables]
