"""Evaluates jaxprs again, equation by equation, to compute the same in another way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

# Primitives that call a jaxpr, and the parameter that holds it; what is left of custom derivatives
# is a plain call, since nothing is differentiated any more.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def bind(equation: Any, operands: Sequence[Any]) -> list:
    """Returns the results of an equation."""
    results = equation.primitive.bind(*operands, **equation.params)
    return results if equation.primitive.multiple_results else [results]


def scope(equation: Any) -> contextlib.AbstractContextManager:
    """Returns the context that gives an equation its place in profiles and error messages."""
    names = str(equation.source_info.name_stack)
    return jax.named_scope(names) if names else contextlib.nullcontext()


def inlined(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    apply: Callable[[Any, Sequence[Any]], list] = bind,
) -> list:
    """Evaluates a jaxpr with its inner calls written out.

    Args:
      jaxpr, consts: The equations.
      arguments: Values of its arguments.
      apply: (equation, operands) -> the results of one that is no call.
    """
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(var):
        return var.val if isinstance(var, core.Literal) else values[var]

    for equation in jaxpr.eqns:
        operands = [read(var) for var in equation.invars]
        with equation.ctx.manager, scope(equation):
            if equation.primitive.name in _CALLS:
                inner = equation.params[_CALLS[equation.primitive.name]]
                results = inlined(inner.jaxpr, inner.consts, operands, apply)
            else:
                results = apply(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]
