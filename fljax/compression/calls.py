"""Calls in a text, such as "top_k(0.01), qsgd(8)", of the functions in a table."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Call(NamedTuple):
    """One call.

    Attributes:
      name: Of the function.
      arguments: {parameter: value}, defaults included.
      value: What the function returned.
    """

    name: str
    arguments: dict[str, Any]
    value: Any


def read(text: str, table: Mapping[str, Callable]) -> list[Call]:
    """Calls what a text names, one after another; nothing else in it is ever evaluated.

    Args:
      text: Names, or calls with literals as arguments, separated by commas.
      table: {name: function}.

    Raises:
      ValueError: For what is no such list, an unknown name, or arguments that a function refuses.
    """
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(
            "this is no list of calls. Write it as 'name(value, option=value), name'; names are "
            f"{', '.join(table)}."
        ) from None
    return [_call(node, table) for node in (body.elts if isinstance(body, ast.Tuple) else [body])]


def _call(node: ast.expr, table: Mapping[str, Callable]) -> Call:
    called = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(called.func, ast.Name):
        raise ValueError(
            f"{ast.unparse(node)!r} is no name and no call of one; names are {', '.join(table)}."
        )
    name = called.func.id
    if name not in table:
        close = difflib.get_close_matches(name.lower(), table, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Names are {', '.join(table)}."
        raise ValueError(f"there is no {name!r}. {hint}")
    signature = inspect.signature(table[name])
    try:
        positional = [ast.literal_eval(one) for one in called.args]
        named = {str(one.arg or "**"): ast.literal_eval(one.value) for one in called.keywords}
    except ValueError:
        raise ValueError(
            f"the arguments of {ast.unparse(node)!r} must be numbers, quoted texts, True, False or "
            "None."
        ) from None
    try:
        bound = signature.bind(*positional, **named)
        value = table[name](*bound.args, **bound.kwargs)
    except TypeError as error:
        raise ValueError(f"{name}: {error}. It is {name}{_plain(signature)}.") from None
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).removesuffix('.')}.") from None
    bound.apply_defaults()
    return Call(name, dict(bound.arguments), value)


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """Returns the signature without types."""
    parameters = [
        one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()
    ]
    return inspect.Signature(parameters)
