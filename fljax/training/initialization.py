"""Draws the initial models of a run, by one compiled program each, or checks given ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fljax.core import jaxprs
from fljax.core.precision import check_numbers, check_trainable
from fljax.core.task import Task
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
        results = jaxprs.bind(equation, [read(atom) for atom in equation.invars])
        if equation.primitive.name in ("jit", "pjit"):
            results = jax.lax.optimization_barrier(results)
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def init_model(task: Task, key: jax.Array, params: PyTree = None) -> tuple[PyTree, PyTree, PyTree]:
    """Returns (params, frozen, model_state) of the initial model; given parameters replace its own.

    Where the parameters are all there is, nothing is computed for the model's own.
    """
    model = _initial(task, key, params)
    check_trainable(model[0])
    check_numbers(model[2], "model_state")
    _check_finite(model[0])
    return model


def initial_shapes(task: Task) -> tuple[PyTree, PyTree, PyTree]:
    """Returns the shapes of a task's (params, frozen, model_state)."""
    key = jax.random.key(0)
    try:
        return jax.eval_shape(task.init, key)
    except jax.errors.JAXTypeError:  # it works on the host: with weights from a file, say
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), task.init(key)
        )


def _check_finite(params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if wrong := np.count_nonzero(~np.isfinite(np.asarray(leaf))):
            raise ValueError(
                f"The model's init gives {wrong} numbers that are not finite, at "
                f"params{jax.tree_util.keystr(path)}. No learning rate mends that: look at its "
                "initializers, or at the weights that it loads."
            )


def _initial(task: Task, key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    if params is None:
        return initialized(task.init, key)
    try:
        own, *others = jax.eval_shape(task.init, key)
        known = not jax.tree.leaves(others)
    except jax.errors.JAXTypeError:
        known = False  # it works on the host: with weights from a file, say
    if not known:
        own, *others = initialized(task.init, key)
    return _like_model(params, own), *others


def _like_model(given: PyTree, expected: PyTree) -> PyTree:
    """Returns copies of given parameters, checked against the model's and in its types."""
    shapes = lambda tree: {  # noqa: E731
        jax.tree_util.keystr(path): tuple(np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    have, want = shapes(given), shapes(expected)
    if have != want:
        wrong = sorted(key for key in have | want if have.get(key) != want.get(key))[0]
        raise ValueError(
            f"initial_params do not fit the model: at {wrong} there is the shape "
            f"{have.get(wrong, 'of nothing')}, and the model has {want.get(wrong, 'nothing')}."
        )
    return jax.tree_util.tree_map_with_path(_in_type, given, expected)


def _in_type(path: Any, leaf: Any, like: Any) -> np.ndarray:
    """Returns a copy of given parameters on the host, in the type of the model's."""
    where, leaf, dtype = jax.tree_util.keystr(path), np.asarray(leaf), jnp.result_type(like)
    if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
        raise ValueError(f"initial_params are no real numbers at {where}, but {leaf.dtype}.")
    with np.errstate(over="ignore"):
        found = leaf.astype(dtype)
    if wrong := np.count_nonzero(~np.isfinite(found)):
        raise ValueError(
            f"initial_params at {where} have {wrong} numbers that are not finite in the model's "
            f"type, {dtype}. Give finite ones that are in its range."
        )
    return found
