"""A model's initialization as one compiled program, with the bits of its single operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from fljax.core.trees import nbytes
from fljax.engine.devices.compilation import once_options

PyTree = Any

# Constants above are not put into a program: it would be compiled, and kept, with them inside.
_CONSTANT_BYTES = 1 << 20
# Programs by their text: tasks that are made anew from one model share theirs.
_programs: dict[tuple[str, ...], Callable] = {}
_MOST_PROGRAMS = 64


def initialized(init: Callable[[jax.Array], PyTree], key: jax.Array) -> PyTree:
    """Returns `init(key)`, as one program where it can be traced.

    Called as it is, each of its some twenty operations would be compiled for every shape.

    Args:
      init: key -> arrays.
      key: A PRNG key.
    """
    try:
        closed, shapes = jax.make_jaxpr(init, return_shape=True)(key)
    except jax.errors.JAXTypeError:
        return init(key)  # it works on the host: with weights from a file, say
    if nbytes(closed.consts) > _CONSTANT_BYTES:
        return init(key)  # it returns arrays that are there already
    lowered = jax.jit(lambda key: _draws_apart(closed, key)).lower(key)
    known = (jax.default_backend(), lowered.as_text())
    if known not in _programs:
        if len(_programs) >= _MOST_PROGRAMS:
            _programs.clear()
        _programs[known] = lowered.compile(once_options())
    return jax.tree.unflatten(jax.tree.structure(shapes), _programs[known](key))


def _draws_apart(closed: core.ClosedJaxpr, *arguments: jax.Array) -> list[jax.Array]:
    """Evaluates an `init` whose random arrays are complete before anything is computed with them.

    XLA would join the scale of normal numbers with the factors inside the draw, which changes last
    digits.
    """
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        parameters = equation.primitive.get_bind_params(equation.params)
        results = equation.primitive.bind(*map(read, equation.invars), **parameters)
        results = results if equation.primitive.multiple_results else [results]
        if equation.primitive.name in ("jit", "pjit"):
            results = jax.lax.optimization_barrier(results)
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]
