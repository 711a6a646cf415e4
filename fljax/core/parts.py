"""Parts by name: a text names a function and its arguments, and stands for what that returns.

    "mlp"                                 a name of ours
    "top_k(0.01), qsgd(8)"                calls, one after another, with literals as arguments
    "my_module:my_function(width=3)"      a function of a module of one's own
    "tfds:mnist"                          a call of "tfds:NAME" in the table, with the name after it

Every table of the library, such as `fljax.models.MODELS`, is read here. Nothing in a text is ever
evaluated but literals. A module of one's own lies where Python finds it, in the current folder, or
in that of the configuration (`beside`).
"""

from __future__ import annotations

import ast
import functools
import inspect
import io
import os
import re
import sys
import tokenize
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fljax.core.names import foreign, nearest
from fljax.core.own_modules import importable, own_function
from fljax.core.values import brief, shown, wrong

# Deeper nesting than such a text can hold would exhaust the parser's and the reader's stacks.
_LONGEST = 400
# Arguments that a message shows where some are missing.
_MOST_SHOWN = 8
_HEAD = re.compile(r"((?:[^\W\d][\w.]*:)?[^\W\d]\w*)\s*(\(.*\))?", re.DOTALL)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Call(NamedTuple):
    """A function that a text names, and the arguments written there.

    Attributes:
      where: The key and its text, for messages.
      name: Of the function, as written.
      function: The function.
      positional: Arguments without a name.
      named: {parameter: argument}.
    """

    where: str
    name: str
    function: Any
    positional: tuple
    named: dict[str, Any]

    @property
    def is_own(self) -> bool:
        """Says whether the function is one of the user's."""
        return ":" in self.name


class FailedCall(ValueError):
    """A call that a text names, and that fails or cannot be made; its message names the text."""


def read(key: str, text: str, table: Mapping[str, Any]) -> list[Call]:
    """Returns the calls that a text names, one after another; calls none of them.

    Args:
      key: What the text is the value of, for messages.
      text: Names, or calls with literals as arguments, separated by commas.
      table: {name: function}.

    Raises:
      ValueError: For what is no such list, or an unknown name.

    Example:
      >>> calls = read("uplink", "top_k(0.5), len", {"top_k": max, "len": len})
      >>> [(call.name, call.positional) for call in calls]
      [('top_k', (0.5,)), ('len', ())]
    """
    if not isinstance(text, str):
        raise wrong(key, text, f"a text: {_known(table)}")
    where = f"{key} = {shown(text)}"
    if len(text) > _LONGEST:
        raise ValueError(
            f"{where}: this has {len(text)} characters; a list of calls has {_LONGEST} at most."
        )
    try:
        return [_read(where, piece.strip(), table) for piece in _pieces(text)]
    except (SyntaxError, MemoryError, RecursionError, tokenize.TokenError):  # of brackets, too many
        raise ValueError(
            f"{where}: this is no list of calls. Write it as 'name(value, option=value), name'; "
            f"{_known(table)}."
        ) from None


def read_one(key: str, text: str, table: Mapping[str, Any]) -> Call:
    """Returns the only call that a text names; see `read`."""
    calls = read(key, text, table)
    if len(calls) > 1:
        raise ValueError(f"{calls[0].where}: this names {len(calls)} parts; name one.")
    return calls[0]


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """Returns the parameters of a function, or of a class as one calls it."""
    if inspect.isclass(function):  # whose metaclass may take anything
        return list(_signature(function.__init__).parameters.values())[1:]
    return list(_signature(function).parameters.values())


def _signature(function: Callable) -> inspect.Signature:
    """Returns the signature of a function, read once: every key of a configuration asks for it."""
    if not inspect.isfunction(function):  # what can be called may have no hash
        return inspect.signature(function)
    return _signature_of_function(function)


_signature_of_function = functools.lru_cache(maxsize=512)(inspect.signature)


