"""Calls in a text, such as "top_k(0.01), qsgd(8)", of the functions in a table."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Deeper nesting than such a text can hold would exhaust the parser's and the reader's stacks.
_LONGEST = 400


class Call(NamedTuple):
    """One call.

    Attributes:
      name: Of the function.
      arguments: {parameter: value}, defaults included.
      value: What the function returned.
      named: Parameters whose arguments are names of values.
    """

    name: str
    arguments: dict[str, Any]
    value: Any
    named: tuple[str, ...] = ()


def read(
    text: str, table: Mapping[str, Callable], values: Mapping[str, Any] | None = None
) -> list[Call]:
    """Calls what a text names, one after another; nothing else in it is ever evaluated.

    Args:
      text: Names, or calls with literals as arguments, separated by commas.
      table: {name: function}.
      values: {name: value} of what may stand for an argument besides.

    Raises:
      ValueError: For what is no such list, an unknown name, or arguments that a function refuses.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"this has {len(text)} characters; a list of calls has {_LONGEST} at most")
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # of brackets, too many
        raise ValueError(
            "this is no list of calls. Write it as 'name(value, option=value), name'; names are "
            f"{', '.join(table)}."
        ) from None
    nodes = body.elts if isinstance(body, ast.Tuple) else [body]
    try:
        return [_call(node, table, values or {}) for node in nodes]
    except RecursionError:
        raise ValueError("this is nested too deeply to be a list of calls.") from None


def _call(node: ast.expr, table: Mapping[str, Callable], values: Mapping[str, Any]) -> Call:
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
        positional = [_value(one, values) for one in called.args]
        named = {str(one.arg or "**"): _value(one.value, values) for one in called.keywords}
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
    nodes = signature.bind(*called.args, **{one.arg: one.value for one in called.keywords})
    by_name = tuple(one for one, node in nodes.arguments.items() if isinstance(node, ast.Name))
    bound.apply_defaults()
    return Call(name, dict(bound.arguments), value, by_name)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    return ast.literal_eval(node)


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """Returns the signature without types."""
    parameters = [
        one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()
    ]
    return inspect.Signature(parameters)
