"""Weights of narrow dense layers kept transposed during local training.

A layer of few outputs has tall, narrow weights, and XLA's CPU backend takes far longer for their
gradient, `x.T @ g` [in, out], than for its transpose `g.T @ x` [out, in]: for 784 x 10 a whole step
of softmax regression takes twice as long. A lane may therefore carry such weights, and whatever is
combined with them entry by entry (gradients, momentum), transposed from step to step. The step is
rewritten for it, so that algorithms and models know nothing of it; only the order of sums changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend import core

PyTree = Any

# Primitives that treat every entry alike, whatever the order of the axes.
_ELEMENTWISE = frozenset(
    "abs add add_any and cbrt ceil clamp convert_element_type copy copy_p cos div eq erf exp exp2 "
    "expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter "
    "not or pow reduce_precision rem round rsqrt select_n sign sin sqrt square stop_gradient sub "
    "tan tanh xor".split()
)
# Primitives that call a jaxpr, and the parameter that holds it; what is left of custom derivatives
# is a plain call, since nothing is differentiated any more.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# Weights of more outputs gain nothing (measured at 200), and tiny ones not enough for the two
# transpositions of every job.
_MAX_OUTPUTS = 32
_MIN_SIZE = 256


class Layout(NamedTuple):
    """A step over a carry in another layout.

    Attributes:
      step: (packed carry, *arguments) -> packed carry.
      pack: carry -> packed carry.
      unpack: packed carry -> carry.
    """

    step: Callable[..., PyTree]
    pack: Callable[[PyTree], PyTree]
    unpack: Callable[[PyTree], PyTree]


def as_given(step: Callable[..., PyTree], *arguments: Any) -> Layout:
    """Returns the layout that changes nothing; the arguments are those of `transposed_weights`."""
    del arguments
    return Layout(step, lambda carry: carry, lambda carry: carry)


def transposed_weights(step: Callable[..., PyTree], carry: PyTree, *arguments: Any) -> Layout:
    """Returns a step that carries the weights of dense layers transposed.

    Args:
      step: (carry, *arguments) -> carry, of the same structure, shapes and dtypes.
      carry: Arrays or shapes of the carry.
      *arguments: Arrays or shapes of the other arguments.
    """
    closed = jax.make_jaxpr(_inlined(step))(carry, *arguments)
    jaxpr = closed.jaxpr
    leaves, structure = jax.tree.flatten(carry)
    inputs, outputs = jaxpr.invars[: len(leaves)], jaxpr.outvars
    groups = _groups(jaxpr)
    chosen = [
        _is_narrow(before) and groups.of(before) == groups.of(after)
        and groups.of(before) in groups.with_product
        for before, after in zip(inputs, outputs, strict=True)
    ]  # fmt: skip
    swapped = {groups.of(var) for var, yes in zip(inputs, chosen, strict=True) if yes}
    if not swapped:
        return as_given(step)

    def is_swapped(var) -> bool:
        return _is_matrix(var) and groups.of(var) in swapped

    def flip(tree: PyTree) -> PyTree:
        flat = structure.flatten_up_to(tree)
        return structure.unflatten(
            [leaf.T if yes else leaf for leaf, yes in zip(flat, chosen, strict=True)]
        )

    def packed_step(carry, *arguments):
        values = _evaluate(jaxpr, closed.consts, jax.tree.leaves((carry, arguments)), is_swapped)
        return structure.unflatten(values)

    return Layout(packed_step, flip, flip)


class _Groups:
    """Matrices that are combined element by element, and so must share a layout."""

    def __init__(self):
        self._parent: dict[core.Var, core.Var] = {}
        self.with_product: set[core.Var] = set()

    def of(self, var: core.Var) -> core.Var:
        while (parent := self._parent.get(var, var)) is not var:
            var = parent
        return var

    def join(self, one: core.Var, other: core.Var) -> None:
        self._parent[self.of(one)] = self.of(other)


def _groups(jaxpr: core.Jaxpr) -> _Groups:
    groups = _Groups()
    for equation in jaxpr.eqns:
        if equation.primitive.name in _ELEMENTWISE:
            matrices = [var for var in (*equation.invars, *equation.outvars) if _is_matrix(var)]
            for var in matrices[:-1]:
                groups.join(var, matrices[-1])
    products = {eqn.outvars[0] for eqn in jaxpr.eqns if _is_product(eqn)}
    products |= {
        eqn.outvars[0] for eqn in jaxpr.eqns if _is_transpose(eqn) and eqn.invars[0] in products
    }
    groups.with_product = {groups.of(var) for var in products if _is_matrix(var)}
    return groups


def _evaluate(jaxpr: core.Jaxpr, consts, arguments, is_swapped: Callable[[Any], bool]):
    """Evaluates a jaxpr whose arguments, results and values are transposed where `is_swapped`."""
    values = dict(zip(jaxpr.invars, arguments, strict=True))
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        values[var] = value.T if is_swapped(var) else value

    def read(var, swapped: bool = False):
        if isinstance(var, core.Literal):
            return var.val
        return values[var] if is_swapped(var) == swapped else values[var].T

    for equation in jaxpr.eqns:
        if equation.primitive.name in _ELEMENTWISE:
            swapped = is_swapped(equation.outvars[0])
            operands = [read(v, swapped and len(v.aval.shape) == 2) for v in equation.invars]
            results = _bind(equation, operands)
        elif _is_product(equation):
            results = [_product(equation, read, is_swapped)]
        elif _is_transpose(equation):
            results = [read(equation.invars[0], not is_swapped(equation.outvars[0]))]
        else:
            results = _bind(equation, [read(var) for var in equation.invars])
            results = [
                value.T if is_swapped(var) else value
                for var, value in zip(equation.outvars, results, strict=True)
            ]
        values.update(zip(equation.outvars, results, strict=True))
    return [
        read(var, is_swapped(var)) if isinstance(var, core.Var) else var.val
        for var in jaxpr.outvars
    ]


def _product(equation, read, is_swapped):
    """Evaluates a product of two matrices whose operands and result may be transposed."""
    (lhs, rhs), (out,) = equation.invars, equation.outvars
    ((left,), (right,)), _ = equation.params["dimension_numbers"]
    operands = []
    for var, axis in ((lhs, left), (rhs, right)):
        swapped = is_swapped(var)
        operands.append((read(var, swapped), 1 - axis if swapped else axis))
    if is_swapped(out):
        operands.reverse()
    (a, left), (b, right) = operands
    dimensions = (((left,), (right,)), ((), ()))
    return lax.dot_general(
        a, b, dimensions, equation.params["precision"], equation.params["preferred_element_type"]
    )


def _bind(equation, operands) -> list:
    results = equation.primitive.bind(*operands, **equation.params)
    return results if equation.primitive.multiple_results else [results]


def _is_matrix(var: Any) -> bool:
    if not isinstance(var, core.Var):
        return False
    shape = getattr(var.aval, "shape", ())
    return len(shape) == 2 and min(shape) > 1 and shape[0] * shape[1] >= _MIN_SIZE


def _is_narrow(var: Any) -> bool:
    return _is_matrix(var) and var.aval.shape[1] <= min(_MAX_OUTPUTS, var.aval.shape[0] // 2)


def _is_transpose(equation) -> bool:
    """Whether an equation exchanges the axes of a matrix."""
    name, parameters = equation.primitive.name, equation.params
    return (
        name == "transpose"
        and parameters["permutation"] == (1, 0)
        and isinstance(equation.invars[0], core.Var)
    )


def _is_product(equation) -> bool:
    """Whether an equation is a product of two matrices."""
    if equation.primitive.name != "dot_general":
        return False
    contracting, batch = equation.params["dimension_numbers"]
    ranks = [len(var.aval.shape) for var in equation.invars]
    return ranks == [2, 2] and [len(axes) for axes in (*contracting, *batch)] == [1, 1, 0, 0]


def _inlined(function: Callable) -> Callable:
    """Returns the function with nested jit calls written out, for `make_jaxpr`."""

    def evaluate(jaxpr, consts, *arguments):
        values = dict(zip(jaxpr.constvars, consts, strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            operands = [
                var.val if isinstance(var, core.Literal) else values[var] for var in equation.invars
            ]
            if equation.primitive.name in _CALLS:
                inner = equation.params[_CALLS[equation.primitive.name]]
                results = evaluate(inner.jaxpr, inner.consts, *operands)
            else:
                results = _bind(equation, operands)
            values.update(zip(equation.outvars, results, strict=True))
        return [var.val if isinstance(var, core.Literal) else values[var] for var in jaxpr.outvars]

    def inlined(*arguments):
        closed = jax.make_jaxpr(function)(*arguments)
        return evaluate(closed.jaxpr, closed.consts, *jax.tree.leaves(arguments))

    return inlined
