"""Functions rewritten so that some of the matrices in them are held transposed.

A function is traced, and its jaxpr evaluated again with other layouts: entry-by-entry operations
work in any, products take it into their dimension numbers, and before whatever is not known here a
matrix is turned back. Only the order of sums changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend import core

from fljax.core.jaxprs import bind, inlined, scope

PyTree = Any

# Primitives that treat every entry alike, whatever the order of the axes.
_ELEMENTWISE = frozenset(
    "abs add add_any and cbrt ceil clamp convert_element_type copy copy_p cos div eq erf exp exp2 "
    "expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter "
    "not or pow reduce_precision rem round rsqrt select_n sign sin sqrt square stop_gradient sub "
    "tan tanh xor".split()
)
# Primitives that, over both axes, make one number of a matrix.
_REDUCTIONS = frozenset("reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum".split())


class Traced(NamedTuple):
    """A function as a jaxpr without inner calls.

    Attributes:
      jaxpr, consts: The equations.
      arguments, results: Structures of its arguments (a tuple) and of its results.
      groups: Which matrices must share a layout.
    """

    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    arguments: Any
    results: Any
    groups: Groups

    def containing(self, arguments: PyTree, results: PyTree) -> set[core.Var]:
        """Returns the groups of the matrices that these trees of bool mark."""
        marks = (*self.arguments.flatten_up_to(arguments), *self.results.flatten_up_to(results))
        variables = (*self.jaxpr.invars, *self.jaxpr.outvars)
        return {
            self.groups.of(var)
            for var, yes in zip(variables, marks, strict=True)
            if yes and is_matrix(var)
        }

    def factors(self, groups: set[core.Var]) -> set[core.Var]:
        """Returns the groups of the factors g of products `x.T @ g` in these groups.

        Held transposed, such a product (a gradient) is `g.T @ x`. With g held transposed as well it
        is a plain product, for which XLA's CPU backend has its fastest kernels.
        """
        transposes = {
            eqn.invars[0]: eqn.outvars[0] for eqn in self.jaxpr.eqns if _is_transpose(eqn)
        }
        found = set()
        for equation in filter(_is_product, self.jaxpr.eqns):
            product, (axes, _) = equation.outvars[0], equation.params["dimension_numbers"]
            # JAX writes such a gradient as the product itself, or as the transpose of `g.T @ x`
            for factor, var in enumerate((transposes.get(product), product)):
                if var and self.groups.of(var) in groups and axes[factor] == (0,):
                    found.add(self.groups.of(equation.invars[factor]))
        return found

    def products(self) -> set[core.Var]:
        """Returns the groups that hold a product of matrices, or the transpose of one."""
        found = {eqn.outvars[0] for eqn in self.jaxpr.eqns if _is_product(eqn)}
        found |= {
            eqn.outvars[0]
            for eqn in self.jaxpr.eqns
            if _is_transpose(eqn) and eqn.invars[0] in found
        }
        return {self.groups.of(var) for var in found}

    def members(self, groups: set[core.Var]) -> tuple[PyTree, PyTree]:
        """Returns trees of bool that mark the arguments and the results in these groups."""
        arguments, results = (
            [is_matrix(var) and self.groups.of(var) in groups for var in variables]
            for variables in (self.jaxpr.invars, self.jaxpr.outvars)
        )
        return self.arguments.unflatten(arguments), self.results.unflatten(results)


class Called(NamedTuple):
    """A function as a jaxpr with inner calls: what it is made of, its arguments, its results."""

    closed: core.ClosedJaxpr
    arguments: tuple
    shapes: PyTree

    def written_out(self) -> Traced:
        """Returns it without inner calls."""
        leaves, structure = jax.tree.flatten(self.arguments)
        jaxpr, consts = self.closed.jaxpr, self.closed.consts
        whole = jax.make_jaxpr(lambda *leaves: inlined(jaxpr, consts, leaves))(*leaves)
        results = jax.tree.structure(self.shapes)
        return Traced(whole.jaxpr, whole.consts, structure, results, _groups(whole.jaxpr))


def call(function: Callable[..., PyTree], *arguments: PyTree) -> Called:
    """Traces a function of arguments like these arrays or shapes, as far as its results' shapes."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return Called(closed, arguments, shapes)


def trace(function: Callable[..., PyTree], *arguments: PyTree) -> Traced:
    """Traces a function of arguments like these arrays or shapes."""
    return call(function, *arguments).written_out()


