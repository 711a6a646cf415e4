"""Evaluates jaxprs again, equation by equation, to compute the same in another way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

# Primitives that call a jaxpr, and the parameter that holds it.
PLAIN_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
# What is left of custom derivatives is a plain call where nothing is differentiated any more.
_CALLS = {**PLAIN_CALLS, "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def bind(equation: Any, operands: Sequence[Any]) -> list:
    """Returns the results of an equation."""
    functions, parameters = (), equation.primitive.get_bind_params(equation.params)
    if isinstance(parameters, tuple):  # before JAX 0.9.2 functions came apart
        functions, parameters = parameters
    results = equation.primitive.bind(*functions, *operands, **parameters)
    return results if equation.primitive.multiple_results else [results]


def scope(equation: Any) -> contextlib.AbstractContextManager:
    """Returns the context that gives an equation its place in profiles and error messages."""
    names = str(equation.source_info.name_stack)
    return jax.named_scope(names) if names else contextlib.nullcontext()


def bodies(params: Mapping[str, Any]) -> list[core.Jaxpr]:
    """Returns the jaxprs in the parameters of an equation."""
    values = [part for value in params.values() for part in _as_tuple(value)]
    return [getattr(body, "jaxpr", body) for body in values if is_body(body)]


def is_body(value: Any) -> bool:
    """Returns whether a parameter of an equation is a jaxpr."""
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def inlined(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    apply: Callable[[Any, Sequence[Any]], list] = bind,
    calls: Mapping[str, str] = _CALLS,
) -> list:
    """Evaluates a jaxpr with its inner calls written out.

    Args:
      jaxpr, consts: The equations.
      arguments: Values of its arguments.
      apply: (equation, operands) -> the results of one that is no call.
      calls: Which primitives are calls, and the parameter of each that holds its jaxpr; with
        `PLAIN_CALLS`, functions with derivatives of their own keep them.
    """
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(var):
        return var.val if isinstance(var, core.Literal) else values[var]

    for equation in jaxpr.eqns:
        operands = [read(var) for var in equation.invars]
        with equation.ctx.manager, scope(equation):
            if equation.primitive.name in calls:
                inner = equation.params[calls[equation.primitive.name]]
                body, consts_of = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
                results = inlined(body, consts_of, operands, apply, calls)
            else:
                results = apply(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)