def untyped(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """Returns parameters without their types, as messages show them."""
    return [parameter.replace(annotation=parameter.empty) for parameter in parameters]


def defaults_of(function: Any) -> dict[str, Any]:
    """Returns {parameter: default} of a function."""
    return {
        parameter.name: parameter.default
        for parameter in parameters_of(function)
        if parameter.default is not parameter.empty
    }


def name_of(text: str) -> str:
    """Returns the name that a text begins with, whether or not it is known."""
    found = _HEAD.match(str(text).strip())
    return found[1] if found else str(text)


def make(
    call: Call,
    *,
    offered: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    needed: Collection[str] = (),
    rest: Collection[str] | None = None,
    said: Mapping[str, str] | None = None,
) -> Any:
    """Returns what the named function returns.

    Args:
      call: From `read`.
      offered: {parameter: value} of what the run knows, passed where the signature names it;
        neither the text nor `given` may hold them.
      given: {parameter: value} of options beside the text, which the signature must name.
      needed: Those of the offered that the signature must name, since the user gave them.
      rest: What a `**` in the signature stands for; None for anything.
      said: {parameter: what says it} of what is offered, for messages.

    Raises:
      ValueError: For arguments that the function does not name, that are missing or said twice, and
        for values that a function of ours refuses.
      FailedCall: Where a function of the user's fails, or what it called.

    Example:
      >>> call = read_one("size", "pow(exp=2)", {"pow": pow})
      >>> make(call, offered={"base": 3, "unit": "m"})
      9
    """
    arguments = bound(call, offered=offered, given=given, needed=needed, rest=rest, said=said)
    if call.is_own:
        file = getattr(sys.modules[call.name.rpartition(":")[0]], "__file__", None)
        with importable(*(() if file is None else [os.path.dirname(file)])):
            chosen = {*needed, *(name for name in arguments if name not in (offered or {}))}
            return called(call, call.function, arguments, chosen)
    try:
        return call.function(**arguments)
    except FailedCall:
        raise  # it says which text is wrong
    except (TypeError, ValueError) as error:
        message = str(error).rstrip(".")
        named = "" if message.startswith(call.name) else f"{call.name}: "
        end = "" if message.endswith("?") else "."
        raise ValueError(f"{call.where}: {named}{message}{end}") from error


def called(
    call: Call, function: Any, arguments: Mapping[str, Any], chosen: Collection[str] | None = None
) -> Any:
    """Calls a function of the user's; where it fails, names the text, the error and its line.

    Args:
      call, function: Whose text it is, and what is called.
      arguments: What with.
      chosen: Which of them the user gave; None for all.

    Raises:
      FailedCall: If it fails; it also says which floats may be meant as integers.
    """
    try:
        return function(**arguments)
    except FailedCall:
        raise
    except Exception as error:
        whole = [
            f" {name} = {value} is a float: write {int(value)} where a whole number is needed."
            for name, value in arguments.items()
            if isinstance(value, float) and value.is_integer()
            if chosen is None or name in chosen
        ]
        remedy = "".join(whole) if isinstance(error, TypeError | ValueError) else ""
        raise FailedCall(
            f"{call.where}: {call.name} fails with {brief(error).rstrip('.')}"
            f"{_line_of(error, call)}.{remedy}"
        ) from error


def _line_of(error: Exception, call: Call) -> str:
    """Returns where in the user's module an error arose, in brackets."""
    file = getattr(sys.modules.get(call.name.rpartition(":")[0]), "__file__", None)
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == file
    ]
    return f" ({os.path.basename(file)}, line {lines[-1]})" if file and lines else ""


