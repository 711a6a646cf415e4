"""Numbers in calls that texts name, which a program may take as arguments: their names and values.

The number `f` of the second call of `aggregator = "bucketing(2), krum(5)"` is "aggregator[1].f".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fljax.core.parts import Call, arguments_of


def numbers_in(
    key: str, calls: Sequence[Call], traceable: Mapping[str, Collection[str]]
) -> dict[str, float]:
    """Returns {name: number} of those numbers in calls that a program may take as arguments.

    Args:
      key: What the text is the value of.
      calls: From `fljax.core.parts.read`.
      traceable: {name of a function: its parameters that no shape depends on}.

    Example:
      >>> from fljax.core.parts import read
      >>> calls = read("size", "pow(base=2, exp=3)", {"pow": pow})
      >>> numbers_in("size", calls, {"pow": ("exp",)})
      {'size[0].exp': 3}
    """
    return {
        name_of_number(key, place, parameter): value
        for place, call in enumerate(calls)
        for parameter, value in arguments_of(call).items()
        if parameter in traceable.get(call.name, ()) and isinstance(value, int | float)
    }


def with_numbers(key: str, place: int, call: Call, numbers: Mapping[str, Any]) -> Call:
    """Returns a call with numbers in place of those in its text, all arguments by name.

    Args:
      key: What the text is the value of.
      place: Of the call in the text, from 0.
      call: The call.
      numbers: {name: number}, as `numbers_in` names them; those of other calls have no effect.
    """
    arguments = arguments_of(call)
    for parameter in arguments:
        if (name := name_of_number(key, place, parameter)) in numbers:
            arguments[parameter] = numbers[name]
    return call._replace(positional=(), named=arguments)


def without_numbers(key: str, calls: Sequence[Call], traced: Collection[str]) -> str:
    """Returns calls as a text in which traced numbers are left out.

    Args:
      key: What the text is the value of.
      calls: From `fljax.core.parts.read`.
      traced: Names of the numbers, as `numbers_in` names them.

    Example:
      >>> from fljax.core.parts import read
      >>> calls = read("size", "pow(base=2, exp=3)", {"pow": pow})
      >>> without_numbers("size", calls, ["size[0].exp"])
      "[('pow', {'mod': None, 'base': 2, 'exp': 'traced'})]"
    """
    found = []
    for place, call in enumerate(calls):
        arguments = arguments_of(call)
        for parameter in arguments:
            if name_of_number(key, place, parameter) in traced:
                arguments[parameter] = "traced"
        found.append((call.name, arguments))
    return repr(found)


def name_of_number(key: str, place: int, parameter: str) -> str:
    """Returns what the number of a text's call is called among the hyperparameters."""
    return f"{key}[{place}].{parameter}"
