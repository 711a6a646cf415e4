"""Rewrites functions so that sums of half-precision numbers are float32 inside.

XLA adds bfloat16 numbers up in bfloat16 on a CPU: a sum stays where it is once it has 256 times the
size of what is added, so that the mean of 16,000 positive numbers comes out 40 % too small. JAX's
own `jnp.sum` knows that, but not the sums that derivatives are made of: the gradient of what is
broadcast (a bias, the scale of a normalization), of pooling by means, of a table that is looked up.
Products need nothing: they accumulate in float32 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from fljax.core.jaxprs import bind, bodies, inlined, is_body

PyTree = Any

_SUMS = ("reduce_sum", "reduce_window_sum", "cumsum", "scatter-add")


def with_wide_sums(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns the function with its sums of bfloat16 or float16 numbers accumulated in float32.

    Results are rounded to their dtypes once. Sums in the bodies of loops are found as well; what a
    loop adds up from one iteration to the next is not.
    """

    def rewritten(*arguments):
        closed, results = jax.make_jaxpr(function, return_shape=True)(*arguments)
        leaves = inlined(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), _apply)
        return jax.tree.unflatten(jax.tree.structure(results), leaves)

    return rewritten


def _apply(equation: Any, operands: Sequence[Any]) -> list:
    """Returns the results of an equation, sums in float32."""
    if _is_narrow_sum(equation):
        operands = [_wide(value) for value in operands]
        (out,), params = equation.outvars, equation.params
        if equation.primitive.name == "scatter-add":
            names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
            total = lax.scatter_add(*operands, **{name: params[name] for name in names})
        else:
            (total,) = bind(equation, operands)
        return [total.astype(out.aval.dtype)]
    if not any(map(_has_narrow_sums, bodies(equation.params))):
        return bind(equation, operands)
    params = {name: _rewritten(value) for name, value in equation.params.items()}
    return bind(equation.replace(params=params), operands)


def _is_narrow_sum(equation: Any) -> bool:
    return equation.primitive.name in _SUMS and _is_narrow(equation.outvars[0].aval.dtype)


def _is_narrow(dtype: Any) -> bool:
    return dtype in (jnp.bfloat16, jnp.float16)


def _wide(value: jax.Array) -> jax.Array:
    return value.astype(jnp.float32) if _is_narrow(value.dtype) else value


def _has_narrow_sums(jaxpr: core.Jaxpr) -> bool:
    return any(
        _is_narrow_sum(equation) or any(map(_has_narrow_sums, bodies(equation.params)))
        for equation in jaxpr.eqns
    )


def _rewritten(value: Any) -> Any:
    """Returns a parameter of an equation, with the sums of its jaxprs in float32."""
    if isinstance(value, tuple):
        return tuple(_rewritten(part) for part in value)
    if not is_body(value):
        return value
    is_closed = isinstance(value, core.ClosedJaxpr)
    jaxpr, consts = (value.jaxpr, value.consts) if is_closed else (value, ())
    shapes = [
        jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype, weak_type=var.aval.weak_type)
        for var in jaxpr.invars
    ]
    new = jax.make_jaxpr(lambda *leaves: inlined(jaxpr, consts, leaves, _apply))(*shapes)
    return new if is_closed else new.jaxpr