def bound(
    call: Call,
    *,
    offered: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    needed: Collection[str] = (),
    rest: Collection[str] | None = None,
    said: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns {parameter: argument} with which `make` calls a function; calls nothing."""
    offered, given, said = offered or {}, given or {}, said or {}
    parameters = parameters_of(call.function)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    takes_anything = open_ended and rest is None
    names = [parameter.name for parameter in parameters if parameter.kind in _NAMED]
    names = list(dict.fromkeys([*names, *(rest or () if open_ended else ())]))
    texts = written(call, offered)
    for name, value in [*texts.items(), *given.items()]:
        if name in offered or (name in texts and name in given and texts[name] != given[name]):
            who = said.get(name, "the run" if name in offered else "an option or key")
            other = "it. Leave it out here."
            if name not in offered:
                other = f"it to {shown(given[name])}. Leave one of them out."
            raise FailedCall(
                f"{call.where}: {name} = {shown(value)} is set here, and {who} sets {other}"
            )
    wanted = {**texts, **given, **{name: offered[name] for name in needed}}
    for name, value in wanted.items():
        if name not in names and not takes_anything:
            raise FailedCall(_no_argument(call, name, value, names, offered.keys() - {*needed}))
    passed = {name: value for name, value in offered.items() if name in names or takes_anything}
    arguments = {**passed, **given, **texts}
    required = {
        parameter.name
        for parameter in parameters
        if parameter.kind in _NAMED and parameter.default is parameter.empty
    }
    if missing := [name for name in names if name in required - arguments.keys()]:
        raise FailedCall(
            f"{call.where}: {call.name} needs {' and '.join(missing)}. It is "
            f"{_shown_signature(call, names, offered, most=_MOST_SHOWN)}."
        )
    return arguments


def written(call: Call, offered: Collection[str] = ()) -> dict[str, Any]:
    """Returns {parameter: argument} of a text; those without a name go to what is not offered."""
    parameters = parameters_of(call.function)
    places = [
        parameter.name
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name not in offered
    ]
    if len(call.positional) > len(places):
        names = [parameter.name for parameter in parameters if parameter.kind in _NAMED]
        raise FailedCall(
            f"{call.where}: {call.name} takes {len(places)} arguments without a name, not "
            f"{len(call.positional)}. It is {_shown_signature(call, names, offered)}."
        )
    by_place = dict(zip(places, call.positional, strict=False))
    for name in by_place:
        if name in call.named:
            raise FailedCall(f"{call.where}: {call.name} is given {name} twice. Give it once.")
    return {**by_place, **call.named}


def arguments_of(call: Call) -> dict[str, Any]:
    """Returns {parameter: argument} of a text, defaults included.

    Example:
      >>> arguments_of(read_one("size", "pow(2, exp=3)", {"pow": pow}))
      {'mod': None, 'base': 2, 'exp': 3}
    """
    return {**defaults_of(call.function), **written(call)}


def _pieces(text: str) -> list[str]:
    """Returns what stands between the commas outside of brackets."""
    text = text.replace("\n", " ").strip()
    depth, start, pieces = 0, 0, []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.OP:
            continue
        depth += (token.string in "([{") - (token.string in ")]}")
        if token.string == "," and depth == 0:
            pieces.append(text[start : token.start[1]])
            start = token.end[1]
    return [*pieces, text[start:]]


def _read(where: str, text: str, table: Mapping[str, Any]) -> Call:
    if not text:
        raise SyntaxError
    head = _HEAD.fullmatch(text)
    node = ast.parse(f"f{head[2] or '()'}" if head else text, mode="eval").body
    if not head or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"{where}: {text!r} is no name and no call of one. {_meant(text, table)}")
    name, family = head[1], _family(head[1], table)
    function = table[family] if family else _function(where, name, table)
    try:
        positional = tuple(ast.literal_eval(argument) for argument in node.args)
        named = {_name_of(word): ast.literal_eval(word.value) for word in node.keywords}
    except ValueError:
        raise ValueError(
            f"{where}: the arguments of {shown(text)} must be numbers, quoted texts, True, False, "
            "None, or lists of them."
        ) from None
    if family:
        name, _, member = name.partition(":")
        positional = (member, *positional)
    return Call(where, name, function, positional, named)


def _family(name: str, table: Mapping[str, Any]) -> str | None:
    """Returns the entry of a table, such as "tfds:NAME", of whose names this is one."""
    family = name.partition(":")[0] + ":NAME"
    return family if ":" in name and family in table else None


def _name_of(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError("**")
    return keyword.arg


def _function(where: str, name: str, table: Mapping[str, Any]) -> Any:
    module, colon, function = name.rpartition(":")
    if colon:
        return own_function(where, module, function)
    if name in table:
        return table[name]
    raise ValueError(f"{where}: there is no {name!r}. {_meant(name, table)}")


def _meant(name: str, table: Mapping[str, Any]) -> str:
    near = nearest(name, table)
    return f"Did you mean {near!r}? " * bool(near) + f"N{_known(table)[1:]}."


def _known(table: Mapping[str, Any]) -> str:
    return f"names are {', '.join(table)}; a function of your own is 'module:function'"


def _no_argument(
    call: Call, name: str, value: Any, names: Collection[str], offered: Collection[str]
) -> str:
    free = [known for known in names if known not in offered]
    near = nearest(name, free)
    meant = foreign(name, free) or (f"Did you mean {near!r}?" if near else "")
    return (
        f"{call.where}: {call.name} has no argument {name!r} = {shown(value)}. {meant}"
        f"{' ' * bool(meant)}It is {_shown_signature(call, names, offered)}."
    )


def _shown_signature(
    call: Call, names: Collection[str], offered: Collection[str], most: int | None = None
) -> str:
    """Returns the call as one may write it: without types, and without what the run gives."""
    own = {parameter.name: str(parameter) for parameter in untyped(parameters_of(call.function))}
    written = [own.get(name, name) for name in names if name not in offered]
    if most is not None and len(written) > most:
        written = [*written[:most], "..."]
    return f"{call.name}({', '.join(written)})"