def rewrite(
    traced: Traced, swapped: set[core.Var], arguments: PyTree, results: PyTree
) -> Callable[..., PyTree]:
    """Returns the traced function with other layouts.

    Args:
      traced: The function.
      swapped: The groups whose matrices it holds transposed.
      arguments: Tuple of trees of bool: which arguments come transposed.
      results: Tree of bool: which results leave transposed.
    """
    jaxpr = traced.jaxpr
    come, leave = traced.arguments.flatten_up_to(arguments), traced.results.flatten_up_to(results)

    def is_swapped(var) -> bool:
        return is_matrix(var) and traced.groups.of(var) in swapped

    def function(*arguments):
        leaves = traced.arguments.flatten_up_to(arguments)
        inputs = [
            leaf.T if yes != is_swapped(var) else leaf
            for var, leaf, yes in zip(jaxpr.invars, leaves, come, strict=True)
        ]
        read = _evaluate(jaxpr, traced.consts, inputs, is_swapped)
        return traced.results.unflatten(
            [read(var, yes) for var, yes in zip(jaxpr.outvars, leave, strict=True)]
        )

    return function


class Groups:
    """Matrices that are combined entry by entry, and so must share a layout."""

    def __init__(self):
        self._parent: dict[core.Var, core.Var] = {}

    def of(self, var: core.Var) -> core.Var:
        root = var
        while (parent := self._parent.get(root, root)) is not root:
            root = parent
        if root is not var:
            self._parent[var] = root
        return root

    def join(self, one: core.Var, other: core.Var) -> None:
        self._parent[self.of(one)] = self.of(other)


def is_matrix(var: Any) -> bool:
    """Returns whether a variable of a jaxpr is a matrix, and no row or column."""
    if not isinstance(var, core.Var):
        return False
    shape = getattr(var.aval, "shape", ())
    return len(shape) == 2 and min(shape) > 1


def _groups(jaxpr: core.Jaxpr) -> Groups:
    groups = Groups()
    for equation in jaxpr.eqns:
        if equation.primitive.name in _ELEMENTWISE:
            matrices = [var for var in (*equation.invars, *equation.outvars) if is_matrix(var)]
            for var in matrices[:-1]:
                groups.join(var, matrices[-1])
    return groups


def _evaluate(jaxpr: core.Jaxpr, consts, arguments, is_swapped: Callable[[Any], bool]):
    """Evaluates a jaxpr that holds its variables transposed where `is_swapped`.

    Args:
      jaxpr, consts: The equations.
      arguments: Values in the layout that the jaxpr holds them in.
      is_swapped: variable -> bool.

    Returns:
      (variable, whether transposed) -> value.
    """
    values = dict(zip(jaxpr.invars, arguments, strict=True))
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        values[var] = value.T if is_swapped(var) else value

    def read(var, swapped: bool = False):
        value = var.val if isinstance(var, core.Literal) else values[var]
        return value if is_swapped(var) == swapped else value.T

    for equation in jaxpr.eqns:
        with equation.ctx.manager, scope(equation):
            results = _evaluated(equation, read, is_swapped)
        values.update(zip(equation.outvars, results, strict=True))
    return read


def _evaluated(equation, read, is_swapped) -> list:
    """Returns the results of an equation, each transposed where `is_swapped`."""
    name = equation.primitive.name
    if name in _ELEMENTWISE:
        swapped = is_swapped(equation.outvars[0])
        return bind(equation, [read(v, swapped and v.aval.ndim == 2) for v in equation.invars])
    if name in _REDUCTIONS and len(equation.params["axes"]) == equation.invars[0].aval.ndim == 2:
        return bind(equation, [read(var, is_swapped(var)) for var in equation.invars])
    if _is_product(equation):
        return [_product(equation, read, is_swapped)]
    if _is_transpose(equation):
        return [read(equation.invars[0], not is_swapped(equation.outvars[0]))]
    results = bind(equation, [read(var) for var in equation.invars])
    return [
        value.T if is_swapped(var) else value
        for var, value in zip(equation.outvars, results, strict=True)
    ]


def _product(equation, read, is_swapped):
    """Evaluates a product of two matrices whose operands and result may be transposed."""
    (lhs, rhs), (out,) = equation.invars, equation.outvars
    ((left,), (right,)), _ = equation.params["dimension_numbers"]
    operands = []
    for var, axis in ((lhs, left), (rhs, right)):
        swapped = is_swapped(var)
        operands.append((read(var, swapped), 1 - axis if swapped else axis))
    precision = equation.params["precision"]
    if is_swapped(out):
        operands.reverse()
        precision = precision[::-1] if isinstance(precision, tuple) else precision
    (a, left), (b, right) = operands
    dimensions = (((left,), (right,)), ((), ()))
    return lax.dot_general(a, b, dimensions, precision, equation.params["preferred_element_type"])


def _is_transpose(equation) -> bool:
    """Returns whether an equation exchanges the axes of a matrix."""
    name, parameters = equation.primitive.name, equation.params
    return (
        name == "transpose"
        and parameters["permutation"] == (1, 0)
        and isinstance(equation.invars[0], core.Var)
    )


def _is_product(equation) -> bool:
    """Returns whether an equation is a product of two matrices."""
    if equation.primitive.name != "dot_general":
        return False
    contracting, batch = equation.params["dimension_numbers"]
    ranks = [len(var.aval.shape) for var in equation.invars]
    return ranks == [2, 2] and [len(axes) for axes in (*contracting, *batch)] == [1, 1, 0, 0]
