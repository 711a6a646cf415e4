"""Warns of names that go, for one minor version at least, and says what stands in their place."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple


class Deprecated(NamedTuple):
    """A name that goes.

    Attributes:
      instead: What stands in its place; of a key or an argument, its new name.
      since: The version that warns first, or says so in its changelog where nothing can warn.
      ends: The version that does not have the name any more, a minor version later at least.

    Example:
      >>> Deprecated("num_rounds", since="0.2", ends="0.3").instead
      'num_rounds'
    """

    instead: str
    since: str
    ends: str


# {"KIND NAME": what becomes of it}. Kinds are key (of a configuration, the last part of a nested
# one), argument (FUNCTION.NAME), function, flag, extra. A test fails once a version is reached
# that should be without.
DEPRECATED: dict[str, Deprecated] = {
    "extra secagg": Deprecated("privacy", since="0.2", ends="0.3"),
}


def warn(what: str, stacklevel: int = 2) -> None:
    """Warns that a name goes, and says what to write instead.

    Args:
      what: "KIND NAME", as in `DEPRECATED`.
      stacklevel: Frames up to the line that is shown, as `warnings.warn` counts them.

    Example:
      >>> with warnings.catch_warnings(record=True, action="always") as said:
      ...     warn("extra secagg")
      >>> print(said[0].message)
      The extra 'secagg' is deprecated since version 0.2 and ends with 0.3: write 'privacy' instead.
    """
    kind, _, name = what.partition(" ")
    instead, since, ends = DEPRECATED[what]
    warnings.warn(
        f"The {kind} {name!r} is deprecated since version {since} and ends with {ends}: write "
        f"{instead!r} instead.",
        FutureWarning,  # shown to whoever runs a program, not only to whoever tests it
        stacklevel=stacklevel + 1,
    )


def current(kind: str, name: str) -> str:
    """Returns the name that stands in the place of a deprecated one, with a warning.

    Args:
      kind: Such as "key".
      name: Any name.

    Returns:
      `name` itself where it is not deprecated.

    Example:
      >>> current("key", "num_rounds")
      'num_rounds'
    """
    what = f"{kind} {name}"
    if what not in DEPRECATED:
        return name
    warn(what, stacklevel=3)
    return DEPRECATED[what].instead


def takes_old_arguments(function: Callable) -> Callable:
    """Lets a function take its deprecated arguments by keyword, with a warning.

    Args:
      function: Whose "argument FUNCTION.NAME" stand in `DEPRECATED`.

    Raises:
      TypeError: When called with an old name and the new one.

    Example:
      >>> takes_old_arguments(lambda rounds: rounds + 1)(rounds=2)
      3
    """

    @functools.wraps(function)
    def with_current_names(*args: Any, **kwargs: Any) -> Any:
        prefix, named = f"{function.__name__}.", {}
        for name, value in kwargs.items():
            new = current("argument", prefix + name).removeprefix(prefix)
            if new != name and new in kwargs:
                raise TypeError(f"{function.__name__}: {name!r} is {new!r} now: give one of them")
            named[new] = value
        return function(*args, **named)

    return with_current_names
