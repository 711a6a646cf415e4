"""Finds what a model's last layer reads: the representation of a batch, and which layer that is.

Nothing is asked of the model. Its loss is traced, and two things are looked for among the
equations: the last product of parameters with something that is made of the inputs, and, before
it, the last array through which all ways from the inputs to the loss lead. That array is the
representation; the parameters that are read behind it and not before are the head. Of two products
that read the same array (a model with two outputs) both belong to the head; of a tied embedding,
which is read on both sides, nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from fljax.core.jaxprs import PLAIN_CALLS, bodies, inlined
from fljax.core.trees import leaf_paths

PyTree = Any

_PRODUCTS = ("dot_general", "ragged_dot_general", "conv_general_dilated")
# What is inside has derivatives of its own, and is one layer: a convolution of `fljax_kernels`.
_LAYERS = ("custom_vjp_call", "custom_jvp_call", "pallas_call")
_WRITTEN_OUT = {**PLAIN_CALLS, "checkpoint": "jaxpr", "remat2": "jaxpr"}
_NO_HEAD = "The model has no last layer that reads a representation: "


class _Forward(NamedTuple):
    """The equations of a loss, written out.

    Attributes:
      jaxpr: The equations.
      consts: Its constants.
      params: The variables of the parameters, in the order of leaves.
      inputs: The variables of what the model reads.
      values: The variable of the losses.
      shapes: The results of the loss, as shapes.
    """

    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    params: Sequence[Any]
    inputs: Sequence[Any]
    values: Any
    shapes: PyTree


def with_representation(losses: Callable[..., tuple]) -> Callable[..., tuple]:
    """Returns a function that returns the representation beside what a loss returns.

    Args:
      losses: (params, x, *rest) -> (float[B] the loss of each example, anything).

    Returns:
      (params, x, *rest) -> (float[B, ...] representation, losses, anything), of one pass through
      the model.

    Example:
      >>> losses = lambda params, x: (jnp.sum(jnp.tanh(x) @ params["head"], 1), ())
      >>> params, x = {"head": jnp.ones((2, 3))}, jnp.array([[0.0, 1.0]])
      >>> print(with_representation(losses)(params, x)[0])
      [[0.        0.7615942]]
    """

    def represented(params, x, *rest):
        forward = _traced(losses, params, x, *rest)
        found, _ = _representation(forward)
        arguments = jax.tree.leaves((params, x, *rest))
        wanted = forward.jaxpr.replace(outvars=[found, *forward.jaxpr.outvars])
        first, *results = inlined(wanted, forward.consts, arguments, calls={})
        return first, *jax.tree.unflatten(jax.tree.structure(forward.shapes), results)

    return represented


def head_of(losses: Callable[..., tuple], params: PyTree, x: PyTree, *rest: PyTree) -> PyTree:
    """Returns which parameters are the head: read behind the representation, and not before.

    Args:
      losses: As for `with_representation`.
      params, x, *rest: Its arguments; shapes are enough.

    Returns:
      A pytree of bools, like `params`.

    Raises:
      ValueError: If the model has no such layer, with the reason.

    Example:
      >>> losses = lambda params, x: (jnp.sum(jnp.tanh(x @ params["base"]) @ params["head"], 1), ())
      >>> params = {"base": jnp.ones((4, 2)), "head": jnp.ones((2, 3))}
      >>> head_of(losses, params, jnp.ones((5, 4)))
      {'base': False, 'head': True}
    """
    forward = _traced(losses, params, x, *rest)
    found, product = _representation(forward)
    before = _sources(forward, forward.params)
    behind = _sources(forward, forward.params, without=found)
    head = behind.get(forward.values, frozenset()) - before.get(found, frozenset())
    weights = [behind.get(var, frozenset()) for var in product.invars if _is_var(var)]
    paths = leaf_paths(params)
    if not any(leaves and leaves <= head for leaves in weights):
        tied = sorted(paths[leaf] for leaf in frozenset().union(*weights))
        raise ValueError(
            f"{_NO_HEAD}its last product is with {', '.join(tied)}, which the layers before it "
            "read as well. Say which parameters are meant by their paths."
        )
    leaves = [number in head for number in range(len(paths))]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _traced(losses: Callable[..., tuple], params: PyTree, x: PyTree, *rest: PyTree) -> _Forward:
    """Returns the equations of a loss; functions with derivatives of their own stay calls."""
    closed, shapes = jax.make_jaxpr(losses, return_shape=True)(params, x, *rest)
    flat = jax.make_jaxpr(
        lambda *leaves: inlined(closed.jaxpr, closed.consts, leaves, calls=_WRITTEN_OUT)
    )(*closed.in_avals)
    num_params, num_inputs = len(jax.tree.leaves(params)), len(jax.tree.leaves(x))
    of_params, of_inputs = flat.jaxpr.invars[:num_params], flat.jaxpr.invars[num_params:]
    values = flat.jaxpr.outvars[0]
    return _Forward(flat.jaxpr, flat.consts, of_params, of_inputs[:num_inputs], values, shapes)


def _representation(forward: _Forward) -> tuple[Any, Any]:
    """Returns the variable of the representation, and the last product behind it.

    Raises:
      ValueError: If there is none.
    """
    of_inputs = _sources(forward, forward.inputs)
    of_params = _sources(forward, forward.params)
    leading = _leading(forward, of_inputs)
    products = [
        (number, equation)
        for number, equation in leading
        if any(_is_var(v) and v in of_params and v not in of_inputs for v in equation.invars)
        and (equation.primitive.name in (*_PRODUCTS, *_LAYERS) or bodies(equation.params))
    ]
    if not products:
        raise ValueError(
            f"{_NO_HEAD}no parameters are multiplied, as a matrix or kernel, with what is made of "
            "its inputs."
        )
    last, product = products[-1]
    if product.primitive.name not in (*_PRODUCTS, *_LAYERS):
        raise ValueError(
            f"{_NO_HEAD}its last parameters are read inside a loop or branch of the model "
            f"({product.primitive.name}), where nothing can be taken out. Put the last layer "
            "behind it."
        )
    rows = forward.values.aval.shape[0]
    passed = [var for var in _passages(forward, leading, last) if var.aval.shape[:1] == (rows,)]
    if not passed:
        raise ValueError(
            f"{_NO_HEAD}several arrays lead from its inputs to the last product side by side, and "
            "no single one with an entry for each example."
        )
    return passed[-1], product


def _leading(forward: _Forward, of_inputs: dict) -> list[tuple[int, Any]]:
    """Returns (number, equation) of those on the ways from the inputs to the losses, in order."""
    wanted, leading = {forward.values}, []
    for number, equation in reversed(list(enumerate(forward.jaxpr.eqns))):
        if wanted.isdisjoint(equation.outvars):
            continue
        operands = [var for var in equation.invars if _is_var(var) and var in of_inputs]
        if operands:
            leading.append((number, equation))
            wanted.update(operands)
    return leading[::-1]


def _passages(forward: _Forward, leading: Sequence[tuple[int, Any]], last: int) -> list:
    """Returns the variables through which all ways lead, up to the equation `last`, in order.

    Equations stand in an order in which they can be computed. So once a variable that all ways lead
    through is known, it is the only one that is still to be read.
    """
    reads = {var: number for number, equation in leading for var in equation.invars if _is_var(var)}
    open_ones = {var for var in forward.inputs if var in reads}
    passages = [*open_ones] if len(open_ones) == 1 else []
    for number, equation in leading:
        if number >= last:
            break
        open_ones |= {var for var in equation.outvars if var in reads}
        open_ones = {var for var in open_ones if reads[var] > number}
        if len(open_ones) == 1:
            passages += open_ones
    return passages


def _sources(forward: _Forward, variables: Sequence[Any], without: Any = None) -> dict:
    """Returns {variable: numbers of those of `variables` that it is made of}; no empty ones.

    Args:
      forward: The equations.
      variables: What is traced.
      without: A variable that counts as made of nothing.
    """
    sources = {var: frozenset([number]) for number, var in enumerate(variables)}
    for equation in forward.jaxpr.eqns:
        found = [sources[var] for var in equation.invars if _is_var(var) and var in sources]
        if found:
            union = frozenset().union(*found)
            sources |= {var: union for var in equation.outvars if var is not without}
    return sources


def _is_var(var: Any) -> bool:
    return not isinstance(var, core.Literal)
