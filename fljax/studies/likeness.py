"""Likeness: what a value does, taken apart so that two values can be compared.

Functions made anew for every trial are never the same object. Two of them do the same where they
have the same code and what they close over is alike. What nothing is known of is only like itself:
so trials may be told apart for nothing, which costs a compilation, but are never taken for alike by
mistake.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import jax
import numpy as np


def makeup(value: Any) -> Any:
    """Returns what a value consists of, for `alike`.

    Functions are their code, defaults and what they close over; containers their entries, of NumPy
    arrays the numbers. Anything else stands for itself and compares as its class does, arrays on a
    device by identity. What functions read from globals is not seen.

    The result may hold identities, so `value` has to outlive it.
    """
    return _makeup(value, ())


def alike(one: Any, other: Any) -> bool:
    """Whether two results of `makeup` are equal; what refuses to be compared is not."""
    try:
        return bool(one == other)
    except (TypeError, ValueError):
        return False


def _makeup(value: Any, around: tuple) -> Any:
    """Returns the makeup of a value that lies within others."""
    for depth, outer in enumerate(around):
        if outer is value and isinstance(value, FunctionType):
            return "recursion", depth
    inside = functools.partial(_makeup, around=(*around, value))
    match value:
        case FunctionType():
            cells = [_content(cell) for cell in value.__closure__ or ()]
            parts = (value.__defaults__, value.__kwdefaults__, cells)
            return FunctionType, value.__code__, id(value.__globals__), *map(inside, parts)
        case MethodType():
            return MethodType, inside(value.__func__), inside(value.__self__)
        case functools.partial():
            return functools.partial, *map(inside, (value.func, value.args, value.keywords))
        case Mapping():
            return type(value), [(name, inside(one)) for name, one in value.items()]
        case tuple() | list():
            return type(value), [inside(one) for one in value]
        case np.ndarray():
            return np.ndarray, value.shape, value.dtype, value.tobytes()
        case jax.Array():
            return jax.Array, id(value)
    # 1, 1.0 and True are equal, and make different programs
    return type(value), value


def _content(cell: Any) -> Any:
    """Returns what a cell holds; nothing where its variable was not set."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
